//! Importing a generation's snapshot into a partition.

use std::ops::ControlFlow;
use std::path::Path;

use turret_retrieval::ids::{GenerationId, UserId};
use turret_retrieval::revision::Revision;

use crate::StoredState;
use crate::event_log::{is_subset, union};
use crate::partition::{PartitionStore, ReadError, WriteError};
use crate::record::encode;
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotUser};

/// What came of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Users who were joined.
    pub users: u64,
    /// Those whose records in the store cannot be read; they are left as they are.
    pub damaged: Vec<UserId>,
}

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
    /// Events are joined by union, and demographics that the store lacks are filled in, unless they were set here. A state of the
    /// snapshot counts as current only where the snapshot knew every event that the log now keeps. Of a user who was erased
    /// here, only what is later comes back. `observe` hears how many users are done. What is interrupted is imported again in
    /// whole the next time, with the same result.
    ///
    /// # Errors
    /// When the snapshot cannot be read, the store cannot be written or `observe` breaks off. One user whose records cannot be read
    /// keeps nobody else out.
    pub fn import_snapshot(
        &self,
        path: &Path,
        generation: &GenerationId,
        now_ms: i64,
        observe: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Imported, ImportError> {
        let mut imported = Imported::default();
        if self.has_imported(generation)? {
            return Ok(imported);
        }
        let mut reader = SnapshotReader::open(path)?;
        let mut done = 0;
        while let Some(user) = reader.next_user()? {
            match self.import_user(&user, now_ms) {
                Ok(()) => imported.users += 1,
                Err(WriteError::Read(ReadError::Record { .. })) => imported.damaged.push(user.user),
                Err(error) => return Err(error.into()),
            }
            done += 1;
            if done % OBSERVE_EVERY == 0 && observe(done).is_break() {
                return Err(ImportError::BrokenOff);
            }
        }
        self.flush()?;
        // Only after everything it stands for is on the disk.
        self.imports.insert(generation.as_str(), &[])?;
        self.flush()?;
        Ok(imported)
    }

    fn import_user(&self, shipped: &SnapshotUser, now_ms: i64) -> Result<(), WriteError> {
        let key = shipped.user.as_str().as_bytes();
        let changing = self.changing();
        let mut record = self.record(key)?.unwrap_or_default();
        let was_known = record.is_known();
        let allowed = record.allowed(&shipped.events);
        // What was erased here may speak from a state. Demographics have no time by which to tell, so that only who sets them brings them
        // back while the mark lasts.
        let is_erased = record.erased.is_some() && (allowed.len() < shipped.events.len() || allowed.is_empty());
        let union = union(self.log(key, &record)?, &allowed, self.bounds());
        let is_covered = is_subset(&union.log, &shipped.events);
        if record.erased.is_none() && record.demographics_at == Revision::NONE {
            record.demographics = std::mem::take(&mut record.demographics).or(&shipped.demographics);
        }
        if union.is_changed {
            // Heard of when it did something, not now.
            let latest_ms = union.log.last().map_or(now_ms, |event| event.timestamp_ms);
            self.put_log(key, &mut record, union.log, now_ms.min(latest_ms))?;
        } else {
            self.users.insert(key, encode(&record))?;
        }
        if let Some(state) = shipped.state.as_ref().filter(|_| !is_erased) {
            let covers = if is_covered { record.log_at } else { Revision::NONE };
            // A state that knows later events is kept, even where this one knows more of the earlier ones.
            let kept = record.state(&state.encoder).map_or(i64::MIN, |kept| kept.covers_until_ms);
            if state.covers_until_ms >= kept {
                self.join_state(&mut record, key, &StoredState { covers, ..state.clone() }, &changing)?;
            }
        }
        self.count(was_known, record.is_known());
        Ok(())
    }
}
