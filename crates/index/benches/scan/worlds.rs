//! Ads and queries to scan.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::around::Around;
use super::embeddings::{self, World};

const CLUSTERS: usize = 2_000;
const NOISE: f32 = 0.5;

/// Ads around random centres, in no order, and queries like them.
pub(crate) fn clustered(dimension: usize, ads: usize, queries: usize) -> World {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let around = Around::new(&mut random, CLUSTERS, dimension, NOISE);
    let mut one = || around.centre(random.random_range(0..CLUSTERS), &mut random);
    let queries = (0..queries).map(|_| one()).collect();
    let mut flat = Vec::with_capacity(ads * dimension);
    (0..ads).for_each(|_| flat.extend_from_slice(one().as_slice()));
    World { name: format!("clustered, {dimension} d"), dimension, flat, queries }
}

/// Those of the data sets that are there, with at most so many queries.
pub(crate) fn real(queries_max: usize) -> Vec<World> {
    let mut worlds = embeddings::real();
    worlds.iter_mut().for_each(|world| world.queries.truncate(queries_max));
    worlds
}
