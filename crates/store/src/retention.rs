//! What is forgotten because it is old: events, users who have been silent, and the marks of erasures.

use turret_retrieval::ids::UserId;
use turret_retrieval::revision::Revision;

use crate::partition::{PartitionStore, ReadError, WriteError, id_of};
use crate::record::{UserRecord, encode};

/// Users looked at for one page; each may have a log to be read.
const SWEEP_MAX: usize = 1_000;

/// How long things are kept, in milliseconds; without a limit where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// An event, after its own time.
    pub events_ms: Option<i64>,
    /// A user, after the last new event, or demographics that were set; one of whom generations told no event is kept.
    pub silent_ms: Option<i64>,
    /// The mark of an erasure: events of a time before it that come later than this bring the user back.
    pub erased_ms: Option<i64>,
}

/// What was forgotten of some users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Events that were too old.
    pub events: u64,
    /// Users who had been silent for too long.
    pub silent_users: u64,
    /// Marks of erasures.
    pub erasures: u64,
    /// Where the next page starts, after this user; none at the end.
    pub next: Option<UserId>,
}

impl PartitionStore {
    /// Forgets what is too old at `now_ms` of the next users after `after`, and flushes once. A user whose records cannot be
    /// read is left alone.
    ///
    /// # Errors
    /// When sled cannot write.
    pub fn sweep(&self, after: Option<&UserId>, retention: Retention, now_ms: i64) -> Result<Swept, WriteError> {
        let mut swept = Swept::default();
        for (scanned, key) in self.users_after(after).keys().enumerate() {
            let key = key?;
            match self.sweep_user(&key, retention, now_ms) {
                Ok(one) => {
                    swept.events += one.events;
                    swept.silent_users += one.silent_users;
                    swept.erasures += one.erasures;
                }
                Err(WriteError::Read(ReadError::Record { .. })) => {}
                Err(error) => return Err(error),
            }
            if scanned + 1 >= SWEEP_MAX {
                swept.next = Some(id_of(&key)?);
                break;
            }
        }
        if swept.events + swept.silent_users + swept.erasures > 0 {
            self.flush()?;
        }
        Ok(swept)
    }

    fn sweep_user(&self, key: &[u8], retention: Retention, now_ms: i64) -> Result<Swept, WriteError> {
        let is_over =
            |at_ms: i64, kept_ms: Option<i64>| kept_ms.is_some_and(|kept| at_ms < now_ms.saturating_sub(kept));
        let _changing = self.changing();
        let Some(mut record) = self.record(key)? else { return Ok(Swept::default()) };
        let (mut swept, was_known, old) = (Swept::default(), record.is_known(), record.clone());
        if record.erased.is_some_and(|erased| is_over(erased.at.at_ms(), retention.erased_ms)) {
            swept.erasures = 1;
            record.erased = None;
        }
        let mut left = None;
        let heard = record.log_at.max(record.demographics_at);
        // Of whom a generation told no event, nobody knows since when: it would tell again.
        let is_silent = heard > Revision::NONE && is_over(heard.at_ms(), retention.silent_ms);
        if was_known && is_silent {
            swept.silent_users = 1;
            record = UserRecord { erased: record.erased, ..UserRecord::default() };
        } else if retention.events_ms.is_some() {
            let mut log = self.log(key, &record)?;
            let before = log.len();
            log.retain(|event| !is_over(event.timestamp_ms, retention.events_ms));
            swept.events = (before - log.len()) as u64;
            if swept.events > 0 && log.is_empty() {
                // What a generation told of the user is kept as long as what somebody set then.
                if record.demographics_at == Revision::NONE && !record.demographics.is_unknown() {
                    record.demographics_at = record.log_at;
                }
                (record.log_at, record.states) = (Revision::NONE, Vec::new());
            } else if swept.events > 0 {
                left = Some(log);
            }
        }
        match left {
            // The states know what is gone; they are to be made again. The user has not been heard of: the clock stays.
            Some(log) => self.put_log(key, &mut record, log, i64::MIN)?,
            None if record == old && (record.is_known() || record.erased.is_some()) => {}
            None => {
                if record.is_known() || record.erased.is_some() {
                    self.users.insert(key, encode(&record))?;
                } else {
                    self.users.remove(key)?;
                }
                if record.log_at == Revision::NONE && record.states.is_empty() {
                    self.forget(key)?;
                }
            }
        }
        self.count(was_known, record.is_known());
        Ok(swept)
    }
}

#[cfg(test)]
mod tests;
