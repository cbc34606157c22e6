//! The store of one user partition.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLockReadGuard};

use serde::{Deserialize, Serialize};
use sled::{Db, Tree};
use turret_retrieval::event::Event;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::revision::Revision;
use turret_retrieval::user::Demographics;

use crate::StoredState;
use crate::blobs::Blobs;
use crate::event_log::Bounds;
use crate::record::{LogRecord, RecordError, StateRecord, UserRecord, decode, decode_user, encode};

/// The most bytes in the log of one user: sixteen of them fit into one message of a refresh.
pub(crate) const LOG_BYTES_MAX: usize = 48 << 10;
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
/// No sled transaction is used: each costs several writes of sled's log. sled keeps the order of its writes, so what a crash
/// cuts off is the last of them, and they are ordered so that what is left is sound: a user's record before the log, so
/// that a state is never taken for newer than it is; a state's parts before the record that names them; an erased record before
/// what it no longer names. A log whose record says that there is none is none.
pub struct PartitionStore {
    pub(crate) db: Db,
    // sled's own flush does not wait for the drive; this handle of its log does.
    file: File,
    pub(crate) blobs: Blobs,
    pub(crate) users: Tree,
    pub(crate) logs: Tree,
    pub(crate) parts: Tree,
    pub(crate) imports: Tree,
    pub(crate) users_count: AtomicU64,
    // Whether a flush has; held while one is going on.
    has_failed: Mutex<bool>,
    // Held while a user is read, changed and written.
    changing: Mutex<()>,
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

/// A user whose state does not cover all events.
#[derive(Clone, Debug, PartialEq)]
pub struct Dirty {
    /// Who.
    pub user: UserId,
    /// The log, oldest first.
    pub events: Vec<Event>,
    /// What a state made of these events covers.
    pub log_at: Revision,
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

/// Some of the users whose states must be made again.
#[derive(Clone, Debug, PartialEq)]
pub struct DirtyPage {
    /// In the order of their ids.
    pub users: Vec<Dirty>,
    /// Where the next page starts, after this user; none at the end.
    pub next: Option<UserId>,
    /// Users passed over because a record of theirs cannot be read.
    pub damaged: Vec<UserId>,
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
    /// Whether another process has it open, or this one: it can be opened when that one has closed it.
    pub fn is_in_use(&self) -> bool {
        let WriteError::Disk(sled::Error::Io(error)) = &self.source else { return false };
        // sled has no kind of error for it.
        error.to_string().contains("could not acquire lock")
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
        let fail = |source| OpenError { path: dir.to_owned(), source: WriteError::Disk(source) };
        let config = sled::Config::new().path(dir).cache_capacity(settings.cache_bytes).flush_every_ms(None);
        let db = config.open().map_err(fail)?;
        let tree = |name: &str| db.open_tree(name).map_err(fail);
        let (users, logs, imports) = (tree("users")?, tree("logs")?, tree("imports")?);
        let parts = tree("parts")?;
        let file = File::open(dir.join("db")).map_err(|error| fail(sled::Error::Io(error)))?;
        let (has_failed, changing) = (Mutex::default(), Mutex::default());
        let (blobs, users_count) = (Blobs::of(dir), AtomicU64::new(0));
        let store = Self { db, file, blobs, users, logs, parts, imports, users_count, has_failed, changing, settings };
        store.migrate(now_ms).map_err(|source| OpenError { path: dir.to_owned(), source })?;
        store.users_count.store(store.count_users().map_err(fail)?, Ordering::Relaxed);
        Ok(store)
    }

    /// A record that cannot be read counts as a user's.
    fn count_users(&self) -> sled::Result<u64> {
        let is_known = |bytes: &[u8]| decode_user(bytes).map_or(true, |record| record.is_known());
        self.users.iter().values().try_fold(0, |count, bytes| Ok(count + u64::from(is_known(&bytes?))))
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

    /// The next users, after `after`, whose state by `encoder` is missing or does not cover all their events.
    ///
    /// At most `limit`; looks at a bounded number of users, so a page may be empty and still have a next one.
    ///
    /// A user whose records cannot be read is passed over, so that the others are not kept waiting.
    ///
    /// # Errors
    /// When sled cannot read.
    pub fn dirty_users(
        &self,
        encoder: &EncoderVersion,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<DirtyPage, ReadError> {
        let start = after.map_or(Bound::Unbounded, |user| Bound::Excluded(user.as_str().as_bytes()));
        let mut page = DirtyPage { users: Vec::new(), next: None, damaged: Vec::new() };
        for (scanned, entry) in self.users.range::<&[u8], _>((start, Bound::Unbounded)).enumerate() {
            let (key, bytes) = entry?;
            let user = id_of(&key)?;
            match self.dirty(&user, &bytes, encoder) {
                Ok(dirty) => page.users.extend(dirty),
                Err(ReadError::Record { .. }) => page.damaged.push(user.clone()),
                Err(error @ ReadError::Disk(_)) => return Err(error),
            }
            if page.users.len() >= limit || scanned + 1 >= SCAN_MAX {
                page.next = Some(user);
                break;
            }
        }
        Ok(page)
    }

    /// How many users' states by `encoder` are missing or do not cover all their events. Looks at every user.
    ///
    /// # Errors
    /// When sled cannot read.
    pub fn count_dirty(&self, encoder: &EncoderVersion) -> Result<u64, ReadError> {
        let mut count = 0;
        for bytes in self.users.iter().values() {
            count += u64::from(decode_user(&bytes?).is_ok_and(|record| record.is_dirty(encoder)));
        }
        Ok(count)
    }

    /// What a refresh needs of a user whose state by `encoder` does not cover all events.
    fn dirty(&self, user: &UserId, record: &[u8], encoder: &EncoderVersion) -> Result<Option<Dirty>, ReadError> {
        let key = user.as_str().as_bytes();
        if !decode_user(record).map_err(|source| damaged(key, source))?.is_dirty(encoder) {
            return Ok(None);
        }
        // Once more, while nobody writes: a record is written before its log, and what is between the two is not to be read.
        let _changing = self.changing();
        let Some(mut record) = self.record(key)?.filter(|record| record.is_dirty(encoder)) else { return Ok(None) };
        let events = self.log(key, &record)?;
        if events.is_empty() {
            // The first log of this user was cut off behind its record.
            record.log_at = Revision::NONE;
            self.users.insert(key, encode(&record))?;
            return Ok(None);
        }
        Ok(Some(Dirty { user: user.clone(), events, log_at: record.log_at }))
    }

    /// The record of the user `key`.
    pub(crate) fn record(&self, key: &[u8]) -> Result<Option<UserRecord>, ReadError> {
        self.users.get(key)?.map(|bytes| decode_user(&bytes).map_err(|source| damaged(key, source))).transpose()
    }

    /// Waits for whoever changes a user now.
    pub(crate) fn changing(&self) -> Changing<'_> {
        // A change that panicked has written all it would write, or a beginning that is sound.
        let alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        Changing { _alone: alone, _writing: self.blobs.writing() }
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
