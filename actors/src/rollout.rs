//! The control role's actor that has one generation take the place of another.
//!
//! Owns the plan, of which there is one at a time, and nothing that serves: what it starts and stops belongs to
//! [`Serving`]. Each phase is written down, then done by a task of its own whose end is the next event. When this actor
//! dies, the next one reads the plan and does the phase again; when the node dies, its next start decides what serves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
use turret_retrieval::ids::{GenerationId, NodeName};

use crate::clock::now_ms;
use crate::depot::{Depot, Wanted};
use crate::generation::{Generation, GenerationError};
use crate::metrics::Metrics;
use crate::node::StartError;
use crate::offload::Offload;
use crate::placement::Placement;
use crate::protocol::{GateReport, Refusal, RolloutStatus, WatchReport};
use crate::retrieve::Retriever;
use crate::routing::RoutingReader;
use crate::serving::Serving;
use crate::task::Task;
use crate::users::Users;

#[cfg(test)]
pub(crate) mod fixture;
mod gates;
mod journal;
mod memory;
mod phases;
pub mod plan;
pub mod tally;
pub mod verdict;

pub use journal::Journal;
use plan::{Event, Outcome, Phase, RolloutPlan};
use tally::Tally;
use verdict::WatchBounds;

/// How a generation is judged, and watched.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutSettings {
    /// The number of ads may change by this share of what it was, and that of users be smaller by it.
    pub ads_change_max: f64,
    /// The recall of its probes against exact search must be at least this.
    pub probe_recall_min: f64,
    /// This share of the latest requests must find a state of its encoder.
    pub states_share_min: f64,
    /// Requests of lately that both answer; 0 for none.
    pub shadow_requests: usize,
    /// How long it is watched.
    pub watch: Duration,
    /// How much worse than the old one it may be meanwhile.
    pub bounds: WatchBounds,
}

/// What this actor receives, from this node only.
pub enum Msg {
    /// A generation is to serve.
    Publish(GenerationId, RpcReplyPort<Result<RolloutPlan, Refusal>>),
    /// The one before is to serve.
    RollBack(RpcReplyPort<Result<RolloutPlan, Refusal>>),
    /// How far it is.
    Status(RpcReplyPort<RolloutStatus>),
    /// The task of this number has judged the new generation by one thing more.
    Gated(u64, GateReport),
    /// That task has looked at what the new generation does.
    Watched(u64, WatchReport),
    /// That task has ended.
    Ended(u64, Event),
}

impl Message for Msg {}

/// See the module.
#[derive(Clone)]
pub struct Rollout {
    /// How generations are judged.
    pub settings: RolloutSettings,
    /// This node.
    pub node: NodeName,
    /// How many nodes are configured.
    pub nodes: usize,
    /// Where the plan is written down.
    pub journal: Journal,
    /// Where generations are published.
    pub depot: Depot,
    /// The generation that the node started with; others lie beside it, once they have been fetched.
    pub first: Generation,
    /// What the node holds of a generation.
    pub placement: Placement,
    /// What runs on the node.
    pub serving: Serving,
    /// Answers what is rehearsed.
    pub retriever: Retriever,
    /// Who is routed to.
    pub routing: RoutingReader,
    /// Where what is published is read.
    pub loads: Offload,
    /// Where plans and manifests are read and written, which nothing long may hold up.
    pub files: Offload,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// The plan, and the task of its phase.
#[derive(Default)]
pub struct State {
    plan: Option<RolloutPlan>,
    /// Numbers tasks, so that what comes of one that was given up is known as such.
    task: u64,
    running: Option<Task>,
    gates: Vec<GateReport>,
    watch: Option<WatchReport>,
    /// What the generation did that was active before the last activation.
    replaced: Option<Arc<Tally>>,
}

/// How long a phase that must not fail waits before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Actor for Rollout {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<State, ActorProcessingErr> {
        let mut state = State { plan: self.journal.read(), ..State::default() };
        self.begin(Duration::ZERO, &myself, &mut state);
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Publish(generation, reply) => drop(reply.send(self.publish(generation, &myself, state))),
            Msg::RollBack(reply) => drop(reply.send(self.roll_back(&myself, state))),
            Msg::Status(reply) => {
                let (gates, watch) = (state.gates.clone(), state.watch);
                drop(reply.send(RolloutStatus { plan: state.plan.clone(), gates, watch }));
            }
            Msg::Gated(task, report) if task == state.task => state.gates.push(report),
            Msg::Watched(task, report) if task == state.task => state.watch = Some(report),
            Msg::Ended(task, event) if task == state.task => self.take(event, &myself, state),
            Msg::Gated(..) | Msg::Watched(..) | Msg::Ended(..) => {}
        }
        Ok(())
    }
}

impl Rollout {
    fn publish(&self, to: GenerationId, myself: &ActorRef<Msg>, state: &mut State) -> Result<RolloutPlan, Refusal> {
        if self.nodes > 1 {
            let why = "a cluster of several nodes takes another generation at its next start";
            return Err(Refusal::Conflict(why.to_owned()));
        }
        if let Some(plan) = state.plan.as_ref().filter(|plan| !plan.is_ended()) {
            let RolloutPlan { run, from, to, .. } = plan;
            return Err(Refusal::Conflict(format!("publication {run} ({from} → {to}) is going on")));
        }
        let from = self.routing.table().manifest.id.clone();
        if from == to {
            return Err(Refusal::Conflict(format!("generation {to} serves already")));
        }
        let run = state.plan.as_ref().map_or(0, |plan| plan.run) + 1;
        let plan = RolloutPlan::new(run, from, to, now_ms());
        *state = State { plan: Some(plan.clone()), task: state.task, ..State::default() };
        self.begin(Duration::ZERO, myself, state);
        Ok(plan)
    }

    fn roll_back(&self, myself: &ActorRef<Msg>, state: &mut State) -> Result<RolloutPlan, Refusal> {
        let nothing = || Refusal::Conflict("no publication is going on, and none has replaced what served".to_owned());
        let plan = state.plan.clone().ok_or_else(nothing)?;
        match &plan.phase {
            // What it replaced has been stopped, so that it is published as every other is.
            Phase::Ended { outcome: Outcome::Published } => self.publish(plan.from, myself, state),
            Phase::Ended { .. } => Err(nothing()),
            Phase::RollingBack { .. } => Ok(plan),
            Phase::Retiring { outcome } => {
                let which = if *outcome == Outcome::Published { &plan.from } else { &plan.to };
                Err(Refusal::Conflict(format!("generation {which} is being stopped; ask again in a moment")))
            }
            Phase::Preparing | Phase::Gating | Phase::Activating | Phase::Watching => {
                self.take(Event::RollBack, myself, state);
                state.plan.clone().ok_or_else(nothing)
            }
        }
    }

    /// Goes on to what follows from `event`; what must not fail is tried again.
    fn take(&self, event: Event, myself: &ActorRef<Msg>, state: &mut State) {
        let Some(plan) = &mut state.plan else { return };
        let why = format!("{event:?}");
        let goes_on = plan.take(event, now_ms());
        let wait = if goes_on { Duration::ZERO } else { AGAIN_AFTER };
        tracing::info!(
            target: "audit", run = plan.run, from = %plan.from, to = %plan.to, phase = ?plan.phase, after = why,
            "publication goes on"
        );
        if let (Phase::Ended { outcome }, true) = (&plan.phase, goes_on) {
            let outcome = match outcome {
                Outcome::Published => "published",
                Outcome::Refused { .. } => "refused",
                Outcome::RolledBack { .. } => "rolled_back",
            };
            self.metrics.rollouts.with_label_values(&[outcome]).inc();
        }
        self.begin(wait, myself, state);
    }

    /// Has a task write the plan down and do its phase; the task of the phase before, if any is left, is given up.
    fn begin(&self, wait: Duration, myself: &ActorRef<Msg>, state: &mut State) {
        drop(state.running.take());
        state.task += 1;
        let Some(plan) = &mut state.plan else { return };
        if matches!(plan.phase, Phase::Activating | Phase::RollingBack { .. }) {
            let table = self.routing.table();
            // A phase that is done again must not take the new one for the old one.
            if table.manifest.id != *plan.serving() {
                state.replaced = Some(table.tally.clone());
            }
        }
        // Once more when it is watched: requests went on meanwhile.
        if let (Phase::Activating | Phase::Watching, Some(replaced)) = (&plan.phase, &state.replaced) {
            plan.before = Some(replaced.counts());
        }
        let plan = plan.clone();
        let (own, myself, task, replaced) = (self.clone(), myself.clone(), state.task, state.replaced.clone());
        let turn = self.journal.turn();
        state.running = Some(Task::spawn(async move {
            tokio::time::sleep(wait).await;
            let tell = |message| drop(myself.cast(message));
            if let Some(event) = own.perform(&plan, (task, turn), replaced, &tell).await {
                tell(Msg::Ended(task, event));
            }
        }));
    }

    fn users(&self) -> Users {
        Users::new(self.routing.clone())
    }
}

/// What a node that starts has to serve.
pub(crate) struct Resumed {
    /// The generation that serves.
    pub(crate) generation: Generation,
    /// The one that is started beside it, so that it can take its place.
    pub(crate) standby: Option<Generation>,
}

/// Decides what a node serves that starts with `current` on disk, by the plan that was cut off, where there is one.
///
/// # Errors
/// When the generation that is to serve is not sound, or cannot be made current.
pub(crate) async fn resume(data_dir: &Path, depot: &Depot, current: Generation) -> Result<Resumed, StartError> {
    let journal = Journal::of(data_dir);
    let alone = |generation| Resumed { generation, standby: None };
    let Some(plan) = journal.read() else { return Ok(alone(current)) };
    let id = &current.manifest.id;
    if plan.is_ended() {
        return Ok(alone(current));
    }
    let (plan, serves) = plan.after_restart(id, now_ms());
    tracing::warn!(run = plan.run, phase = ?plan.phase, generation = %serves, "a publication was cut off");
    let go_on = |_| std::ops::ControlFlow::Continue(());
    let fetch = async |id| depot.fetch(id, Wanted::Everything, &go_on).await;
    let generation = if serves == *id { current } else { fetch(&serves).await? };
    let standby = match plan.standby() {
        Some(standby) => Some(fetch(standby).await?),
        None => None,
    };
    depot.make_current(&serves).await?;
    let write = |source| GenerationError::Write { path: data_dir.to_owned(), source };
    journal.write(journal.turn(), &plan).map_err(write)?;
    Ok(Resumed { generation, standby })
}
