//! The control role's actor that recomputes the states of users with new events.
//!
//! Owns the cursor of the run. The work is done where the users are: it asks their partitions for one page after the
//! other. When it dies the run ends; the next one repeats at most the page that was going on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};

use crate::metrics::Metrics;
use crate::protocol::{RefreshPageAsk, RefreshStarted, RefreshStatus, UserRequest};
use crate::routing::RoutingReader;
use crate::user_partition;
use crate::wire::{Inbox, Wire};

pub mod cursor;

use cursor::{Cursor, PageEvent, Step};

/// Users in one page: about a quarter of a second of encoding.
const PAGE_USERS: u32 = 256;
/// For one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// What this actor receives, from this node only.
pub enum Msg {
    /// Starts a run, unless one is going on.
    Start(RpcReplyPort<RefreshStarted>),
    /// Tells how far it is.
    Status(RpcReplyPort<RefreshStatus>),
    /// What a page came to.
    Page(PageEvent),
}

impl Message for Msg {}

/// See the module.
#[derive(Clone)]
pub struct Refresh {
    /// Where the partitions are.
    pub routing: RoutingReader,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The runs of this actor.
pub struct State {
    run: u64,
    cursor: Option<Cursor>,
    running: bool,
}

impl Actor for Refresh {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        Ok(State { run: 0, cursor: None, running: false })
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Start(reply) => self.start(reply, &myself, state),
            Msg::Status(reply) => self.status(reply, state),
            Msg::Page(event) => self.page(event, &myself, state),
        }
        Ok(())
    }
}

impl Refresh {
    fn start(&self, reply: RpcReplyPort<RefreshStarted>, myself: &ActorRef<Msg>, state: &mut State) {
        let started = !state.running;
        if started {
            state.run += 1;
            state.running = true;
            state.cursor = Some(Cursor::new(self.partitions()));
            tracing::info!(run = state.run, "refresh started");
            self.advance(myself, state);
        }
        drop(reply.send(RefreshStarted { run: state.run, started }));
    }

    fn status(&self, reply: RpcReplyPort<RefreshStatus>, state: &State) {
        let status = state.cursor.as_ref().map_or_else(RefreshStatus::default, |cursor| RefreshStatus {
            run: state.run,
            running: state.running,
            users_refreshed: cursor.refreshed,
            partitions_done: cursor.done,
            partitions_failed: cursor.failed,
            partitions: self.partitions(),
        });
        drop(reply.send(status));
    }

    fn page(&self, event: PageEvent, myself: &ActorRef<Msg>, state: &mut State) {
        if let Some(cursor) = state.cursor.as_mut().filter(|_| state.running) {
            cursor.take(event);
            self.advance(myself, state);
        }
    }

    fn advance(&self, myself: &ActorRef<Msg>, state: &mut State) {
        let Some(cursor) = &state.cursor else { return };
        match cursor.step() {
            Step::Finished => {
                state.running = false;
                let (refreshed, failed) = (cursor.refreshed, cursor.failed);
                tracing::info!(run = state.run, refreshed, failed, "refresh ended");
                if failed == 0 {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
                    self.metrics.refresh_last_success.set(now);
                }
            }
            Step::Ask { partition, after, wait } => {
                let (own, myself) = (self.clone(), myself.clone());
                // One page is asked for at a time.
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    let event = own.ask(partition.0 as usize, RefreshPageAsk { after, users_max: PAGE_USERS }).await;
                    // The actor may have ended meanwhile.
                    drop(myself.cast(Msg::Page(event)));
                });
            }
        }
    }

    async fn ask(&self, partition: usize, ask: RefreshPageAsk) -> PageEvent {
        let table = self.routing.table();
        let Some(holder) = table.partitions.get(partition).and_then(|holders| holders.first()) else {
            return PageEvent::Failed;
        };
        let page = |reply| -> user_partition::Msg { Inbox::Request(UserRequest::RefreshPage(Wire::new(ask), reply)) };
        match holder.call(page, Some(PAGE_TIMEOUT)).await {
            Ok(CallResult::Success(answer)) => match answer.open() {
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
