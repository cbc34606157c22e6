//! Pure: which node holds which shard and which user partition.
//!
//! Rendezvous hashing over the *configured* members with the role, never over who is alive: a flapping heartbeat moves
//! nothing. Every node computes the same placement from the same file.

use turret_retrieval::generation::Manifest;
use turret_retrieval::hashing::rendezvous;
use turret_retrieval::ids::{NodeName, PartitionId, ShardId};

/// Who holds what, of the configured nodes.
#[derive(Clone, Debug)]
pub struct Placement {
    /// This node.
    pub node: NodeName,
    /// The nodes with the index role.
    pub index: Vec<NodeName>,
    /// Those with the users role.
    pub users: Vec<NodeName>,
    /// Those with the inference role.
    pub inference: Vec<NodeName>,
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

impl Placement {
    /// What this node holds of a generation.
    pub fn of(&self, manifest: &Manifest) -> Placed {
        Placed {
            shards: shards_of(&self.node, &self.index, manifest.shards()),
            partitions: partitions_of(&self.node, &self.users, manifest.partitions()),
            inference: self.inference.contains(&self.node),
        }
    }
}

/// The shards of `shards` in all that `node` holds, of the nodes with the index role.
pub fn shards_of(node: &NodeName, index_nodes: &[NodeName], shards: u32) -> Vec<ShardId> {
    (0..shards).map(ShardId).filter(|shard| owner(&format!("shard/{shard}"), index_nodes) == Some(node)).collect()
}

/// The partitions of `partitions` in all that `node` holds, of the nodes with the users role.
pub fn partitions_of(node: &NodeName, user_nodes: &[NodeName], partitions: u32) -> Vec<PartitionId> {
    let holds = |partition: &PartitionId| owner(&format!("partition/{partition}"), user_nodes) == Some(node);
    (0..partitions).map(PartitionId).filter(holds).collect()
}

fn owner<'a>(key: &str, nodes: &'a [NodeName]) -> Option<&'a NodeName> {
    rendezvous(key, nodes).first().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_shard_and_partition_has_exactly_one_owner(nodes in 1u64..6, shards in 1u32..20) {
            let names: Vec<NodeName> = (0..nodes).map(NodeName::from).collect();
            let mut held: Vec<u32> =
                names.iter().flat_map(|node| shards_of(node, &names, shards)).map(|shard| shard.0).collect();
            held.sort_unstable();
            prop_assert_eq!(held, (0..shards).collect::<Vec<_>>());
            let held: usize = names.iter().map(|node| partitions_of(node, &names, shards).len()).sum();
            prop_assert_eq!(held, shards as usize);
        }
    }
}
