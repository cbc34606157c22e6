//! Generations between their depot and this machine, for the commands that publish and serve.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use turret_actors::depot::{Depot, Place, Progress, Store, Wanted, parts_of};
use turret_actors::generation::Generation;
use turret_actors::node::NodeSettings;
use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::GenerationId;

use super::block_on;
use super::progress::Bar;
use crate::config::Config;

/// The copies of a node, below its own directory.
const CACHE: &str = "generations";
/// Where a publication is written on its way to an object store, below `data_dir`. No node has such a name.
const STAGING: &str = ".publishing";
/// Between two lines about a copy.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Opens the current generation for a node, and the depot that it is of: what the node reads of it is copied first, where it
/// is in an object store.
pub(super) async fn current(config: &Config, settings: &NodeSettings) -> anyhow::Result<(Depot, Generation)> {
    let depot = Depot::open(&config.generations, &settings.data_dir.join(CACHE))?;
    let id = depot.current().await?;
    let manifest = depot.manifest(&id).await?;
    // Before gigabytes are copied that could not be served.
    config.check_against(&manifest)?;
    let parts = parts_of(&settings.placement().of(&manifest));
    let (started, told) = (Instant::now(), Mutex::new(Instant::now()));
    let watch = |progress: Progress| {
        // A thread that panicked while it told has told.
        let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.elapsed() >= TOLD_EVERY {
            *told = Instant::now();
            tracing::info!(generation = %id, bytes = progress.bytes, of = progress.bytes_total, "generation arrives");
        }
        ControlFlow::Continue(())
    };
    let generation = depot.fetch(&id, Wanted::Parts(&parts), &watch).await?;
    if depot.store().is_some() {
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(generation = %id, from = %config.generations, seconds, "generation is here");
    }
    // An old copy that stays costs room, and no answer.
    if let Err(error) = depot.forget_old(&[id]).await {
        tracing::warn!(%error, "old generation stays in the cache");
    }
    Ok((depot, generation))
}

/// Makes a generation the current one, for nodes that start from now on.
pub(super) fn make_current(config: &Config, id: &GenerationId) -> anyhow::Result<()> {
    let depot = Depot::open(&config.generations, &config.data_dir.join(STAGING))?;
    Ok(block_on(depot.make_current(id))??)
}

/// The manifest of a generation that has been made before.
pub(super) fn manifest(config: &Config, id: &GenerationId) -> anyhow::Result<Manifest> {
    let depot = Depot::open(&config.generations, &config.data_dir.join(STAGING))?;
    Ok(block_on(depot.manifest(id))??)
}

/// Where a publication is written: where it is read, or on its way to an object store.
pub(super) struct Staging {
    dir: PathBuf,
    taken: BTreeSet<GenerationId>,
    delivery: Option<Delivery>,
    // Held while the directory is used, so that no other publication clears it or takes the same id.
    _lock: File,
}

struct Delivery {
    store: Store,
}

impl Staging {
    /// Prepares a publication. An object store is asked already, so that what cannot be delivered is not made first.
    pub(super) fn of(config: &Config) -> anyhow::Result<Self> {
        if let Place::Directory(dir) = &config.generations {
            return Ok(Self { dir: dir.clone(), taken: BTreeSet::new(), delivery: None, _lock: locked(dir)? });
        }
        let dir = config.data_dir.join(STAGING);
        let lock = locked(&dir)?;
        clear(&dir)?;
        let depot = Depot::open(&config.generations, &dir)?;
        let store = depot.store().context("a place that is no directory is a store")?.clone();
        let taken = block_on(store.taken())??.into_iter().collect();
        Ok(Self { dir, taken, delivery: Some(Delivery { store }), _lock: lock })
    }

    /// The directory of generations to write to.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ids that are taken elsewhere.
    pub(super) fn taken(&self) -> &BTreeSet<GenerationId> {
        &self.taken
    }

    /// Brings a generation that was written here to where it is read.
    pub(super) fn deliver(self, id: &GenerationId) -> anyhow::Result<()> {
        let Some(Delivery { store }) = self.delivery else { return Ok(()) };
        let dir = self.dir.join(id.as_str());
        let generation = Generation::open(&dir)?;
        let bar = Bar::new("uploading", "bytes");
        let sent = block_on(async {
            store.put(&generation, &|sent| bar.at(sent.bytes, sent.bytes_total, || id.to_string())).await
        })?;
        bar.end(sent)
            .with_context(|| format!("{id} is not published; until the next try it lies in {}", dir.display()))?;
        // It holds what users did, so it is not left lying about.
        fs::remove_dir_all(&self.dir).with_context(|| format!("cannot clear {}", self.dir.display()))
    }
}

/// Makes `dir`, and keeps other publications out.
fn locked(dir: &Path) -> anyhow::Result<File> {
    let lock = || -> std::io::Result<File> {
        fs::create_dir_all(dir)?;
        File::options().create(true).truncate(false).write(true).open(dir.join("LOCK"))
    };
    let lock = lock().with_context(|| format!("cannot make {}", dir.display()))?;
    if lock.try_lock().is_err() {
        bail!("another publication is writing to {}", dir.display());
    }
    Ok(lock)
}

/// Removes what an earlier publication has left.
fn clear(dir: &Path) -> anyhow::Result<()> {
    let clear = || -> std::io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    };
    clear().with_context(|| format!("cannot clear {}", dir.display()))
}
