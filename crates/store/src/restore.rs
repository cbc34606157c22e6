//! Putting users back as they were exported.

use turret_retrieval::ids::{GenerationId, UserId};
use turret_retrieval::kept::{KeptError, KeptUser};

use crate::event_log::Bounds;
use crate::partition::{LOG_BYTES_MAX, PartitionStore, ReadError, WriteError};
use crate::record::{LogRecord, StateRecord, UserRecord, encode};

/// Why a user is not put back; nothing of this one is written then.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Something is known of the user here: what is put back is not joined to it.
    #[error("user {user} is there already")]
    Known {
        /// Whose.
        user: UserId,
    },
    /// Nobody is kept so.
    #[error("user {user}: {}: {source}", source.field())]
    Unsound {
        /// Whose.
        user: UserId,
        /// What is wrong.
        source: KeptError,
    },
    /// A log that no store holds.
    #[error("user {user}: events: they take more than {LOG_BYTES_MAX} bytes")]
    LogTooLarge {
        /// Whose.
        user: UserId,
    },
    /// The store cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<ReadError> for RestoreError {
    fn from(error: ReadError) -> Self {
        Self::Write(WriteError::Read(error))
    }
}

impl From<sled::Error> for RestoreError {
    fn from(error: sled::Error) -> Self {
        Self::Write(WriteError::Disk(error))
    }
}

impl PartitionStore {
    /// Puts back a user of whom nothing is known here, with all revisions as they were: an export gives the same again.
    ///
    /// A log of more events than this store is set to keep is put back whole; the next event cuts it. Not flushed: users are
    /// many, and on the disk when [`finish_restore`](Self::finish_restore) returns.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn restore(&self, user: &KeptUser) -> Result<(), RestoreError> {
        let id = || user.user.clone();
        user.check().map_err(|source| RestoreError::Unsound { user: id(), source })?;
        let bounds = Bounds { events_max: usize::MAX, bytes_max: LOG_BYTES_MAX };
        if bounds.kept(user.events.iter()) < user.events.len() {
            return Err(RestoreError::LogTooLarge { user: id() });
        }
        let key = user.user.as_str().as_bytes();
        let changing = self.changing();
        if self.users.contains_key(key)? {
            return Err(RestoreError::Known { user: id() });
        }
        // What an erasure left that was cut off must not be taken for this user's.
        self.forget(key)?;
        let mut record = UserRecord {
            demographics: user.demographics.clone(),
            demographics_at: user.demographics_at,
            log_at: user.log_at,
            erased: user.erased,
            states: Vec::with_capacity(user.states.len()),
        };
        for state in &user.states {
            let kept = StateRecord::of(state, false);
            self.put_parts(key, &kept, state, &changing)?;
            record.states.push(kept);
        }
        self.users.insert(key, encode(&record))?;
        if !user.events.is_empty() {
            self.logs.insert(key, encode(&LogRecord { events: user.events.clone() }))?;
        }
        self.count(false, record.is_known());
        Ok(())
    }

    /// Ends a restoration: says that the snapshots of `generations`, and no other, were imported into what was put back. All of
    /// it is on the disk then.
    ///
    /// # Errors
    /// When sled cannot write, or not flush.
    pub fn finish_restore(&self, generations: &[GenerationId]) -> Result<(), WriteError> {
        self.flush()?;
        // Only after everything they stand for is on the disk.
        self.imports.clear()?;
        for generation in generations {
            self.imports.insert(generation.as_str(), &[])?;
        }
        self.flush()
    }
}

#[cfg(test)]
mod tests;
