//! Ads to cut into shards, and queries for them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_index::{Origin, ShardIndex};
use turret_retrieval::generation::{Manifest, Probes};
use turret_retrieval::vector::UnitVector;

/// The first half is for probes, as many as a publication has.
const QUERIES: usize = 256;
const MADE_ADS: usize = 200_000;
const MADE_CENTRES: usize = 2_000;

/// Embeddings of ads, and queries.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) dimension: usize,
    /// `[ads, dimension]`, row-major, of length 1.
    pub(crate) flat: Vec<f32>,
    pub(crate) queries: Vec<UnitVector>,
}

impl World {
    pub(crate) fn ads(&self) -> usize {
        self.flat.len() / self.dimension
    }
}

/// The generation in `dir`, the data sets that `TURRET_DATA` has, and one that is made up.
pub(crate) fn all(generation: Option<&Path>) -> Vec<World> {
    let mut worlds: Vec<World> = generation.map(published).into_iter().collect();
    worlds.extend(real());
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

fn real() -> Vec<World> {
    let Some(data) = std::env::var_os("TURRET_DATA") else { return Vec::new() };
    let Ok(folders) = std::fs::read_dir(PathBuf::from(data).join("ann")) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = folders.filter_map(|folder| Some(folder.ok()?.path())).collect();
    folders.sort();
    folders.iter().filter_map(|folder| read(folder)).collect()
}

fn read(folder: &Path) -> Option<World> {
    let (dimension, rows) = vectors(&folder.join("base.fbin"))?;
    let (_, queries) = vectors(&folder.join("query.fbin"))?;
    let mut queries = mixed(queries);
    queries.truncate(QUERIES);
    let name = format!("{}, {dimension} d", folder.file_name()?.to_string_lossy());
    let flat = rows.iter().flat_map(|row| row.as_slice().to_vec()).collect();
    Some(World { name, dimension, flat, queries })
}

/// A count, a dimension and rows, as big-ann's files have them, scaled to length 1.
fn vectors(path: &Path) -> Option<(usize, Vec<UnitVector>)> {
    let bytes = std::fs::read(path).ok()?;
    let words = bytes.as_chunks::<4>().0;
    let dimension = u32::from_le_bytes(*words.get(1)?) as usize;
    let numbers: Vec<f32> = words[2..].iter().map(|word| f32::from_le_bytes(*word)).collect();
    let rows = numbers.chunks_exact(dimension).filter_map(|row| UnitVector::normalize(row.to_vec()).ok());
    Some((dimension, rows.collect()))
}

/// Those at even places before those at odd ones: files may be in an order.
fn mixed(queries: Vec<UnitVector>) -> Vec<UnitVector> {
    let (even, odd): (Vec<_>, Vec<_>) = queries.into_iter().enumerate().partition(|(place, _)| place % 2 == 0);
    even.into_iter().chain(odd).map(|(_, query)| query).collect()
}

/// Ads around random centres, some of which have many more than others, and queries like them.
fn made() -> World {
    let (dimension, mut random) = (64, ChaCha8Rng::seed_from_u64(1));
    let centres: Vec<Vec<f32>> = (0..MADE_CENTRES).map(|_| normal(&mut random, dimension)).collect();
    let mut one = || {
        // The popular ones first: half of the ads are around an eighth of the centres.
        let centre = &centres[(random.random::<f64>().powi(3) * MADE_CENTRES as f64) as usize];
        let noise = normal(&mut random, dimension);
        let vector = centre.iter().zip(noise).map(|(centre, x)| centre + 0.7 * x).collect();
        UnitVector::normalize(vector).expect("a direction")
    };
    let queries = (0..QUERIES).map(|_| one()).collect();
    let mut flat = Vec::with_capacity(MADE_ADS * dimension);
    (0..MADE_ADS).for_each(|_| flat.extend_from_slice(one().as_slice()));
    World { name: format!("made up, {dimension} d"), dimension, flat, queries }
}

fn normal(random: &mut ChaCha8Rng, dimension: usize) -> Vec<f32> {
    // The sum of 12 uniform numbers is near enough to normal.
    (0..dimension).map(|_| (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0).collect()
}
