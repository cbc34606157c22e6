//! Ads in clusters of which some are much larger than others.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::around::Around;
use super::embeddings::World;

const ADS: usize = 200_000;
const CENTRES: usize = 2_000;
const NOISE: f32 = 0.7;

/// Ads around random centres, some of which have many more than others, and queries like them.
pub(crate) fn uneven(queries: usize) -> World {
    let (dimension, mut random) = (64, ChaCha8Rng::seed_from_u64(1));
    let around = Around::new(&mut random, CENTRES, dimension, NOISE);
    let mut one = || {
        // The popular ones first: half of the ads are around an eighth of the centres.
        let centre = (random.random::<f64>().powi(3) * CENTRES as f64) as usize;
        around.centre(centre, &mut random)
    };
    let queries = (0..queries).map(|_| one()).collect();
    let mut flat = Vec::with_capacity(ADS * dimension);
    (0..ADS).for_each(|_| flat.extend_from_slice(one().as_slice()));
    World { name: format!("made up, {dimension} d"), dimension, flat, queries }
}
