//! What callers write of users: events, demographics, erasures.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use turret_retrieval::event::Event;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::kept::Erased;
use turret_retrieval::revision::Revision;
use turret_retrieval::user::Demographics;

use crate::event_log::union;
use crate::partition::{PartitionStore, ReadError, WriteError};
use crate::record::{LogRecord, UserRecord, encode};
use crate::states::parts_of;

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
        let _changing = self.changing();
        let (was_known, mut record) = match (self.record(key), &write.change) {
            // What cannot be read is erased as well; until then it counts as a user's.
            (Err(ReadError::Record { .. }), Change::Erase) => (true, UserRecord::default()),
            (record, _) => {
                let record = record?.unwrap_or_default();
                (record.is_known(), record)
            }
        };
        let written = match &write.change {
            Change::Append(events) => Written::Appended(self.append(key, &mut record, events, now_ms)?),
            Change::Describe(demographics) => {
                record.demographics_at = Revision::mint(now_ms, record.newest());
                record.demographics = demographics.clone();
                self.users.insert(key, encode(&record))?;
                Written::Described(record.demographics_at)
            }
            Change::Erase => Written::Erased(self.erase(key, &mut record, now_ms)?),
        };
        self.count(was_known, record.is_known());
        Ok(written)
    }

    fn append(
        &self,
        key: &[u8],
        record: &mut UserRecord,
        events: &[Event],
        now_ms: i64,
    ) -> Result<Appended, WriteError> {
        let allowed = record.allowed(events);
        let erased = (events.len() - allowed.len()) as u32;
        let union = union(self.log(key, record)?, &allowed, self.bounds());
        if union.is_changed {
            self.put_log(key, record, union.log, now_ms)?;
        }
        Ok(Appended { added: union.added, known: union.known, dropped: union.dropped, erased })
    }

    /// Writes the record, which says that the log has changed, then the log.
    pub(crate) fn put_log(
        &self,
        key: &[u8],
        record: &mut UserRecord,
        events: Vec<Event>,
        now_ms: i64,
    ) -> Result<(), WriteError> {
        if record.log_at == Revision::NONE {
            // Left by an erasure that was cut off: it must not be taken for the log that follows.
            self.logs.remove(key)?;
        }
        record.log_at = Revision::mint(now_ms, record.newest());
        self.users.insert(key, encode(record))?;
        self.logs.insert(key, encode(&LogRecord { events }))?;
        Ok(())
    }

    fn erase(&self, key: &[u8], record: &mut UserRecord, now_ms: i64) -> Result<Erasure, WriteError> {
        let log = match self.log(key, record) {
            Err(ReadError::Record { .. }) => Vec::new(),
            log => log?,
        };
        let revision = Revision::mint(now_ms, record.newest());
        // Events may be of a time to come, and an earlier erasure may have known of later ones.
        let latest = log.last().map_or(i64::MIN, |event| event.timestamp_ms);
        let before = record.erased.map_or(i64::MIN, |erased| erased.watermark_ms);
        let watermark_ms = now_ms.max(latest).max(before);
        let erased = Some(Erased { at: revision, watermark_ms });
        let old = std::mem::replace(record, UserRecord { erased, ..UserRecord::default() });
        self.users.insert(key, encode(record))?;
        self.forget(key)?;
        Ok(Erasure {
            revision,
            watermark_ms,
            events: log.len() as u32,
            states: old.states.into_iter().map(|state| state.encoder).collect(),
            demographics: !old.demographics.is_unknown(),
        })
    }

    /// Removes the log of a user whose record names neither it nor a state, and every part of states, whoever left it.
    pub(crate) fn forget(&self, key: &[u8]) -> Result<(), WriteError> {
        self.logs.remove(key)?;
        for part in self.parts.scan_prefix(parts_of(key)).keys() {
            self.parts.remove(part?)?;
        }
        Ok(())
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

#[cfg(test)]
mod tests;
