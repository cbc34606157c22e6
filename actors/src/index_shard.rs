//! The actor of one shard replica.
//!
//! Owns the loaded index of one shard of one generation. Loads it off the actor's own time, joins
//! `index/<shard>/<generation>` when it can serve, and answers searches from worker threads. Never mixes generations.
//! When it dies, its group loses a member at once, searches in flight end as failed, and the supervisor loads it anew.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;
use turret_index::{IndexSettings, Search, ShardIndex};
use turret_retrieval::ids::ShardId;

use crate::generation::{Generation, shard_file};
use crate::groups;
use crate::metrics::Metrics;
use crate::offload::{Offload, Panicked};
use crate::protocol::{IndexRequest, Refusal, SearchAsk, SearchReply};
use crate::wire::{Inbox, Wire, note};

/// What this actor receives.
pub type Msg = Inbox<IndexRequest, Note>;

type Reply = RpcReplyPort<Wire<Result<SearchReply, Refusal>>>;

/// News from this actor's own worker threads.
pub enum Note {
    /// The index is in memory.
    Loaded(Box<ShardIndex>),
    /// The index could not be loaded.
    LoadFailed(String),
    /// A search panicked: what it left behind is not to be trusted.
    SearchPanicked,
}

/// What the actor serves, and from where.
#[derive(Clone)]
pub struct IndexShard {
    /// The shard.
    pub shard: ShardId,
    /// The generation that it is of.
    pub generation: Generation,
    /// How to index it.
    pub settings: IndexSettings,
    /// Where searches run.
    pub searches: Offload,
    /// Where loading runs.
    pub loads: Offload,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The index, once loaded.
pub struct State {
    index: Option<Arc<ShardIndex>>,
}

impl Actor for IndexShard {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        let own = self.clone();
        let load = move || own.load();
        let tell = move |loaded: Result<Result<ShardIndex, String>, Panicked>| {
            let news = match loaded {
                Ok(Ok(index)) => Note::Loaded(Box::new(index)),
                Ok(Err(why)) => Note::LoadFailed(why),
                Err(Panicked) => Note::LoadFailed("loading panicked".to_owned()),
            };
            note(&myself, news);
        };
        self.loads.reserve()?.run(load, tell);
        Ok(State { index: None })
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Inbox::Request(IndexRequest::Search(ask, reply)) => self.search(ask, reply, &myself, state),
            Inbox::Note(Note::Loaded(index)) => self.loaded(index, &myself, state),
            Inbox::Note(Note::LoadFailed(why)) => return Err(why.into()),
            Inbox::Note(Note::SearchPanicked) => return Err("a search panicked".into()),
        }
        Ok(())
    }
}

impl IndexShard {
    /// Blocking: makes sure that the file is the one that was published, and reads it.
    fn load(&self) -> Result<ShardIndex, String> {
        let file = shard_file(self.shard);
        self.generation.verify(&file).map_err(|error| error.to_string())?;
        let mut go_on = |_: _| std::ops::ControlFlow::Continue(());
        ShardIndex::open(&self.generation.dir.join(file), &self.settings, &mut go_on).map_err(|error| error.to_string())
    }

    fn loaded(&self, index: Box<ShardIndex>, myself: &ActorRef<Msg>, state: &mut State) {
        let shard = self.shard.to_string();
        tracing::info!(shard, ads = index.len(), backend = ?index.backend(), "shard serves");
        state.index = Some(Arc::from(index));
        ractor::pg::join(groups::index(self.shard, &self.generation.manifest.id), vec![myself.get_cell()]);
    }

    fn search(&self, ask: Wire<SearchAsk>, reply: Reply, myself: &ActorRef<Msg>, state: &State) {
        let arrived = Instant::now();
        let (ask, index) = match self.admit(ask, state) {
            Ok(admitted) => admitted,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let Ok(slot) = self.searches.reserve() else {
            return answer(reply, Err(Refusal::Overloaded));
        };
        let shard = self.shard.to_string();
        let in_flight = self.metrics.searches_in_flight.with_label_values(&[&shard]);
        let duration = self.metrics.search_duration.with_label_values(&[&shard]);
        let ends = arrived + Duration::from_micros(ask.remaining_us);
        let work = move || {
            let started = Instant::now();
            if started >= ends {
                return Err(Refusal::Expired);
            }
            let found = run(&index, &ask);
            duration.observe(started.elapsed().as_secs_f64());
            found
        };
        in_flight.inc();
        let myself = myself.clone();
        slot.run(work, move |result| {
            in_flight.dec();
            let found = result.unwrap_or_else(|Panicked| {
                note(&myself, Note::SearchPanicked);
                Err(Refusal::Failed("search panicked".to_owned()))
            });
            answer(reply, found);
        });
    }

    fn admit(&self, ask: Wire<SearchAsk>, state: &State) -> Result<(SearchAsk, Arc<ShardIndex>), Refusal> {
        let ask = ask.open().map_err(|error| {
            self.metrics.wire_rejected.with_label_values(&["index"]).inc();
            Refusal::Unreadable(error.to_string())
        })?;
        let serving = &self.generation.manifest.id;
        if ask.query.generation != *serving {
            let (serving, asked) = (serving.to_string(), ask.query.generation.to_string());
            return Err(Refusal::OtherVersion { serving, asked });
        }
        match &state.index {
            Some(index) => Ok((ask, index.clone())),
            None => Err(Refusal::Starting),
        }
    }
}

fn run(index: &ShardIndex, ask: &SearchAsk) -> Result<SearchReply, Refusal> {
    let failed = |why: String| Refusal::Failed(why);
    let (vector, baseline) = (&ask.query.vector, ask.query.without_context.as_ref());
    vector.check(index.dimension()).map_err(|error| failed(format!("vector: {error}")))?;
    let search = Search { vector, baseline, k: ask.k as usize, filter: ask.filter.as_ref(), exact: ask.exact };
    let found = index.search(&search).map_err(|error| failed(error.to_string()))?;
    Ok(SearchReply { ads: found.ads, exhausted: found.exhausted, plan: found.plan, selectivity: found.selectivity })
}

fn answer(reply: Reply, result: Result<SearchReply, Refusal>) {
    // A caller that has gone away needs no answer.
    drop(reply.send(Wire::new(result)));
}
