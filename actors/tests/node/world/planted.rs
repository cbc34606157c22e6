//! Models whose numbers are finite, and what is computed with them is not.

use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use tempfile::TempDir;
use turret_actors::generation::{Generation, MODEL_DIR};
use turret_model::{Blueprint, Model, Split};
use turret_retrieval::digest::Digest;
use turret_retrieval::event::EventType;

use super::published::{AFTER_MS, DATASET, MODEL, published_file, write_manifest};

/// Finite, and not finite any more once a few are added or multiplied.
const HUGE: f32 = 3e38;

/// The published model, for which the words of every search query are too much.
pub(crate) static DEAF_TO_QUERIES: LazyLock<Model> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    MODEL.save(dir.path()).unwrap();
    // The rows of words are the last of the table.
    let settings = MODEL.settings();
    let end = MODEL.table_rows() * settings.dimension;
    let words = settings.query_buckets as usize * settings.dimension;
    plant(dir.path(), "table", end - words..end);
    Model::load(dir.path()).unwrap()
});

/// The published model, for which whoever signed up is too much.
pub(crate) static DEAF_TO_SIGNUPS: LazyLock<Model> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    MODEL.save(dir.path()).unwrap();
    let (split, settings) = (Split::temporal(AFTER_MS, AFTER_MS + 1), MODEL.settings());
    let blueprint = Blueprint::of(&*DATASET, &split, settings, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let layout = blueprint.describe().features;
    let types = layout.table.iter().find(|block| block.name == "event_types").unwrap();
    let signup = layout.event_types.iter().position(|name| *name == EventType::Signup.name()).unwrap();
    let (row, dimension) = (types.first as usize + signup, MODEL.settings().dimension);
    plant(dir.path(), "table", row * dimension..(row + 1) * dimension);
    Model::load(dir.path()).unwrap()
});

/// Makes the head of a published generation of [`MODEL`] one that gives no number, with digests that are those of its files.
pub(crate) fn break_head(generation: &Generation) -> Generation {
    let dir = &generation.dir;
    let hidden = MODEL.settings().head_hidden;
    for (tensor, numbers) in [("head.hidden.bias", hidden), ("head.output.weight", hidden * MODEL.dimension())] {
        plant(&dir.join(MODEL_DIR), tensor, 0..numbers);
    }
    let mut manifest = (*generation.manifest).clone();
    manifest.files = manifest.files.iter().map(|file| published_file(dir, Path::new(&file.path))).collect();
    write_manifest(dir, &manifest);
    Generation { dir: dir.clone(), manifest: Arc::new(manifest) }
}

/// Makes numbers of a tensor of the model in `dir` huge. The file is the length of its header, the header, the numbers.
fn plant(dir: &Path, tensor: &str, numbers: Range<usize>) {
    let path = dir.join("tensors.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let first = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..first]).unwrap();
    let [begin, end] = [0, 1].map(|at| first + header[tensor]["data_offsets"][at].as_u64().unwrap() as usize);
    for number in bytes[begin..end].chunks_exact_mut(4).skip(numbers.start).take(numbers.len()) {
        number.copy_from_slice(&HUGE.to_le_bytes());
    }
    fs::write(&path, &bytes).unwrap();
    let path = dir.join("model.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["tensors"]["sha256"] = json!(Digest::of(&bytes));
    fs::write(&path, manifest.to_string()).unwrap();
}
