//! Importing a generation's snapshot into a partition.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use turret_retrieval::ids::GenerationId;

use crate::event_log::{is_subset, union};
use crate::partition::{PartitionStore, ReadError, WriteError, read};
use crate::record::{LogRecord, StateHead, UserRecord, encode};
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotUser};

/// Users between two calls of the observer.
const OBSERVE_EVERY: u64 = 1_024;

/// Why a snapshot was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The observer broke it off.
    #[error("the import was broken off")]
    BrokenOff,
}

impl From<ReadError> for ImportError {
    fn from(error: ReadError) -> Self {
        Self::Write(WriteError::Read(error))
    }
}

impl From<sled::Error> for ImportError {
    fn from(error: sled::Error) -> Self {
        Self::Write(WriteError::Disk(error))
    }
}

impl PartitionStore {
    /// Whether `generation`'s snapshot was imported already, so that its file is not needed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_imported(&self, generation: &GenerationId) -> Result<bool, ReadError> {
        Ok(self.imports.contains_key(generation.as_str())?)
    }

    /// Joins the users of `generation`'s snapshot to the store; a snapshot that was imported already is left alone.
    ///
    /// Events are joined by union and demographics that the store lacks are filled in. A state of the snapshot counts
    /// as current only where the snapshot knew every event that the log now keeps. `observe` hears how many users are
    /// done. What is interrupted is imported again in whole the next time, with the same result. No other writes may
    /// run meanwhile.
    ///
    /// # Errors
    /// When the snapshot cannot be read, the store cannot be written or `observe` breaks off.
    pub fn import_snapshot(
        &self,
        path: &Path,
        generation: &GenerationId,
        observe: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), ImportError> {
        if self.has_imported(generation)? {
            return Ok(());
        }
        let mut reader = SnapshotReader::open(path)?;
        let mut done = 0;
        while let Some(user) = reader.next_user()? {
            self.import_user(user)?;
            done += 1;
            if done % OBSERVE_EVERY == 0 && observe(done).is_break() {
                return Err(ImportError::BrokenOff);
            }
        }
        self.flush()?;
        // Only after everything it stands for is on the disk.
        self.imports.insert(generation.as_str(), &[])?;
        self.flush()?;
        Ok(())
    }

    fn import_user(&self, shipped: SnapshotUser) -> Result<(), ImportError> {
        // No other writes run meanwhile, and nothing is flushed before the end: the files are whole by then.
        let key = shipped.user.as_str().as_bytes();
        let stored: Option<UserRecord> = read(&self.users, key)?;
        let is_new = stored.is_none();
        let mut record = stored.unwrap_or_default();
        let log: LogRecord = read(&self.logs, key)?.unwrap_or_default();
        let union = union(log.events, &shipped.events, self.bounds());
        let is_covered = is_subset(&union.log, &shipped.events);
        if union.added > 0 {
            record.events_total += u64::from(union.added);
        }
        // An import that was cut off may have written the log and not yet this record.
        record.events_total = record.events_total.max(union.log.len() as u64);
        record.demographics = record.demographics.or(&shipped.demographics);
        let total = record.events_total;
        // The count first: cut off here, it is too large, and a state too few events; never the other way round.
        self.users.insert(key, encode(&record))?;
        if union.added > 0 {
            self.logs.insert(key, encode(&LogRecord { events: union.log }))?;
        }
        self.users_count.fetch_add(u64::from(is_new), Ordering::Relaxed);
        if let Some(mut state) = shipped.state {
            state.covers_events = if is_covered { total } else { total.saturating_sub(1) };
            let kept = self.state_head(&shipped.user, &state.encoder)?;
            // A state that knows later events is kept, even where this one knows more of the earlier ones.
            let is_better = |kept: StateHead| {
                state.covers_until_ms >= kept.covers_until_ms
                    && (state.covers_events, state.made_at_ms) > (kept.covers_events, kept.made_at_ms)
            };
            if kept.is_none_or(is_better) {
                self.put_state(&shipped.user, &state)?;
            }
        }
        Ok(())
    }
}
