//! A published generation on disk: where its files are, and that they are what the manifest says.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use turret_model::Model;
use turret_retrieval::digest::Digest;
use turret_retrieval::generation::{Manifest, ManifestError, Probes};
use turret_retrieval::ids::{GenerationId, PartitionId, ShardId};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The file beside the generations that names the active one.
pub const CURRENT: &str = "CURRENT";
/// A manifest larger than this is not one.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// The probes of a generation, relative to its directory.
pub const PROBES: &str = "probes.json";
/// Probes larger than this are none.
const PROBES_BYTES_MAX: u64 = 64 << 20;

/// The model's directory, relative to the generation's.
pub const MODEL_DIR: &str = "model";

/// A shard's file, relative to the generation's directory.
pub fn shard_file(shard: ShardId) -> String {
    format!("shards/{:04}.shard", shard.0)
}

/// The snapshot of a user partition, relative to the generation's directory.
pub fn users_file(partition: PartitionId) -> String {
    format!("users/{:04}.users", partition.0)
}

/// Why a generation cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// Nothing was published there.
    #[error("{dir}: no generation is published here; run `turret publish` first")]
    NonePublished {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The manifest is not JSON of the right shape, or names no id.
    #[error("{path}: {rule}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
    /// The manifest breaks a rule.
    #[error("{path}: {source}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The rule.
        source: ManifestError,
    },
    /// A file is not what was published.
    #[error("{path}: is not the file that was published ({found} where {expected} is expected)")]
    Digest {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// The model does not load.
    #[error("{path}: {why}")]
    Model {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The model is not the one that the manifest names.
    #[error("{path}: encoder {found} where the manifest names {expected}")]
    Version {
        /// Its directory.
        path: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What was found.
        found: String,
    },
}

/// A generation whose manifest has been read.
#[derive(Clone)]
pub struct Generation {
    /// Its directory.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
}

impl Generation {
    /// The active generation of `generations`, as the file [`CURRENT`] names it.
    ///
    /// # Errors
    /// When none is published, or its manifest is not sound.
    pub fn current(generations: &Path) -> Result<Self, GenerationError> {
        let path = generations.join(CURRENT);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(GenerationError::NonePublished { dir: generations.to_owned() });
            }
            Err(source) => return Err(GenerationError::Read { path, source }),
        };
        let id = GenerationId::new(text.trim())
            .ok()
            .filter(|id| !id.as_str().contains('/') && !id.as_str().starts_with('.'))
            .ok_or_else(|| GenerationError::Malformed { path, rule: "names no generation".to_owned() })?;
        Self::of(generations, &id)
    }

    /// The generation in `dir`.
    ///
    /// # Errors
    /// When its manifest is absent or not sound.
    pub fn open(dir: &Path) -> Result<Self, GenerationError> {
        let path = dir.join(MANIFEST);
        let read = |source| GenerationError::Read { path: path.clone(), source };
        let malformed = |rule: String| GenerationError::Malformed { path: path.clone(), rule };
        if std::fs::metadata(&path).map_err(read)?.len() > MANIFEST_BYTES_MAX {
            return Err(malformed(format!("is larger than {MANIFEST_BYTES_MAX} bytes")));
        }
        let text = std::fs::read(&path).map_err(read)?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        manifest.check().map_err(|source| GenerationError::Manifest { path: path.clone(), source })?;
        Ok(Self { dir: dir.to_owned(), manifest: Arc::new(manifest) })
    }

    /// The generation `id` that lies beside this one.
    ///
    /// # Errors
    /// When its manifest is absent or not sound.
    pub fn beside(&self, id: &GenerationId) -> Result<Self, GenerationError> {
        Self::of(self.dir.parent().unwrap_or(&self.dir), id)
    }

    /// The generation `id` of `generations`.
    ///
    /// # Errors
    /// When its manifest is absent or not sound, or is that of another.
    pub fn of(generations: &Path, id: &GenerationId) -> Result<Self, GenerationError> {
        let malformed = |path: PathBuf, rule: String| GenerationError::Malformed { path, rule };
        if id.as_str().contains('/') || id.as_str().starts_with('.') {
            return Err(malformed(generations.to_owned(), format!("`{id}` is no generation's id")));
        }
        let dir = generations.join(id.as_str());
        if !dir.exists() {
            return Err(malformed(generations.to_owned(), format!("no generation `{id}` lies here")));
        }
        let found = Self::open(&dir)?;
        if found.manifest.id != *id {
            let rule = format!("id: is {}, which is not the name of its directory", found.manifest.id);
            return Err(malformed(found.dir.join(MANIFEST), rule));
        }
        Ok(found)
    }

    /// Reads every file whose path begins with `part` and compares its digest.
    ///
    /// # Errors
    /// Names the first file that is absent or not what was published; or says that nothing of that name was.
    pub fn verify(&self, part: &str) -> Result<(), GenerationError> {
        let mut files = self.manifest.files.iter().filter(|file| file.path.starts_with(part)).peekable();
        if files.peek().is_none() {
            let rule = format!("files: none is of {part}");
            return Err(GenerationError::Malformed { path: self.dir.join(MANIFEST), rule });
        }
        for file in files {
            let path = self.dir.join(&file.path);
            let read = |source| GenerationError::Read { path: path.clone(), source };
            let (found, _) = Digest::of_reader(File::open(&path).map_err(read)?).map_err(read)?;
            if found != file.sha256 {
                return Err(GenerationError::Digest { path, expected: file.sha256.clone(), found });
            }
        }
        Ok(())
    }

    /// Reads the queries that its index is judged by; it was measured with [some](Probes::measuring).
    ///
    /// # Errors
    /// When they are absent, or not those that were published.
    pub fn probes(&self) -> Result<Probes, GenerationError> {
        self.verify(PROBES)?;
        let path = self.dir.join(PROBES);
        let read = |source| GenerationError::Read { path: path.clone(), source };
        let malformed = |rule: String| GenerationError::Malformed { path: path.clone(), rule };
        if std::fs::metadata(&path).map_err(read)?.len() > PROBES_BYTES_MAX {
            return Err(malformed(format!("is larger than {PROBES_BYTES_MAX} bytes")));
        }
        serde_json::from_slice(&std::fs::read(&path).map_err(read)?).map_err(|error| malformed(error.to_string()))
    }

    /// Loads the model, and checks that it is the one that the manifest names.
    ///
    /// # Errors
    /// When it does not load or is another.
    pub fn load_model(&self) -> Result<Model, GenerationError> {
        let path = self.dir.join(MODEL_DIR);
        let model = Model::load(&path)
            .map_err(|error| GenerationError::Model { path: path.clone(), why: error.to_string() })?;
        let (expected, found) = (&self.manifest.versions.encoder, model.encoder_version());
        if expected != found {
            let (expected, found) = (expected.to_string(), found.to_string());
            return Err(GenerationError::Version { path, expected, found });
        }
        Ok(model)
    }
}

/// What lies in a directory of generations.
pub struct Published {
    /// The oldest first.
    pub generations: Vec<Generation>,
    /// Directories that have no sound manifest, by path: what is half-made, or of a version that this program does not read.
    pub unreadable: Vec<PathBuf>,
}

/// Every generation that lies beside that in `dir`, and itself. What has no sound manifest is none.
///
/// # Errors
/// When the directory cannot be read.
pub fn published_in(dir: &Path) -> Result<Published, GenerationError> {
    let parent = dir.parent().unwrap_or(dir);
    let read = |source| GenerationError::Read { path: parent.to_owned(), source };
    let (mut generations, mut unreadable) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(parent).map_err(read)? {
        let path = entry.map_err(read)?.path();
        match Generation::open(&path) {
            Ok(generation) => generations.push(generation),
            Err(_) if path.is_dir() => unreadable.push(path),
            Err(_) => {}
        }
    }
    generations.sort_by_key(|generation| generation.manifest.created_at_ms);
    unreadable.sort();
    Ok(Published { generations, unreadable })
}
