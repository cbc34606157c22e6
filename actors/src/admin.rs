//! The actor that answers for its node: health, status, operators' commands.
//!
//! Its membership in `admin/<node>` is what joined means. It owns no data. Commands are written to the log with the
//! target `audit`.

use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use turret_retrieval::ids::{NodeName, PartitionId, ShardId};

use crate::groups;
use crate::metrics::Metrics;
use crate::protocol::{AdminRequest, NodeStatus, RefreshStarted, RefreshStatus, Refusal};
use crate::refresh;
use crate::routing::{RoutingReader, RoutingTable, is_local};
use crate::wire::{Inbox, Wire};

/// For one call to the refresh actor, which answers at once.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// What this actor receives.
pub type Msg = Inbox<AdminRequest, std::convert::Infallible>;

/// See the module.
#[derive(Clone)]
pub struct Admin {
    /// This node.
    pub name: NodeName,
    /// What the node should serve: its shards and partitions, and whether it has an inference worker.
    pub placed: Placed,
    /// Who serves what.
    pub routing: RoutingReader,
    /// The refresh actor's registered name, on the control node.
    pub refresh: Option<String>,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// What is placed on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its shards.
    pub shards: Vec<ShardId>,
    /// Its user partitions.
    pub partitions: Vec<PartitionId>,
    /// Whether it runs the model.
    pub inference: bool,
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
            let shards = own.placed.shards.iter().map(|shard| shard.0);
            let partitions = own.placed.partitions.iter().map(|partition| partition.0);
            let status = NodeStatus {
                node: own.name.clone(),
                generation: table.manifest.id.clone(),
                ready: own.placed.is_ready(&table),
                restarts: own.metrics.restarts(),
                shards: shards.filter(|s| serves(table.shards.get(*s as usize))).collect(),
                partitions: partitions.filter(|p| serves(table.partitions.get(*p as usize))).collect(),
                refresh: own.refresh_status().await,
            };
            drop(reply.send(Wire::new(status)));
        });
    }

    async fn refresh_status(&self) -> Option<RefreshStatus> {
        match self.refresh_actor()?.call(refresh::Msg::Status, Some(REFRESH_TIMEOUT)).await {
            Ok(CallResult::Success(status)) => Some(status),
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => None,
        }
    }

    fn refresh(&self, ask: Wire<()>, reply: RpcReplyPort<Wire<Result<RefreshStarted, Refusal>>>) {
        if let Err(error) = ask.open() {
            self.metrics.wire_rejected.with_label_values(&["admin"]).inc();
            return drop(reply.send(Wire::new(Err(Refusal::Unreadable(error.to_string())))));
        }
        tracing::info!(target: "audit", node = %self.name, "refresh asked for");
        let Some(actor) = self.refresh_actor() else {
            let why = format!("node {} has no control role, or its refresh actor is restarting", self.name);
            return drop(reply.send(Wire::new(Err(Refusal::Failed(why)))));
        };
        tokio::spawn(async move {
            let started = match actor.call(refresh::Msg::Start, Some(REFRESH_TIMEOUT)).await {
                Ok(CallResult::Success(started)) => Ok(started),
                Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(Refusal::Overloaded),
            };
            drop(reply.send(Wire::new(started)));
        });
    }

    fn refresh_actor(&self) -> Option<ActorRef<refresh::Msg>> {
        ActorRef::where_is(self.refresh.clone()?)
    }
}
