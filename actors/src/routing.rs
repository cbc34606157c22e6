//! The actor that turns process groups into the routing table.
//!
//! Owns nothing but the table: group membership is the one registry, and this is a pure function of it. Readers hold a
//! watch channel and never wait for this actor.

use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, Message, SupervisionEvent};
use tokio::sync::watch;
use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::{PartitionId, ShardId};

use crate::{groups, index_shard, inference_worker, user_partition};

/// Who serves what, at one moment. Members of this node come first in every list.
pub struct RoutingTable {
    /// The generation that is routed to.
    pub manifest: Arc<Manifest>,
    /// The replicas of each shard.
    pub shards: Vec<Vec<ActorRef<index_shard::Msg>>>,
    /// The holder of each user partition.
    pub partitions: Vec<Vec<ActorRef<user_partition::Msg>>>,
    /// The inference workers.
    pub inference: Vec<ActorRef<inference_worker::Msg>>,
}

impl RoutingTable {
    /// Nothing serves yet.
    pub fn empty(manifest: Arc<Manifest>) -> Self {
        Self {
            shards: (0..manifest.shards()).map(|_| Vec::new()).collect(),
            partitions: (0..manifest.partitions()).map(|_| Vec::new()).collect(),
            inference: Vec::new(),
            manifest,
        }
    }

    /// What the process groups say now.
    fn read(manifest: Arc<Manifest>) -> Self {
        let generation = &manifest.id;
        Self {
            shards: (0..manifest.shards()).map(|s| members(groups::index(ShardId(s), generation))).collect(),
            partitions: (0..manifest.partitions()).map(|p| members(groups::users(PartitionId(p)))).collect(),
            inference: members(groups::inference(generation)),
            manifest,
        }
    }
}

/// The members of a group, those of this node first, then by name.
fn members<M: Message>(group: String) -> Vec<ActorRef<M>> {
    let mut cells: Vec<ActorCell> = ractor::pg::get_members(&group);
    cells.sort_by_key(|cell| (!is_local(cell), cell.get_name()));
    cells.into_iter().map(ActorRef::from).collect()
}

/// Whether an actor lives on this node.
pub fn is_local(cell: &ActorCell) -> bool {
    match cell.get_id() {
        ActorId::Local(_) => true,
        ActorId::Remote { .. } => false,
    }
}

/// Reads the newest routing table.
#[derive(Clone)]
pub struct RoutingReader(watch::Receiver<Arc<RoutingTable>>);

impl RoutingReader {
    /// The newest table; a request keeps the one it started with.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.0.borrow().clone()
    }

    /// Waits until `ready` holds for the table.
    pub async fn wait_for(&mut self, mut ready: impl FnMut(&RoutingTable) -> bool) {
        // The sender lives as long as the node; when it is gone there is nothing left to wait for.
        drop(self.0.wait_for(|table| ready(table)).await);
    }
}

/// A channel for the table, before the actor starts.
pub fn channel(manifest: Arc<Manifest>) -> (watch::Sender<Arc<RoutingTable>>, RoutingReader) {
    let (sender, receiver) = watch::channel(Arc::new(RoutingTable::empty(manifest)));
    (sender, RoutingReader(receiver))
}

/// A note to read the groups once more.
pub struct Reread;

impl Message for Reread {}

/// See the module.
#[derive(Clone)]
pub struct Routing {
    /// The generation to route to.
    pub manifest: Arc<Manifest>,
    /// Where the table is published.
    pub table: watch::Sender<Arc<RoutingTable>>,
}

impl Actor for Routing {
    type Msg = Reread;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Reread>, (): ()) -> Result<(), ActorProcessingErr> {
        let manifest = &self.manifest;
        let shards = (0..manifest.shards()).map(|shard| groups::index(ShardId(shard), &manifest.id));
        let partitions = (0..manifest.partitions()).map(|partition| groups::users(PartitionId(partition)));
        for group in shards.chain(partitions).chain([groups::inference(&manifest.id)]) {
            ractor::pg::monitor(group, myself.get_cell());
        }
        // What joined before the monitors stood is read now.
        myself.cast(Reread)?;
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Reread>, Reread: Reread, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.table.send_replace(Arc::new(RoutingTable::read(self.manifest.clone())));
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Reread>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if matches!(event, SupervisionEvent::ProcessGroupChanged(_)) {
            self.table.send_replace(Arc::new(RoutingTable::read(self.manifest.clone())));
        }
        Ok(())
    }
}
