//! The ads of a published generation, and queries that its own user tower made.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use turret_index::{Backend, IndexSettings, Origin, ShardIndex};
use turret_retrieval::generation::{Manifest, Probes};

use super::embeddings::World;

/// The ads of the generation in `dir`, of all shards, and its probes.
pub(crate) fn published(dir: &Path) -> World {
    let mut shards: Vec<PathBuf> =
        dir.join("shards").read_dir().expect("a generation has shards").flatten().map(|entry| entry.path()).collect();
    shards.sort();
    let text = std::fs::read(dir.join("manifest.json")).expect("a generation has a manifest");
    let manifest: Manifest = serde_json::from_slice(&text).expect("the manifest is sound");
    let dimension = manifest.dimension as usize;
    let origin = Origin { generation: manifest.id.as_str(), dimension };
    let settings = IndexSettings { backend: Backend::Exact, ..IndexSettings::default() };
    let open = |shard: &PathBuf| {
        ShardIndex::open(shard, &origin, &settings, &Vec::new, &mut |_| ControlFlow::Continue(()))
            .expect("the shard is sound")
    };
    let flat = shards.iter().flat_map(|shard| open(shard).index.embeddings()).collect();
    let text = std::fs::read(dir.join("probes.json")).expect("a generation has probes");
    let probes: Probes = serde_json::from_slice(&text).expect("the probes are sound");
    let queries = probes.probes.into_iter().map(|probe| probe.vector).collect();
    World { name: format!("marketplace, {dimension} d"), dimension, flat, queries }
}
