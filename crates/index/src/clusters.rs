//! Balanced clusters of embeddings: which ads share a shard when ads are spread by where they lie.
//!
//! Spherical k-means (Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", 2001) from seeds
//! that are drawn far apart (Arthur and Vassilvitskii, "k-means++", 2007), in which no cluster may take more than its room
//! (`balanced`). A shard that is larger than the others is slower than they are and fills its node's memory first, so room is
//! nearly the mean. What an exact balanced assignment would cost, by the Hungarian method, grows with the cube of the ads.

use turret_retrieval::hashing::stable_hash;
use turret_retrieval::vector::{UnitVector, dot};

mod balanced;

/// How embeddings are clustered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterSettings {
    /// How many clusters; at least 1.
    pub clusters: usize,
    /// The most that a cluster holds, in units of the mean; at least 1.
    pub fullness_max: f64,
    /// Of equal embeddings and settings, one seed makes equal clusters.
    pub seed: u64,
}

/// Clusters of embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct Clustering {
    /// The cluster of each embedding.
    pub cluster_of: Vec<u32>,
    /// By cluster: the direction of the sum of its embeddings. One that holds none has a direction all the same.
    pub centroids: Vec<UnitVector>,
}

/// Embeddings that centroids are sought with, at most; of more, some that are spread evenly over all.
const SAMPLE_MAX: usize = 65_536;
/// Rounds of assigning and averaging, at most.
const ROUNDS_MAX: usize = 25;
/// They end when a round brings the mean score of embeddings and their centroids no further than this.
const GAIN_MIN: f64 = 1e-4;

impl ClusterSettings {
    /// The most embeddings of `rows` that one cluster takes; all clusters together take at least `rows`.
    pub fn room(&self, rows: usize) -> usize {
        let room = (self.fullness_max.max(1.0) * rows as f64 / self.clusters as f64) as usize;
        room.max(rows.div_ceil(self.clusters)).max(1)
    }
}

/// Clusters `vectors`, of length 1 and this dimension, in at most 25 rounds over 65,536 of them and one over all.
///
/// A round costs a product of each embedding with each centroid, and some more for embeddings whose cluster is full.
///
/// # Panics
/// Where no cluster is asked for, or no dimension.
pub fn cluster(vectors: &[&[f32]], dimension: usize, settings: &ClusterSettings) -> Clustering {
    assert!(settings.clusters > 0 && dimension > 0, "at least one cluster and one dimension");
    let every = vectors.len().div_ceil(SAMPLE_MAX).max(1);
    let sample: Vec<&[f32]> = vectors.iter().copied().step_by(every).collect();
    let mut centroids = seeds(&sample, dimension, settings);
    let (mut best, mut reached) = (centroids.clone(), f64::NEG_INFINITY);
    for _ in 0..ROUNDS_MAX {
        let assigned = balanced::assign(&sample, &centroids, settings.room(sample.len()));
        let score = mean_score(&sample, &assigned, &centroids);
        let is_better = score > reached + GAIN_MIN;
        if score > reached {
            (best, reached) = (centroids.clone(), score);
        }
        if !is_better {
            break;
        }
        centroids = means(&sample, &assigned, centroids);
    }
    let cluster_of = balanced::assign(vectors, &best, settings.room(vectors.len()));
    let centroids = means(vectors, &cluster_of, best);
    Clustering { cluster_of, centroids }
}

/// The mean of the scores of embeddings by the centroids of their clusters; 0 of none.
pub(crate) fn mean_score(vectors: &[&[f32]], cluster_of: &[u32], centroids: &[UnitVector]) -> f64 {
    let score = |(vector, cluster): (&&[f32], &u32)| f64::from(dot(vector, centroids[*cluster as usize].as_slice()));
    vectors.iter().zip(cluster_of).map(score).sum::<f64>() / vectors.len().max(1) as f64
}

/// Embeddings that lie apart: each drawn with a chance that grows with the square of its distance from the nearest before.
fn seeds(sample: &[&[f32]], dimension: usize, settings: &ClusterSettings) -> Vec<UnitVector> {
    let mut seeds: Vec<UnitVector> = Vec::with_capacity(settings.clusters);
    // Of unit vectors, 1 less the score is half the square of the distance.
    let mut apart = vec![1f64; sample.len()];
    while seeds.len() < settings.clusters {
        let number = seeds.len();
        let drawn = draw(&apart, chance(settings.seed, number));
        let seed = drawn.and_then(|row| UnitVector::normalize(sample[row].to_vec()).ok()).unwrap_or_else(|| {
            // Without any embedding all directions are alike.
            let mut axis = vec![0.0; dimension];
            axis[number % dimension] = 1.0;
            UnitVector::normalize(axis).expect("an axis is a direction")
        });
        for (vector, apart) in sample.iter().zip(&mut apart) {
            *apart = apart.min((1.0 - f64::from(dot(vector, seed.as_slice()))).max(0.0));
        }
        seeds.push(seed);
    }
    seeds
}

/// A row with a chance of its weight, or any where none has one; absent where there are no rows.
fn draw(weights: &[f64], chance: f64) -> Option<usize> {
    let total: f64 = weights.iter().sum();
    if weights.is_empty() || total <= 0.0 {
        return (!weights.is_empty()).then_some((chance * weights.len() as f64) as usize);
    }
    let mut left = chance * total;
    for (row, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return Some(row);
        }
    }
    // The sum was rounded.
    weights.iter().rposition(|weight| *weight > 0.0)
}

/// In [0, 1).
fn chance(seed: u64, number: usize) -> f64 {
    (stable_hash(seed, &(number as u64).to_le_bytes()) >> 11) as f64 / (1u64 << 53) as f64
}

/// The direction of the sum of each cluster; where that is none, what it was before.
fn means(vectors: &[&[f32]], cluster_of: &[u32], before: Vec<UnitVector>) -> Vec<UnitVector> {
    let dimension = before[0].as_slice().len();
    let mut sums = vec![0f64; before.len() * dimension];
    for (vector, cluster) in vectors.iter().zip(cluster_of) {
        let sum = &mut sums[*cluster as usize * dimension..][..dimension];
        sum.iter_mut().zip(*vector).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let mean = |(sum, before): (&[f64], UnitVector)| {
        UnitVector::normalize(sum.iter().map(|x| *x as f32).collect()).unwrap_or(before)
    };
    sums.chunks_exact(dimension).zip(before).map(mean).collect()
}

#[cfg(test)]
mod tests;
