//! The sequence states of a partition, each in records that are small enough for sled.
//!
//! sled keeps some twenty neighbours on one page, and moves a page of more than 128 KiB to a file of its own, which it
//! does not flush. So only the beginning of a state stands with what is known of it, and the rest in parts beside it.
//! That is also all that a search for stale users has to read.

use std::sync::Arc;

use sled::IVec;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::state::SequenceState;

use crate::StoredState;
use crate::partition::{PartitionStore, ReadError, WriteError, damaged};
use crate::record::{RecordError, StateHead, decode_part, decode_state, encode_part, encode_state};

/// The most bytes of a state in one record: a page of twenty stays well below 128 KiB.
pub(crate) const PART_BYTES_MAX: usize = 4 << 10;
/// Encoder versions whose states are kept: the one that serves, and the next.
const ENCODERS_MAX: usize = 2;
/// How often a state is read that is replaced meanwhile: a replacement takes far longer than a read.
const READS_MAX: usize = 4;
/// Between a user and an encoder in a key, and before the number of a part; ids hold no control characters.
const SEPARATOR: u8 = 0;

impl PartitionStore {
    /// Stores states with one flush, and forgets those of the oldest encoder beyond the second.
    ///
    /// # Errors
    /// When something cannot be written; states before it may have been.
    pub fn put_states(&self, states: &[(UserId, StoredState)]) -> Result<(), WriteError> {
        for (user, state) in states {
            self.put_state(user, state)?;
        }
        self.flush()
    }

    pub(crate) fn put_state(&self, user: &UserId, state: &StoredState) -> Result<(), WriteError> {
        let own = state_key(user, &state.encoder);
        let forgotten = self.beyond_the_second(user, &own)?;
        let bytes = state.sequence.bytes();
        let (first, rest) = bytes.split_at(bytes.len().min(PART_BYTES_MAX));
        let head = StateHead::of(state);
        let _writing = self.blobs.writing();
        let done = (&self.states, &self.state_parts).transaction(|(states, parts)| {
            let parts_of = |key: &[u8], record: Option<IVec>| match record {
                None => Ok(0),
                Some(record) => match decode_state(&record) {
                    Ok((head, _)) => Ok(head.parts()),
                    Err(source) => Err(ConflictableTransactionError::Abort(damaged(key, source))),
                },
            };
            let before = parts_of(&own, states.insert(&own[..], encode_state(&head, first))?)?;
            for (number, part) in (0u16..).zip(rest.chunks(PART_BYTES_MAX)) {
                parts.insert(part_key(&own, number), encode_part(&head, part))?;
            }
            for number in head.parts()..before {
                parts.remove(part_key(&own, number))?;
            }
            for key in &forgotten {
                for number in 0..parts_of(key, states.remove(key)?)? {
                    parts.remove(part_key(key, number))?;
                }
            }
            Ok(())
        });
        done.map_err(|error| match error {
            TransactionError::Abort(error) => WriteError::Read(error),
            TransactionError::Storage(error) => WriteError::Disk(error),
        })
    }

    /// The states of `user` that go when that of the key `own` is kept: the oldest.
    fn beyond_the_second(&self, user: &UserId, own: &[u8]) -> Result<Vec<IVec>, ReadError> {
        let mut others = Vec::new();
        for entry in self.states.scan_prefix(&own[..=user.as_str().len()]) {
            let (key, record) = entry?;
            let (head, _) = decode_state(&record).map_err(|source| damaged(&key, source))?;
            if *key != *own {
                others.push((head.made_at_ms, key));
            }
        }
        others.sort();
        others.truncate((others.len() + 1).saturating_sub(ENCODERS_MAX));
        Ok(others.into_iter().map(|(_, key)| key).collect())
    }

    /// What is known of the state of `user` by `encoder`.
    pub(crate) fn state_head(&self, user: &UserId, encoder: &EncoderVersion) -> Result<Option<StateHead>, ReadError> {
        let key = state_key(user, encoder);
        let Some(record) = self.states.get(&key)? else { return Ok(None) };
        let (head, _) = decode_state(&record).map_err(|source| damaged(&key, source))?;
        Ok(Some(head))
    }

    /// The state of `user` by `encoder`.
    pub(crate) fn state(&self, user: &UserId, encoder: &EncoderVersion) -> Result<Option<StoredState>, ReadError> {
        let key = state_key(user, encoder);
        for _ in 0..READS_MAX {
            let Some(record) = self.states.get(&key)? else { return Ok(None) };
            let (head, first) = decode_state(&record).map_err(|source| damaged(&key, source))?;
            let Some(bytes) = self.joined(&key, &head, first)? else { continue };
            let sequence = SequenceState::from_bytes(bytes, head.dimension as usize, head.precision);
            let sequence = sequence.map_err(|_| damaged(&key, RecordError::Malformed))?;
            return Ok(Some(head.into_state(encoder.clone(), sequence)));
        }
        Err(damaged(&key, RecordError::Torn))
    }

    /// A state's first bytes and its parts; none where a part is missing or of another writing.
    fn joined(&self, key: &[u8], head: &StateHead, first: &[u8]) -> Result<Option<Arc<[u8]>>, ReadError> {
        let mut bytes = Vec::with_capacity(head.bytes as usize);
        bytes.extend_from_slice(first);
        for number in 0..head.parts() {
            let Some(record) = self.state_parts.get(part_key(key, number))? else { return Ok(None) };
            match decode_part(&record, head) {
                Ok(Some(part)) => bytes.extend_from_slice(part),
                Ok(None) => return Ok(None),
                Err(source) => return Err(damaged(key, source)),
            }
        }
        Ok((bytes.len() == head.bytes as usize).then(|| bytes.into()))
    }
}

fn state_key(user: &UserId, encoder: &EncoderVersion) -> Vec<u8> {
    [user.as_str().as_bytes(), &[SEPARATOR], encoder.as_str().as_bytes()].concat()
}

fn part_key(state: &[u8], number: u16) -> Vec<u8> {
    [state, &[SEPARATOR], &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
