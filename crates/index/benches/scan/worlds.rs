//! Ads and queries to scan.

use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_retrieval::vector::UnitVector;

const CLUSTERS: usize = 2_000;

/// Embeddings of ads, and queries.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) dimension: usize,
    /// `[rows, dimension]`, row-major, of length 1.
    pub(crate) flat: Vec<f32>,
    pub(crate) queries: Vec<UnitVector>,
}

impl World {
    pub(crate) fn rows(&self) -> usize {
        self.flat.len() / self.dimension
    }
}

/// Ads around random centres, in no order, and queries like them.
pub(crate) fn clustered(dimension: usize, ads: usize, queries: usize) -> World {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let centres: Vec<Vec<f32>> = (0..CLUSTERS).map(|_| normal(&mut random, dimension)).collect();
    let mut one = || {
        let centre = &centres[random.random_range(0..CLUSTERS)];
        let noise = normal(&mut random, dimension);
        let vector = centre.iter().zip(noise).map(|(centre, x)| centre + 0.5 * x).collect();
        UnitVector::normalize(vector).expect("a direction")
    };
    let queries = (0..queries).map(|_| one()).collect();
    let mut flat = Vec::with_capacity(ads * dimension);
    (0..ads).for_each(|_| flat.extend_from_slice(one().as_slice()));
    World { name: format!("clustered, {dimension} d"), dimension, flat, queries }
}

fn normal(random: &mut ChaCha8Rng, dimension: usize) -> Vec<f32> {
    // The sum of 12 uniform numbers is near enough to normal.
    (0..dimension).map(|_| (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0).collect()
}

/// Those of the data sets that are there, with at most so many queries.
pub(crate) fn real(queries: usize) -> Vec<World> {
    let Some(data) = std::env::var_os("TURRET_DATA") else { return Vec::new() };
    let ann = PathBuf::from(data).join("ann");
    let Ok(folders) = std::fs::read_dir(&ann) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = folders.filter_map(|folder| Some(folder.ok()?.path())).collect();
    folders.sort();
    folders.iter().filter_map(|folder| read(folder, queries)).collect()
}

fn read(folder: &Path, queries_max: usize) -> Option<World> {
    let (dimension, rows) = vectors(&folder.join("base.fbin"))?;
    let (_, mut queries) = vectors(&folder.join("query.fbin"))?;
    queries.truncate(queries_max);
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
