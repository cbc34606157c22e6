//! Copies of generations on this machine: what of them is sound, when one is whole, and which are kept.
//!
//! A copy grows in `<id>.tmp` and is renamed when all that is wanted of it is there. Nothing tells sound files from
//! others but their digests, so a copy that was broken off, or that rotted, is made good and not made anew. Blocks.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use turret_retrieval::digest::Digest;
use turret_retrieval::generation::File;
use turret_retrieval::ids::GenerationId;

use super::DepotError;
use crate::durable::{sync_dir, write_flushed};
use crate::generation::{Generation, MANIFEST};

/// Generations that are kept: the one that is served, and the one to go back to.
const KEPT_MAX: usize = 2;

/// A directory of copies, of one process alone.
#[derive(Clone)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// What is left to copy.
pub(super) enum Copied {
    /// Nothing: the generation lies in this directory, whole.
    Whole(PathBuf),
    /// These files, into this directory.
    Missing(PathBuf, Vec<File>),
}

impl Cache {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Looks what is there of the files of a generation whose manifest is `manifest`, and prepares the directory of the
    /// others. Reads every file that is there.
    pub(super) fn prepare(&self, id: &GenerationId, manifest: &[u8], files: Vec<File>) -> Result<Copied, DepotError> {
        let (whole, growing) = self.places(id);
        if whole.is_dir() {
            if missing(&whole, &files).is_empty() && fs::read(whole.join(MANIFEST)).is_ok_and(|text| text == manifest) {
                return Ok(Copied::Whole(whole));
            }
            remove(&growing)?;
            fs::rename(&whole, &growing).map_err(disk(&whole))?;
        }
        fs::create_dir_all(&growing).map_err(disk(&growing))?;
        let missing = missing(&growing, &files);
        for dir in missing.iter().filter_map(|file| growing.join(&file.path).parent().map(Path::to_owned)) {
            fs::create_dir_all(&dir).map_err(disk(&dir))?;
        }
        Ok(Copied::Missing(growing, missing))
    }

    /// Makes a whole copy of what has grown; every wanted file is there and flushed.
    pub(super) fn finish(&self, id: &GenerationId, manifest: &[u8]) -> Result<PathBuf, DepotError> {
        let (whole, growing) = self.places(id);
        let path = growing.join(MANIFEST);
        write_flushed(&path, manifest).map_err(disk(&path))?;
        sync_dirs(&growing).map_err(disk(&growing))?;
        fs::rename(&growing, &whole).map_err(disk(&growing))?;
        sync_dir(&self.dir).map_err(disk(&self.dir))?;
        Ok(whole)
    }

    /// Removes what is neither `in_use` nor among the newest.
    pub(super) fn forget_old(&self, in_use: &[GenerationId]) -> Result<(), DepotError> {
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(disk(&self.dir))? {
            let dir = entry.map_err(disk(&self.dir))?.path();
            let is_used = in_use.iter().any(|id| dir.ends_with(id.as_str()));
            if is_used || !dir.is_dir() {
                continue;
            }
            // What has no sound manifest is of no use, and the oldest of all.
            let made = Generation::open(&dir).map(|generation| generation.manifest.created_at_ms);
            others.push((made.unwrap_or(i64::MIN), dir));
        }
        others.sort();
        let kept = KEPT_MAX.saturating_sub(in_use.len());
        others.truncate(others.len().saturating_sub(kept));
        others.iter().try_for_each(|(_, dir)| remove(dir))
    }

    /// Where a generation lies when it is whole, and where it grows.
    fn places(&self, id: &GenerationId) -> (PathBuf, PathBuf) {
        (self.dir.join(id.as_str()), self.dir.join(format!("{id}.tmp")))
    }
}

/// The files that are not in `dir` as they were published.
fn missing(dir: &Path, files: &[File]) -> Vec<File> {
    let is_sound = |file: &File| {
        let opened = fs::File::open(dir.join(&file.path));
        // A length that differs spares reading the file.
        let opened = opened.ok().filter(|opened| opened.metadata().is_ok_and(|there| there.len() == file.bytes));
        opened.and_then(|opened| Digest::of_reader(opened).ok()).is_some_and(|(found, _)| found == file.sha256)
    };
    files.par_iter().filter(|file| !is_sound(file)).cloned().collect()
}

/// Flushes a directory and those below it. As deep as a manifest's paths are.
fn sync_dirs(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    sync_dir(dir)
}

fn remove(dir: &Path) -> Result<(), DepotError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(disk(dir)(source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn disk(path: &Path) -> impl Fn(std::io::Error) -> DepotError {
    move |source| DepotError::Disk { path: path.to_owned(), source }
}
