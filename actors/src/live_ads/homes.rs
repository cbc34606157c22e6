//! Pure: which shards are told of a change, and what becomes of the ad in each.
//!
//! Where shards are clusters the publisher may have put an ad into another than the nearest, and an ad that changes may move. So every
//! shard is told of every change, at one revision: the homes of the ad's embedding get what it is, all others that they have nothing
//! of it. The registers of an ad make that free of order, and a pause reaches the ad wherever it is.

use std::collections::BTreeMap;

use turret_index::{ShardChange, ShardContent};
use turret_retrieval::generation::Manifest;
use turret_retrieval::hashing::shard_of;
use turret_retrieval::ids::{AdId, ShardId};
use turret_retrieval::partitioning::{Clusters, Partitioning};

/// Whether a shard is told of changes of an ad.
pub(super) fn is_told(manifest: &Manifest, ad: &AdId, shard: ShardId) -> bool {
    match &manifest.partitioning {
        Partitioning::Hash => shard_of(ad, manifest.shards()) == shard,
        Partitioning::Clustered(_) => true,
    }
}

/// What a shard that [is told](is_told) of a change is told.
pub(super) fn as_told(manifest: &Manifest, change: &ShardChange, shard: ShardId) -> ShardChange {
    match &manifest.partitioning {
        Partitioning::Hash => change.clone(),
        Partitioning::Clustered(clusters) => {
            let is_home = homes(clusters, change).is_none_or(|homes| homes.contains(&shard));
            if is_home { change.clone() } else { ShardChange { content: ShardContent::Nothing, ..change.clone() } }
        }
    }
}

/// What each shard is told of changes of different ads, in the order in which they are told: what ads are goes before what they are
/// not, so that one that moves is missing at no time.
pub(super) fn told(manifest: &Manifest, changes: Vec<ShardChange>) -> Vec<(ShardId, Vec<ShardChange>)> {
    let (mut first, mut then) = (BTreeMap::<ShardId, Vec<ShardChange>>::new(), BTreeMap::new());
    for change in changes {
        match &manifest.partitioning {
            Partitioning::Hash => first.entry(shard_of(&change.id, manifest.shards())).or_default().push(change),
            Partitioning::Clustered(_) => {
                for shard in (0..manifest.shards()).map(ShardId) {
                    let told = as_told(manifest, &change, shard);
                    let wave = if matches!(told.content, ShardContent::Is(_)) { &mut first } else { &mut then };
                    wave.entry(shard).or_default().push(told);
                }
            }
        }
    }
    first.into_iter().chain(then).collect()
}

/// Where an ad is from a change on; absent where that says nothing of what it is.
fn homes(clusters: &Clusters, change: &ShardChange) -> Option<Vec<ShardId>> {
    match &change.content {
        ShardContent::Is(ad) => Some(clusters.homes(&ad.embedding)),
        ShardContent::AsBuilt | ShardContent::Nothing | ShardContent::Patched(_) => None,
    }
}

#[cfg(test)]
mod tests;
