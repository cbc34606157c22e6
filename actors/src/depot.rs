//! Where generations are kept: a directory that nodes read in place, or an object store that they copy from.
//!
//! Owns the way of a generation's files between an object store and this machine: up after a publication, down into a
//! cache before they are served. A generation is whole in a depot or is not there: its files come first, its manifest
//! last, and only then is `CURRENT` replaced. What comes down is believed by its digest alone.
//!
//! The layout in a store is that of a directory (`CURRENT`, and `<id>/manifest.json` beside the files that it lists), so a
//! directory that was copied into a bucket is a depot, and the other way round. Bulk data never travels in messages of
//! actors; this is how it travels.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::GenerationId;

mod cache;
mod download;
mod error;
mod place;
mod store;
#[cfg(test)]
mod tests;
mod upload;

pub use error::DepotError;
pub use place::{Place, PlaceError, StoreUrl};
pub use store::{GENERATIONS_MAX, RETRIES_MAX, RETRY_TIME, Store};

use cache::Cache;

use crate::durable::replace;
use crate::generation::{CURRENT, Generation, MODEL_DIR, PROBES, published_in, shard_file, users_file};
use crate::offload::Offload;
use crate::placement::Placed;

/// Threads that read, write and digest files.
const THREADS: usize = 4;
/// Work that may wait for them; every caller waits for its own.
const QUEUE: usize = 16;

/// Where generations are published, and where this machine keeps copies where they must be copied.
#[derive(Clone)]
pub struct Depot {
    kept: Kept,
    /// What blocks: the disk, and digests.
    offload: Offload,
    /// Held while `CURRENT` is replaced.
    current: Arc<std::sync::Mutex<()>>,
}

#[derive(Clone)]
enum Kept {
    Directory(PathBuf),
    Store { store: Store, cache: Cache, one_at_a_time: Arc<tokio::sync::Mutex<()>> },
}

/// How far the copying of a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are where they should be.
    pub bytes: u64,
    /// Of how many.
    pub bytes_total: u64,
}

/// Is told how far a copy is, and says whether to go on.
pub type Watch<'a> = &'a (dyn Fn(Progress) -> ControlFlow<()> + Send + Sync);

/// What of a generation is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// Every file.
    Everything,
    /// The files whose path begins with one of these.
    Parts(&'a [String]),
}

/// What a node reads of a generation, as [`Wanted::Parts`] takes it.
pub fn parts_of(placed: &Placed) -> Vec<String> {
    let model = placed.inference.then(|| format!("{MODEL_DIR}/"));
    let shards = placed.shards.iter().copied().map(shard_file);
    let users = placed.partitions.iter().copied().map(users_file);
    model.into_iter().chain(shards).chain(users).chain([PROBES.to_owned()]).collect()
}

impl Wanted<'_> {
    fn holds(self, path: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Parts(parts) => parts.iter().any(|part| path.starts_with(part)),
        }
    }
}

impl Depot {
    /// The depot at `place`. `cache` is the directory of copies: of this process alone, and made when it is needed; a
    /// directory's generations are read where they lie, without copies.
    ///
    /// # Errors
    /// When the environment lacks what the store needs to be asked, or the system gives no threads.
    pub fn open(place: &Place, cache: &Path) -> Result<Self, DepotError> {
        let offload = Offload::new("depot", THREADS, QUEUE)?;
        let kept = match place {
            Place::Directory(dir) => Kept::Directory(dir.clone()),
            Place::Store(url) => {
                let store = Store::open(url, offload.clone())?;
                Kept::Store { store, cache: Cache::new(cache), one_at_a_time: Arc::default() }
            }
        };
        Ok(Self { kept, offload, current: Arc::default() })
    }

    /// The object store, where this depot is in one.
    pub fn store(&self) -> Option<&Store> {
        match &self.kept {
            Kept::Directory(_) => None,
            Kept::Store { store, .. } => Some(store),
        }
    }

    /// The generation that is the current one.
    ///
    /// # Errors
    /// When none is published, or its name is not sound; retryable, when the store cannot be asked.
    pub async fn current(&self) -> Result<GenerationId, DepotError> {
        match &self.kept {
            Kept::Directory(dir) => {
                let dir = dir.clone();
                let current = self.offload.run(move || Generation::current(&dir)).await??;
                Ok(current.manifest.id.clone())
            }
            Kept::Store { store, .. } => store.current().await,
        }
    }

    /// The checked manifest of a generation.
    ///
    /// # Errors
    /// When it is not published or not sound; retryable, when the store cannot be asked.
    pub async fn manifest(&self, id: &GenerationId) -> Result<Manifest, DepotError> {
        match &self.kept {
            Kept::Directory(dir) => Ok(Manifest::clone(&self.lying(dir, id).await?.manifest)),
            Kept::Store { store, .. } => store.manifest(id).await,
        }
    }

    /// Whether generations lie elsewhere than on this machine, which has copies of some.
    pub fn is_elsewhere(&self) -> bool {
        match &self.kept {
            Kept::Directory(_) => false,
            Kept::Store { .. } => true,
        }
    }

    /// The generations that are whole, by name.
    ///
    /// # Errors
    /// Retryable, when the depot cannot be read.
    pub async fn published(&self) -> Result<Vec<GenerationId>, DepotError> {
        match &self.kept {
            Kept::Directory(dir) => {
                let beside = dir.join(CURRENT);
                let found = self.offload.run(move || published_in(&beside)).await??;
                let mut ids: Vec<GenerationId> =
                    found.generations.iter().map(|found| found.manifest.id.clone()).collect();
                ids.sort();
                Ok(ids)
            }
            Kept::Store { store, .. } => store.published().await,
        }
    }

    /// Makes `wanted` of a generation readable on this machine, and opens it: from a store by copying what the cache
    /// lacks, file by file, each checked by length and digest; from a directory where it lies, unread.
    ///
    /// A copy that is broken off, by the process's end too, goes on where it was. One copy at a time; others wait.
    ///
    /// # Errors
    /// When it is not published, is not what its manifest says, cannot be written or `watch` breaks off: the cache then
    /// holds no generation that it did not hold before. Retryable, when the store cannot be asked.
    pub async fn fetch(
        &self,
        id: &GenerationId,
        wanted: Wanted<'_>,
        watch: Watch<'_>,
    ) -> Result<Generation, DepotError> {
        match &self.kept {
            Kept::Directory(dir) => self.lying(dir, id).await,
            Kept::Store { store, cache, one_at_a_time } => {
                let _alone = one_at_a_time.lock().await;
                download::fetch(store, cache, id, wanted, watch).await
            }
        }
    }

    /// Removes copies from the cache, but for `in_use` and the newest others, up to two in all. From a directory of
    /// generations nothing is removed: it is not this machine's alone.
    ///
    /// # Errors
    /// When the cache cannot be read, or a copy cannot be removed.
    pub async fn forget_old(&self, in_use: &[GenerationId]) -> Result<(), DepotError> {
        let Kept::Store { cache, one_at_a_time, .. } = &self.kept else { return Ok(()) };
        let _alone = one_at_a_time.lock().await;
        let (cache, in_use) = (cache.clone(), in_use.to_vec());
        self.offload.run(move || cache.forget_old(&in_use)).await?
    }

    /// Makes a published generation the current one: the next start of a node serves it.
    ///
    /// # Errors
    /// When it is not published; retryable, when the depot cannot be written.
    pub async fn make_current(&self, id: &GenerationId) -> Result<(), DepotError> {
        match &self.kept {
            Kept::Directory(dir) => {
                self.lying(dir, id).await?;
                let (path, id) = (dir.join(CURRENT), id.clone());
                let one_at_a_time = self.current.clone();
                let replaced = move || {
                    let _alone = one_at_a_time.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let disk = |source| DepotError::Disk { path: path.clone(), source };
                    replace(&path, id.as_str().as_bytes()).map_err(disk)
                };
                self.offload.run(replaced).await?
            }
            Kept::Store { store, .. } => store.make_current(id).await,
        }
    }

    /// The generation that lies in a directory of generations.
    async fn lying(&self, dir: &Path, id: &GenerationId) -> Result<Generation, DepotError> {
        let (dir, id) = (dir.to_owned(), id.clone());
        Ok(self.offload.run(move || Generation::of(&dir, &id)).await??)
    }
}

/// The id in `text`, where it may be the name of a directory: of letters, digits, `-`, `_` and `.`, no dot in front, and no
/// `.tmp` at the end, which marks what is half-made.
fn plain_id(text: &str) -> Option<GenerationId> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain = text.chars().all(is_plain) && !text.starts_with('.') && !text.ends_with(".tmp");
    GenerationId::new(text).ok().filter(|_| plain)
}
