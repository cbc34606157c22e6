//! Ads to cut into shards, and queries for them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_index::{Origin, ShardIndex};
use turret_retrieval::generation::{Manifest, Probes};
use turret_retrieval::vector::UnitVector;

use super::around::Around;
use super::embeddings::{self, World};

/// The first half is for probes, as many as a publication has.
const QUERIES: usize = 256;
const MADE_ADS: usize = 200_000;
const MADE_CENTRES: usize = 2_000;
const MADE_NOISE: f32 = 0.7;

/// The generation in `dir`, the data sets that `TURRET_DATA` has, and one that is made up.
pub(crate) fn all(generation: Option<&Path>) -> Vec<World> {
    let mut worlds: Vec<World> = generation.map(published).into_iter().collect();
    worlds.extend(embeddings::real().into_iter().map(|world| {
        let mut queries = mixed(world.queries);
        queries.truncate(QUERIES);
        World { queries, ..world }
    }));
    worlds.push(made());
    worlds
}

/// The ads of a generation, and its probes: queries that the model's own user tower made.
fn published(dir: &Path) -> World {
    let mut shards: Vec<PathBuf> =
        dir.join("shards").read_dir().expect("a generation has shards").flatten().map(|entry| entry.path()).collect();
    shards.sort();
    let text = std::fs::read(dir.join("manifest.json")).expect("a generation has a manifest");
    let manifest: Manifest = serde_json::from_slice(&text).expect("the manifest is sound");
    let dimension = manifest.dimension as usize;
    let origin = Origin { generation: manifest.id.as_str(), dimension };
    let settings = super::scanned();
    let open = |shard: &PathBuf| {
        ShardIndex::open(shard, &origin, &settings, &mut |_| ControlFlow::Continue(())).expect("the shard is sound")
    };
    let flat = shards.iter().flat_map(|shard| open(shard).index.embeddings()).collect();
    let text = std::fs::read(dir.join("probes.json")).expect("a generation has probes");
    let probes: Probes = serde_json::from_slice(&text).expect("the probes are sound");
    let queries = probes.probes.into_iter().map(|probe| probe.vector).collect();
    World { name: format!("marketplace, {dimension} d"), dimension, flat, queries: mixed(queries) }
}

/// Those at even places before those at odd ones: files may be in an order.
fn mixed(queries: Vec<UnitVector>) -> Vec<UnitVector> {
    let (even, odd): (Vec<_>, Vec<_>) = queries.into_iter().enumerate().partition(|(place, _)| place % 2 == 0);
    even.into_iter().chain(odd).map(|(_, query)| query).collect()
}

/// Ads around random centres, some of which have many more than others, and queries like them.
fn made() -> World {
    let (dimension, mut random) = (64, ChaCha8Rng::seed_from_u64(1));
    let around = Around::new(&mut random, MADE_CENTRES, dimension, MADE_NOISE);
    let mut one = || {
        // The popular ones first: half of the ads are around an eighth of the centres.
        let centre = (random.random::<f64>().powi(3) * MADE_CENTRES as f64) as usize;
        around.centre(centre, &mut random)
    };
    let queries = (0..QUERIES).map(|_| one()).collect();
    let mut flat = Vec::with_capacity(MADE_ADS * dimension);
    (0..MADE_ADS).for_each(|_| flat.extend_from_slice(one().as_slice()));
    World { name: format!("made up, {dimension} d"), dimension, flat, queries }
}
