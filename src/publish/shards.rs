//! Which shard each ad of a generation gets.

use std::collections::HashSet;

use anyhow::bail;
use turret_index::{ClusterSettings, ShardAd, cluster};
use turret_retrieval::generation::BuiltRecall;
use turret_retrieval::hashing::shard_of;
use turret_retrieval::ids::{AdId, ShardId};
use turret_retrieval::partitioning::{CENTROID_NUMBERS_MAX, Clusters, Partitioning, RankShares};
use turret_retrieval::topk::Hit;
use turret_retrieval::vector::UnitVector;

/// How ads are to be spread over the shards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// By the hash of their ids.
    Hash,
    /// By where their embeddings lie.
    Clustered {
        /// The share of the best ads that the shards asked are to hold.
        target_recall: f64,
    },
}

/// The most ads of a cluster, in units of the mean: what a node's memory and the slowest shard of a search are measured by.
/// docs/performance.md has what other bounds cost.
pub const FULLNESS_MAX: f64 = 1.05;

/// One data set is cut the same way each time.
const SEED: u64 = 1;

/// Of how many best ads it is measured where they lie: requests for more than the last go to every shard.
pub(super) const KS: [usize; 3] = [10, 100, 1_000];

impl Spread {
    /// Whether so many shards can be made of embeddings of this dimension.
    ///
    /// # Errors
    /// Names the setting.
    pub(super) fn check(self, shards: u32, dimension: usize) -> anyhow::Result<()> {
        let numbers = shards as usize * dimension;
        if self != Self::Hash && numbers > CENTROID_NUMBERS_MAX {
            bail!(
                "index.partitioning: {shards} clusters of {dimension} dimensions have {numbers} numbers, the limit is {CENTROID_NUMBERS_MAX}"
            );
        }
        Ok(())
    }

    /// Sorts ads into shards; with the centroids, where these are clusters.
    pub(super) fn split(
        self,
        ads: Vec<ShardAd>,
        shards: u32,
        dimension: usize,
    ) -> (Vec<Vec<ShardAd>>, Option<Vec<UnitVector>>) {
        let (shard_of_ad, centroids) = match self {
            Self::Hash => (ads.iter().map(|row| shard_of(&row.ad.id, shards).0).collect(), None),
            Self::Clustered { .. } => {
                let vectors: Vec<&[f32]> = ads.iter().map(|row| row.embedding.as_slice()).collect();
                let settings = ClusterSettings { clusters: shards as usize, fullness_max: FULLNESS_MAX, seed: SEED };
                let clustering = cluster(&vectors, dimension, &settings);
                (clustering.cluster_of, Some(clustering.centroids))
            }
        };
        let mut split: Vec<Vec<ShardAd>> = (0..shards).map(|_| Vec::new()).collect();
        for (ad, shard) in ads.into_iter().zip(shard_of_ad) {
            split[shard as usize].push(ad);
        }
        (split, centroids)
    }

    /// What the manifest says of it: `exact` holds the best ads of each query with their shards, best first.
    pub(super) fn partitioning(
        self,
        centroids: Option<Vec<UnitVector>>,
        queries: &[UnitVector],
        exact: &[Vec<(Hit, ShardId)>],
    ) -> Partitioning {
        let (Self::Clustered { target_recall }, Some(centroids)) = (self, centroids) else { return Partitioning::Hash };
        let mut clusters = Clusters { centroids, target_recall, probes: queries.len() as u32, shares: Vec::new() };
        let ranked: Vec<Vec<ShardId>> = queries.iter().map(|query| clusters.ranked(query)).collect();
        let most = exact.iter().map(Vec::len).max().unwrap_or_default();
        // Where there are fewer ads, all of them are the best.
        let last = KS.iter().position(|k| *k >= most).unwrap_or(KS.len() - 1);
        clusters.shares = KS[..=last].iter().map(|k| shares(*k, &ranked, exact, clusters.centroids.len())).collect();
        Partitioning::Clustered(clusters)
    }
}

fn shares(k: usize, ranked: &[Vec<ShardId>], exact: &[Vec<(Hit, ShardId)>], shards: usize) -> RankShares {
    let mut counts = vec![0u64; shards];
    for (ranked, best) in ranked.iter().zip(exact) {
        for (_, shard) in best.iter().take(k) {
            if let Some(rank) = ranked.iter().position(|ranked| ranked == shard) {
                counts[rank] += 1;
            }
        }
    }
    let total: u64 = counts.iter().sum();
    // Where nothing was found, nothing is known: then every shard is as good.
    let share = |count: u64| if total == 0 { 1.0 / shards as f64 } else { count as f64 / total as f64 };
    RankShares { k: k as u32, by_rank: counts.into_iter().map(share).collect() }
}

/// What the index finds of its probes as it will be asked: by `found`, the answers of every shard to each query, of which only
/// those count that a request of its size goes to.
pub(super) fn built_recall(
    k: usize,
    partitioning: &Partitioning,
    queries: &[UnitVector],
    found: &[Vec<Vec<(Hit, ())>>],
    exact: &[Vec<(Hit, ShardId)>],
) -> BuiltRecall {
    let (mut hits, mut wanted) = (0, 0);
    for ((query, found), exact) in queries.iter().zip(found).zip(exact) {
        let lists: Vec<Vec<(Hit, ())>> = match partitioning {
            Partitioning::Hash => found.clone(),
            Partitioning::Clustered(clusters) => {
                let asked = clusters.ranked(query).into_iter().take(clusters.asked(k as f64));
                asked.filter_map(|shard| found.get(shard.0 as usize).cloned()).collect()
            }
        };
        let best = turret_retrieval::merge::merge(&lists, k);
        let best: HashSet<&AdId> = best.iter().map(|(hit, ())| &hit.ad).collect();
        hits += exact.iter().take(k).filter(|(hit, _)| best.contains(&hit.ad)).count();
        wanted += exact.len().min(k);
    }
    let recall = if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 };
    BuiltRecall { k: k as u32, probes: queries.len() as u32, recall }
}
