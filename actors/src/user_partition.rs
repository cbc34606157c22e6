//! The actor of one user partition.
//!
//! Owns the sled store of one hash partition of the users. Opens it and imports the generation's snapshot off the
//! actor's own time, joins `users/<partition>` when it can serve, answers from worker threads. A write is flushed
//! before it is acknowledged, together with those that waited for the same flush. When it dies nothing acknowledged is
//! lost; the supervisor opens the store again.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef, BytesConvertable, RpcReplyPort};
use turret_retrieval::ids::{EncoderVersion, GenerationId, PartitionId, UserId};
use turret_retrieval::state::Precision;
use turret_store::{Change, PartitionStore, Profile, Retention, StoreSettings};

use crate::clock::now_ms;
use crate::generation::{Generation, users_file};
use crate::groups;
use crate::metrics::Metrics;
use crate::offload::{Offload, Panicked};
use crate::protocol::{
    EncodedHistory, REFRESH_USERS_MAX, RefreshPageAsk, RefreshUsersAsk, RefreshedPage, RefreshedUsers, Refusal,
    StateView, Traces, UserRequest, UserView, ViewAsk, WriteAsk, WriteReply,
};
use crate::routing::RoutingReader;
use crate::wire::{Inbox, Wire, note};

mod commit;
mod jobs;
pub mod pace;
mod page;
mod sweep;
mod traces;

/// What this actor receives.
pub type Msg = Inbox<UserRequest, Note>;

/// A reply that may be refused.
type Reply<T> = RpcReplyPort<Wire<Result<T, Refusal>>>;

/// News from this actor's own worker threads.
pub enum Note {
    /// The store is open and holds the generation's snapshot.
    Opened(Box<PartitionStore>),
    /// The store could not be opened, or the snapshot not imported.
    OpenFailed(String),
    /// Work on the store panicked.
    StorePanicked,
    /// A page of the refresh ended.
    PageDone,
    /// A group of writes was answered.
    Written,
    /// It is time to forget what is too old, behind this user.
    SweepDue(Option<UserId>),
    /// A page of that ended; where the next one starts.
    Swept(Option<UserId>),
}

/// What the actor serves, and from where.
#[derive(Clone)]
pub struct UserPartition {
    /// The partition.
    pub partition: PartitionId,
    /// Its directory.
    pub dir: PathBuf,
    /// How to open it.
    pub settings: StoreSettings,
    /// How long things are kept.
    pub retention: Retention,
    /// How exactly a refresh keeps states.
    pub state_precision: Precision,
    /// Of so many users are jobs of a refresh.
    pub pace: pace::Pace,
    /// How many jobs a worker encodes at once.
    pub encoders: usize,
    /// The generation whose snapshot is imported first; others lie beside it.
    pub generation: Generation,
    /// Where requests read the store.
    pub reads: Offload,
    /// Where users are written, and the states of a refresh: a flush must not hold up a request.
    pub writes: Offload,
    /// Where a refresh reads users while those before them are encoded.
    pub pages: Offload,
    /// Where opening runs: it may take long.
    pub loads: Offload,
    /// Where users with new events are counted, which looks at all: that must hold up nobody's start.
    pub scans: Offload,
    /// Where snapshots are searched, which may be large.
    pub traces: Offload,
    /// Whether generations lie elsewhere too.
    pub is_elsewhere: bool,
    /// Whose states must be kept.
    pub routing: RoutingReader,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The store, once open.
pub struct State {
    store: Option<Arc<PartitionStore>>,
    page_running: bool,
    group: commit::Group,
}

impl Actor for UserPartition {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        let own = self.clone();
        self.loads.reserve()?.run(
            move || own.open(),
            move |opened| {
                note(
                    &myself,
                    match opened {
                        Ok(Ok(store)) => Note::Opened(Box::new(store)),
                        Ok(Err(why)) => Note::OpenFailed(why),
                        Err(Panicked) => Note::OpenFailed("opening panicked".to_owned()),
                    },
                );
            },
        );
        Ok(State { store: None, page_running: false, group: commit::Group::default() })
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Inbox::Request(UserRequest::View(ask, reply)) => self.view(ask, reply, &myself, state),
            Inbox::Request(UserRequest::Write(ask, reply)) => self.write(ask, reply, state),
            Inbox::Request(UserRequest::Profile(user, reply)) => self.profile(user, reply, &myself, state),
            Inbox::Request(UserRequest::Traces(user, reply)) => self.traces(user, reply, &myself, state),
            Inbox::Request(UserRequest::CountDirty(ask, reply)) => self.count_dirty(ask, reply, &myself, state),
            Inbox::Request(UserRequest::RefreshPage(ask, reply)) => self.refresh_page(ask, reply, &myself, state),
            Inbox::Request(UserRequest::RefreshUsers(ask, reply)) => self.refresh_users(ask, reply, state),
            Inbox::Request(UserRequest::Import(ask, reply)) => self.import(ask, reply, &myself, state),
            Inbox::Note(Note::Opened(store)) => self.opened(store, &myself, state),
            Inbox::Note(Note::OpenFailed(why)) => return Err(why.into()),
            Inbox::Note(Note::StorePanicked) => return Err("work on the store panicked".into()),
            Inbox::Note(Note::PageDone) => state.page_running = false,
            Inbox::Note(Note::Written) => state.group.written(),
            Inbox::Note(Note::SweepDue(after)) => self.sweep_due(after, &myself, state),
            Inbox::Note(Note::Swept(next)) => self.swept(next, &myself),
        }
        if let Some(store) = &state.store {
            self.commit(store, &mut state.group, &myself);
        }
        Ok(())
    }
}

impl UserPartition {
    /// Blocking: opens the store and makes sure that it holds the generation's snapshot.
    fn open(&self) -> Result<PartitionStore, String> {
        let store =
            PartitionStore::open(&self.dir, self.settings.clone(), now_ms()).map_err(|error| error.to_string())?;
        self.import_from(&store, &self.generation)?;
        Ok(store)
    }

    /// Has the store keep the states of the encoders that are routed to, and of `encoder`.
    fn keep_states_of(&self, store: &PartitionStore, encoder: &EncoderVersion) {
        let mut encoders: Vec<EncoderVersion> =
            self.routing.table().encoders().into_iter().map(|by| by.encoder).collect();
        if !encoders.contains(encoder) {
            encoders.push(encoder.clone());
        }
        store.keep_states_of(encoders);
    }

    /// Blocking: makes sure that the store holds the users that `generation` ships.
    fn import_from(&self, store: &PartitionStore, generation: &Generation) -> Result<(), String> {
        self.keep_states_of(store, &generation.manifest.versions.encoder);
        let id = &generation.manifest.id;
        if store.has_imported(id).map_err(|error| error.to_string())? {
            return Ok(());
        }
        let file = users_file(self.partition);
        generation.verify(&file).map_err(|error| error.to_string())?;
        let mut go_on = |_: u64| std::ops::ControlFlow::Continue(());
        let imported = store.import_snapshot(&generation.dir.join(file), id, now_ms(), &mut go_on);
        for user in imported.map_err(|error| error.to_string())?.damaged {
            tracing::error!(%user, partition = %self.partition, "records cannot be read; not joined with those of {id}");
        }
        Ok(())
    }

    fn opened(&self, store: Box<PartitionStore>, myself: &ActorRef<Msg>, state: &mut State) {
        let partition = self.partition.to_string();
        tracing::info!(partition, users = store.stats().users, "user partition serves");
        state.store = Some(Arc::from(store));
        self.sweep_after(Duration::ZERO, None, myself);
        ractor::pg::join(groups::users(self.partition), vec![myself.get_cell()]);
    }

    fn view(&self, ask: Wire<ViewAsk>, reply: Reply<Option<UserView>>, myself: &ActorRef<Msg>, state: &State) {
        self.on_store(&self.reads, (ask, reply), myself, state, |store, ask| {
            let view = store.view(&ask.user, &ask.encoder).map_err(|error| Refusal::Failed(error.to_string()))?;
            Ok(view.map(|view| {
                let is_current = view.is_current();
                let state = |state: turret_store::StoredState| StateView {
                    is_current,
                    made_at_ms: state.made_at_ms,
                    history: EncodedHistory::new(state.encoder, state.sequence),
                };
                UserView { demographics: view.demographics, state: view.state.map(state) }
            }))
        });
    }

    fn write(&self, ask: Wire<WriteAsk>, reply: Reply<WriteReply>, state: &mut State) {
        let ask = match self.admit(ask, state) {
            Ok((ask, _)) => ask,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        // Whoever sent it, what stands in the store keeps the rules.
        let rule = ask.writes.iter().find_map(|write| match &write.change {
            Change::Describe(demographics) => demographics.check().err(),
            Change::Append(_) | Change::Erase => None,
        });
        if let Some(rule) = rule {
            return answer(reply, Err(Refusal::Failed(rule.to_string())));
        }
        if let Err(reply) = state.group.push(ask, reply) {
            answer(reply, Err(Refusal::Overloaded));
        }
    }

    fn profile(&self, user: Wire<UserId>, reply: Reply<Option<Profile>>, myself: &ActorRef<Msg>, state: &State) {
        self.on_store(&self.reads, (user, reply), myself, state, |store, user| {
            store.profile(&user).map_err(|error| Refusal::Failed(error.to_string()))
        });
    }

    fn traces(&self, user: Wire<UserId>, reply: Reply<Traces>, myself: &ActorRef<Msg>, state: &State) {
        let (generations, is_elsewhere) = (self.generation.dir.clone(), self.is_elsewhere);
        self.on_store(&self.traces, (user, reply), myself, state, move |_, user| {
            traces::of(&user, &generations, is_elsewhere).map_err(|error| Refusal::Failed(error.to_string()))
        });
    }

    fn count_dirty(&self, ask: Wire<EncoderVersion>, reply: Reply<u64>, myself: &ActorRef<Msg>, state: &State) {
        self.on_store(&self.scans, (ask, reply), myself, state, move |store, encoder| {
            store.count_dirty(&encoder).map_err(|error| Refusal::Failed(error.to_string()))
        });
    }

    /// Of a generation that lies beside the one that the node started with.
    fn import(&self, ask: Wire<GenerationId>, reply: Reply<()>, myself: &ActorRef<Msg>, state: &State) {
        let own = self.clone();
        self.on_store(&self.loads, (ask, reply), myself, state, move |store, id| {
            let failed = |error: &dyn std::fmt::Display| Refusal::Failed(error.to_string());
            let generation = own.generation.beside(&id).map_err(|error| failed(&error))?;
            own.import_from(store, &generation).map_err(|why| failed(&why))
        });
    }

    fn sweep_due(&self, after: Option<UserId>, myself: &ActorRef<Msg>, state: &State) {
        if let Some(store) = &state.store {
            self.sweep(store, after, myself);
        }
    }

    fn refresh_page(
        &self,
        ask: Wire<RefreshPageAsk>,
        reply: Reply<RefreshedPage>,
        myself: &ActorRef<Msg>,
        state: &mut State,
    ) {
        let (ask, store) = match self.admit(ask, state) {
            Ok(admitted) => admitted,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        if std::mem::replace(&mut state.page_running, true) {
            return answer(reply, Err(Refusal::Overloaded));
        }
        let (own, myself) = (self.clone(), myself.clone());
        // One page at a time, so this spawn is bounded; the page itself is bounded by `users_max` and by time.
        tokio::spawn(async move {
            // A page that panicked must not keep all others out.
            let paged = AssertUnwindSafe(page::refresh(&own, store, ask)).catch_unwind().await;
            let result = paged.unwrap_or_else(|_| Err(Refusal::Failed("the page panicked".to_owned())));
            if let Ok(page) = &result {
                own.metrics.refresh_users.with_label_values(&["refreshed"]).inc_by(u64::from(page.refreshed));
            }
            answer(reply, result);
            note(&myself, Note::PageDone);
        });
    }

    /// Bounded by the users of one ask; the worker's queue bounds how many are encoded at once.
    fn refresh_users(&self, ask: Wire<RefreshUsersAsk>, reply: Reply<RefreshedUsers>, state: &State) {
        let (ask, store) = match self.admit(ask, state) {
            Ok(admitted) => admitted,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        if ask.users.len() > REFRESH_USERS_MAX {
            let why = format!("{} users, the limit is {REFRESH_USERS_MAX}", ask.users.len());
            return answer(reply, Err(Refusal::Failed(why)));
        }
        let own = self.clone();
        tokio::spawn(async move {
            answer(reply, page::refresh_users(&own, store, ask).await);
        });
    }

    fn admit<A>(&self, ask: Wire<A>, state: &State) -> Result<(A, Arc<PartitionStore>), Refusal> {
        let ask = ask.open().map_err(|error| {
            self.metrics.wire_rejected.with_label_values(&["users"]).inc();
            Refusal::Unreadable(error.to_string())
        })?;
        Ok((ask, state.store.clone().ok_or(Refusal::Starting)?))
    }

    /// Runs `work` on one of `threads`, which replies.
    fn on_store<A, T>(
        &self,
        threads: &Offload,
        (ask, reply): (Wire<A>, Reply<T>),
        myself: &ActorRef<Msg>,
        state: &State,
        work: impl FnOnce(&PartitionStore, A) -> Result<T, Refusal> + Send + 'static,
    ) where
        A: Send + 'static,
        T: Send + 'static,
        Wire<Result<T, Refusal>>: BytesConvertable,
    {
        let (ask, store) = match self.admit(ask, state) {
            Ok(admitted) => admitted,
            Err(refusal) => return answer(reply, Err(refusal)),
        };
        let Ok(slot) = threads.reserve() else {
            return answer(reply, Err(Refusal::Overloaded));
        };
        let myself = myself.clone();
        slot.run(
            move || work(&store, ask),
            move |done| {
                let result = done.unwrap_or_else(|Panicked| {
                    note(&myself, Note::StorePanicked);
                    Err(Refusal::Failed("work on the store panicked".to_owned()))
                });
                answer(reply, result);
            },
        );
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, Refusal>)
where
    Wire<Result<T, Refusal>>: BytesConvertable,
{
    // A caller that has gone away needs no answer.
    drop(reply.send(Wire::new(result)));
}
