//! The actor that runs the model: query embeddings online, sequence states for the refresh.
//!
//! Owns the batching queue in front of one model on one device. A batch runs on the worker's own thread; while it does,
//! requests gather into the next one. Never holds user state. When it dies, its queue is refused with it and the
//! supervisor starts another over the same model.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;
use turret_model::{HeadInput, Model, ModelError};
use turret_retrieval::event::Event;
use turret_retrieval::ids::GenerationId;
use turret_retrieval::item::Item;
use turret_retrieval::state::{Precision, SequenceState, StateError};
use turret_retrieval::vector::UnitVector;

use crate::groups;
use crate::metrics::Metrics;
use crate::offload::{Offload, Panicked};
use crate::protocol::{
    CHANGES_MAX, ENCODE_ROWS_MAX, EmbedAdsAsk, EmbedAsk, Embedded, EncodeAsk, EncodedHistory, InferenceRequest,
    QueryEmbedding, Refusal,
};
use crate::wire::{Inbox, Wire, note};

pub mod batcher;

use batcher::{Batcher, BatcherSettings, Lane, Next};

/// What this actor receives.
pub type Msg = Inbox<InferenceRequest, Note>;

type EmbedReply = RpcReplyPort<Wire<Result<Embedded, Refusal>>>;
type EncodeReply = RpcReplyPort<Wire<Result<Vec<Option<SequenceState>>, Refusal>>>;
type EmbedRow = (EmbedAsk, EmbedReply);
type AdsReply = RpcReplyPort<Wire<Result<Vec<UnitVector>, Refusal>>>;

/// What waits on the refresh lane.
enum Job {
    Encode(EncodeAsk, EncodeReply),
    EmbedAds(EmbedAdsAsk, AdsReply),
}

impl Job {
    fn rows(&self) -> usize {
        match self {
            Self::Encode(ask, _) => ask.histories.len(),
            Self::EmbedAds(ask, _) => ask.items.len(),
        }
    }

    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Encode(_, reply) => send(reply, Err(refusal)),
            Self::EmbedAds(_, reply) => send(reply, Err(refusal)),
        }
    }

    fn run(self, model: &Model) {
        match self {
            Self::Encode(ask, reply) => {
                let histories: Vec<&[Event]> = ask.histories.iter().map(Vec::as_slice).collect();
                let encoded = encode(model, &histories, ask.precision);
                send(reply, encoded.map_err(|error| Refusal::Failed(error.to_string())));
            }
            Self::EmbedAds(ask, reply) => {
                let items: Vec<&Item> = ask.items.iter().collect();
                send(reply, model.embed_items(&items).map_err(|error| Refusal::Failed(error.to_string())));
            }
        }
    }
}

/// News from the worker's thread.
pub enum Note {
    /// The batch is answered; the thread is free.
    BatchDone,
    /// The batch panicked.
    BatchPanicked,
}

/// What the worker serves.
#[derive(Clone)]
pub struct InferenceWorker {
    /// The generation whose model this is.
    pub generation: GenerationId,
    /// The model.
    pub model: Arc<Model>,
    /// The bounds of its queue.
    pub settings: BatcherSettings,
    /// One thread of its own.
    pub thread: Offload,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The queue, and whether the thread is busy.
pub struct State {
    batcher: Batcher<EmbedRow, Job>,
    busy: bool,
    started: Instant,
}

impl Actor for InferenceWorker {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        ractor::pg::join(groups::inference(&self.generation), vec![myself.get_cell()]);
        Ok(State { batcher: Batcher::new(self.settings), busy: false, started: Instant::now() })
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Inbox::Request(InferenceRequest::Embed(ask, reply)) => self.embed(ask, reply, state),
            Inbox::Request(InferenceRequest::Encode(ask, reply)) => self.encode(ask, reply, state),
            Inbox::Request(InferenceRequest::EmbedAds(ask, reply)) => self.embed_ads(ask, reply, state),
            Inbox::Note(Note::BatchDone) => state.busy = false,
            Inbox::Note(Note::BatchPanicked) => return Err("a batch panicked".into()),
        }
        self.advance(&myself, state)?;
        Ok(())
    }
}

impl InferenceWorker {
    fn embed(&self, ask: Wire<EmbedAsk>, reply: EmbedReply, state: &mut State) {
        let ask = match ask.open() {
            Ok(ask) => ask,
            Err(error) => return send(reply, Err(self.unreadable(error))),
        };
        if ask.generation != self.generation {
            let (serving, asked) = (self.generation.to_string(), ask.generation.to_string());
            return send(reply, Err(Refusal::OtherVersion { serving, asked }));
        }
        if let Some(state) = &ask.state
            && let Err(refusal) = self.check(state)
        {
            return send(reply, Err(refusal));
        }
        let ends = state.started.elapsed() + Duration::from_micros(ask.remaining_us);
        if let Err((_, reply)) = state.batcher.push_online((ask, reply), ends) {
            send(reply, Err(Refusal::Overloaded));
        }
    }

    fn encode(&self, ask: Wire<EncodeAsk>, reply: EncodeReply, state: &mut State) {
        let ask = match ask.open() {
            Ok(ask) => ask,
            Err(error) => return send(reply, Err(self.unreadable(error))),
        };
        if ask.encoder != *self.model.encoder_version() {
            let (serving, asked) = (self.model.encoder_version().to_string(), ask.encoder.to_string());
            return send(reply, Err(Refusal::OtherVersion { serving, asked }));
        }
        if ask.histories.len() > ENCODE_ROWS_MAX {
            let why = format!("{} histories, the limit is {ENCODE_ROWS_MAX}", ask.histories.len());
            return send(reply, Err(Refusal::Failed(why)));
        }
        if let Err(job) = state.batcher.push_refresh(Job::Encode(ask, reply)) {
            job.refuse(Refusal::Overloaded);
        }
    }

    fn embed_ads(&self, ask: Wire<EmbedAdsAsk>, reply: AdsReply, state: &mut State) {
        let ask = match ask.open() {
            Ok(ask) => ask,
            Err(error) => return send(reply, Err(self.unreadable(error))),
        };
        if ask.generation != self.generation {
            let (serving, asked) = (self.generation.to_string(), ask.generation.to_string());
            return send(reply, Err(Refusal::OtherVersion { serving, asked }));
        }
        if ask.items.len() > CHANGES_MAX {
            let why = format!("{} items, the limit is {CHANGES_MAX}", ask.items.len());
            return send(reply, Err(Refusal::Failed(why)));
        }
        if let Err(job) = state.batcher.push_refresh(Job::EmbedAds(ask, reply)) {
            job.refuse(Refusal::Overloaded);
        }
    }

    /// A state that this encoder did not make says nothing here.
    fn check(&self, state: &EncodedHistory) -> Result<(), Refusal> {
        let (encoder, dimension) = (self.model.encoder_version(), self.model.dimension());
        if state.encoder != *encoder {
            return Err(Refusal::OtherVersion { serving: encoder.to_string(), asked: state.encoder.to_string() });
        }
        match state.sequence.dimension() {
            found if found == dimension => Ok(()),
            found => Err(Refusal::Failed(format!("state: rows of {found} values where {dimension} are expected"))),
        }
    }

    fn unreadable(&self, error: crate::wire::WireError) -> Refusal {
        self.metrics.wire_rejected.with_label_values(&["inference"]).inc();
        Refusal::Unreadable(error.to_string())
    }

    /// Starts the next batch, if the thread is free and something waits.
    fn advance(&self, myself: &ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        if !state.busy {
            let (next, expired) = state.batcher.next(state.started.elapsed());
            for (_, reply) in expired {
                send(reply, Err(Refusal::Expired));
            }
            let (model, generation) = (self.model.clone(), self.generation.clone());
            match next {
                Next::Idle => {}
                Next::Online(rows) => {
                    self.metrics.batch_rows.with_label_values(&[Lane::Online.name()]).observe(rows.len() as f64);
                    self.start(myself, state, move || embed_batch(&model, &generation, rows))?;
                }
                Next::Refresh(job) => {
                    let rows = job.rows();
                    self.metrics.batch_rows.with_label_values(&[Lane::Refresh.name()]).observe(rows as f64);
                    self.start(myself, state, move || job.run(&model))?;
                }
            }
        }
        for lane in [Lane::Online, Lane::Refresh] {
            self.metrics.queue_rows.with_label_values(&[lane.name()]).set(state.batcher.waiting(lane) as i64);
        }
        Ok(())
    }

    fn start(
        &self,
        myself: &ActorRef<Msg>,
        state: &mut State,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), ActorProcessingErr> {
        let myself = myself.clone();
        self.thread.reserve()?.run(work, move |done| {
            note(&myself, if done == Err(Panicked) { Note::BatchPanicked } else { Note::BatchDone });
        });
        state.busy = true;
        Ok(())
    }
}

/// Embeds all rows at once, and again without their context those that ask what it did.
fn embed_batch(model: &Model, generation: &GenerationId, rows: Vec<EmbedRow>) {
    let states: Vec<Option<Vec<f32>>> =
        rows.iter().map(|(ask, _)| ask.state.as_ref().map(|state| state.sequence.values())).collect();
    let mut inputs: Vec<HeadInput<'_>> = rows.iter().zip(&states).map(|((ask, _), state)| input(ask, state)).collect();
    let is_used = |ask: &EmbedAsk| ask.context.as_ref().is_some_and(|context| model.context_is_usable(context));
    let used: Vec<bool> = rows.iter().map(|(ask, _)| is_used(ask)).collect();
    // Where no context is used, the embedding without it is the embedding.
    let is_again = |ask: &EmbedAsk, used: bool| ask.compares_without_context && used;
    for (row, used) in used.iter().enumerate() {
        if is_again(&rows[row].0, *used) {
            inputs.push(HeadInput { context: None, ..inputs[row] });
        }
    }
    let mut vectors = embed_all(model, &inputs);
    let mut bare = vectors.split_off(rows.len()).into_iter();
    for (((ask, reply), context_used), vector) in rows.into_iter().zip(used).zip(vectors) {
        let bare = if is_again(&ask, context_used) { bare.next() } else { None };
        let embedded = vector.and_then(|vector| {
            let without_context = match bare {
                Some(bare) => Some(bare?),
                None => ask.compares_without_context.then(|| vector.clone()),
            };
            let query = QueryEmbedding { generation: generation.clone(), vector, without_context };
            Ok(Embedded { query, context_used })
        });
        send(reply, embedded);
    }
}

/// Embeds all inputs at once; where that fails, each on its own, so that one bad input is one refusal.
fn embed_all(model: &Model, inputs: &[HeadInput<'_>]) -> Vec<Result<UnitVector, Refusal>> {
    match model.embed_queries(inputs) {
        Ok(vectors) => vectors.into_iter().map(Ok).collect(),
        Err(_) => inputs.iter().map(|input| embed_one(model, input)).collect(),
    }
}

fn embed_one(model: &Model, input: &HeadInput<'_>) -> Result<UnitVector, Refusal> {
    let mut vectors =
        model.embed_queries(std::slice::from_ref(input)).map_err(|error| Refusal::Failed(error.to_string()))?;
    vectors.pop().ok_or_else(|| Refusal::Failed("the model answered nothing".to_owned()))
}

fn input<'a>(ask: &'a EmbedAsk, state: &'a Option<Vec<f32>>) -> HeadInput<'a> {
    HeadInput { state: state.as_deref(), context: ask.context.as_ref(), demographics: &ask.demographics }
}

/// Why histories have no states.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The model cannot compute them.
    #[error(transparent)]
    Model(#[from] ModelError),
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
