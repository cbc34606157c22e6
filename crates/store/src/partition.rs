//! The store of one user partition.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use sled::{Db, Tree};
use turret_retrieval::event::Event;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::user::Demographics;

use crate::StoredState;
use crate::blobs::Blobs;
use crate::event_log::{Bounds, union};
use crate::record::{LogRecord, RecordError, UserRecord, decode, encode};

/// The most bytes in the log of one user: sixteen of them fit into one message of a refresh.
const LOG_BYTES_MAX: usize = 48 << 10;
/// Users looked at for one page of dirty ones.
const SCAN_MAX: usize = 20_000;

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
pub struct PartitionStore {
    db: Db,
    // sled's own flush does not wait for the drive; this handle of its log does.
    file: File,
    pub(crate) blobs: Blobs,
    pub(crate) users: Tree,
    pub(crate) logs: Tree,
    pub(crate) states: Tree,
    pub(crate) state_parts: Tree,
    pub(crate) imports: Tree,
    pub(crate) users_count: AtomicU64,
    poisoned: AtomicBool,
    settings: StoreSettings,
}

/// What a request needs of a user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserView {
    /// What is known.
    pub demographics: Demographics,
    /// The state that the asked encoder made, where there is one.
    pub state: Option<StoredState>,
    /// How many events were ever added; a state that covers fewer is stale.
    pub events_total: u64,
}

/// What became of one user's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// New ones, kept.
    pub added: u32,
    /// Known already.
    pub known: u32,
    /// New, but older than everything the full log keeps.
    pub dropped: u32,
}

/// A user whose state does not cover all events.
#[derive(Clone, Debug, PartialEq)]
pub struct Dirty {
    /// Who.
    pub user: UserId,
    /// The log, oldest first.
    pub events: Vec<Event>,
    /// What a state made of these events covers.
    pub events_total: u64,
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
    /// Users with a record.
    pub users: u64,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct OpenError {
    path: PathBuf,
    source: sled::Error,
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
    /// Opens the store in `dir`, or makes it.
    ///
    /// # Errors
    /// When another process has it open, or it cannot be read.
    pub fn open(dir: &Path, settings: StoreSettings) -> Result<Self, OpenError> {
        let fail = |source| OpenError { path: dir.to_owned(), source };
        let config = sled::Config::new().path(dir).cache_capacity(settings.cache_bytes).flush_every_ms(None);
        let db = config.open().map_err(fail)?;
        let tree = |name: &str| db.open_tree(name).map_err(fail);
        let (users, logs, imports) = (tree("users")?, tree("logs")?, tree("imports")?);
        let (states, state_parts) = (tree("states")?, tree("state_parts")?);
        let file = File::open(dir.join("db")).map_err(|error| fail(sled::Error::Io(error)))?;
        let users_count = AtomicU64::new(users.len() as u64);
        let (poisoned, blobs) = (AtomicBool::new(false), Blobs::of(dir));
        Ok(Self { db, file, blobs, users, logs, states, state_parts, imports, users_count, poisoned, settings })
    }

    /// Appends events, one batch of users with one flush; what it returns is on the disk.
    ///
    /// One outcome for each user of `batch`, in its order. A repeated event changes nothing.
    ///
    /// # Errors
    /// When a user's records cannot be read or written; users before it in the batch may have been appended to.
    pub fn append_events(&self, batch: &[(UserId, Vec<Event>)]) -> Result<Vec<Appended>, WriteError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for (user, events) in batch {
            let (outcome, is_new) = self.append(user, events)?;
            self.users_count.fetch_add(u64::from(is_new), Ordering::Relaxed);
            outcomes.push(outcome);
        }
        self.flush()?;
        Ok(outcomes)
    }

    fn append(&self, user: &UserId, events: &[Event]) -> Result<(Appended, bool), WriteError> {
        let key = user.as_str().as_bytes();
        let _writing = self.blobs.writing();
        let done = (&self.users, &self.logs).transaction(|(users, logs)| {
            let refuse = |source| ConflictableTransactionError::Abort(damaged(key, source));
            let stored = users.get(key)?;
            let mut record = stored.as_deref().map_or(Ok(UserRecord::default()), decode).map_err(refuse)?;
            let log = logs.get(key)?.as_deref().map_or(Ok(LogRecord::default()), decode).map_err(refuse)?;
            let union = union(log.events, events, self.bounds());
            if union.added > 0 {
                record.events_total += u64::from(union.added);
                users.insert(key, encode(&record))?;
                logs.insert(key, encode(&LogRecord { events: union.log }))?;
            }
            let outcome = Appended { added: union.added, known: union.known, dropped: union.dropped };
            Ok((outcome, stored.is_none() && union.added > 0))
        });
        done.map_err(|error| match error {
            TransactionError::Abort(error) => WriteError::Read(error),
            TransactionError::Storage(error) => WriteError::Disk(error),
        })
    }

    /// What a request needs of `user`, and no event.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn view(&self, user: &UserId, encoder: &EncoderVersion) -> Result<Option<UserView>, ReadError> {
        let key = user.as_str().as_bytes();
        let Some(record) = read::<UserRecord>(&self.users, key)? else { return Ok(None) };
        let state = self.state(user, encoder)?;
        Ok(Some(UserView { demographics: record.demographics, state, events_total: record.events_total }))
    }

    /// The events kept of `user`, oldest first.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn events(&self, user: &UserId) -> Result<Vec<Event>, ReadError> {
        Ok(read::<LogRecord>(&self.logs, user.as_str().as_bytes())?.unwrap_or_default().events)
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

    /// What a refresh needs of a user whose state by `encoder` does not cover all events.
    fn dirty(&self, user: &UserId, record: &[u8], encoder: &EncoderVersion) -> Result<Option<Dirty>, ReadError> {
        let record = decode::<UserRecord>(record).map_err(|source| damaged(user.as_str().as_bytes(), source))?;
        let events_total = record.events_total;
        let state = self.state_head(user, encoder)?;
        if events_total == 0 || state.is_some_and(|state| state.covers_events >= events_total) {
            return Ok(None);
        }
        Ok(Some(Dirty { user: user.clone(), events: self.events(user)?, events_total }))
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
        if self.poisoned.load(Ordering::Acquire) {
            return Err(WriteError::Poisoned);
        }
        let flushed = self.db.flush().map_err(WriteError::Disk);
        let flushed = flushed.and_then(|_| self.blobs.flush().map_err(WriteError::Flush));
        let flushed = flushed.and_then(|_| self.file.sync_data().map_err(WriteError::Flush));
        if flushed.is_err() {
            // The system tells of a lost write once; the next call would succeed over what is not on the disk.
            self.poisoned.store(true, Ordering::Release);
        }
        flushed
    }
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(tree: &Tree, key: &[u8]) -> Result<Option<T>, ReadError> {
    tree.get(key)?.map(|bytes| decode(&bytes).map_err(|source| damaged(key, source))).transpose()
}

pub(crate) fn damaged(key: &[u8], source: RecordError) -> ReadError {
    ReadError::Record { user: String::from_utf8_lossy(key).replace('\0', ", encoder "), source }
}

fn id_of(key: &[u8]) -> Result<UserId, ReadError> {
    let text = std::str::from_utf8(key).map_err(|_| damaged(key, RecordError::Malformed))?;
    UserId::new(text).map_err(|_| damaged(key, RecordError::Malformed))
}

#[cfg(test)]
mod tests;
