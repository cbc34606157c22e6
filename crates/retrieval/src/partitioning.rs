//! How the ads of a generation are spread over its shards, and which of them a query goes to.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::ids::ShardId;
use crate::vector::{UnitVector, dot};

/// The most numbers that the centroids of a generation may have in all: shards times dimension. The manifest holds them as text.
pub const CENTROID_NUMBERS_MAX: usize = 1 << 16;

/// An ad whose embedding is as near to another centroid as to the nearest, but for so much, belongs to both shards.
///
/// Two workers may give one item embeddings that differ in the last bits. Without this a shard that starts again could be told that an
/// ad is another's, when that one was told the same before.
const TIE: f32 = 1e-4;

/// How far the length of a centroid may be from 1.
const LENGTH_TOLERANCE: f64 = 1e-3;

/// How the ads of a generation are spread over its shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Partitioning {
    /// By the hash of the ad's id: every shard is a fair sample of all ads, and every query goes to all of them.
    Hash,
    /// By where the ad's embedding lies: a query goes to the few shards whose centroids are nearest.
    Clustered(Clusters),
}

/// What clustered shards are routed by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clusters {
    /// By shard: the direction in which its ads lie.
    pub centroids: Vec<UnitVector>,
    /// The share of the best ads that the shards asked are to hold, in (0, 1].
    pub target_recall: f64,
    /// Queries that the shares below are means over; 0 where there was none, and every shard is taken for a fair sample.
    pub probes: u32,
    /// Where the best ads of a query lie, in ascending order of how many.
    pub shares: Vec<RankShares>,
}

/// Where the best `k` ads of a query lie, on average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankShares {
    /// How many ads.
    pub k: u32,
    /// The share of them in the nearest shard, in the second, and so on; 1 in all.
    pub by_rank: Vec<f64>,
}

impl RankShares {
    /// The estimated recall by the number of nearest shards asked, from one to all; never falls.
    pub fn curve(&self) -> Vec<f64> {
        let sum = |sum: &mut f64, share: &f64| {
            *sum += share;
            Some(sum.min(1.0))
        };
        self.by_rank.iter().scan(0.0, sum).collect()
    }
}

impl Clusters {
    /// All shards, that of the nearest centroid first, of two that are as near the lower one.
    pub fn ranked(&self, query: &UnitVector) -> Vec<ShardId> {
        let mut scored = self.scored(query);
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored.into_iter().map(|(_, shard)| shard).collect()
    }

    /// The shards that an ad belongs to which was not there when the index was built: that of the nearest centroid, and another
    /// only where it is as near. Of centroids that are the same, the first counts.
    pub fn homes(&self, embedding: &UnitVector) -> Vec<ShardId> {
        let scored = self.scored(embedding);
        let best = scored.iter().map(|(score, _)| *score).max_by(f32::total_cmp).unwrap_or_default();
        let is_first = |shard: ShardId| {
            let own = self.centroids.get(shard.0 as usize);
            self.centroids.iter().position(|other| Some(other) == own) == Some(shard.0 as usize)
        };
        let near = scored.into_iter().filter(|(score, _)| score.total_cmp(&(best - TIE)) != Ordering::Less);
        near.map(|(_, shard)| shard).filter(|shard| is_first(*shard)).collect()
    }

    /// How many of the nearest shards are to be asked for the best `wanted` ads: as few as reach the target.
    pub fn asked(&self, wanted: f64) -> usize {
        let curve = self.shares_of(wanted).map(RankShares::curve).unwrap_or_default();
        // The sums are rounded.
        let reaches = |recall: &f64| *recall >= self.target_recall - 1e-9;
        curve.iter().position(reaches).map_or(self.centroids.len(), |position| position + 1)
    }

    /// The share of the best `wanted` ads that is expected at each rank; absent for more ads than was measured.
    pub fn shares_of(&self, wanted: f64) -> Option<&RankShares> {
        self.shares.iter().find(|shares| f64::from(shares.k) >= wanted)
    }

    fn scored(&self, vector: &UnitVector) -> Vec<(f32, ShardId)> {
        let score = |centroid: &UnitVector| dot(vector.as_slice(), centroid.as_slice());
        self.centroids.iter().map(score).zip((0u32..).map(ShardId)).collect()
    }
}

impl Partitioning {
    /// What queries are routed by; absent where they go to every shard.
    pub fn clusters(&self) -> Option<&Clusters> {
        match self {
            Self::Hash => None,
            Self::Clustered(clusters) => Some(clusters),
        }
    }

    /// Checks what a reader of a manifest of so many shards and this dimension relies on; else the field and the rule it broke.
    pub(crate) fn check(&self, shards: usize, dimension: usize) -> Result<(), (&'static str, &'static str)> {
        let Some(clusters) = self.clusters() else { return Ok(()) };
        if clusters.centroids.len() != shards {
            return Err(("partitioning.centroids", "must be one for each shard"));
        }
        if shards.saturating_mul(dimension) > CENTROID_NUMBERS_MAX {
            return Err((
                "partitioning.centroids",
                "have more than 65536 numbers: fewer shards, or a smaller dimension",
            ));
        }
        let is_unit = |centroid: &UnitVector| {
            let length = centroid.as_slice().iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            centroid.check(dimension).is_ok() && (length - 1.0).abs() <= LENGTH_TOLERANCE
        };
        if !clusters.centroids.iter().all(is_unit) {
            return Err(("partitioning.centroids", "must be finite, of the generation's dimension, and of length 1"));
        }
        if !(clusters.target_recall > 0.0 && clusters.target_recall <= 1.0) {
            return Err(("partitioning.target_recall", "is not in (0, 1]"));
        }
        let counts = clusters.shares.iter().map(|shares| shares.k);
        if clusters.shares.is_empty() || !counts.is_sorted_by(|a, b| a < b) {
            return Err(("partitioning.shares", "must be at least one, in ascending order of k"));
        }
        let is_sound = |shares: &RankShares| {
            let sum: f64 = shares.by_rank.iter().sum();
            // False for what is no number, too.
            let in_range = shares.by_rank.iter().all(|share| (0.0..=1.0).contains(share));
            shares.k > 0 && shares.by_rank.len() == shards && in_range && (sum - 1.0).abs() <= 1e-6
        };
        if !clusters.shares.iter().all(is_sound) {
            return Err(("partitioning.shares.by_rank", "must be a share in [0, 1] for each shard, 1 in all"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
