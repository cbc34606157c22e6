//! Users whose state does not cover all their events: whom a refresh encodes.

use turret_retrieval::event::Event;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::revision::Revision;

use crate::partition::{PartitionStore, ReadError, SCAN_MAX, damaged, id_of};
use crate::record::{decode_user, encode};

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

impl PartitionStore {
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
        let mut page = DirtyPage { users: Vec::new(), next: None, damaged: Vec::new() };
        for (scanned, entry) in self.users_after(after).enumerate() {
            let (key, bytes) = entry?;
            let user = id_of(&key)?;
            match self.dirty(&user, &bytes, encoder) {
                Ok(dirty) => page.users.extend(dirty),
                Err(ReadError::Record { .. }) => page.damaged.push(user.clone()),
                Err(error @ (ReadError::Disk(_) | ReadError::Ad { .. })) => return Err(error),
            }
            if page.users.len() >= limit || scanned + 1 >= SCAN_MAX {
                page.next = Some(user);
                break;
            }
        }
        Ok(page)
    }

    /// Those of `users` whose state by `encoder` is missing or does not cover all their events. One whose records cannot be
    /// read is passed over: nobody can make a state of them.
    ///
    /// # Errors
    /// When sled cannot read.
    pub fn dirty_among(&self, encoder: &EncoderVersion, users: &[UserId]) -> Result<Vec<Dirty>, ReadError> {
        let mut dirty = Vec::new();
        for user in users {
            if let Some(bytes) = self.users.get(user.as_str())? {
                match self.dirty(user, &bytes, encoder) {
                    Ok(found) => dirty.extend(found),
                    Err(ReadError::Record { .. }) => {}
                    Err(error @ (ReadError::Disk(_) | ReadError::Ad { .. })) => return Err(error),
                }
            }
        }
        Ok(dirty)
    }

    /// How many users' states by `encoder` are missing or do not cover all their events. Looks at every user.
    ///
    /// # Errors
    /// When sled cannot read.
    pub fn count_dirty(&self, encoder: &EncoderVersion) -> Result<u64, ReadError> {
        let mut count = 0;
        for bytes in self.users_after(None).values() {
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
}
