//! The files of a trained model: `model.json`, `tensors.safetensors`, `catalogue.postcard`.
//!
//! `model.json` names the other two with their lengths and digests and is what makes a directory a model. A directory is
//! replaced whole, so that a reader sees the old model or the new one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use turret_retrieval::digest::Digest;
use turret_retrieval::ids::ItemId;

use crate::catalogue::{Catalogue, ItemFeatures};
use crate::features::{Features, Schema};
use crate::file_error::{FileError, read};
use crate::model::Model;
use crate::parameters::{Parameter, TABLE, shapes};
use crate::settings::{ModelSettings, Split};

const FORMAT: u32 = 2;
const MANIFEST: &str = "model.json";
const TENSORS: &str = "tensors.safetensors";
const CATALOGUE: &str = "catalogue.postcard";
/// The largest manifest that is read: its interests are the largest part.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    settings: ModelSettings,
    timed: bool,
    split: Split,
    schema: Schema,
    tensors: Part,
    catalogue: Part,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    bytes: u64,
    sha256: Digest,
}

/// Why a model was not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The tensors cannot be written as safetensors.
    #[error("tensors: {0}")]
    Tensors(String),
}

/// Why a directory is not a model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read, or is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not the one that the manifest names.
    #[error("{path}: digest {found} where the manifest says {expected}")]
    Digest {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: Digest,
        /// What the file has.
        found: Digest,
    },
}

impl Model {
    /// Writes the model as directory `dir`, in place of what is there, flushed. Returns the files, relative to it.
    ///
    /// # Errors
    /// When something cannot be written; what was there stays (where the process is killed between two renames, as
    /// `<dir>.old`).
    pub fn save(&self, dir: &Path) -> Result<Vec<PathBuf>, SaveError> {
        let (temporary, replaced) = (beside(dir, "tmp"), beside(dir, "old"));
        for left in [&temporary, &replaced] {
            // Of a run that was killed.
            if left.exists() {
                fs::remove_dir_all(left).map_err(FileError::disk(left))?;
            }
        }
        fs::create_dir_all(&temporary).map_err(FileError::disk(&temporary))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = temporary.join(name);
            let flushed = || {
                let mut file = File::create(&path)?;
                file.write_all(bytes)?;
                file.sync_all()
            };
            let part = |()| Part { bytes: bytes.len() as u64, sha256: Digest::of(bytes) };
            flushed().map(part).map_err(FileError::disk(&path))
        };
        let manifest = Manifest {
            format: FORMAT,
            settings: self.settings.clone(),
            timed: self.timed,
            split: self.split,
            schema: self.features.schema.clone(),
            tensors: write(TENSORS, &self.tensors()?)?,
            catalogue: write(CATALOGUE, &self.catalogue.to_bytes())?,
        };
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest of strings and numbers is JSON");
        write(MANIFEST, &text)?;
        File::open(&temporary).and_then(|temporary| temporary.sync_all()).map_err(FileError::disk(&temporary))?;
        if dir.exists() {
            fs::rename(dir, &replaced).map_err(FileError::disk(dir))?;
        }
        fs::rename(&temporary, dir).map_err(FileError::disk(dir))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(FileError::disk(parent))?;
        }
        if replaced.exists() {
            fs::remove_dir_all(&replaced).map_err(FileError::disk(&replaced))?;
        }
        Ok([MANIFEST, TENSORS, CATALOGUE].map(PathBuf::from).into())
    }

    fn tensors(&self) -> Result<Vec<u8>, SaveError> {
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let table = crate::ops::with_values(&self.table, |values| Ok(bytes(values)));
        let table = table.map_err(|error| SaveError::Tensors(error.to_string()))?;
        let mut parts: Vec<(&str, Vec<usize>, Vec<u8>)> =
            vec![(TABLE, vec![self.features.rows(), self.settings.dimension], table)];
        for parameter in &self.parameters {
            parts.push((&parameter.name, parameter.shape.clone(), bytes(&parameter.values)));
        }
        let views = parts
            .iter()
            .map(|(name, shape, bytes)| TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (*name, view)));
        let views = views.collect::<Result<Vec<_>, _>>().map_err(|error| SaveError::Tensors(error.to_string()))?;
        safetensors::serialize(views, None).map_err(|error| SaveError::Tensors(error.to_string()))
    }

    /// Reads the model in directory `dir`, and checks digests, names, shapes and that every number is finite.
    ///
    /// # Errors
    /// When a file is missing, malformed or another than the manifest names.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join(MANIFEST);
        let text = read(&path, MANIFEST_BYTES_MAX)?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| FileError::malformed(&path, error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(
                FileError::malformed(&path, format!("format {} where {FORMAT} is read", manifest.format)).into()
            );
        }
        manifest.settings.check().map_err(|error| FileError::malformed(&path, format!("settings.{error}")))?;
        manifest.schema.check().map_err(|rule| FileError::malformed(&path, rule))?;
        manifest.split.check().map_err(|error| FileError::malformed(&path, format!("split.{error}")))?;
        let features = Features::new(manifest.schema);

        let path = dir.join(CATALOGUE);
        let items: Vec<(ItemId, ItemFeatures)> = match postcard::take_from_bytes(&verified(&path, &manifest.catalogue)?)
        {
            Ok((items, [])) => items,
            Ok(_) | Err(_) => return Err(FileError::malformed(&path, "is not a catalogue").into()),
        };
        if items.iter().any(|(_, item)| !item.fits(&features)) {
            return Err(FileError::malformed(&path, "an item has features that the schema does not know").into());
        }

        let path = dir.join(TENSORS);
        let bytes = verified(&path, &manifest.tensors)?;
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| FileError::malformed(&path, error.to_string()))?;
        let find = |name: &str, shape: &[usize]| {
            values(&tensors, name, shape).map_err(|rule| FileError::malformed(&path, rule))
        };
        let table = find(TABLE, &[features.rows(), manifest.settings.dimension])?;
        let parameters = shapes(&manifest.settings, features.schema.content_dimension())
            .into_iter()
            .map(|(name, shape)| Ok(Parameter { values: find(&name, &shape)?, name, shape }))
            .collect::<Result<Vec<_>, FileError>>()?;
        let Manifest { settings, timed, split, .. } = manifest;
        Model::new(settings, features, Catalogue::new(items), timed, split, parameters, table)
            .map_err(|error| FileError::malformed(&path, error.to_string()).into())
    }
}

/// `dir` with `.suffix` after its name.
fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    dir.with_file_name(name)
}

fn verified(path: &Path, part: &Part) -> Result<Vec<u8>, LoadError> {
    let bytes = read(path, part.bytes)?;
    let found = Digest::of(&bytes);
    if found != part.sha256 {
        return Err(LoadError::Digest { path: path.to_owned(), expected: part.sha256.clone(), found });
    }
    Ok(bytes)
}

fn values(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let tensor = tensors.tensor(name).map_err(|_| format!("tensor {name} is missing"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        return Err(format!(
            "tensor {name} is {:?} {:?} where F32 {shape:?} is expected",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    let (words, _) = tensor.data().as_chunks::<4>();
    let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    match values.iter().position(|value| !value.is_finite()) {
        Some(position) => Err(format!("tensor {name}: value {position} is not finite")),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests;
