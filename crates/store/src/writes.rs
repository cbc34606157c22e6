//! What callers write of users: events, demographics, erasures.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use sled::transaction::{ConflictableTransactionError, Transactional, TransactionalTree, UnabortableTransactionError};
use turret_retrieval::event::Event;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::revision::Revision;
use turret_retrieval::user::Demographics;

use crate::event_log::{Bounds, union};
use crate::partition::{PartitionStore, ReadError, WriteError, damaged, failed};
use crate::record::{Erased, LogRecord, RecordError, UserRecord, decode, decode_user, encode};
use crate::states::forget_parts;

/// One write of one user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// Whose.
    pub user: UserId,
    /// What.
    pub change: Change,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Events join the log. A repeated one changes nothing.
    Append(Vec<Event>),
    /// These are known from now on, in the place of all that was.
    Describe(Demographics),
    /// Nothing is known any more.
    Erase,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Written {
    /// Of [`Change::Append`].
    Appended(Appended),
    /// Of [`Change::Describe`].
    Described(Revision),
    /// Of [`Change::Erase`].
    Erased(Erasure),
}

/// What became of one user's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// New ones, kept.
    pub added: u32,
    /// Known already.
    pub known: u32,
    /// New, but older than everything the full log keeps.
    pub dropped: u32,
    /// Of a time before the user was erased.
    pub erased: u32,
}

/// What an erasure removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Of the erasure itself.
    pub revision: Revision,
    /// Events of this time and before are ignored from now on: milliseconds since 1970-01-01 UTC.
    pub watermark_ms: i64,
    /// Events that were kept.
    pub events: u32,
    /// The encoders of the states that were kept.
    pub states: Vec<EncoderVersion>,
    /// Whether an age, a country or a gender was known.
    pub demographics: bool,
}

type Outcome<T> = Result<T, ConflictableTransactionError<ReadError>>;

impl PartitionStore {
    /// Writes in order, and flushes once: what it returns is on the disk. One outcome for each of `writes`; one whose user's
    /// records cannot be read fails alone.
    ///
    /// # Errors
    /// When sled cannot write, or not flush; some of the writes may have been made.
    pub fn write(&self, writes: &[Write], now_ms: i64) -> Result<Vec<Result<Written, WriteError>>, WriteError> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            match self.write_one(write, now_ms) {
                Err(error @ WriteError::Read(ReadError::Record { .. })) => outcomes.push(Err(error)),
                outcome => outcomes.push(Ok(outcome?)),
            }
        }
        self.flush()?;
        Ok(outcomes)
    }

    fn write_one(&self, write: &Write, now_ms: i64) -> Result<Written, WriteError> {
        let key = write.user.as_str().as_bytes();
        let _writing = self.blobs.writing();
        let done = (&self.users, &self.logs, &self.parts).transaction(|(users, logs, parts)| {
            let refuse = |source: RecordError| ConflictableTransactionError::Abort(damaged(key, source));
            let stored = users.get(key)?;
            let record = stored.as_deref().map_or(Ok(UserRecord::default()), decode_user).map_err(refuse)?;
            let was_known = record.is_known();
            let user = Stored { key, record, trees: [users, logs, parts], now_ms };
            let (record, written) = match &write.change {
                Change::Append(events) => user.append(events, self.bounds())?,
                Change::Describe(demographics) => user.describe(demographics)?,
                Change::Erase => user.erase()?,
            };
            Ok((was_known, record, written))
        });
        let (was_known, is_known, written) = done.map_err(failed)?;
        self.count(was_known, is_known);
        Ok(written)
    }

    /// Counts a user of whom something is known now, or is no longer.
    pub(crate) fn count(&self, was_known: bool, is_known: bool) {
        match (was_known, is_known) {
            (false, true) => drop(self.users_count.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.users_count.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

/// A user in a transaction over users, logs and parts.
struct Stored<'a> {
    key: &'a [u8],
    record: UserRecord,
    trees: [&'a TransactionalTree; 3],
    now_ms: i64,
}

impl Stored<'_> {
    fn log(&self) -> Outcome<Vec<Event>> {
        let bytes = self.trees[1].get(self.key)?;
        let log = bytes.as_deref().map_or(Ok(LogRecord::default()), decode);
        Ok(log.map_err(|source| ConflictableTransactionError::Abort(damaged(self.key, source)))?.events)
    }

    fn mint(&self) -> Revision {
        Revision::mint(self.now_ms, self.record.newest())
    }

    /// Writes the record. Says whether anything is known of the user now.
    fn keep(&self) -> Result<bool, UnabortableTransactionError> {
        self.trees[0].insert(self.key, encode(&self.record))?;
        Ok(self.record.is_known())
    }

    fn append(mut self, events: &[Event], bounds: Bounds) -> Outcome<(bool, Written)> {
        let watermark = self.record.erased.map_or(i64::MIN, |erased| erased.watermark_ms);
        let later: Vec<Event> = events.iter().filter(|event| event.timestamp_ms > watermark).cloned().collect();
        let erased = (events.len() - later.len()) as u32;
        let union = union(self.log()?, &later, bounds);
        let appended = Appended { added: union.added, known: union.known, dropped: union.dropped, erased };
        let mut is_known = self.record.is_known();
        if union.added > 0 {
            self.record.log_at = self.mint();
            self.trees[1].insert(self.key, encode(&LogRecord { events: union.log }))?;
            is_known = self.keep()?;
        }
        Ok((is_known, Written::Appended(appended)))
    }

    fn describe(mut self, demographics: &Demographics) -> Outcome<(bool, Written)> {
        let revision = self.mint();
        self.record.demographics = demographics.clone();
        self.record.demographics_at = revision;
        Ok((self.keep()?, Written::Described(revision)))
    }

    fn erase(mut self) -> Outcome<(bool, Written)> {
        let log = self.log()?;
        let revision = self.mint();
        // Events may be of a time to come, and an earlier erasure may have known of later ones.
        let latest = log.last().map_or(i64::MIN, |event| event.timestamp_ms);
        let before = self.record.erased.map_or(i64::MIN, |erased| erased.watermark_ms);
        let watermark_ms = self.now_ms.max(latest).max(before);
        let record = std::mem::take(&mut self.record);
        for state in &record.states {
            forget_parts(self.key, state, self.trees[2])?;
        }
        self.trees[1].remove(self.key)?;
        self.record.erased = Some(Erased { at: revision, watermark_ms });
        let erasure = Erasure {
            revision,
            watermark_ms,
            events: log.len() as u32,
            states: record.states.into_iter().map(|state| state.encoder).collect(),
            demographics: !record.demographics.is_unknown(),
        };
        Ok((self.keep()?, Written::Erased(erasure)))
    }
}

#[cfg(test)]
mod tests;
