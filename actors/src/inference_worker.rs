//! The actor that runs the model: query embeddings online, sequence states for the refresh.
//!
//! Owns the batching queue in front of one model on one device. A batch runs on the worker's own thread; while it does,
//! requests gather into the next one. Histories are encoded beside it, a job on each core, while requests come by
//! threads that run when no other wants it. Never holds user state. When it dies, its queue is refused with it and the
//! supervisor starts another over the same model.
//!
//! A worker whose model computed what is no number ends as one that panicked does. It joins its group only when the model has
//! answered its own question as it did when it was loaded: what is damaged, be it memory or a device, is not asked again.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;
use turret_model::{Model, ModelError};
use turret_retrieval::event::Event;
use turret_retrieval::ids::GenerationId;
use turret_retrieval::item::check_interests;
use turret_retrieval::state::{Precision, SequenceState, StateError};
use turret_retrieval::vector::{UnitVector, dot};

use crate::asked::Asked;
use crate::groups;
use crate::metrics::Metrics;
use crate::offload::{Offload, Panicked};
use crate::protocol::{
    CHANGES_MAX, ENCODE_ROWS_MAX, EmbedAdsAsk, EmbedAsk, Embedded, EncodeAsk, Encoded, InferenceRequest, Refusal,
};
use crate::wire::{Inbox, Wire, note};

pub mod batcher;
pub(crate) mod embedding;
pub mod encoder;
mod job;

use batcher::{Batcher, BatcherSettings, Lane, Next};
use embedding::{Embeddings, Soundness, embed, sequence};
use encoder::Encoder;
use job::{AdsJob, EncodeJob, embed_ads, encode_histories};

/// What this actor receives.
pub type Msg = Inbox<InferenceRequest, Note>;

type EmbedReply = RpcReplyPort<Wire<Result<Embedded, Refusal>>>;
type EncodeReply = RpcReplyPort<Wire<Result<Encoded, Refusal>>>;
type EmbedRow = (EmbedAsk, EmbedReply);
type AdsReply = RpcReplyPort<Wire<Result<Vec<UnitVector>, Refusal>>>;

/// Beside the names of refusals, a value of the label `reason`.
const PANICKED: &str = "panicked";
/// Another: of a history whose state is more than its precision holds.
const UNKEPT: &str = "unkept_state";

/// News from the worker's thread.
pub enum Note {
    /// The model answers as it did when it was loaded; the thread is free.
    Proven,
    /// The batch is answered; the thread is free.
    BatchDone,
    /// The histories are encoded; the encoder of this number is free.
    EncodeDone(usize),
    /// The model, or its device, failed what was asked of it.
    Faulty,
    /// The work panicked, and this many rows with it.
    Panicked(usize),
}

/// How like the answer that is known the model's answer to its own question must be, as a cosine: GPUs round in their way.
const ALIKE_MIN: f32 = 0.999;

/// What the worker serves.
#[derive(Clone)]
pub struct InferenceWorker {
    /// The generation whose model this is.
    pub generation: GenerationId,
    /// The model.
    pub model: Arc<Model>,
    /// What it answered to its own question when it was loaded.
    pub known: UnitVector,
    /// The bounds of its queue.
    pub settings: BatcherSettings,
    /// One thread of its own.
    pub thread: Offload,
    /// What encodes histories beside it.
    pub encoders: Vec<Encoder>,
    /// Whether requests come.
    pub asked: Asked,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The queue, whether its thread is busy, and the encoders that are not.
pub struct State {
    batcher: Batcher<EmbedRow, AdsJob, EncodeJob>,
    busy: bool,
    free_encoders: Vec<usize>,
    started: Instant,
}

impl Actor for InferenceWorker {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        let (model, known, rows_max) = (self.model.clone(), self.known.clone(), self.settings.batch_rows_max);
        start(&myself, &self.thread, 0, Note::Proven, move || prove(&model, &known, rows_max))?;
        let batcher = Batcher::new(self.settings);
        let free_encoders = (0..self.encoders.len()).collect();
        Ok(State { batcher, busy: true, free_encoders, started: Instant::now() })
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Inbox::Request(InferenceRequest::Embed(ask, reply)) => self.embed(ask, reply, state),
            Inbox::Request(InferenceRequest::Encode(ask, reply)) => self.encode(ask, reply, state),
            Inbox::Request(InferenceRequest::EmbedAds(ask, reply)) => self.embed_ads(ask, reply, state),
            Inbox::Note(Note::Proven) => self.serve(&myself, state),
            Inbox::Note(Note::BatchDone) => state.busy = false,
            Inbox::Note(Note::EncodeDone(encoder)) => state.free_encoders.push(encoder),
            Inbox::Note(Note::Faulty) => return Err("the model does not compute what it should".into()),
            Inbox::Note(Note::Panicked(rows)) => return Err(self.panicked(rows)),
        }
        self.advance(&myself, state)?;
        Ok(())
    }
}

impl InferenceWorker {
    fn serve(&self, myself: &ActorRef<Msg>, state: &mut State) {
        state.busy = false;
        ractor::pg::join(groups::inference(&self.generation), vec![myself.get_cell()]);
    }

    fn panicked(&self, rows: usize) -> ActorProcessingErr {
        self.metrics.inference_refused.with_label_values(&[PANICKED]).inc_by(rows as u64);
        "a batch panicked".into()
    }

    fn embed(&self, ask: Wire<EmbedAsk>, reply: EmbedReply, state: &mut State) {
        let ask = match self.admit(ask, |ask| self.is_of(&ask.generation).and_then(|()| self.check(ask))) {
            Ok(ask) => ask,
            Err(refusal) => return refuse(&self.metrics, reply, refusal),
        };
        let ends = state.started.elapsed() + Duration::from_micros(ask.remaining_us);
        self.asked.note();
        if let Err((_, reply)) = state.batcher.push_online((ask, reply), ends) {
            refuse(&self.metrics, reply, Refusal::Overloaded);
        }
    }

    fn encode(&self, ask: Wire<EncodeAsk>, reply: EncodeReply, state: &mut State) {
        let check = |ask: &EncodeAsk| {
            Refusal::of_version(self.model.encoder_version(), &ask.encoder)?;
            at_most(ask.histories.len(), ENCODE_ROWS_MAX, "histories")
        };
        let ask = match self.admit(ask, check) {
            Ok(ask) => ask,
            Err(refusal) => return refuse(&self.metrics, reply, refusal),
        };
        let ends = state.started.elapsed() + Duration::from_micros(ask.remaining_us);
        if let Err((_, reply)) = state.batcher.push_refresh((ask, reply), ends) {
            refuse(&self.metrics, reply, Refusal::Overloaded);
        }
    }

    fn embed_ads(&self, ask: Wire<EmbedAdsAsk>, reply: AdsReply, state: &mut State) {
        let check = |ask: &EmbedAdsAsk| {
            self.is_of(&ask.generation)?;
            at_most(ask.items.len(), CHANGES_MAX, "items")
        };
        let ask = match self.admit(ask, check) {
            Ok(ask) => ask,
            Err(refusal) => return refuse(&self.metrics, reply, refusal),
        };
        let ends = state.started.elapsed() + Duration::from_micros(ask.remaining_us);
        if let Err((_, reply)) = state.batcher.push_ads((ask, reply), ends) {
            refuse(&self.metrics, reply, Refusal::Overloaded);
        }
    }

    /// Over the wire comes what nobody here would make.
    fn check(&self, ask: &EmbedAsk) -> Result<(), Refusal> {
        let subject = ask.context.as_ref().and_then(|context| context.subject.as_ref());
        if let Some(subject) = subject {
            check_interests(&subject.interests).map_err(|error| Refusal::Failed(format!("context: {error}")))?;
        }
        ask.state.as_ref().map_or(Ok(()), |state| sequence(state, &self.model).map(drop))
    }

    /// What was asked, where it can be read and passes `check`.
    fn admit<A>(&self, ask: Wire<A>, check: impl FnOnce(&A) -> Result<(), Refusal>) -> Result<A, Refusal> {
        let ask = ask.open().map_err(|error| {
            self.metrics.wire_rejected.with_label_values(&["inference"]).inc();
            Refusal::Unreadable(error.to_string())
        })?;
        check(&ask)?;
        Ok(ask)
    }

    fn is_of(&self, generation: &GenerationId) -> Result<(), Refusal> {
        Refusal::of_version(&self.generation, generation)
    }

    /// Starts what waits, where its threads are free.
    fn advance(&self, myself: &ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        if !state.busy {
            let (next, expired) = state.batcher.next(state.started.elapsed());
            for (_, reply) in expired.online {
                refuse(&self.metrics, reply, Refusal::Expired);
            }
            for (_, reply) in expired.ads {
                refuse(&self.metrics, reply, Refusal::Expired);
            }
            let (model, generation, metrics) = (self.model.clone(), self.generation.clone(), self.metrics.clone());
            state.busy = !matches!(next, Next::Idle);
            match next {
                Next::Idle => {}
                Next::Online(rows) => {
                    let length = self.counted(Lane::Online, rows.len());
                    let work = move || embed_batch(&model, &generation, rows, &metrics);
                    start(myself, &self.thread, length, Note::BatchDone, work)?;
                }
                Next::Ads(job) => {
                    let length = self.counted(Lane::Ads, job.0.items.len());
                    start(myself, &self.thread, length, Note::BatchDone, move || embed_ads(job, &model, &metrics))?;
                }
            }
        }
        while let Some(encoder) = state.free_encoders.last().copied()
            && let Some(job) = self.next_wanted(state)
        {
            state.free_encoders.pop();
            let length = self.counted(Lane::Refresh, job.0.histories.len());
            let (model, metrics) = (self.model.clone(), self.metrics.clone());
            let is_asked = self.asked.is_lately();
            let work = move || encode_histories(job, &model, is_asked, &metrics);
            start(myself, self.encoders[encoder].thread(is_asked), length, Note::EncodeDone(encoder), work)?;
        }
        for lane in [Lane::Online, Lane::Ads, Lane::Refresh] {
            self.metrics.queue_rows.with_label_values(&[lane.name()]).set(state.batcher.waiting(lane) as i64);
        }
        Ok(())
    }

    /// The next histories for which somebody still waits.
    fn next_wanted(&self, state: &mut State) -> Option<EncodeJob> {
        loop {
            let (job, expired) = state.batcher.next_refresh(state.started.elapsed());
            for (_, reply) in expired {
                refuse(&self.metrics, reply, Refusal::Expired);
            }
            // Of a caller on another node only the time tells.
            if job.as_ref().is_none_or(|(_, reply)| !reply.is_closed()) {
                return job;
            }
        }
    }

    /// How many rows a batch has; they are counted.
    fn counted(&self, lane: Lane, rows: usize) -> usize {
        self.metrics.batch_rows.with_label_values(&[lane.name()]).observe(rows as f64);
        rows
    }
}

/// Has `threads` do `work` of so many rows; `done` is the news of its end, where all went well.
fn start(
    myself: &ActorRef<Msg>,
    threads: &Offload,
    rows: usize,
    done: Note,
    work: impl FnOnce() -> Soundness + Send + 'static,
) -> Result<(), ActorProcessingErr> {
    let myself = myself.clone();
    threads.reserve()?.run(work, move |ended| {
        let news = match ended {
            Ok(Soundness::Sound) => done,
            Ok(Soundness::Faulty) => Note::Faulty,
            Err(Panicked) => Note::Panicked(rows),
        };
        note(&myself, news);
    });
    Ok(())
}

fn at_most(found: usize, max: usize, what: &str) -> Result<(), Refusal> {
    if found <= max { Ok(()) } else { Err(Refusal::Failed(format!("{found} {what}, the limit is {max}"))) }
}

/// Embeds a batch and answers its rows.
fn embed_batch(model: &Model, generation: &GenerationId, rows: Vec<EmbedRow>, metrics: &Metrics) -> Soundness {
    let asks: Vec<&EmbedAsk> = rows.iter().map(|(ask, _)| ask).collect();
    let Embeddings { results, soundness } = embed(model, generation, &asks);
    for ((_, reply), result) in rows.into_iter().zip(results) {
        match result {
            Ok(embedded) => send(reply, Ok(embedded)),
            Err(refusal) => refuse(metrics, reply, refusal),
        }
    }
    soundness
}

/// Asks the model its own question, alone and as often as a batch has rows, so that a device has done before what it will do;
/// the answers must be like the one that is known.
fn prove(model: &Model, known: &UnitVector, rows_max: usize) -> Soundness {
    let is_known = |found: &UnitVector| dot(found.as_slice(), known.as_slice()) >= ALIKE_MIN;
    let is_sound = |rows| model.probe(rows).is_ok_and(|found| found.iter().all(is_known));
    if is_sound(1) && is_sound(rows_max) { Soundness::Sound } else { Soundness::Faulty }
}

/// Why histories have no states.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The model cannot compute them.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What it computes is no number.
    #[error("a state is not finite")]
    NotFinite,
    /// What it computes cannot be kept.
    #[error("state: {0}")]
    State(#[from] StateError),
}

/// The sequence states of histories, each oldest first, as they are kept; none for an empty history.
///
/// # Errors
/// When the model cannot compute them, or they are not finite at `precision` or larger than states may be.
pub fn encode(
    model: &Model,
    histories: &[&[Event]],
    precision: Precision,
) -> Result<Vec<Option<SequenceState>>, EncodeError> {
    let kept = |values: Vec<f32>| -> Result<Option<SequenceState>, EncodeError> {
        match &values[..] {
            [] => Ok(None),
            values if values.iter().any(|value| !value.is_finite()) => Err(EncodeError::NotFinite),
            values => Ok(Some(SequenceState::new(values, model.dimension(), precision)?)),
        }
    };
    model.encode(histories)?.into_iter().map(kept).collect()
}

fn send<T>(reply: RpcReplyPort<Wire<Result<T, Refusal>>>, result: Result<T, Refusal>)
where
    Wire<Result<T, Refusal>>: ractor::BytesConvertable,
{
    // A caller that has gone away needs no answer.
    drop(reply.send(Wire::new(result)));
}

/// Refuses, and counts it.
fn refuse<T>(metrics: &Metrics, reply: RpcReplyPort<Wire<Result<T, Refusal>>>, refusal: Refusal)
where
    Wire<Result<T, Refusal>>: ractor::BytesConvertable,
{
    metrics.inference_refused.with_label_values(&[refusal.name()]).inc();
    send(reply, Err(refusal));
}
