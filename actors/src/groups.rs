//! Names of process groups and actors.
//!
//! Group membership states facts: an actor joins when it can serve, and leaves by dying. `node_id` changes with every
//! connection, so the node's name is part of every actor's name.

use std::collections::BTreeSet;

use turret_retrieval::ids::{GenerationId, NodeName, PartitionId, ShardId};

/// The group of the replicas of a shard that serve `generation`.
pub fn index(shard: ShardId, generation: &GenerationId) -> String {
    format!("index/{shard}/{generation}")
}

/// The generations of which any shard serves.
pub fn indexed_generations() -> BTreeSet<GenerationId> {
    let groups = ractor::pg::which_groups();
    let generation = |group: &String| GenerationId::new(group.strip_prefix("index/")?.split_once('/')?.1).ok();
    groups.iter().filter_map(generation).collect()
}

/// The group of the actor of the live ads.
pub const ADS: &str = "ads";

/// The group of a user partition.
pub fn users(partition: PartitionId) -> String {
    format!("users/{partition}")
}

/// The group of the inference workers that serve `generation`.
pub fn inference(generation: &GenerationId) -> String {
    format!("inference/{generation}")
}

/// The group of the admin actor of `node`: a member means that the node is joined.
pub fn admin(node: &NodeName) -> String {
    format!("admin/{node}")
}

/// The registered name of an actor: `index-0@a`.
pub fn actor(kind: &str, node: &NodeName) -> String {
    format!("{kind}@{node}")
}
