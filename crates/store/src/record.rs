//! What stands in the store, byte for byte: a version byte, then postcard.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use turret_retrieval::event::Event;
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::kept::Erased;
use turret_retrieval::revision::Revision;
use turret_retrieval::state::{Precision, STATE_BYTES_MAX, SequenceState};
use turret_retrieval::user::Demographics;

use crate::StoredState;

/// The version of every record below; a change of any layout raises it, and `migrate.rs` learns the old one.
pub(crate) const RECORD_VERSION: u8 = 3;

/// The bytes of a state that stand in its user's record: some twenty neighbours, with two states each, stay well below
/// the 128 KiB of the largest page that sled keeps in its log.
pub(crate) const FIRST_BYTES_MAX: usize = 2 << 10;
/// The most bytes of a state in each further record.
pub(crate) const PART_BYTES_MAX: usize = 4 << 10;

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by another version of Turret.
    #[error("record version {found} where {RECORD_VERSION} is read")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// Not what this version writes.
    #[error("a malformed record")]
    Malformed,
    /// A state whose records are not of one writing.
    #[error("its parts do not belong together")]
    Torn,
}

/// All that is known of a user but the events: what a request reads, in one look-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) demographics: Demographics,
    /// When they were last set; by default, that they were not.
    pub(crate) demographics_at: Revision,
    /// When the log last changed: the position in it. None while there is no event.
    pub(crate) log_at: Revision,
    pub(crate) erased: Option<Erased>,
    /// Of at most two encoders.
    pub(crate) states: Vec<StateRecord>,
}

/// A sequence state, and its first bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub(crate) encoder: EncoderVersion,
    pub(crate) made_at_ms: i64,
    pub(crate) covers_until_ms: i64,
    pub(crate) covers: Revision,
    pub(crate) dimension: u32,
    pub(crate) precision: Precision,
    /// How many there are in all.
    pub(crate) bytes: u32,
    /// Which of two places its parts are in: those of the state before stay whole until this one's record is written.
    pub(crate) odd: bool,
    pub(crate) first: Vec<u8>,
}

/// The user's latest events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) events: Vec<Event>,
}

impl UserRecord {
    /// The record's latest revision; what is minted next is above it.
    pub(crate) fn newest(&self) -> Revision {
        let erased = self.erased.map_or(Revision::NONE, |erased| erased.at);
        let covered = self.states.iter().map(|state| state.covers).max().unwrap_or_default();
        self.demographics_at.max(self.log_at).max(erased).max(covered)
    }

    /// Whether anything is known of the user: what an erasure leaves is not.
    pub(crate) fn is_known(&self) -> bool {
        self.log_at > Revision::NONE || !self.demographics.is_unknown()
    }

    /// Whether there are events that the state by `encoder` does not cover.
    pub(crate) fn is_dirty(&self, encoder: &EncoderVersion) -> bool {
        self.log_at > Revision::NONE && self.state(encoder).is_none_or(|state| state.covers < self.log_at)
    }

    /// Those of `events` that no erasure forbids.
    pub(crate) fn allowed<'a>(&self, events: &'a [Event]) -> Cow<'a, [Event]> {
        match self.erased {
            Some(Erased { watermark_ms, .. }) => {
                events.iter().filter(|event| event.timestamp_ms > watermark_ms).cloned().collect()
            }
            None => Cow::Borrowed(events),
        }
    }

    pub(crate) fn state(&self, encoder: &EncoderVersion) -> Option<&StateRecord> {
        self.states.iter().find(|state| state.encoder == *encoder)
    }
}

impl StateRecord {
    pub(crate) fn of(state: &StoredState, odd: bool) -> Self {
        let bytes = state.sequence.bytes();
        Self {
            encoder: state.encoder.clone(),
            made_at_ms: state.made_at_ms,
            covers_until_ms: state.covers_until_ms,
            covers: state.covers,
            dimension: state.sequence.dimension() as u32,
            precision: state.sequence.precision(),
            bytes: bytes.len() as u32,
            odd,
            first: bytes[..bytes.len().min(FIRST_BYTES_MAX)].to_vec(),
        }
    }

    /// How many records there are besides this.
    pub(crate) fn parts(&self) -> u16 {
        (self.bytes as usize).saturating_sub(FIRST_BYTES_MAX).div_ceil(PART_BYTES_MAX) as u16
    }

    pub(crate) fn with(&self, sequence: SequenceState) -> StoredState {
        StoredState {
            encoder: self.encoder.clone(),
            made_at_ms: self.made_at_ms,
            covers_until_ms: self.covers_until_ms,
            covers: self.covers,
            sequence,
        }
    }

    fn is_sound(&self) -> bool {
        let bytes = self.bytes as usize;
        bytes <= STATE_BYTES_MAX && self.first.len() == bytes.min(FIRST_BYTES_MAX)
    }

    /// A further record of the state: when it was made and what it covers, by which it is known to belong, then bytes.
    pub(crate) fn encode_part(&self, part: &[u8]) -> Vec<u8> {
        let mut record = encode(&(self.made_at_ms, self.covers));
        record.extend_from_slice(part);
        record
    }

    /// Reads a further record of the state; none where it is of another writing.
    pub(crate) fn decode_part<'a>(&self, record: &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
        let body = body(record)?;
        let (made, part): ((i64, Revision), &[u8]) =
            postcard::take_from_bytes(body).map_err(|_| RecordError::Malformed)?;
        Ok((made == (self.made_at_ms, self.covers)).then_some(part))
    }
}

/// Reads a user's record.
pub(crate) fn decode_user(bytes: &[u8]) -> Result<UserRecord, RecordError> {
    let record: UserRecord = decode(bytes)?;
    if record.states.iter().all(StateRecord::is_sound) { Ok(record) } else { Err(RecordError::Malformed) }
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![RECORD_VERSION]).expect("records hold nothing that postcard refuses")
}

/// Reads a record.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match postcard::take_from_bytes(body(bytes)?) {
        Ok((record, [])) => Ok(record),
        Ok(_) | Err(_) => Err(RecordError::Malformed),
    }
}

/// What stands behind the version byte.
fn body(record: &[u8]) -> Result<&[u8], RecordError> {
    match record.split_first() {
        Some((&RECORD_VERSION, body)) => Ok(body),
        Some((&found, _)) => Err(RecordError::Version { found }),
        None => Err(RecordError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use turret_retrieval::event::EventType;
    use turret_retrieval::ids::{EventId, ItemId};

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(record: &T, golden: &str) {
        let bytes = encode(record);
        assert_eq!(hex(&bytes), golden);
        assert_eq!(&decode::<T>(&bytes).unwrap(), record);
        assert_eq!(decode::<T>(&bytes[..bytes.len() - 1]), Err(RecordError::Malformed));
        assert_eq!(decode::<T>(&[&bytes[..], &[0]].concat()), Err(RecordError::Malformed));
        let other = [&[9], &bytes[1..]].concat();
        assert_eq!(decode::<T>(&other), Err(RecordError::Version { found: 9 }));
    }

    fn state() -> StoredState {
        StoredState {
            encoder: EncoderVersion::from(1),
            made_at_ms: 64,
            covers_until_ms: -1,
            covers: Revision::from_bits(2),
            sequence: SequenceState::new(&[1.0, -0.5, 0.0], 3, Precision::F16).unwrap(),
        }
    }

    fn user() -> UserRecord {
        UserRecord {
            demographics: Demographics { age: Some(29), country: Some("US".into()), gender: None },
            demographics_at: Revision::from_bits(1),
            log_at: Revision::from_bits(300),
            erased: Some(Erased { at: Revision::from_bits(3), watermark_ms: 5 }),
            states: vec![StateRecord::of(&state(), true)],
        }
    }

    #[test]
    fn records_are_the_bytes_they_were() {
        check(&user(), "03011d010255530001ac0201030a010131800101020301060106003c00b80000");
        let event =
            |id| Event { item_id: ItemId::from(5), event_type: EventType::Checkout, timestamp_ms: 1_000, event_id: id };
        let events = vec![event(None), event(Some(EventId::from(7)))];
        check(&LogRecord { events }, "0302013502d00f00013502d00f010137");
    }

    #[test]
    fn a_part_belongs_to_one_writing_of_a_state() {
        let record = StateRecord::of(&state(), true);
        let part = record.encode_part(&[7, 8]);
        assert_eq!(hex(&part), "038001020708");
        assert_eq!(record.decode_part(&part), Ok(Some(&[7, 8][..])));
        assert_eq!(StateRecord { made_at_ms: 65, ..record.clone() }.decode_part(&part), Ok(None));
        assert_eq!(record.decode_part(&part[..2]), Err(RecordError::Malformed));
        assert_eq!(record.decode_part(&[1, 0]), Err(RecordError::Version { found: 1 }));
    }

    #[test]
    fn a_state_that_is_not_as_long_as_it_says_is_malformed() {
        for (bytes, first) in [(7, vec![0; 6]), (6, vec![0; 5]), (1 << 20, vec![0; FIRST_BYTES_MAX])] {
            let mut record = user();
            record.states[0] = StateRecord { bytes, first, ..record.states[0].clone() };
            assert_eq!(decode_user(&encode(&record)), Err(RecordError::Malformed));
        }
        assert_eq!(decode_user(&encode(&user())), Ok(user()));
    }

    #[test]
    fn nothing_is_not_a_record() {
        assert_eq!(decode::<UserRecord>(&[]), Err(RecordError::Malformed));
    }
}
