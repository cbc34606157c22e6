//! Importing a generation's snapshot into a partition.

use std::ops::ControlFlow;
use std::path::Path;

use sled::transaction::{ConflictableTransactionError, Transactional};
use turret_retrieval::event::Event;
use turret_retrieval::ids::GenerationId;
use turret_retrieval::revision::Revision;

use crate::StoredState;
use crate::event_log::{is_subset, union};
use crate::partition::{PartitionStore, ReadError, WriteError, damaged, failed};
use crate::record::{LogRecord, UserRecord, decode, decode_user, encode};
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotUser};
use crate::states::join_state;

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
    /// as current only where the snapshot knew every event that the log now keeps. Of a user who was erased here, only
    /// what is later comes back. `observe` hears how many users are done. What is interrupted is imported again in whole the next time, with the same result. No other writes may
    /// run meanwhile.
    ///
    /// # Errors
    /// When the snapshot cannot be read, the store cannot be written or `observe` breaks off.
    pub fn import_snapshot(
        &self,
        path: &Path,
        generation: &GenerationId,
        now_ms: i64,
        observe: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), ImportError> {
        if self.has_imported(generation)? {
            return Ok(());
        }
        let mut reader = SnapshotReader::open(path)?;
        let mut done = 0;
        while let Some(user) = reader.next_user()? {
            self.import_user(&user, now_ms)?;
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

    fn import_user(&self, shipped: &SnapshotUser, now_ms: i64) -> Result<(), WriteError> {
        let key = shipped.user.as_str().as_bytes();
        let done = (&self.users, &self.logs, &self.parts).transaction(|(users, logs, parts)| {
            let refuse = |source| ConflictableTransactionError::Abort(damaged(key, source));
            let stored = users.get(key)?;
            let mut record = stored.as_deref().map_or(Ok(UserRecord::default()), decode_user).map_err(refuse)?;
            let log = logs.get(key)?.as_deref().map_or(Ok(LogRecord::default()), decode).map_err(refuse)?;
            let was_known = record.is_known();
            let watermark = record.erased.map_or(i64::MIN, |erased| erased.watermark_ms);
            let later: Vec<Event> =
                shipped.events.iter().filter(|event| event.timestamp_ms > watermark).cloned().collect();
            // What was erased here may speak from a state, and demographics have no time by which to tell.
            let is_erased = record.erased.is_some() && (later.len() < shipped.events.len() || later.is_empty());
            let union = union(log.events, &later, self.bounds());
            if union.added > 0 {
                record.log_at = Revision::mint(now_ms, record.newest());
                logs.insert(key, encode(&LogRecord { events: union.log.clone() }))?;
            }
            if !is_erased {
                record.demographics = std::mem::take(&mut record.demographics).or(&shipped.demographics);
            }
            if let Some(state) = shipped.state.as_ref().filter(|_| !is_erased) {
                let covers = if is_subset(&union.log, &shipped.events) { record.log_at } else { Revision::NONE };
                // A state that knows later events is kept, even where this one knows more of the earlier ones.
                let kept = record.state(&state.encoder).map_or(i64::MIN, |kept| kept.covers_until_ms);
                if state.covers_until_ms >= kept {
                    join_state(&mut record, key, &StoredState { covers, ..state.clone() }, parts)?;
                }
            }
            users.insert(key, encode(&record))?;
            Ok((was_known, record.is_known()))
        });
        let (was_known, is_known) = done.map_err(failed)?;
        self.count(was_known, is_known);
        Ok(())
    }
}
