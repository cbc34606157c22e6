//! One retrieval: an async function over a routing snapshot, never an actor and never through one mailbox.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use ractor::rpc::CallResult;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use turret_retrieval::budget::Budget;
use turret_retrieval::context::Context;
use turret_retrieval::coverage::Coverage;
use turret_retrieval::filter::Filter;
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::state::SequenceState;
use turret_retrieval::tier::{History, Tier};
use turret_retrieval::user::Demographics;

use crate::clock::now_ms;
use crate::metrics::Metrics;
use crate::protocol::{EmbedAsk, Embedded, InferenceRequest, Refusal, UserRequest, UserView, ViewAsk};
use crate::routing::{RoutingReader, RoutingTable};
use crate::wire::{Inbox, Wire};
use crate::{inference_worker, user_partition};

pub mod gather;
mod scatter;

use gather::{Candidate, ShardPlan};

/// What is asked.
#[derive(Clone, Debug)]
pub struct RetrieveRequest {
    /// The user, where there is one.
    pub user: Option<UserId>,
    /// What the user is looking at.
    pub context: Option<Context>,
    /// What the caller knows of the user; goes before what is stored.
    pub demographics: Demographics,
    /// Only ads that pass.
    pub filter: Option<Filter>,
    /// How many, 1..=[`K_MAX`](turret_retrieval::topk::K_MAX).
    pub k: usize,
    /// How long it may take, from arrival.
    pub budget: Budget,
    /// A state older than this is not used.
    pub max_state_age_ms: Option<i64>,
    /// Whether each candidate is scored without the context as well.
    pub compares_without_context: bool,
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    /// The ads, best first.
    pub candidates: Vec<Candidate>,
    /// Fewer than `k`, and no more exist that pass the filter.
    pub exhausted: bool,
    /// How complete it is.
    pub coverage: Coverage,
    /// How personal it is.
    pub user_state: UserState,
    /// How the shards searched.
    pub plans: Vec<ShardPlan>,
    /// What each stage took.
    pub timings: Timings,
}

/// How personal an answer is, and why not more.
#[derive(Clone, Debug, PartialEq)]
pub struct UserState {
    /// What the sequence state was worth.
    pub history: History,
    /// Whether the model knew anything of the context given.
    pub context_used: bool,
    /// Both together.
    pub tier: Tier,
    /// Age of the state used.
    pub age_ms: Option<i64>,
    /// The encoder that made it.
    pub encoder: Option<EncoderVersion>,
    /// Why the user's partition could not be asked, where it could not.
    pub reason: Option<&'static str>,
}

/// What each stage took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Asking the user's partition.
    pub state: Duration,
    /// The query embedding.
    pub inference: Duration,
    /// Asking the shards.
    pub scatter: Duration,
    /// Putting their answers together.
    pub merge: Duration,
}

/// Why nothing is answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// More requests are running than the limit allows. Retryable.
    #[error("too many requests are running")]
    Overloaded,
    /// The deadline passed before the shards could be asked.
    #[error("the deadline passed in stage `{stage}`")]
    DeadlineExceeded {
        /// Where.
        stage: &'static str,
    },
    /// No inference worker answered. Retryable.
    #[error("no inference worker of this generation answered: {why}")]
    NoInference {
        /// What the last one said.
        why: String,
    },
}

/// Answers retrievals. One per node; cheap to clone.
#[derive(Clone)]
pub struct Retriever {
    routing: RoutingReader,
    permits: Arc<Semaphore>,
    metrics: Metrics,
}

impl Retriever {
    /// At most `in_flight_max` retrievals run at once; the next is refused.
    pub fn new(routing: RoutingReader, in_flight_max: usize, metrics: Metrics) -> Self {
        Self { routing, permits: Arc::new(Semaphore::new(in_flight_max)), metrics }
    }

    /// The routing table of now.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.routing.table()
    }

    /// Retrieves the best ads within the request's budget.
    ///
    /// A shard that does not answer in time is missing from the coverage, never an error; a user partition that does not
    /// is a lower tier.
    ///
    /// # Errors
    /// When nothing could be retrieved at all; see [`Rejection`].
    pub async fn retrieve(&self, request: RetrieveRequest) -> Result<Answer, Rejection> {
        let _permit = self.permits.try_acquire().map_err(|_| Rejection::Overloaded)?;
        let table = self.routing.table();
        let mut timings = Timings::default();

        let started = Instant::now();
        let looked_up = self.look_up(&table, &request).await;
        timings.state = self.observe("user", started);
        let (state, mut user_state) = judge(&looked_up, &request, &table.manifest.versions.encoder);
        let stored = looked_up.view.map(|view| view.demographics).unwrap_or_default();
        let demographics = request.demographics.clone().or(&stored);
        let demographics_known = !demographics.is_unknown();

        let started = Instant::now();
        let query = self.embed(&table, &request, state, demographics).await?;
        timings.inference = self.observe("embed", started);
        user_state.context_used = query.context_used;
        user_state.tier = Tier::of(user_state.history, query.context_used, demographics_known);

        let started = Instant::now();
        let gather = scatter::scatter(&table, &request, query).await?;
        timings.scatter = self.observe("scatter", started);

        let started = Instant::now();
        let gathered = gather.finish(request.k, &table.manifest.shard_ads);
        timings.merge = self.observe("merge", started);
        self.metrics.coverage.observe(gathered.coverage.documents);
        Ok(Answer {
            candidates: gathered.candidates,
            exhausted: gathered.exhausted,
            coverage: gathered.coverage,
            user_state,
            plans: gathered.plans,
            timings,
        })
    }

    async fn look_up(&self, table: &RoutingTable, request: &RetrieveRequest) -> LookedUp {
        let Some(user) = &request.user else { return LookedUp::default() };
        let (result, looked_up) = match view(table, user, request.budget).await {
            Ok(view) => {
                let state = view.as_ref().and_then(|view| view.state.as_ref());
                let worth = state.map_or("missing", |state| if state.is_current { "fresh" } else { "stale" });
                (worth, LookedUp { view, reason: None })
            }
            Err(reason) => ("unavailable", LookedUp { view: None, reason: Some(reason) }),
        };
        self.metrics.user_lookups.with_label_values(&[result]).inc();
        looked_up
    }

    /// Asks the workers in turn, those of this node first, while there is time.
    async fn embed(
        &self,
        table: &RoutingTable,
        request: &RetrieveRequest,
        state: Option<SequenceState>,
        demographics: Demographics,
    ) -> Result<Embedded, Rejection> {
        let mut why = "none is known".to_owned();
        for (left, worker) in (1u32..=table.inference.len() as u32).rev().zip(&table.inference) {
            let remaining = request.budget.remaining(Instant::now().into_std());
            if remaining.is_zero() {
                return Err(Rejection::DeadlineExceeded { stage: "embed" });
            }
            let ask = EmbedAsk {
                generation: table.manifest.id.clone(),
                state: state.clone(),
                context: request.context.clone(),
                demographics: demographics.clone(),
                compares_without_context: request.compares_without_context,
                remaining_us: remaining.as_micros() as u64,
            };
            let embed =
                |reply| -> inference_worker::Msg { Inbox::Request(InferenceRequest::Embed(Wire::new(ask), reply)) };
            // A silent worker must not take the time of those behind it.
            let patience = if left == 1 { remaining } else { remaining / (left + 1) };
            match worker.call(embed, Some(patience)).await {
                Ok(CallResult::Success(answer)) => match answer.open() {
                    Ok(Ok(embedded)) => return Ok(embedded),
                    Ok(Err(Refusal::Expired)) => return Err(Rejection::DeadlineExceeded { stage: "embed" }),
                    Ok(Err(refusal)) => why = refusal.to_string(),
                    Err(error) => why = error.to_string(),
                },
                Ok(CallResult::Timeout) => "no answer in time".clone_into(&mut why),
                Ok(CallResult::SenderError) | Err(_) => "the worker ended".clone_into(&mut why),
            }
        }
        if request.budget.remaining(Instant::now().into_std()) < TIMER_TICK {
            return Err(Rejection::DeadlineExceeded { stage: "embed" });
        }
        Err(Rejection::NoInference { why })
    }

    fn observe(&self, stage: &'static str, started: Instant) -> Duration {
        let took = started.elapsed();
        self.metrics.stage_duration.with_label_values(&[stage]).observe(took.as_secs_f64());
        took
    }
}

/// The granularity of tokio's timers.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Whether a reply port that was dropped means that time was up: a remote call's own timer drops it at the same moment
/// as the caller's ends, and either may be first.
fn is_late(asked: Instant, patience: Duration) -> bool {
    asked.elapsed() + TIMER_TICK >= patience
}

#[derive(Default)]
struct LookedUp {
    view: Option<UserView>,
    reason: Option<&'static str>,
}

fn holder<'a>(table: &'a RoutingTable, user: &UserId) -> Option<&'a ActorRef<user_partition::Msg>> {
    let partition = partition_of(user, table.manifest.partitions());
    table.partitions.get(partition.0 as usize)?.first()
}

async fn view(table: &RoutingTable, user: &UserId, budget: Budget) -> Result<Option<UserView>, &'static str> {
    let holder = holder(table, user).ok_or("partition_absent")?;
    // A late state makes the answer less personal; a late answer is none at all. So at most a third of the time.
    let patience = budget.remaining(Instant::now().into_std()) / 3;
    let ask = ViewAsk { user: user.clone(), encoder: table.manifest.versions.encoder.clone() };
    let view = |reply| -> user_partition::Msg { Inbox::Request(UserRequest::View(Wire::new(ask), reply)) };
    let asked = Instant::now();
    match holder.call(view, Some(patience)).await {
        Ok(CallResult::Success(answer)) => match answer.open() {
            Ok(Ok(view)) => Ok(view),
            Ok(Err(Refusal::Overloaded)) => Err("partition_overloaded"),
            Ok(Err(_)) | Err(_) => Err("partition_failed"),
        },
        Ok(CallResult::Timeout) => Err("partition_timeout"),
        Ok(CallResult::SenderError) if is_late(asked, patience) => Err("partition_timeout"),
        Ok(CallResult::SenderError) | Err(_) => Err("partition_failed"),
    }
}

/// What the stored state is worth for this request.
fn judge(
    looked_up: &LookedUp,
    request: &RetrieveRequest,
    encoder: &EncoderVersion,
) -> (Option<SequenceState>, UserState) {
    let mut user_state = UserState {
        history: History::None,
        context_used: false,
        tier: Tier::Cold,
        age_ms: None,
        encoder: None,
        reason: looked_up.reason,
    };
    let Some(state) = looked_up.view.as_ref().and_then(|view| view.state.as_ref()) else {
        return (None, user_state);
    };
    // A state from the future is as old as one of now: clocks differ.
    let age_ms = (now_ms() - state.made_at_ms).max(0);
    if request.max_state_age_ms.is_some_and(|max| age_ms > max) {
        user_state.reason = Some("state_too_old");
        return (None, user_state);
    }
    // A state depends on the events alone: while there is no newer one, making it again would change nothing.
    user_state.history = if state.is_current { History::Fresh } else { History::Stale };
    user_state.age_ms = Some(age_ms);
    user_state.encoder = Some(encoder.clone());
    (Some(state.sequence.clone()), user_state)
}
