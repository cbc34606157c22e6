//! The actor that turns process groups into the routing table.
//!
//! Owns nothing but the table: group membership is the one registry, and this is a pure function of it. Readers hold a
//! watch channel and never wait for this actor.

use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, Message, RpcReplyPort, SupervisionEvent};
use tokio::sync::watch;
use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::{GenerationId, PartitionId, ShardId};

use crate::metrics::Metrics;
use crate::protocol::EncoderOf;
use crate::rollout::tally::Tally;
use crate::{groups, index_shard, inference_worker, user_partition};

/// Who serves what, at one moment. Members of this node come first in every list.
pub struct RoutingTable {
    /// The generation that is routed to.
    pub manifest: Arc<Manifest>,
    /// The one that must be ready to take its place; nobody is routed to it.
    pub standby: Option<Arc<Manifest>>,
    /// What the requests come to that are routed by this table.
    pub tally: Arc<Tally>,
    /// The replicas of each shard.
    pub shards: Vec<Vec<ActorRef<index_shard::Msg>>>,
    /// The holder of each user partition.
    pub partitions: Vec<Vec<ActorRef<user_partition::Msg>>>,
    /// The inference workers.
    pub inference: Vec<ActorRef<inference_worker::Msg>>,
}

impl RoutingTable {
    /// Nothing serves yet.
    pub fn empty(manifest: Arc<Manifest>, standby: Option<Arc<Manifest>>) -> Self {
        Self {
            standby,
            tally: Arc::default(),
            shards: (0..manifest.shards()).map(|_| Vec::new()).collect(),
            partitions: (0..manifest.partitions()).map(|_| Vec::new()).collect(),
            inference: Vec::new(),
            manifest,
        }
    }

    /// Whose states users need: the encoder that serves, and the standby's where it is another.
    pub fn encoders(&self) -> Vec<EncoderOf> {
        let mut encoders: Vec<EncoderOf> = Vec::new();
        for manifest in [Some(&self.manifest), self.standby.as_ref()].into_iter().flatten() {
            let encoder = &manifest.versions.encoder;
            if encoders.iter().all(|known| known.encoder != *encoder) {
                encoders.push(EncoderOf { generation: manifest.id.clone(), encoder: encoder.clone() });
            }
        }
        encoders
    }

    /// What the process groups say now of a generation that nobody is routed to.
    pub fn beside(manifest: Arc<Manifest>) -> Self {
        Self::read(manifest, None, Arc::default())
    }

    /// What the process groups say now.
    fn read(manifest: Arc<Manifest>, standby: Option<Arc<Manifest>>, tally: Arc<Tally>) -> Self {
        let generation = &manifest.id;
        Self {
            standby,
            tally,
            shards: (0..manifest.shards()).map(|s| members(groups::index(ShardId(s), generation))).collect(),
            partitions: (0..manifest.partitions()).map(|p| members(groups::users(PartitionId(p)))).collect(),
            inference: workers(generation),
            manifest,
        }
    }
}

/// The inference workers of a generation, those of this node first.
pub fn workers(generation: &GenerationId) -> Vec<ActorRef<inference_worker::Msg>> {
    members(groups::inference(generation))
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
pub fn channel(
    manifest: Arc<Manifest>,
    standby: Option<Arc<Manifest>>,
) -> (watch::Sender<Arc<RoutingTable>>, RoutingReader) {
    let (sender, receiver) = watch::channel(Arc::new(RoutingTable::empty(manifest, standby)));
    (sender, RoutingReader(receiver))
}

/// What this actor receives, from this node only.
pub enum Msg {
    /// Read the groups once more.
    Reread,
    /// Route to a generation from now on, with another as its standby; answered when the table says so.
    Serve(Arc<Manifest>, Option<Arc<Manifest>>, RpcReplyPort<()>),
}

impl Message for Msg {}

/// See the module. The generation is that of the table, so that a restarted actor goes on with it.
#[derive(Clone)]
pub struct Routing {
    /// Where the table is published.
    pub table: watch::Sender<Arc<RoutingTable>>,
    /// The node's metrics.
    pub metrics: Metrics,
}

impl Actor for Routing {
    type Msg = Msg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        let manifest = self.current().manifest.clone();
        for partition in (0..manifest.partitions()).map(PartitionId) {
            ractor::pg::monitor(groups::users(partition), myself.get_cell());
        }
        for group in groups_of(&manifest) {
            ractor::pg::monitor(group, myself.get_cell());
        }
        // What joined before the monitors stood is read now.
        myself.cast(Msg::Reread)?;
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Msg>, message: Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Reread => self.reread(),
            Msg::Serve(manifest, standby, reply) => {
                self.serve(manifest, standby, &myself);
                drop(reply.send(()));
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Msg>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if matches!(event, SupervisionEvent::ProcessGroupChanged(_)) {
            self.reread();
        }
        Ok(())
    }
}

impl Routing {
    fn current(&self) -> Arc<RoutingTable> {
        self.table.borrow().clone()
    }

    fn reread(&self) {
        let old = self.current();
        self.publish(RoutingTable::read(old.manifest.clone(), old.standby.clone(), old.tally.clone()));
    }

    fn serve(&self, manifest: Arc<Manifest>, standby: Option<Arc<Manifest>>, myself: &ActorRef<Msg>) {
        let old = self.current();
        let tally = if old.manifest.id == manifest.id {
            old.tally.clone()
        } else {
            groups_of(&old.manifest).for_each(|group| ractor::pg::demonitor(group, myself.get_id()));
            groups_of(&manifest).for_each(|group| ractor::pg::monitor(group, myself.get_cell()));
            tracing::info!(generation = %manifest.id, before = %old.manifest.id, "another generation is routed to");
            Arc::default()
        };
        self.publish(RoutingTable::read(manifest, standby, tally));
    }

    fn publish(&self, table: RoutingTable) {
        let created_s = table.manifest.created_at_ms as f64 / 1e3;
        let is_here = |replicas: &Vec<ActorRef<_>>| replicas.iter().any(|replica| is_local(&replica.get_cell()));
        // Those of the table before, too: the next one may have fewer.
        for shard in 0..table.shards.len().max(self.current().shards.len()) {
            let label = shard.to_string();
            if table.shards.get(shard).is_some_and(is_here) {
                self.metrics.index_generation.with_label_values(&[&label]).set(created_s);
            } else {
                drop(self.metrics.index_generation.remove_label_values(&[&label]));
            }
        }
        self.table.send_replace(Arc::new(table));
    }
}

/// The groups that are a generation's alone.
fn groups_of(manifest: &Manifest) -> impl Iterator<Item = String> {
    let shards = (0..manifest.shards()).map(|shard| groups::index(ShardId(shard), &manifest.id));
    shards.chain([groups::inference(&manifest.id)])
}
