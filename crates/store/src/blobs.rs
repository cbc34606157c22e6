//! The files beside sled's log, on the disk.
//!
//! sled moves a page of more than 128 KiB to a file of its own, and never flushes it. Some twenty long event logs make
//! such a page: so what is acknowledged is on the disk only when these files are, too.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// The directory of these files, and those that are known to be on the disk.
pub(crate) struct Blobs {
    dir: PathBuf,
    // Held for reading while sled writes, so that no file is flushed half-written and taken for whole.
    flushed: RwLock<HashSet<OsString>>,
}

impl Blobs {
    /// Those of the store in `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { dir: dir.join("blobs"), flushed: RwLock::default() }
    }

    /// Held by whoever writes to sled, until the write has returned.
    pub(crate) fn writing(&self) -> RwLockReadGuard<'_, HashSet<OsString>> {
        // The set is whole at every moment: a panic elsewhere does not harm it.
        self.flushed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flushes every file that is not known to be on the disk. Returns how many those were: as a rule none.
    pub(crate) fn flush(&self) -> io::Result<usize> {
        let mut flushed = self.flushed.write().unwrap_or_else(PoisonError::into_inner);
        let names = fs::read_dir(&self.dir)?.map(|entry| entry.map(|entry| entry.file_name()));
        let names = names.collect::<io::Result<HashSet<OsString>>>()?;
        flushed.retain(|name| names.contains(name));
        let fresh: Vec<&OsString> = names.difference(&flushed).collect();
        for name in &fresh {
            match File::open(self.dir.join(name)) {
                Ok(file) => file.sync_all()?,
                // sled removes what no page needs any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let count = fresh.len();
        if count > 0 {
            File::open(&self.dir)?.sync_all()?;
            *flushed = names;
        }
        Ok(count)
    }
}
