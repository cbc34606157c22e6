//! The sequence states of a partition, in records that are small enough for sled.
//!
//! sled keeps some twenty neighbours on one page, and moves a page of more than 128 KiB to a file of its own, which it
//! does not flush. So only the beginning of a state stands in its user's record, and the rest in parts beside it: a last
//! hidden state is all in the record, the states of every event are not.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use sled::Batch;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::kept::STATES_MAX;
use turret_retrieval::revision::Revision;
use turret_retrieval::state::SequenceState;

use crate::StoredState;
use crate::partition::{Changing, PartitionStore, ReadError, WriteError, damaged, read};
use crate::record::{PART_BYTES_MAX, RecordError, StateRecord, UserRecord, encode};

/// How often a state is read that is replaced meanwhile: a replacement takes far longer than a read.
const READS_MAX: usize = 4;
/// Between a user and an encoder in a key, and before the number of a part; ids hold no control characters.
const SEPARATOR: u8 = 0;

/// How far a run of the refresh is in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshProgress {
    /// The run, as whoever makes it knows it.
    pub run: u64,
    /// Whose states it makes.
    pub encoder: EncoderVersion,
    /// The last user who was looked at.
    pub after: UserId,
}

/// What is written as one: the records that name new states, whose parts are there already, and how far the run is.
#[derive(Default)]
struct Chunk<'a> {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// States whose parts are of no use behind it.
    replaced: Vec<(&'a [u8], StateRecord)>,
}

impl<'a> Chunk<'a> {
    fn put(&mut self, key: &'a [u8], record: &UserRecord, replaced: Vec<StateRecord>) {
        self.records.insert(key.to_vec(), encode(record));
        self.replaced.extend(replaced.into_iter().map(|state| (key, state)));
    }

    fn apply(self, store: &PartitionStore) -> Result<(), WriteError> {
        // Every read of the process waits for a batch, of nothing too.
        if self.records.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        self.records.into_iter().for_each(|(key, record)| batch.insert(key, record));
        store.users.apply_batch(batch)?;
        self.replaced.iter().try_for_each(|(key, state)| store.forget_parts(key, state))
    }
}

/// Before every user: no id begins with a control character.
const PROGRESS: &[u8] = b"\0refresh/";

fn progress_key(encoder: &EncoderVersion) -> Vec<u8> {
    [PROGRESS, encoder.as_str().as_bytes()].concat()
}

impl PartitionStore {
    /// Says whose states must be kept: the encoder that serves, and the one that is to. Beyond the second, those of others
    /// go first.
    pub fn keep_states_of(&self, encoders: Vec<EncoderVersion>) {
        *self.kept_encoders.lock().unwrap_or_else(PoisonError::into_inner) = encoders;
    }

    /// Stores states and how far the run that made them is, as one: after a crash all of it is there or nothing. Forgets states of
    /// the oldest encoder beyond the second that need not be kept. Returns how many were stored.
    ///
    /// A state is passed over where a better one of its encoder is there, or where its user was erased or forgotten after
    /// the events were read that it was made of; and one that need not be kept, where it would take the place of one that must.
    ///
    /// # Errors
    /// When something cannot be written; then none is stored, or not for certain. Of a user who is named twice the states before may
    /// have been.
    pub fn put_states(
        &self,
        states: &[(UserId, StoredState)],
        progress: Option<&RefreshProgress>,
    ) -> Result<u32, WriteError> {
        let changing = self.changing();
        let mut chunk = Chunk::default();
        let mut stored = 0;
        for (user, state) in states {
            let key = user.as_str().as_bytes();
            if chunk.records.contains_key(key) {
                std::mem::take(&mut chunk).apply(self)?;
            }
            let mut record = self.record(key)?.unwrap_or_default();
            if let Some(replaced) = self.set_state(&mut record, key, state, &changing)? {
                chunk.put(key, &record, replaced);
                stored += 1;
            }
        }
        if let Some(progress) = progress {
            chunk.records.insert(progress_key(&progress.encoder), encode(progress));
        }
        chunk.apply(self)?;
        drop(changing);
        self.flush()?;
        Ok(stored)
    }

    /// How far the last run is that made states by `encoder`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn refresh_progress(&self, encoder: &EncoderVersion) -> Result<Option<RefreshProgress>, ReadError> {
        read(&self.users, &progress_key(encoder))
    }

    /// Writes `state` into `record`, that of the user `key`, and the record, unless what is there is better; says whether it
    /// was written.
    pub(crate) fn join_state(
        &self,
        record: &mut UserRecord,
        key: &[u8],
        state: &StoredState,
        changing: &Changing<'_>,
    ) -> Result<bool, WriteError> {
        let Some(replaced) = self.set_state(record, key, state, changing)? else { return Ok(false) };
        self.users.insert(key, encode(record))?;
        replaced.iter().try_for_each(|state| self.forget_parts(key, state))?;
        Ok(true)
    }

    /// Sets `state` in `record`, that of the user `key`, and writes the parts of it that do not stand there, unless what is
    /// there is better. The states whose parts are of no use once the record is written; nothing where none was set.
    fn set_state(
        &self,
        record: &mut UserRecord,
        key: &[u8],
        state: &StoredState,
        changing: &Changing<'_>,
    ) -> Result<Option<Vec<StateRecord>>, WriteError> {
        // What an erased user did may be in it, or one who has been forgotten: then there is no such position any more.
        let is_erased = record.erased.is_some_and(|erased| state.covers < erased.at) || state.covers > record.log_at;
        let rank = |covers: Revision, made_at_ms: i64| (covers, made_at_ms);
        let before = record.states.iter().position(|kept| kept.encoder == state.encoder);
        let before = before.map(|at| record.states[at].clone());
        let is_better = before
            .as_ref()
            .is_none_or(|kept| rank(state.covers, state.made_at_ms) > rank(kept.covers, kept.made_at_ms));
        let kept_encoders = self.kept_encoders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let must_be_kept = |encoder: &EncoderVersion| kept_encoders.contains(encoder);
        let is_in_the_way = !must_be_kept(&state.encoder)
            && record.states.iter().filter(|kept| must_be_kept(&kept.encoder)).count() >= STATES_MAX;
        if is_erased || !is_better || is_in_the_way {
            return Ok(None);
        }
        let next = StateRecord::of(state, before.as_ref().is_some_and(|before| !before.odd));
        self.put_parts(key, &next, state, changing)?;
        record.states.retain(|kept| kept.encoder != state.encoder);
        record.states.sort_by_key(|kept| (!must_be_kept(&kept.encoder), -kept.made_at_ms));
        let beyond = record.states.split_off(record.states.len().min(STATES_MAX - 1));
        record.states.insert(0, next);
        Ok(Some(before.into_iter().chain(beyond).collect()))
    }

    /// Writes what of `state` does not stand in `kept`, its record.
    pub(crate) fn put_parts(
        &self,
        key: &[u8],
        kept: &StateRecord,
        state: &StoredState,
        _: &Changing<'_>,
    ) -> Result<(), WriteError> {
        for (number, part) in (0..).zip(state.sequence.bytes()[kept.first.len()..].chunks(PART_BYTES_MAX)) {
            self.parts.insert(part_key(key, kept, number), kept.encode_part(part))?;
        }
        Ok(())
    }

    /// Removes the parts of a state that is no more in its user's record.
    pub(crate) fn forget_parts(&self, key: &[u8], state: &StateRecord) -> Result<(), WriteError> {
        for number in 0..state.parts() {
            self.parts.remove(part_key(key, state, number))?;
        }
        Ok(())
    }

    /// The state of the user `key` whose record is `state`. None where a part is missing or of another writing: the record has
    /// been replaced meanwhile, or is torn.
    pub(crate) fn stored(&self, key: &[u8], state: &StateRecord) -> Result<Option<StoredState>, ReadError> {
        let Some(bytes) = self.joined(key, state)? else { return Ok(None) };
        let sequence = SequenceState::from_bytes(bytes, state.dimension as usize, state.precision);
        Ok(Some(state.with(sequence.map_err(|_| damaged(key, RecordError::Malformed))?)))
    }

    fn joined(&self, key: &[u8], state: &StateRecord) -> Result<Option<Arc<[u8]>>, ReadError> {
        let mut bytes = Vec::with_capacity(state.bytes as usize);
        bytes.extend_from_slice(&state.first);
        for number in 0..state.parts() {
            let Some(part) = self.parts.get(part_key(key, state, number))? else { return Ok(None) };
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
            if let Some(state) = self.stored(key, state)? {
                return Ok(Some((record, Some(state))));
            }
        }
        Err(damaged(key, RecordError::Torn))
    }
}

/// What the keys of all parts of a user's states begin with.
pub(crate) fn parts_of(user: &[u8]) -> Vec<u8> {
    [user, &[SEPARATOR]].concat()
}

pub(crate) fn part_key(user: &[u8], state: &StateRecord, number: u16) -> Vec<u8> {
    let place = [SEPARATOR, u8::from(state.odd)];
    [user, &[SEPARATOR], state.encoder.as_str().as_bytes(), &place, &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
