//! The actor that answers for its node: health, status, operators' commands.
//!
//! Its membership in `admin/<node>` is what joined means. It owns no data. Commands are written to the log with the
//! target `audit`.

use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
use turret_retrieval::ids::{GenerationId, NodeName};

use crate::depot::Depot;
use crate::groups;
use crate::metrics::Metrics;
use crate::placement::{Placed, Placement};
use crate::protocol::{AdminRequest, NodeStatus, RefreshStarted, RefreshStatus, Refusal, RolloutStatus};
use crate::refresh;
use crate::rollout;
use crate::rollout::plan::RolloutPlan;
use crate::routing::{RoutingReader, RoutingTable, is_local};
use crate::wire::{Inbox, Wire};

/// For one call to the refresh or rollout actor, which answer at once.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(1);

/// What this actor receives.
pub type Msg = Inbox<AdminRequest, std::convert::Infallible>;

/// See the module.
#[derive(Clone)]
pub struct Admin {
    /// This node.
    pub name: NodeName,
    /// What the node should serve.
    pub placement: Placement,
    /// Who serves what.
    pub routing: RoutingReader,
    /// The refresh actor's registered name, on the control node.
    pub refresh: Option<String>,
    /// The rollout actor's registered name, on the control node.
    pub rollout: Option<String>,
    /// Where generations are published.
    pub depot: Depot,
    /// The node's metrics.
    pub metrics: Metrics,
}

impl Placed {
    /// Whether everything placed here serves, according to `table`.
    pub fn is_ready(&self, table: &RoutingTable) -> bool {
        self.shards.iter().all(|shard| serves(table.shards.get(shard.0 as usize)))
            && self.partitions.iter().all(|partition| serves(table.partitions.get(partition.0 as usize)))
            && (!self.inference || serves(Some(&table.inference)))
    }
}

/// Whether one of these actors is of this node.
fn serves<M>(actors: Option<&Vec<ActorRef<M>>>) -> bool {
    actors.into_iter().flatten().any(|actor| is_local(&actor.get_cell()))
}

impl Actor for Admin {
    type Msg = Msg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        ractor::pg::join(groups::admin(&self.name), vec![myself.get_cell()]);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            Inbox::Request(AdminRequest::Ping(_, reply)) => drop(reply.send(Wire::new(self.name.clone()))),
            Inbox::Request(AdminRequest::Status(_, reply)) => self.status(reply),
            Inbox::Request(AdminRequest::Refresh(ask, reply)) => self.refresh(ask, reply),
            Inbox::Request(AdminRequest::Publish(ask, reply)) => self.publish(ask, reply),
            Inbox::Request(AdminRequest::RollBack(ask, reply)) => self.roll_back(ask, reply),
            Inbox::Note(never) => match never {},
        }
        Ok(())
    }
}

impl Admin {
    fn status(&self, reply: RpcReplyPort<Wire<NodeStatus>>) {
        let own = self.clone();
        // Ends by the refresh actor's timeout.
        tokio::spawn(async move {
            let table = own.routing.table();
            let placed = own.placement.of(&table.manifest);
            let shards = placed.shards.iter().map(|shard| shard.0);
            let partitions = placed.partitions.iter().map(|partition| partition.0);
            let status = NodeStatus {
                node: own.name.clone(),
                generation: table.manifest.id.clone(),
                ready: placed.is_ready(&table),
                restarts: own.metrics.restarts(),
                shards: shards.filter(|s| serves(table.shards.get(*s as usize))).collect(),
                partitions: partitions.filter(|p| serves(table.partitions.get(*p as usize))).collect(),
                refresh: own.refresh_status().await,
                rollout: own.rollout_status().await,
            };
            drop(reply.send(Wire::new(status)));
        });
    }

    async fn refresh_status(&self) -> Option<RefreshStatus> {
        call(&self.refresh_actor()?, refresh::Msg::Status).await
    }

    async fn rollout_status(&self) -> Option<RolloutStatus> {
        call(&self.rollout_actor()?, rollout::Msg::Status).await
    }

    fn refresh(&self, ask: Wire<()>, reply: RpcReplyPort<Wire<Result<RefreshStarted, Refusal>>>) {
        let actor = match self.admit(ask, self.refresh_actor()) {
            Ok(((), actor)) => actor,
            Err(refusal) => return drop(reply.send(Wire::new(Err(refusal)))),
        };
        tracing::info!(target: "audit", node = %self.name, "refresh asked for");
        tokio::spawn(async move {
            let started = call(&actor, refresh::Msg::Start).await.ok_or(Refusal::Overloaded);
            drop(reply.send(Wire::new(started)));
        });
    }

    fn publish(&self, ask: Wire<GenerationId>, reply: PlanReply) {
        let (id, actor) = match self.admit(ask, self.rollout_actor()) {
            Ok(admitted) => admitted,
            Err(refusal) => return drop(reply.send(Wire::new(Err(refusal)))),
        };
        tracing::info!(target: "audit", node = %self.name, generation = %id, "publication asked for");
        let depot = self.depot.clone();
        tokio::spawn(async move {
            let started = match depot.manifest(&id).await {
                Ok(_) => {
                    call(&actor, |reply| rollout::Msg::Publish(id, reply)).await.unwrap_or(Err(Refusal::Overloaded))
                }
                Err(error) if error.is_retryable() => Err(Refusal::Unreachable(error.to_string())),
                Err(error) => Err(Refusal::Conflict(error.to_string())),
            };
            drop(reply.send(Wire::new(started)));
        });
    }

    fn roll_back(&self, ask: Wire<()>, reply: PlanReply) {
        let actor = match self.admit(ask, self.rollout_actor()) {
            Ok(((), actor)) => actor,
            Err(refusal) => return drop(reply.send(Wire::new(Err(refusal)))),
        };
        tracing::info!(target: "audit", node = %self.name, "roll-back asked for");
        tokio::spawn(async move {
            let started = call(&actor, rollout::Msg::RollBack).await.unwrap_or(Err(Refusal::Overloaded));
            drop(reply.send(Wire::new(started)));
        });
    }

    /// What was asked, and the actor that does it.
    fn admit<A, M>(&self, ask: Wire<A>, actor: Option<ActorRef<M>>) -> Result<(A, ActorRef<M>), Refusal> {
        let ask = ask.open().map_err(|error| {
            self.metrics.wire_rejected.with_label_values(&["admin"]).inc();
            Refusal::Unreadable(error.to_string())
        })?;
        let why = || format!("node {} has no control role, or the actor is restarting", self.name);
        Ok((ask, actor.ok_or_else(|| Refusal::Unreachable(why()))?))
    }

    fn refresh_actor(&self) -> Option<ActorRef<refresh::Msg>> {
        ActorRef::where_is(self.refresh.clone()?)
    }

    fn rollout_actor(&self) -> Option<ActorRef<rollout::Msg>> {
        ActorRef::where_is(self.rollout.clone()?)
    }
}

type PlanReply = RpcReplyPort<Wire<Result<RolloutPlan, Refusal>>>;

/// The answer of an actor of this node; none where it did not answer at once.
async fn call<M: Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Option<T> {
    match actor.call(message, Some(CONTROL_TIMEOUT)).await {
        Ok(CallResult::Success(answer)) => Some(answer),
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => None,
    }
}
