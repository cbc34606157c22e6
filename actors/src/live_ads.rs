//! The control role's actor of ads that change while an index serves.
//!
//! Owns the journal. A change is written and flushed, then embedded by the ad tower of every generation that runs and handed
//! to the shards that must know of it (`homes`), in the order of the journal; a shard that starts asks for what it missed before it
//! serves. Handing over goes on by itself until it succeeds. When this actor dies, nothing acknowledged is lost: the next one
//! hands everything over once more, and shards know what they know.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, BytesConvertable, RpcReplyPort};
use tokio::sync::{Notify, watch};
use turret_retrieval::attribute_schema;
use turret_retrieval::ids::{AdId, GenerationId};
use turret_retrieval::live_ad::{AdChange, Content, LiveAd};
use turret_retrieval::revision::Revision;
use turret_store::AdJournal;

use crate::clock::now_ms;
use crate::depot::Depot;
use crate::groups;
use crate::metrics::Metrics;
use crate::offload::{Offload, Panicked};
use crate::protocol::{AdWrite, AdsChanged, AdsRequest, CHANGES_MAX, HandedOver, Refusal, ReplayPage};
use crate::routing::RoutingReader;
use crate::task::Task;
use crate::wire::{Inbox, Wire, note};

mod client;
mod hand_over;
mod homes;
mod known;

pub use client::{Ads, AdsUnavailable};
use hand_over::HandOver;

/// Ads that are not as built, in all shards: as many as the journal keeps. A shard takes any number.
pub const CHANGED_ADS_MAX: usize = 20_000;
/// Of these, kept for ads that are deleted or paused and were never changed before: that must not wait.
const HIDDEN_ADS_MIN: usize = 4_000;
/// The largest ad that patches may make, in bytes: a page of them fits a message between nodes.
pub const AD_BYTES_MAX: usize = 16 << 10;
/// How long the answer to a change waits for searches to see it.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(2);

/// What this actor receives.
pub type Msg = Inbox<AdsRequest, Note>;

type Reply<T> = RpcReplyPort<Wire<Result<T, Refusal>>>;

/// News from this actor's own thread.
pub enum Note {
    /// The journal is open.
    Opened(Box<AdJournal>),
    /// It could not be opened.
    OpenFailed(String),
}

/// See the module.
#[derive(Clone)]
pub struct LiveAds {
    /// Where the journal is kept.
    pub dir: PathBuf,
    /// Where generations are published.
    pub depot: Depot,
    /// Which one serves.
    pub routing: RoutingReader,
    /// One thread, on which the journal is read and written.
    pub thread: Offload,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The journal, once open.
pub struct State {
    open: Option<Open>,
}

struct Open {
    journal: Arc<AdJournal>,
    hand_over: HandOver,
    /// Tells the task below that there is something new.
    news: Arc<Notify>,
    /// How far each generation is.
    visible: watch::Receiver<HashMap<GenerationId, Revision>>,
    _handing_over: Task,
}

impl Actor for LiveAds {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        let dir = self.dir.clone();
        let open = move || AdJournal::open(&dir).map_err(|error| error.to_string());
        self.thread.reserve()?.run(open, move |opened| {
            let news = match opened {
                Ok(Ok(journal)) => Note::Opened(Box::new(journal)),
                Ok(Err(why)) => Note::OpenFailed(why),
                Err(Panicked) => Note::OpenFailed("opening panicked".to_owned()),
            };
            note(&myself, news);
        });
        Ok(State { open: None })
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        let open = state.open.as_ref();
        match message {
            Inbox::Request(AdsRequest::Change(ask, reply)) => self.change(ask, reply, open),
            Inbox::Request(AdsRequest::Get(ask, reply)) => self.on_journal(ask, reply, open, |journal, id| {
                journal.get(&id).map_err(|error| Refusal::Failed(error.to_string()))
            }),
            Inbox::Request(AdsRequest::Since(ask, reply)) => self.on_journal(ask, reply, open, |journal, after| {
                journal.since(after, CHANGES_MAX).map_err(|error| Refusal::Failed(error.to_string()))
            }),
            Inbox::Request(AdsRequest::Replay(ask, reply)) => {
                let admitted = self.admit(ask, open);
                match admitted {
                    // One page a starting shard at a time.
                    Ok((ask, open)) => {
                        let hand_over = open.hand_over.clone();
                        tokio::spawn(async move { answer(reply, hand_over.replay(&ask).await) });
                    }
                    Err(refusal) => answer::<ReplayPage>(reply, Err(refusal)),
                }
            }
            Inbox::Request(AdsRequest::HandedOver(ask, reply)) => {
                let told = self.admit(ask, open).map(|(generation, open)| HandedOver {
                    until: open.visible.borrow().get(&generation).copied().unwrap_or_default(),
                    latest: open.journal.latest(),
                    changed: open.journal.len() as u64,
                });
                answer(reply, told);
            }
            Inbox::Note(Note::Opened(journal)) => self.opened(journal, &myself, state),
            Inbox::Note(Note::OpenFailed(why)) => return Err(why.into()),
        }
        Ok(())
    }
}

impl LiveAds {
    fn opened(&self, journal: Box<AdJournal>, myself: &ActorRef<Msg>, state: &mut State) {
        tracing::info!(changed = journal.len(), "live ads serve");
        let journal: Arc<AdJournal> = Arc::from(journal);
        let hand_over = HandOver::new(journal.clone(), self.depot.clone(), self.routing.clone(), self.thread.clone());
        let (news, (tell, visible)) = (Arc::<Notify>::default(), watch::channel(HashMap::new()));
        let (own, told) = (hand_over.clone(), news.clone());
        let _handing_over = Task::spawn(async move { own.run(&told, &tell).await });
        state.open = Some(Open { journal, hand_over, news, visible, _handing_over });
        ractor::pg::join(groups::ADS.to_owned(), vec![myself.get_cell()]);
    }

    fn change(&self, ask: Wire<Vec<AdWrite>>, reply: Reply<AdsChanged>, open: Option<&Open>) {
        let (writes, open) = match self.admit(ask, open) {
            Ok(admitted) => admitted,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        if writes.len() > CHANGES_MAX {
            let why = format!("{} changes, the limit is {CHANGES_MAX}", writes.len());
            return answer(reply, Err(Refusal::Failed(why)));
        }
        let Ok(slot) = self.thread.reserve() else {
            return answer(reply, Err(Refusal::Overloaded));
        };
        let (journal, news, visible) = (open.journal.clone(), open.news.clone(), open.visible.clone());
        let routing = self.routing.clone();
        let hand_over = open.hand_over.clone();
        let work = move || -> Result<Vec<(AdId, Revision, Revision)>, Refusal> {
            check_room(&journal, &writes)?;
            check_patches(&journal, &writes)?;
            let writes = writes.into_iter().map(|write| (write.id, write.change)).collect();
            let changed = journal.apply(writes, now_ms()).map_err(|error| Refusal::Failed(error.to_string()))?;
            news.notify_one();
            Ok(changed.into_iter().map(|ad| (ad.id.clone(), ad.content_at, ad.at())).collect())
        };
        let runtime = tokio::runtime::Handle::current();
        slot.run(work, move |done| {
            let written = done.unwrap_or_else(|Panicked| Err(Refusal::Failed("writing panicked".to_owned())));
            // Ends by its timeout.
            runtime.spawn(async move {
                let outcome = match written {
                    Ok(ads) => {
                        let revision = ads.iter().map(|(_, _, at)| *at).max().unwrap_or_default();
                        let known = is_visible(visible, &routing, revision).await;
                        let serving = &routing.table().manifest.id;
                        let is_taken =
                            |(ad, at, _): &(AdId, Revision, Revision)| !hand_over.is_refused(serving, ad, *at);
                        Ok(AdsChanged { revision, visible: known && ads.iter().all(is_taken) })
                    }
                    Err(refusal) => Err(refusal),
                };
                answer(reply, outcome);
            });
        });
    }

    fn on_journal<A, T>(
        &self,
        ask: Wire<A>,
        reply: Reply<T>,
        open: Option<&Open>,
        work: impl FnOnce(&AdJournal, A) -> Result<T, Refusal> + Send + 'static,
    ) where
        A: Send + 'static,
        T: Send + 'static,
        Wire<Result<T, Refusal>>: BytesConvertable,
    {
        let (ask, open) = match self.admit(ask, open) {
            Ok(admitted) => admitted,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let Ok(slot) = self.thread.reserve() else {
            return answer(reply, Err(Refusal::Overloaded));
        };
        let journal = open.journal.clone();
        slot.run(
            move || work(&journal, ask),
            move |done| {
                answer(reply, done.unwrap_or_else(|Panicked| Err(Refusal::Failed("the journal panicked".to_owned()))));
            },
        );
    }

    fn admit<'a, A>(&self, ask: Wire<A>, open: Option<&'a Open>) -> Result<(A, &'a Open), Refusal> {
        let ask = ask.open().map_err(|error| {
            self.metrics.wire_rejected.with_label_values(&["ads"]).inc();
            Refusal::Unreadable(error.to_string())
        })?;
        Ok((ask, open.ok_or(Refusal::Starting)?))
    }
}

/// What is known already may always change, and there is room left to hide what was never changed.
fn check_room(journal: &AdJournal, writes: &[AdWrite]) -> Result<(), Refusal> {
    let known = journal.len();
    let only_hides = writes.iter().all(|write| matches!(write.change, AdChange::Delete | AdChange::Pause(_)));
    let room = if only_hides { CHANGED_ADS_MAX } else { CHANGED_ADS_MAX - HIDDEN_ADS_MIN };
    if known + writes.len() <= room {
        return Ok(());
    }
    let mut fresh = 0;
    for write in writes {
        fresh += usize::from(journal.get(&write.id).map_err(|error| Refusal::Failed(error.to_string()))?.is_none());
    }
    if fresh == 0 || known + fresh <= room {
        return Ok(());
    }
    Err(Refusal::Conflict(format!("{known} ads are not as in the data set, the limit is {room}")))
}

/// What is deleted cannot be patched, and what patches make of an ad must be one, and no larger than one may be.
fn check_patches(journal: &AdJournal, writes: &[AdWrite]) -> Result<(), Refusal> {
    for AdWrite { id, change } in writes.iter().filter(|write| matches!(write.change, AdChange::Patch(_))) {
        let refuse = |why: &dyn std::fmt::Display| Err(Refusal::Conflict(format!("ad {id}, as patched: {why}")));
        let known = journal.get(id).map_err(|error| Refusal::Failed(error.to_string()))?;
        let mut ad = known.unwrap_or_else(|| LiveAd::untouched(id.clone()));
        ad.apply(change.clone(), Revision::NONE);
        match &ad.content {
            Content::Deleted => return Err(Refusal::Conflict(format!("ad {id} is deleted"))),
            Content::Is(promoted) => {
                if let Err(error) = attribute_schema::check(&promoted.ad.attributes) {
                    return refuse(&error);
                }
            }
            Content::AsBuilt | Content::Patched(_) => {}
        }
        let bytes = postcard::experimental::serialized_size(&ad).unwrap_or(usize::MAX);
        if bytes > AD_BYTES_MAX {
            return refuse(&format!("{bytes} bytes, the limit is {AD_BYTES_MAX}"));
        }
    }
    Ok(())
}

/// Whether the generation that serves has `revision`, now or soon.
async fn is_visible(
    mut visible: watch::Receiver<HashMap<GenerationId, Revision>>,
    routing: &RoutingReader,
    revision: Revision,
) -> bool {
    let serves = |known: &HashMap<GenerationId, Revision>| {
        known.get(&routing.table().manifest.id).is_some_and(|at| *at >= revision)
    };
    matches!(tokio::time::timeout(VISIBLE_TIMEOUT, visible.wait_for(serves)).await, Ok(Ok(_)))
}

fn answer<T>(reply: Reply<T>, result: Result<T, Refusal>)
where
    Wire<Result<T, Refusal>>: BytesConvertable,
{
    // A caller that has gone away needs no answer.
    drop(reply.send(Wire::new(result)));
}
