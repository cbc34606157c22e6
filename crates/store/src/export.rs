//! Everything that a partition holds, user by user.

use turret_retrieval::ids::{GenerationId, UserId};
use turret_retrieval::kept::KeptUser;

use crate::StoredState;
use crate::partition::{PartitionStore, ReadError, damaged, id_of};
use crate::record::{RecordError, StateRecord};

/// Some of the users of a partition, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptPage {
    /// In the order of the bytes of their ids.
    pub users: Vec<KeptUser>,
    /// Where the next page starts, after this user; none at the end.
    pub next: Option<UserId>,
}

impl PartitionStore {
    /// The next users after `after`, at most `limit` (1 or more), with everything that is kept of each: those too of whom only the
    /// mark of an erasure is left. One takes at most 170 KiB of the disk.
    ///
    /// Each is as of one moment. Of users who are written while a caller goes from page to page, some are of before and some of
    /// after.
    ///
    /// # Errors
    /// When sled cannot read, or a record of one of them cannot be read: a part of a user is not given.
    pub fn kept_users(&self, after: Option<&UserId>, limit: usize) -> Result<KeptPage, ReadError> {
        let mut page = KeptPage { users: Vec::new(), next: None };
        for key in self.users_after(after).keys() {
            let key = key?;
            page.users.extend(self.kept_user(&key)?);
            if page.users.len() >= limit {
                page.next = Some(id_of(&key)?);
                break;
            }
        }
        Ok(page)
    }

    /// The generations whose snapshots were imported, in the order of their ids.
    ///
    /// # Errors
    /// When sled cannot read, or there is one that has no such name.
    pub fn imported_generations(&self) -> Result<Vec<GenerationId>, ReadError> {
        let id = |key: &[u8]| {
            let text = std::str::from_utf8(key).ok();
            text.and_then(|text| GenerationId::new(text).ok()).ok_or_else(|| damaged(key, RecordError::Malformed))
        };
        self.imports.iter().keys().map(|key| id(&key?)).collect()
    }

    /// Whether nothing stands in it of any user.
    ///
    /// # Errors
    /// When sled cannot read.
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.users_after(None).keys().next().transpose()?.is_none())
    }

    /// The user `key`; none where it has been forgotten meanwhile.
    fn kept_user(&self, key: &[u8]) -> Result<Option<KeptUser>, ReadError> {
        // A record is written before its log and after the parts of its states: what is between is not to be read.
        let _changing = self.changing();
        let Some(record) = self.record(key)? else { return Ok(None) };
        let state = |state: &StateRecord| -> Result<StoredState, ReadError> {
            self.stored(key, state)?.ok_or_else(|| damaged(key, RecordError::Torn))
        };
        Ok(Some(KeptUser {
            user: id_of(key)?,
            events: self.log(key, &record)?,
            states: record.states.iter().map(state).collect::<Result<_, _>>()?,
            demographics: record.demographics,
            demographics_at: record.demographics_at,
            log_at: record.log_at,
            erased: record.erased,
        }))
    }
}
