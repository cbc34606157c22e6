//! Embeddings of ads, and queries for them.

use std::path::{Path, PathBuf};

use turret_retrieval::vector::UnitVector;

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

/// Those of the data sets below `TURRET_DATA` that are there.
pub(crate) fn real() -> Vec<World> {
    let Some(data) = std::env::var_os("TURRET_DATA") else { return Vec::new() };
    let Ok(folders) = std::fs::read_dir(PathBuf::from(data).join("ann")) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = folders.filter_map(|folder| Some(folder.ok()?.path())).collect();
    folders.sort();
    folders.iter().filter_map(|folder| read(folder)).collect()
}

fn read(folder: &Path) -> Option<World> {
    let (dimension, rows) = vectors(&folder.join("base.fbin"))?;
    let (_, queries) = vectors(&folder.join("query.fbin"))?;
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
