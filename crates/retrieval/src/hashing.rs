//! Stable hashes: which shard, which partition, which node.
//!
//! Every hash here is XXH3 (64 bit) over fixed bytes, so the result is the same on every machine and in every release.
//! Changing one moves data; it needs a new generation and an export of user state.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::ids::{AdId, NodeName, PartitionId, ShardId, UserId};

/// Hashes `bytes` under `seed`.
pub fn stable_hash(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// Maps a hash to `0..buckets` without the bias of a remainder (Lemire's multiply-shift reduction).
pub fn reduce(hash: u64, buckets: u32) -> u32 {
    ((u128::from(hash) * u128::from(buckets)) >> 64) as u32
}

/// The shard that holds `ad`, of `shards` in all.
///
/// # Panics
/// When `shards` is 0, which the configuration refuses.
pub fn shard_of(ad: &AdId, shards: u32) -> ShardId {
    assert!(shards > 0, "a generation has at least one shard");
    ShardId(reduce(xxh3_64_with_seed(ad.as_str().as_bytes(), 1), shards))
}

/// The partition that holds `user`, of `partitions` in all.
///
/// # Panics
/// When `partitions` is 0, which the configuration refuses.
pub fn partition_of(user: &UserId, partitions: u32) -> PartitionId {
    assert!(partitions > 0, "a cluster has at least one user partition");
    PartitionId(reduce(xxh3_64_with_seed(user.as_str().as_bytes(), 2), partitions))
}

/// The nodes in the order in which they are preferred for `key`: rendezvous (highest random weight) hashing.
///
/// Removing a node moves only the keys that it was first for. Thaler and Ravishankar, "Using name-based mappings to
/// increase hit rates", 1998.
pub fn rendezvous<'a>(key: &str, nodes: &'a [NodeName]) -> Vec<&'a NodeName> {
    let mut ranked: Vec<(u64, &NodeName)> =
        nodes.iter().map(|node| (stable_hash(xxh3_64(node.as_str().as_bytes()), key.as_bytes()), node)).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    ranked.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(count: u64) -> Vec<NodeName> {
        (0..count).map(NodeName::from).collect()
    }

    #[test]
    fn hashes_are_what_they_were() {
        assert_eq!(stable_hash(7, b"turret"), xxh3_64_with_seed(b"turret", 7));
        let shards: Vec<u32> = (0..12).map(|i| shard_of(&AdId::from(i), 4).0).collect();
        assert_eq!(shards, [2, 2, 2, 2, 1, 0, 1, 0, 2, 1, 3, 2]);
        let partitions: Vec<u32> = (0..12).map(|i| partition_of(&UserId::from(i), 4).0).collect();
        assert_eq!(partitions, [1, 0, 2, 1, 3, 2, 1, 2, 1, 2, 0, 2]);
    }

    proptest! {
        #[test]
        fn losing_a_node_moves_only_its_own_keys(count in 2u64..9, lost in 0u64..9, key in "[a-z]{1,12}") {
            let before = nodes(count);
            let lost = NodeName::from(lost % count);
            let after: Vec<NodeName> = before.iter().filter(|node| **node != lost).cloned().collect();
            let owner = rendezvous(&key, &before)[0].clone();
            if owner != lost {
                prop_assert_eq!(rendezvous(&key, &after)[0], &owner);
            } else {
                prop_assert_eq!(rendezvous(&key, &after)[0], rendezvous(&key, &before)[1]);
            }
        }

        #[test]
        fn shards_are_filled_evenly(shards in 1u32..17) {
            let mut counts = vec![0u32; shards as usize];
            (0..shards * 1000).for_each(|i| counts[shard_of(&AdId::from(u64::from(i)), shards).0 as usize] += 1);
            prop_assert!(counts.iter().all(|count| (800..1200).contains(count)), "{:?}", counts);
        }
    }
}
