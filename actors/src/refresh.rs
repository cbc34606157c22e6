//! The control role's actor that recomputes the states of users with new events.
//!
//! Owns the schedule, and the cursor of the run. The work is done where the users are: it asks their partitions for one page
//! after the other. When it dies, or the node does, the next one goes on with the run; it repeats at most one
//! chunk of some two milliseconds.

use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};

use crate::clock::now_ms;
use crate::metrics::Metrics;
use crate::offload::{Offload, Panicked};
use crate::protocol::{EncoderOf, RefreshPageAsk, RefreshStarted, RefreshStatus, UserRequest};
use crate::routing::{RoutingReader, RoutingTable};
use crate::user_partition;
use crate::users::Users;
use crate::wire::{Inbox, Wire};

pub mod cursor;
mod journal;
pub mod schedule;

use cursor::{Cursor, PageEvent, Step};
pub use journal::Journal;
use journal::LastRun;
use schedule::Schedule;

/// Users in one page: a second of encoding at most, as long as 4,000 users a second can be encoded; what takes longer is left for the next.
const PAGE_USERS: u32 = 4_096;
/// For counting, which looks at every user of a partition.
const COUNT_TIMEOUT: Duration = Duration::from_secs(60);
/// For partitions and a worker to serve before a run begins.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// For one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// What this actor receives, from this node only.
pub enum Msg {
    /// Starts a run, unless one is going on.
    Start(RpcReplyPort<RefreshStarted>),
    /// Tells how far it is.
    Status(RpcReplyPort<RefreshStatus>),
    /// It is time for a run.
    Due,
    /// Another encoder serves, whose states nobody may have.
    OtherEncoder,
    /// How many users have new events, where all partitions could tell.
    Counted(Option<u64>),
    /// What a page came to.
    Page(PageEvent),
}

impl Message for Msg {}

/// See the module.
#[derive(Clone)]
pub struct Refresh {
    /// When runs start by themselves.
    pub schedule: Schedule,
    /// Which run goes on, written down.
    pub journal: Journal,
    /// Where that is written.
    pub files: Offload,
    /// Where the partitions are.
    pub routing: RoutingReader,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The runs of this actor.
#[derive(Default)]
pub struct State {
    run: u64,
    cursor: Option<Cursor>,
    /// Whose states are made: those of the generation that serves, and of its standby where that has another encoder.
    encoders: Vec<EncoderOf>,
    started_at_ms: i64,
    ended_at_ms: Option<i64>,
    dirty: Option<u64>,
    /// Whether one more run follows this one.
    again: bool,
}

impl State {
    fn is_running(&self) -> bool {
        self.cursor.is_some() && self.ended_at_ms.is_none()
    }
}

impl Actor for Refresh {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        self.arm(&myself);
        let last = self.journal.read();
        let mut state = State { run: last.run, ..State::default() };
        if last.goes_on {
            tracing::warn!(run = last.run, "a refresh was cut off and goes on");
            self.run(last, &myself, &mut state);
        } else if self.schedule.was_missed(last.started_at_ms, now_ms()) {
            tracing::info!("a daily refresh was due since the last began");
            self.start(&myself, &mut state);
        }
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Start(reply) => {
                let started = self.start(&myself, state);
                drop(reply.send(RefreshStarted { run: state.run, started }));
            }
            Msg::OtherEncoder => {
                // A run that began before may not know it.
                state.again = !self.start(&myself, state);
            }
            Msg::Due => {
                if !self.start(&myself, state) {
                    tracing::warn!(run = state.run, "a refresh is due while one is going on");
                }
                self.arm(&myself);
            }
            Msg::Counted(dirty) => {
                state.dirty = dirty;
                self.advance(&myself, state).await;
            }
            Msg::Status(reply) => self.status(reply, state),
            Msg::Page(event) => self.page(event, &myself, state).await,
        }
        Ok(())
    }
}

impl Refresh {
    /// Has the next run start when it is due.
    fn arm(&self, myself: &ActorRef<Msg>) {
        if let Some(wait) = self.schedule.wait(now_ms()) {
            myself.send_after(wait, || Msg::Due);
        }
    }

    /// Starts a run, unless one is going on: counts first, so that its end can be told.
    fn start(&self, myself: &ActorRef<Msg>, state: &mut State) -> bool {
        if state.is_running() {
            return false;
        }
        self.run(LastRun { run: state.run + 1, started_at_ms: now_ms(), goes_on: true }, myself, state);
        true
    }

    fn run(&self, run: LastRun, myself: &ActorRef<Msg>, state: &mut State) {
        let encoders = self.routing.table().encoders();
        *state = State {
            run: run.run,
            cursor: Some(Cursor::new(self.partitions() * encoders.len() as u32)),
            encoders: encoders.clone(),
            started_at_ms: run.started_at_ms,
            ..State::default()
        };
        tracing::info!(run = state.run, encoders = encoders.len(), "refresh started");
        let (users, own, myself) = (Users::new(self.routing.clone()), self.clone(), myself.clone());
        // Ends by its timeouts.
        tokio::spawn(async move {
            own.write_down(run).await;
            // After a start of the node its partitions are opened first; what waits longer than this is given up on as usual.
            let serve = |table: &RoutingTable| {
                table.partitions.iter().all(|holders| !holders.is_empty()) && !table.inference.is_empty()
            };
            drop(tokio::time::timeout(START_TIMEOUT, own.routing.clone().wait_for(serve)).await);
            let mut dirty = Some(0);
            for EncoderOf { encoder, .. } in encoders {
                let counted = users.count_dirty(&encoder, COUNT_TIMEOUT).await;
                if let Err(error) = &counted {
                    tracing::warn!(%error, "users with new events could not be counted");
                }
                dirty = dirty.zip(counted.ok()).map(|(all, some)| all + some);
            }
            drop(myself.cast(Msg::Counted(dirty)));
        });
    }

    /// A run that cannot be written down goes on, and is not gone on with after the node's end.
    async fn write_down(&self, run: LastRun) {
        let journal = self.journal.clone();
        let written = self.files.run(move || journal.write(&run)).await;
        if let Err(error) = written.unwrap_or_else(|Panicked| Err(std::io::Error::other("writing panicked"))) {
            tracing::warn!(%error, run = run.run, "a refresh cannot be written down");
        }
    }

    fn status(&self, reply: RpcReplyPort<RefreshStatus>, state: &State) {
        let status = state.cursor.as_ref().map_or_else(RefreshStatus::default, |cursor| RefreshStatus {
            run: state.run,
            running: state.is_running(),
            started_at_ms: state.started_at_ms,
            ended_at_ms: state.ended_at_ms,
            users_dirty: state.dirty,
            users_refreshed: cursor.refreshed,
            partitions_done: cursor.done,
            partitions_failed: cursor.failed,
            partitions: cursor.partitions(),
        });
        drop(reply.send(status));
    }

    async fn page(&self, event: PageEvent, myself: &ActorRef<Msg>, state: &mut State) {
        if state.is_running()
            && let Some(cursor) = state.cursor.as_mut()
        {
            cursor.take(event);
            self.advance(myself, state).await;
        }
    }

    async fn advance(&self, myself: &ActorRef<Msg>, state: &mut State) {
        let Some(cursor) = &state.cursor else { return };
        match cursor.step() {
            Step::Finished => {
                state.ended_at_ms = Some(now_ms());
                let (refreshed, failed) = (cursor.refreshed, cursor.failed);
                tracing::info!(run = state.run, refreshed, failed, "refresh ended");
                // Before its end is told, and before another begins.
                self.write_down(LastRun { run: state.run, started_at_ms: state.started_at_ms, goes_on: false }).await;
                if failed == 0 {
                    self.metrics.refresh_last_success.set(now_ms() as f64 / 1e3);
                }
                if std::mem::take(&mut state.again) {
                    self.start(myself, state);
                }
            }
            Step::Ask { partition, after, wait } => {
                // Known by its time: runs are counted anew where the journal was lost, and partitions remember how far one came.
                let (own, myself, run) = (self.clone(), myself.clone(), state.started_at_ms as u64);
                // Partition by partition for one encoder, then for the next.
                let (partitions, unit) = (self.partitions().max(1), partition.0);
                let by = state.encoders[(unit / partitions) as usize % state.encoders.len()].clone();
                // One page is asked for at a time.
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    let ask = RefreshPageAsk { run, by, after, users_max: PAGE_USERS };
                    let event = own.ask((unit % partitions) as usize, ask).await;
                    // The actor may have ended meanwhile.
                    drop(myself.cast(Msg::Page(event)));
                });
            }
        }
    }

    async fn ask(&self, partition: usize, ask: RefreshPageAsk) -> PageEvent {
        let table = self.routing.table();
        // Another generation may have taken over the encoder.
        let by = table.encoders().into_iter().find(|by| by.encoder == ask.by.encoder);
        let Some(by) = by else {
            // Retired meanwhile: nobody needs its states any more.
            return PageEvent::Done { refreshed: 0, next: None };
        };
        let ask = RefreshPageAsk { by, ..ask };
        let Some(holder) = table.partitions.get(partition).and_then(|holders| holders.first()) else {
            return PageEvent::Failed;
        };
        let page = |reply| -> user_partition::Msg { Inbox::Request(UserRequest::RefreshPage(Wire::new(ask), reply)) };
        match holder.call(page, Some(PAGE_TIMEOUT)).await {
            Ok(CallResult::Success(answer)) => match answer.open() {
                Ok(Ok(page)) if !page.is_whole => PageEvent::Part { refreshed: page.refreshed },
                Ok(Ok(page)) => PageEvent::Done { refreshed: page.refreshed, next: page.next },
                Ok(Err(refusal)) => {
                    self.metrics.refresh_users.with_label_values(&["failed_page"]).inc();
                    tracing::warn!(partition, %refusal, "refresh page refused");
                    PageEvent::Failed
                }
                Err(error) => {
                    tracing::warn!(partition, %error, "refresh page could not be read");
                    PageEvent::Failed
                }
            },
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => PageEvent::Failed,
        }
    }

    fn partitions(&self) -> u32 {
        self.routing.table().manifest.partitions()
    }
}
