//! A sled database whose acknowledged writes are on the disk.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use sled::Db;

use crate::blobs::Blobs;
use crate::partition::WriteError;

/// How long a directory that is in use is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Between two tries.
const LOCK_STEP: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct Disk {
    pub(crate) db: Db,
    // sled's own flush does not wait for the drive; this handle of its log does.
    file: File,
    pub(crate) blobs: Blobs,
    // Whether a flush has; held while one is going on.
    has_failed: Mutex<bool>,
}

impl Disk {
    /// Opens the database in `dir`, or makes it. Waits for a moment while another has it open: sled's threads may hold the lock of a
    /// directory a little longer than its database lives.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> sled::Result<Self> {
        let config = sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None);
        let until = Instant::now() + LOCK_WAIT;
        let db = loop {
            match config.open() {
                Err(error) if is_in_use(&error) && Instant::now() < until => thread::sleep(LOCK_STEP),
                opened => break opened?,
            }
        };
        let file = File::open(dir.join("db"))?;
        Ok(Self { db, file, blobs: Blobs::of(dir), has_failed: Mutex::default() })
    }

    /// Held by whoever writes, until the write has returned.
    pub(crate) fn writing(&self) -> RwLockReadGuard<'_, HashSet<OsString>> {
        self.blobs.writing()
    }

    /// Everything written before this call is on the disk when it returns.
    pub(crate) fn flush(&self) -> Result<(), WriteError> {
        // One at a time: the system tells of a lost write once, and the next call would succeed over what is not on the disk.
        let mut has_failed = self.has_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *has_failed {
            return Err(WriteError::Poisoned);
        }
        let flushed = self.db.flush().map_err(WriteError::Disk);
        let flushed = flushed.and_then(|_| self.blobs.flush().map_err(WriteError::Flush));
        let flushed = flushed.and_then(|_| self.file.sync_data().map_err(WriteError::Flush));
        *has_failed = flushed.is_err();
        flushed
    }
}

/// Whether this process or another has the directory open.
pub(crate) fn is_in_use(error: &sled::Error) -> bool {
    // sled has no kind of error for it.
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}
