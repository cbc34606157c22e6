//! The query embedding of a request: of a worker, or where none answers, of this node's own head.

use std::time::Duration;

use ractor::ActorRef;
use ractor::rpc::CallResult;
use tokio::time::Instant;
use turret_retrieval::budget::Budget;
use turret_retrieval::vector::VectorError;

use super::{Rejection, Retriever, TIMER_TICK, is_late};
use crate::inference_worker;
use crate::protocol::{EmbedAsk, Embedded, InferenceRequest, Refusal};
use crate::routing::RoutingTable;
use crate::wire::{Inbox, Wire};

/// Who computed the query embedding of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inference {
    /// An inference worker.
    Worker,
    /// The head of the node that was asked, for no worker did.
    LocalHead(Fallback),
}

/// Why no inference worker computed it: what the last one said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// None of the generation is known.
    NoWorker,
    /// It had too much to do.
    WorkerOverloaded,
    /// It ended before it answered.
    WorkerEnded,
    /// It took more than its share of the time.
    WorkerTimeout,
    /// What it computed is no number.
    NotFinite,
    /// It refused for another reason.
    WorkerFailed,
}

impl Inference {
    /// As answers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::LocalHead(_) => "local_head",
        }
    }

    /// Why it was not a worker.
    pub fn fallback(self) -> Option<Fallback> {
        match self {
            Self::Worker => None,
            Self::LocalHead(fallback) => Some(fallback),
        }
    }
}

impl Fallback {
    /// As answers name it, and the value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoWorker => "no_worker",
            Self::WorkerOverloaded => "worker_overloaded",
            Self::WorkerEnded => "worker_ended",
            Self::WorkerTimeout => "worker_timeout",
            Self::NotFinite => "not_finite",
            Self::WorkerFailed => "worker_failed",
        }
    }

    fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Overloaded => Self::WorkerOverloaded,
            Refusal::Expired => Self::WorkerTimeout,
            Refusal::NotFinite => Self::NotFinite,
            Refusal::Unreadable(_)
            | Refusal::OtherVersion { .. }
            | Refusal::Starting
            | Refusal::Failed(_)
            | Refusal::Conflict(_)
            | Refusal::Unreachable(_) => Self::WorkerFailed,
        }
    }
}

/// What a worker that gave no embedding came to.
struct Unanswered {
    fallback: Fallback,
    why: String,
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self { fallback: Fallback::of(&refusal), why: refusal.to_string() }
    }
}

impl Retriever {
    /// Asks the workers in turn, those of this node first, while there is time, then this node's own head where it has one.
    pub(super) async fn embed(
        &self,
        table: &RoutingTable,
        ask: EmbedAsk,
        budget: Budget,
    ) -> Result<(Embedded, Inference), Rejection> {
        let late = Rejection::DeadlineExceeded { stage: "embed" };
        let remaining = || budget.remaining(Instant::now().into_std());
        let has_head = self.heads.answers(&table.manifest.id);
        let mut last = Unanswered { fallback: Fallback::NoWorker, why: "none is known".to_owned() };
        for (after, worker) in (0..table.inference.len() as u32).rev().zip(&table.inference) {
            let remaining = remaining();
            if remaining.is_zero() {
                return Err(late);
            }
            // A silent worker must not take the time of those behind it, of whom the own head is one.
            let behind = after + u32::from(has_head);
            let patience = if behind == 0 { remaining } else { remaining / (behind + 2) };
            match ask_worker(worker, ask.clone(), patience).await.and_then(|embedded| sound(embedded, table)) {
                Ok(embedded) => return Ok((embedded, Inference::Worker)),
                Err(unanswered) => last = unanswered,
            }
        }
        let remaining = remaining();
        if remaining < TIMER_TICK {
            return Err(late);
        }
        if !has_head {
            return Err(Rejection::NoInference { why: last.why });
        }
        match self.heads.embed(ask, remaining).await {
            Ok(embedded) => {
                self.metrics.inference_fallback.with_label_values(&[last.fallback.name()]).inc();
                Ok((embedded, Inference::LocalHead(last.fallback)))
            }
            Err(refusal) => {
                self.metrics.inference_refused.with_label_values(&[refusal.name()]).inc();
                let why = format!("{}; this node's own head: {refusal}", last.why);
                Err(if refusal == Refusal::Expired { late } else { Rejection::NoInference { why } })
            }
        }
    }
}

async fn ask_worker(
    worker: &ActorRef<inference_worker::Msg>,
    ask: EmbedAsk,
    patience: Duration,
) -> Result<Embedded, Unanswered> {
    let ask = EmbedAsk { remaining_us: patience.as_micros() as u64, ..ask };
    let embed = |reply| -> inference_worker::Msg { Inbox::Request(InferenceRequest::Embed(Wire::new(ask), reply)) };
    let asked = Instant::now();
    let timeout = || Unanswered { fallback: Fallback::WorkerTimeout, why: "no answer in time".to_owned() };
    match worker.call(embed, Some(patience)).await {
        Ok(CallResult::Success(answer)) => match answer.open() {
            Ok(answer) => Ok(answer?),
            Err(error) => Err(Refusal::Unreadable(error.to_string()).into()),
        },
        Ok(CallResult::Timeout) => Err(timeout()),
        Ok(CallResult::SenderError) if is_late(asked, patience) => Err(timeout()),
        Ok(CallResult::SenderError) | Err(_) => {
            Err(Unanswered { fallback: Fallback::WorkerEnded, why: "the worker ended".to_owned() })
        }
    }
}

/// Another node may send what no shard would take; better to ask elsewhere than to search with it.
fn sound(embedded: Embedded, table: &RoutingTable) -> Result<Embedded, Unanswered> {
    let query = &embedded.query;
    if query.generation != table.manifest.id {
        let (serving, asked) = (query.generation.to_string(), table.manifest.id.to_string());
        return Err(Refusal::OtherVersion { serving, asked }.into());
    }
    for vector in [Some(&query.vector), query.without_context.as_ref()].into_iter().flatten() {
        match vector.check(table.manifest.dimension as usize) {
            Ok(()) => {}
            Err(VectorError::NotFinite { .. }) => return Err(Refusal::NotFinite.into()),
            Err(error @ (VectorError::Zero | VectorError::Dimension { .. })) => {
                return Err(Refusal::Failed(error.to_string()).into());
            }
        }
    }
    Ok(embedded)
}
