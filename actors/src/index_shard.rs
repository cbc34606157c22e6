//! The actor of one shard replica.
//!
//! Owns the loaded index of one shard of one generation. Loads it off the actor's own time, asks for the changes of ads since
//! it was built, joins `index/<shard>/<generation>` when it can serve, and answers searches from worker threads. Between changes it
//! sees to the index's upkeep, a small step at a time. Never mixes generations. When it dies, its group loses a member at once, searches in flight end as failed, and the supervisor loads it anew.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, BytesConvertable, RpcReplyPort};
use tokio::time::Instant;
use turret_index::{ChangeError, Due, Found, IndexSettings, Refused, Search, ShardIndex, Written};
use turret_retrieval::ids::{GenerationId, ShardId};
use turret_retrieval::revision::Revision;

use crate::asked::Asked;
use crate::generation::Generation;
use crate::metrics::Metrics;
use crate::offload::{Offload, Panicked};
use crate::protocol::{ApplyAsk, CHANGES_MAX, IndexRequest, Refusal, SearchAsk, SearchReply};
use crate::task::Task;
use crate::wire::{Inbox, Wire, note};

mod loading;
mod observe;
mod snapshots;
mod upkeep;

use loading::Loaded;
use observe::Series;
use snapshots::Pace;
pub use snapshots::{SnapshotSettings, Snapshots};

/// What this actor receives.
pub type Msg = Inbox<IndexRequest, Note>;

type Reply<T> = RpcReplyPort<Wire<Result<T, Refusal>>>;

/// News from this actor's own worker threads.
pub enum Note {
    /// The index is in memory.
    Loaded(Box<Loaded>),
    /// The index could not be loaded.
    LoadFailed(String),
    /// It may serve.
    CaughtUp {
        /// How far it has asked for changes.
        reached: Reached,
        /// Whether those are all; else time was up.
        is_complete: bool,
    },
    /// It knows now what it did not know when it began to serve.
    Verified(Reached),
    /// Ads were changed: upkeep is due.
    Changed,
    /// A step of upkeep was done, and what is due now; or why it was not.
    Maintained(Result<Due, Refused>),
    /// The large part of upkeep was done, or why it was not.
    Overhauled(Result<(), String>),
    /// A snapshot is due, because the last one is old.
    SnapshotDue,
    /// A snapshot was written, or why not, and how far the changes go that are in it.
    Snapshot(Result<Written, String>, Reached),
    /// Work on the index panicked: what it left behind is not to be trusted.
    Panicked,
}

/// How far a shard has asked for changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Those up to this one came.
    until: Revision,
    /// Those up to this one were made. Less than all that came, from the first on that could not be made.
    made: Revision,
    /// How many came.
    changes: u64,
}

impl Reached {
    /// All changes up to this one were made.
    fn at(until: Revision) -> Self {
        Self { until, made: until, changes: 0 }
    }

    /// Some more changes came; whether they were all made.
    fn go_on(&mut self, until: Revision, changes: usize, all_made: bool) {
        if all_made && self.made == self.until {
            self.made = until;
        }
        self.until = until;
        self.changes += changes as u64;
    }
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
    /// Where it is written, and when.
    pub snapshots: Snapshots,
    /// Where searches run.
    pub searches: Offload,
    /// Where loading and the large part of upkeep run.
    pub loads: Offload,
    /// Where changes and small steps of upkeep are made, one after the other.
    pub changes: Offload,
    /// Told of searches.
    pub asked: Asked,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The index, once loaded.
pub struct State {
    index: Option<Arc<ShardIndex>>,
    /// Whether it knows all changes that were made before it joined its group.
    verified: bool,
    /// Asks for changes that were missed.
    catching_up: Option<Task>,
    /// Upkeep that goes on, and is done when its note comes.
    maintaining: bool,
    overhauling: bool,
    /// Waits until what searches still see may be taken out.
    waiting: Option<Task>,
    /// Whether the graph refused an ad, and has not taken all since: that is told once.
    refused: bool,
    pace: Pace,
    series: Series,
}

/// Of the time of a search, what is kept back for its answer; of little time a quarter.
const REPLY_RESERVE: Duration = Duration::from_micros(500);
/// How long a shard waits for the changes that it missed before it serves without them; it asks on.
const CHANGES_WAIT: Duration = Duration::from_secs(5);
/// Before they are asked for again, and before upkeep that could not be done is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Actor for IndexShard {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        let own = self.clone();
        let load = move || own.load();
        let tell = move |loaded: Result<Result<Loaded, String>, Panicked>| {
            let news = match loaded {
                Ok(Ok(loaded)) => Note::Loaded(Box::new(loaded)),
                Ok(Err(why)) => Note::LoadFailed(why),
                Err(Panicked) => Note::LoadFailed("loading panicked".to_owned()),
            };
            note(&myself, news);
        };
        self.loads.reserve()?.run(load, tell);
        Ok(State {
            index: None,
            verified: false,
            catching_up: None,
            maintaining: false,
            overhauling: false,
            waiting: None,
            refused: false,
            pace: Pace::default(),
            series: Series::of(&self.metrics, self.shard, &self.generation.manifest.id),
        })
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Inbox::Request(IndexRequest::Search(ask, reply)) => self.search(ask, reply, &myself, state),
            Inbox::Note(Note::Loaded(loaded)) => self.loaded(*loaded, &myself, state),
            Inbox::Request(IndexRequest::Apply(ask, reply)) => self.apply(ask, reply, &myself, state),
            Inbox::Note(Note::LoadFailed(why)) => return Err(why.into()),
            Inbox::Note(Note::CaughtUp { reached, is_complete }) => {
                self.caught_up(reached, is_complete, &myself, state);
            }
            Inbox::Note(Note::Verified(reached)) => {
                state.verified = true;
                self.reached(reached, &myself, state);
            }
            Inbox::Note(Note::Changed) => {
                self.maintain(&myself, state);
                self.look_at_pace(&myself, state);
            }
            Inbox::Note(Note::Maintained(due)) => self.maintained(due, &myself, state),
            Inbox::Note(Note::Overhauled(outcome)) => self.overhauled(outcome, &myself, state),
            Inbox::Note(Note::SnapshotDue) => self.snapshot_due(&myself, state),
            Inbox::Note(Note::Snapshot(outcome, reached)) => self.snapshot_done(outcome, reached, &myself, state),
            Inbox::Note(Note::Panicked) => return Err("work on the index panicked".into()),
        }
        Ok(())
    }
}

impl IndexShard {
    fn apply(&self, ask: Wire<ApplyAsk>, reply: Reply<()>, myself: &ActorRef<Msg>, state: &mut State) {
        let ask = match self.opened(ask) {
            Ok(ask) => ask,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let index = match self.index_of(&ask.generation, state) {
            Ok(index) => index,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        if ask.changes.len() > CHANGES_MAX {
            let why = format!("{} changes, the limit is {CHANGES_MAX}", ask.changes.len());
            return answer(reply, Err(Refusal::Failed(why)));
        }
        let Ok(slot) = self.changes.reserve() else {
            return answer(reply, Err(Refusal::Overloaded));
        };
        state.pace.count(ask.changes.len());
        let myself = myself.clone();
        slot.run(
            move || index.apply(ask.changes).map_err(|error| refusal(&error)),
            move |done| {
                let outcome = done.unwrap_or_else(|Panicked| {
                    note(&myself, Note::Panicked);
                    Err(Refusal::Failed("changing ads panicked".to_owned()))
                });
                answer(reply, outcome);
                note(&myself, Note::Changed);
            },
        );
    }

    fn search(&self, ask: Wire<SearchAsk>, reply: Reply<SearchReply>, myself: &ActorRef<Msg>, state: &State) {
        let arrived = Instant::now();
        self.asked.note();
        let verified = state.verified;
        let (ask, index) = match self.admit(ask, state) {
            Ok(admitted) => admitted,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let Ok(slot) = self.searches.reserve() else {
            return answer(reply, Err(Refusal::Overloaded));
        };
        let (in_flight, duration) = state.series.of_search();
        let metrics = self.metrics.clone();
        let left = Duration::from_micros(ask.remaining_us);
        let (ends, stops) = (arrived + left, arrived + left.saturating_sub(REPLY_RESERVE.min(left / 4)));
        let work = move || {
            let started = Instant::now();
            if started >= ends {
                return Err(Refusal::Expired);
            }
            let found = run(&index, &ask, verified, &|| Instant::now() >= stops);
            duration.observe(started.elapsed().as_secs_f64());
            if let Ok(found) = &found {
                observe::searched(&metrics, found);
            }
            found
        };
        in_flight.inc();
        let myself = myself.clone();
        slot.run(work, move |result| {
            in_flight.dec();
            let found = result.unwrap_or_else(|Panicked| {
                note(&myself, Note::Panicked);
                Err(Refusal::Failed("search panicked".to_owned()))
            });
            answer(reply, found);
        });
    }

    fn admit(&self, ask: Wire<SearchAsk>, state: &State) -> Result<(SearchAsk, Arc<ShardIndex>), Refusal> {
        let ask = self.opened(ask)?;
        let index = self.index_of(&ask.query.generation, state)?;
        Ok((ask, index))
    }

    fn opened<A>(&self, ask: Wire<A>) -> Result<A, Refusal> {
        ask.open().map_err(|error| {
            self.metrics.wire_rejected.with_label_values(&["index"]).inc();
            Refusal::Unreadable(error.to_string())
        })
    }

    /// The index, which is of this generation and no other.
    fn index_of(&self, asked: &GenerationId, state: &State) -> Result<Arc<ShardIndex>, Refusal> {
        let serving = &self.generation.manifest.id;
        if asked != serving {
            return Err(Refusal::OtherVersion { serving: serving.to_string(), asked: asked.to_string() });
        }
        state.index.clone().ok_or(Refusal::Starting)
    }
}

fn run(index: &ShardIndex, ask: &SearchAsk, verified: bool, stop: &dyn Fn() -> bool) -> Result<SearchReply, Refusal> {
    let failed = |why: String| Refusal::Failed(why);
    let (vector, baseline) = (&ask.query.vector, ask.query.without_context.as_ref());
    vector.check(index.dimension()).map_err(|error| failed(format!("vector: {error}")))?;
    let search = Search {
        vector,
        baseline,
        k: ask.k as usize,
        filter: ask.filter.as_ref(),
        crowding: ask.crowding.as_ref(),
        exact: ask.exact,
    };
    let found = index.search_until(&search, stop).map_err(|error| failed(error.to_string()))?;
    let Found { ads, exhausted, plan, selectivity, selectivity_near, list, distances, early_stopped, compared } = found;
    Ok(SearchReply {
        ads,
        exhausted,
        plan,
        selectivity,
        selectivity_near,
        list,
        distances,
        early_stopped,
        compared,
        verified,
    })
}

/// Only what will never be taken is a conflict: all else is asked for again.
fn refusal(error: &ChangeError) -> Refusal {
    match error {
        ChangeError::Kind { .. } | ChangeError::Rows(_) | ChangeError::Patched { .. } => {
            Refusal::Conflict(error.to_string())
        }
        ChangeError::Broken => Refusal::Failed(error.to_string()),
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, Refusal>)
where
    Wire<Result<T, Refusal>>: BytesConvertable,
{
    // A caller that has gone away needs no answer.
    drop(reply.send(Wire::new(result)));
}

#[cfg(test)]
mod tests;
