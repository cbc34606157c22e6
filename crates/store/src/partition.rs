//! The store of one user partition.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLockReadGuard};

use serde::{Deserialize, Serialize};
use sled::Tree;
use turret_retrieval::event::Event;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::revision::Revision;
use turret_retrieval::user::Demographics;

use crate::StoredState;
use crate::disk::{Disk, is_in_use};
use crate::event_log::Bounds;
use crate::record::{LogRecord, RecordError, StateRecord, UserRecord, decode, decode_user};

/// The most bytes in the log of one user: some of them fit into one message of a refresh.
pub(crate) const LOG_BYTES_MAX: usize = 48 << 10;
/// No id begins with a control character, so that what is not a user's may stand before all of them.
const FIRST_USER: &[u8] = &[1];
/// Users looked at for one page of a walk over all of them.
pub(crate) const SCAN_MAX: usize = 20_000;

/// How a partition is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The latest events kept for each user; at most 48 KiB of them.
    pub events_per_user_max: usize,
    /// Memory for pages.
    pub cache_bytes: u64,
}

/// The store of one user partition: event logs, sequence states, demographics.
///
/// Writes are flushed to the disk before they return. Safe to share between threads.
///
/// No sled transaction is used: one costs several writes of sled's log. The states of a chunk and how far their run is are one batch, of
/// small records: from the first one of a process on every read takes a lock, and waits while one is applied. Everything else is single writes: sled keeps their order, so what a
/// crash cuts off is the last of them, and they are ordered so that what is left is sound: a user's record before the log, so
/// that a state is never taken for newer than it is; a state's parts before the record that names them; an erased record before
/// what it no longer names. A log whose record says that there is none is none.
pub struct PartitionStore {
    pub(crate) disk: Disk,
    pub(crate) users: Tree,
    pub(crate) logs: Tree,
    pub(crate) parts: Tree,
    pub(crate) imports: Tree,
    pub(crate) users_count: AtomicU64,
    // Held while a user is read, changed and written.
    changing: Mutex<()>,
    pub(crate) kept_encoders: Mutex<Vec<EncoderVersion>>,
    settings: StoreSettings,
}

/// The right to write users; see [`PartitionStore::changing`].
pub(crate) struct Changing<'a> {
    _alone: MutexGuard<'a, ()>,
    _writing: RwLockReadGuard<'a, HashSet<OsString>>,
}

/// What a request needs of a user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserView {
    /// What is known.
    pub demographics: Demographics,
    /// The state that the asked encoder made, where there is one.
    pub state: Option<StoredState>,
    /// When the log last changed; a state that covers less is stale.
    pub log_at: Revision,
}

impl UserView {
    /// Whether there is a state, and it covers every event.
    pub fn is_current(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.covers >= self.log_at)
    }
}

/// All that stands in the store of a user, but the events themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// What is known.
    pub demographics: Demographics,
    /// How many are kept.
    pub events: u32,
    /// The time of the oldest that is kept.
    pub oldest_ms: Option<i64>,
    /// The time of the latest.
    pub latest_ms: Option<i64>,
    /// At most two.
    pub states: Vec<StateProfile>,
    /// What an erasure left.
    pub erased: Option<ErasureMark>,
}

/// A sequence state, without its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateProfile {
    /// Which encoder made it.
    pub encoder: EncoderVersion,
    /// When: milliseconds since 1970-01-01 UTC.
    pub made_at_ms: i64,
    /// Whether it covers every event.
    pub is_current: bool,
    /// How large it is.
    pub bytes: u32,
}

/// What an erasure left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureMark {
    /// When: milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Events of this time and before are ignored.
    pub watermark_ms: i64,
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// Users of whom anything is known.
    pub users: u64,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct OpenError {
    path: PathBuf,
    source: WriteError,
}

impl OpenError {
    pub(crate) fn of(dir: &Path, source: WriteError) -> Self {
        Self { path: dir.to_owned(), source }
    }

    /// Whether another process has it open, or this one: it can be opened when that one has closed it.
    pub fn is_in_use(&self) -> bool {
        matches!(&self.source, WriteError::Disk(error) if is_in_use(error))
    }
}

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// sled says so.
    #[error(transparent)]
    Disk(#[from] sled::Error),
    /// A record is not what was written.
    #[error("user {user}: {source}")]
    Record {
        /// Whose.
        user: String,
        /// What is wrong.
        source: RecordError,
    },
    /// The entry of an ad is not what was written.
    #[error("ad {ad}: {source}")]
    Ad {
        /// Whose.
        ad: String,
        /// What is wrong.
        source: RecordError,
    },
}

/// Why something cannot be written; nothing of it is acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What stands there cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// sled cannot write.
    #[error(transparent)]
    Disk(#[from] sled::Error),
    /// The log cannot be flushed.
    #[error("the log cannot be flushed: {0}")]
    Flush(#[source] io::Error),
    /// It could not be flushed before; the store must be opened again.
    #[error("an earlier flush failed")]
    Poisoned,
}

impl PartitionStore {
    /// Opens the store in `dir`, or makes it. Records of earlier versions are rewritten as of `now_ms`; what is interrupted
    /// goes on the next time.
    ///
    /// # Errors
    /// When another process has it open, or it cannot be read.
    pub fn open(dir: &Path, settings: StoreSettings, now_ms: i64) -> Result<Self, OpenError> {
        let fail = |source| OpenError::of(dir, WriteError::Disk(source));
        let disk = Disk::open(dir, settings.cache_bytes).map_err(fail)?;
        let tree = |name: &str| disk.db.open_tree(name).map_err(fail);
        let (users, logs, imports) = (tree("users")?, tree("logs")?, tree("imports")?);
        let parts = tree("parts")?;
        let (changing, kept_encoders) = (Mutex::default(), Mutex::default());
        let users_count = AtomicU64::new(0);
        let store = Self { disk, users, logs, parts, imports, users_count, changing, kept_encoders, settings };
        store.migrate(now_ms).map_err(|source| OpenError::of(dir, source))?;
        store.users_count.store(store.count_users().map_err(fail)?, Ordering::Relaxed);
        Ok(store)
    }

    /// A record that cannot be read counts as a user's.
    fn count_users(&self) -> sled::Result<u64> {
        let is_known = |bytes: &[u8]| decode_user(bytes).map_or(true, |record| record.is_known());
        self.users_after(None).values().try_fold(0, |count, bytes| Ok(count + u64::from(is_known(&bytes?))))
    }

    /// What a request needs of `user`, and no event.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn view(&self, user: &UserId, encoder: &EncoderVersion) -> Result<Option<UserView>, ReadError> {
        let found = self.record_with_state(user.as_str().as_bytes(), encoder)?;
        Ok(found.map(|(record, state)| UserView { demographics: record.demographics, state, log_at: record.log_at }))
    }

    /// What stands in the store of `user`.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn profile(&self, user: &UserId) -> Result<Option<Profile>, ReadError> {
        let Some(record) = self.record(user.as_str().as_bytes())? else { return Ok(None) };
        let events = self.log(user.as_str().as_bytes(), &record)?;
        let state = |state: StateRecord| StateProfile {
            is_current: state.covers >= record.log_at,
            bytes: state.bytes,
            encoder: state.encoder,
            made_at_ms: state.made_at_ms,
        };
        Ok(Some(Profile {
            demographics: record.demographics,
            events: events.len() as u32,
            oldest_ms: events.first().map(|event| event.timestamp_ms),
            latest_ms: events.last().map(|event| event.timestamp_ms),
            states: record.states.into_iter().map(state).collect(),
            erased: record
                .erased
                .map(|erased| ErasureMark { at_ms: erased.at.at_ms(), watermark_ms: erased.watermark_ms }),
        }))
    }

    /// The events kept of `user`, oldest first.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn events(&self, user: &UserId) -> Result<Vec<Event>, ReadError> {
        let key = user.as_str().as_bytes();
        self.record(key)?.map_or(Ok(Vec::new()), |record| self.log(key, &record))
    }

    /// The users behind `after`, or all; what is not a user's stands before them.
    pub(crate) fn users_after(&self, after: Option<&UserId>) -> sled::Iter {
        let start = after.map_or(Bound::Included(FIRST_USER), |user| Bound::Excluded(user.as_str().as_bytes()));
        self.users.range::<&[u8], _>((start, Bound::Unbounded))
    }

    /// The record of the user `key`.
    pub(crate) fn record(&self, key: &[u8]) -> Result<Option<UserRecord>, ReadError> {
        self.users.get(key)?.map(|bytes| decode_user(&bytes).map_err(|source| damaged(key, source))).transpose()
    }

    /// Waits for whoever changes a user now.
    pub(crate) fn changing(&self) -> Changing<'_> {
        // A change that panicked has written all it would write, or a beginning that is sound.
        let alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        Changing { _alone: alone, _writing: self.disk.writing() }
    }

    /// The events of the user `key`, whose record is given.
    pub(crate) fn log(&self, key: &[u8], record: &UserRecord) -> Result<Vec<Event>, ReadError> {
        if record.log_at == Revision::NONE {
            return Ok(Vec::new());
        }
        Ok(read::<LogRecord>(&self.logs, key)?.unwrap_or_default().events)
    }

    /// What the partition holds.
    pub fn stats(&self) -> StoreStats {
        StoreStats { users: self.users_count.load(Ordering::Relaxed) }
    }

    /// How much of a log is kept.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { events_max: self.settings.events_per_user_max, bytes_max: LOG_BYTES_MAX }
    }

    /// Everything written before this call is on the disk when it returns.
    pub(crate) fn flush(&self) -> Result<(), WriteError> {
        self.disk.flush()
    }
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(tree: &Tree, key: &[u8]) -> Result<Option<T>, ReadError> {
    tree.get(key)?.map(|bytes| decode(&bytes).map_err(|source| damaged(key, source))).transpose()
}

pub(crate) fn damaged(key: &[u8], source: RecordError) -> ReadError {
    ReadError::Record { user: String::from_utf8_lossy(key).into_owned(), source }
}

pub(crate) fn id_of(key: &[u8]) -> Result<UserId, ReadError> {
    let text = std::str::from_utf8(key).map_err(|_| damaged(key, RecordError::Malformed))?;
    UserId::new(text).map_err(|_| damaged(key, RecordError::Malformed))
}

#[cfg(test)]
mod tests;
