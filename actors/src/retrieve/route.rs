//! Pure: which shards a request goes to, and which it goes to after those.

use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::ShardId;
use turret_retrieval::partitioning::{Clusters, Partitioning, RankShares};
use turret_retrieval::vector::UnitVector;

/// The way of one request through the shards, nearest first; all of them where they are no clusters.
pub(super) struct Route<'a> {
    clusters: Option<&'a Clusters>,
    ranked: Vec<ShardId>,
    /// So many have been asked.
    asked: usize,
}

impl<'a> Route<'a> {
    /// The way of a query in `manifest`'s generation.
    pub(super) fn of(manifest: &'a Manifest, query: &UnitVector) -> Self {
        match &manifest.partitioning {
            Partitioning::Hash => Self::everywhere(manifest),
            Partitioning::Clustered(clusters) => {
                Self { clusters: Some(clusters), ranked: clusters.ranked(query), asked: 0 }
            }
        }
    }

    /// To every shard, wherever it is.
    pub(super) fn everywhere(manifest: &'a Manifest) -> Self {
        Self { clusters: None, ranked: (0..manifest.shards()).map(ShardId).collect(), asked: 0 }
    }

    /// The shards that are still to be asked where the best `wanted` ads are.
    pub(super) fn next(&mut self, wanted: f64) -> &[ShardId] {
        let until = self.clusters.map_or(self.ranked.len(), |clusters| clusters.asked(wanted));
        self.until(until)
    }

    /// All shards that are still to be asked.
    pub(super) fn rest(&mut self) -> &[ShardId] {
        self.until(self.ranked.len())
    }

    fn until(&mut self, until: usize) -> &[ShardId] {
        let from = self.asked;
        self.asked = until.clamp(from, self.ranked.len());
        &self.ranked[from..self.asked]
    }

    /// Whether there is nobody left to ask.
    pub(super) fn is_at_end(&self) -> bool {
        self.asked == self.ranked.len()
    }

    /// The share of the best `wanted` ads that each shard is expected to hold, by shard; absent where that is its share of all ads:
    /// of clusters too, where more are wanted than it was measured for, so that less is promised than is there.
    pub(super) fn shares(&self, wanted: f64) -> Option<Vec<f64>> {
        let RankShares { by_rank, .. } = self.clusters?.shares_of(wanted)?;
        let mut shares = vec![0.0; self.ranked.len()];
        for (shard, share) in self.ranked.iter().zip(by_rank) {
            shares[shard.0 as usize] = *share;
        }
        Some(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::fixture::manifest;

    fn unit(components: &[f32]) -> UnitVector {
        UnitVector::normalize(components.to_vec()).unwrap()
    }

    #[test]
    fn the_nearest_are_asked_first_and_each_once() {
        let clusters = Clusters {
            centroids: vec![unit(&[1.0, 0.0]), unit(&[-1.0, 0.0]), unit(&[0.0, 1.0])],
            target_recall: 0.9,
            probes: 1,
            shares: vec![
                RankShares { k: 10, by_rank: vec![0.95, 0.05, 0.0] },
                RankShares { k: 100, by_rank: vec![0.5, 0.4, 0.1] },
            ],
        };
        let mut of = manifest();
        (of.shard_ads, of.partitioning) = (vec![10; 3], Partitioning::Clustered(clusters));
        let mut route = Route::of(&of, &unit(&[0.2, 1.0]));
        assert_eq!(route.next(10.0), [ShardId(2)]);
        // A filter passes one in ten.
        assert_eq!(route.next(100.0), [ShardId(0)]);
        assert_eq!(route.next(10.0), [], "fewer need nobody else");
        assert_eq!(route.shares(100.0), Some(vec![0.4, 0.1, 0.5]));
        assert_eq!((route.shares(101.0), route.is_at_end()), (None, false));
        assert_eq!(route.rest(), [ShardId(1)]);
        assert!(route.is_at_end());

        let mut everywhere = Route::everywhere(&of);
        assert_eq!((everywhere.next(1.0).len(), everywhere.shares(1.0)), (3, None));
        of.partitioning = Partitioning::Hash;
        assert_eq!(Route::of(&of, &unit(&[0.2, 1.0])).next(1.0), [ShardId(0), ShardId(1), ShardId(2)]);
    }
}
