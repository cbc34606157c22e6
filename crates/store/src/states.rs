//! The sequence states of a partition, in records that are small enough for sled.
//!
//! sled keeps some twenty neighbours on one page, and moves a page of more than 128 KiB to a file of its own, which it
//! does not flush. So only the beginning of a state stands in its user's record, and the rest in parts beside it: a last
//! hidden state is all in the record, the states of every event are not.

use std::sync::Arc;

use sled::transaction::{ConflictableTransactionError, Transactional, TransactionalTree, UnabortableTransactionError};
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::revision::Revision;
use turret_retrieval::state::SequenceState;

use crate::StoredState;
use crate::partition::{PartitionStore, ReadError, WriteError, damaged, failed};
use crate::record::{FIRST_BYTES_MAX, PART_BYTES_MAX, RecordError, StateRecord, UserRecord, decode_user, encode};

/// Encoder versions whose states are kept: the one that serves, and the next.
const ENCODERS_MAX: usize = 2;
/// How often a state is read that is replaced meanwhile: a replacement takes far longer than a read.
const READS_MAX: usize = 4;
/// Between a user and an encoder in a key, and before the number of a part; ids hold no control characters.
const SEPARATOR: u8 = 0;

impl PartitionStore {
    /// Stores states with one flush, and forgets those of the oldest encoder beyond the second. Returns how many were
    /// stored.
    ///
    /// A state is passed over where a better one of its encoder is there, or where its user was erased after the events
    /// were read that it was made of.
    ///
    /// # Errors
    /// When something cannot be written; states before it may have been.
    pub fn put_states(&self, states: &[(UserId, StoredState)]) -> Result<u32, WriteError> {
        let mut stored = 0;
        for (user, state) in states {
            stored += u32::from(self.put_state(user, state)?);
        }
        self.flush()?;
        Ok(stored)
    }

    pub(crate) fn put_state(&self, user: &UserId, state: &StoredState) -> Result<bool, WriteError> {
        let key = user.as_str().as_bytes();
        let _writing = self.blobs.writing();
        let done = (&self.users, &self.parts).transaction(|(users, parts)| {
            let refuse = |source| ConflictableTransactionError::Abort(damaged(key, source));
            let stored = users.get(key)?;
            let mut record = stored.as_deref().map_or(Ok(UserRecord::default()), decode_user).map_err(refuse)?;
            let stored = join_state(&mut record, key, state, parts)?;
            if stored {
                users.insert(key, encode(&record))?;
            }
            Ok(stored)
        });
        done.map_err(failed)
    }

    /// The state of `record`, which is that of the user `key`, by `encoder`. None where a part is missing or of another
    /// writing: the record has been replaced meanwhile, or is torn.
    fn joined(&self, key: &[u8], state: &StateRecord) -> Result<Option<Arc<[u8]>>, ReadError> {
        let mut bytes = Vec::with_capacity(state.bytes as usize);
        bytes.extend_from_slice(&state.first);
        for number in 0..state.parts() {
            let Some(part) = self.parts.get(part_key(key, &state.encoder, number))? else { return Ok(None) };
            match state.decode_part(&part) {
                Ok(Some(part)) => bytes.extend_from_slice(part),
                Ok(None) => return Ok(None),
                Err(source) => return Err(damaged(key, source)),
            }
        }
        Ok((bytes.len() == state.bytes as usize).then(|| bytes.into()))
    }

    /// The record of the user `key`, with the state by `encoder`.
    pub(crate) fn record_with_state(
        &self,
        key: &[u8],
        encoder: &EncoderVersion,
    ) -> Result<Option<(UserRecord, Option<StoredState>)>, ReadError> {
        for _ in 0..READS_MAX {
            let Some(record) = self.record(key)? else { return Ok(None) };
            let Some(state) = record.state(encoder) else { return Ok(Some((record, None))) };
            let Some(bytes) = self.joined(key, state)? else { continue };
            let sequence = SequenceState::from_bytes(bytes, state.dimension as usize, state.precision);
            let state = state.with(sequence.map_err(|_| damaged(key, RecordError::Malformed))?);
            return Ok(Some((record, Some(state))));
        }
        Err(damaged(key, RecordError::Torn))
    }
}

type InTransaction<T> = Result<T, UnabortableTransactionError>;

/// Puts `state` into `record`, and its parts beside; says whether it was better than what was there.
pub(crate) fn join_state(
    record: &mut UserRecord,
    key: &[u8],
    state: &StoredState,
    parts: &TransactionalTree,
) -> InTransaction<bool> {
    // What an erased user did may be in it.
    let is_erased = record.erased.is_some_and(|erased| state.covers < erased.at);
    let rank = |covers: Revision, made_at_ms: i64| (covers, made_at_ms);
    let before = record.states.iter().position(|kept| kept.encoder == state.encoder);
    let is_better = before.is_none_or(|before| {
        let kept = &record.states[before];
        rank(state.covers, state.made_at_ms) > rank(kept.covers, kept.made_at_ms)
    });
    if is_erased || !is_better {
        return Ok(false);
    }
    let next = StateRecord::of(state);
    for (number, part) in (0..).zip(state.sequence.bytes()[next.first.len()..].chunks(PART_BYTES_MAX)) {
        parts.insert(part_key(key, &next.encoder, number), next.encode_part(part))?;
    }
    match before {
        Some(before) => {
            for number in next.parts()..record.states[before].parts() {
                parts.remove(part_key(key, &next.encoder, number))?;
            }
            record.states[before] = next;
        }
        None => record.states.push(next),
    }
    // That of this encoder stays, whatever its age.
    record.states.sort_by_key(|kept| (kept.encoder != state.encoder, -kept.made_at_ms));
    while record.states.len() > ENCODERS_MAX
        && let Some(oldest) = record.states.pop()
    {
        forget_parts(key, &oldest, parts)?;
    }
    Ok(true)
}

/// Removes the parts of a state that is no more in its user's record.
pub(crate) fn forget_parts(key: &[u8], state: &StateRecord, parts: &TransactionalTree) -> InTransaction<()> {
    (0..state.parts()).try_for_each(|number| parts.remove(part_key(key, &state.encoder, number)).map(drop))
}

pub(crate) fn part_key(user: &[u8], encoder: &EncoderVersion, number: u16) -> Vec<u8> {
    [user, &[SEPARATOR], encoder.as_str().as_bytes(), &[SEPARATOR], &number.to_be_bytes()].concat()
}

const _: () = assert!(FIRST_BYTES_MAX <= PART_BYTES_MAX);

#[cfg(test)]
mod tests;
