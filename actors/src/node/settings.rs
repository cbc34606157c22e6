//! What a node is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;

use turret_index::IndexSettings;
use turret_model::DeviceName;
use turret_retrieval::ids::NodeName;
use turret_retrieval::state::Precision;
use turret_store::{Retention, StoreSettings};

use crate::index_shard::{SnapshotSettings, Snapshots};
use crate::inference_worker::batcher::BatcherSettings;
use crate::placement::Placement;
use crate::refresh::schedule::Schedule;
use crate::rollout::RolloutSettings;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Answers requests over HTTP.
    Gateway,
    /// Holds shards.
    Index,
    /// Holds user partitions.
    Users,
    /// Runs the model.
    Inference,
    /// Owns the refresh; exactly one node.
    Control,
}

/// One configured node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// What it does.
    pub roles: Vec<Role>,
    /// Where its cluster port listens; absent in a cluster of one.
    pub cluster: Option<SocketAddr>,
}

/// What a node needs to know to start.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// This node; one of `members`.
    pub name: NodeName,
    /// Every configured node.
    pub members: Vec<Member>,
    /// The cluster's shared secret.
    pub cookie: String,
    /// This node's own directory.
    pub data_dir: PathBuf,
    /// How to index shards.
    pub index: IndexSettings,
    /// When they are written.
    pub snapshots: SnapshotSettings,
    /// How to open user partitions.
    pub store: StoreSettings,
    /// How long they keep things.
    pub retention: Retention,
    /// How exactly they keep the states of a refresh.
    pub state_precision: Precision,
    /// When users with new events are encoded; of the control node.
    pub refresh: Schedule,
    /// The bounds of the inference queue.
    pub inference: BatcherSettings,
    /// What the inference worker computes on.
    pub inference_device: DeviceName,
    /// Threads for searches, and how many searches may wait.
    pub search_threads: usize,
    /// How many searches may wait.
    pub search_queue: usize,
    /// Retrievals that may run at once on this gateway.
    pub in_flight_max: usize,
    /// One of so many answers is compared with an exact scan; 0 for none.
    pub shadow_every: u64,
    /// How a generation takes the place of another; of the control node.
    pub rollout: RolloutSettings,
}

impl NodeSettings {
    /// The nodes with a role, in the order of the configuration.
    pub(super) fn with(&self, role: Role) -> Vec<NodeName> {
        let with = self.members.iter().filter(|member| member.roles.contains(&role));
        with.map(|member| member.name.clone()).collect()
    }

    /// Where its shards are written, and when.
    pub(super) fn snapshots(&self) -> Snapshots {
        Snapshots { dir: self.data_dir.join("index"), settings: self.snapshots }
    }

    /// Who holds what, as this node computes it.
    pub fn placement(&self) -> Placement {
        Placement {
            node: self.name.clone(),
            index: self.with(Role::Index),
            users: self.with(Role::Users),
            inference: self.with(Role::Inference),
        }
    }
}
