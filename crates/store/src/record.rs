//! What stands in the store, byte for byte: a version byte, then postcard.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use turret_retrieval::event::Event;
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::state::{Precision, STATE_BYTES_MAX, SequenceState};
use turret_retrieval::user::Demographics;

use crate::StoredState;
use crate::states::PART_BYTES_MAX;

/// The version of every record below; a change of any layout raises it and teaches reading the old one.
pub(crate) const RECORD_VERSION: u8 = 2;
/// The version that is read as well: states were one record, of one row.
const VERSION_BEFORE: u8 = 1;

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

/// What is known of a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) demographics: Demographics,
    /// How many events were ever added; only grows.
    pub(crate) events_total: u64,
}

/// The user's latest events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) events: Vec<Event>,
}

/// What is known of a sequence state besides its bytes, and its encoder, which is part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateHead {
    pub(crate) made_at_ms: i64,
    pub(crate) covers_until_ms: i64,
    pub(crate) covers_events: u64,
    pub(crate) dimension: u32,
    pub(crate) precision: Precision,
    /// How many there are in all.
    pub(crate) bytes: u32,
}

impl StateHead {
    pub(crate) fn of(state: &StoredState) -> Self {
        Self {
            made_at_ms: state.made_at_ms,
            covers_until_ms: state.covers_until_ms,
            covers_events: state.covers_events,
            dimension: state.sequence.dimension() as u32,
            precision: state.sequence.precision(),
            bytes: state.sequence.bytes().len() as u32,
        }
    }

    /// How many records there are besides the first.
    pub(crate) fn parts(&self) -> u16 {
        (self.bytes as usize).div_ceil(PART_BYTES_MAX).saturating_sub(1) as u16
    }

    pub(crate) fn into_state(self, encoder: EncoderVersion, sequence: SequenceState) -> StoredState {
        StoredState {
            encoder,
            made_at_ms: self.made_at_ms,
            covers_until_ms: self.covers_until_ms,
            covers_events: self.covers_events,
            sequence,
        }
    }
}

/// The first record of a state: what is known of it, then its first bytes.
pub(crate) fn encode_state(head: &StateHead, first: &[u8]) -> Vec<u8> {
    let mut record = encode(head);
    record.extend_from_slice(first);
    record
}

/// Reads the first record of a state, of this version or the one before.
pub(crate) fn decode_state(record: &[u8]) -> Result<(StateHead, &[u8]), RecordError> {
    let malformed = |_| RecordError::Malformed;
    let (head, first): (StateHead, &[u8]) = match record.split_first() {
        Some((&RECORD_VERSION, body)) => postcard::take_from_bytes(body).map_err(malformed)?,
        Some((&VERSION_BEFORE, body)) => decode_state_before(body).map_err(malformed)?,
        Some((&found, _)) => return Err(RecordError::Version { found }),
        None => return Err(RecordError::Malformed),
    };
    let is_sound = head.bytes as usize <= STATE_BYTES_MAX && first.len() == PART_BYTES_MAX.min(head.bytes as usize);
    if is_sound { Ok((head, first)) } else { Err(RecordError::Malformed) }
}

/// One row, of little-endian f16.
fn decode_state_before(body: &[u8]) -> postcard::Result<(StateHead, &[u8])> {
    let (made_at_ms, covers_until_ms, covers_events, row): (i64, i64, u64, &[u8]) = postcard::from_bytes(body)?;
    let (dimension, bytes) = (row.len() as u32 / 2, row.len() as u32);
    Ok((StateHead { made_at_ms, covers_until_ms, covers_events, dimension, precision: Precision::F16, bytes }, row))
}

/// A further record of a state: when it was made and how much it covers, by which it is known to belong, then bytes.
pub(crate) fn encode_part(head: &StateHead, part: &[u8]) -> Vec<u8> {
    let mut record = encode(&(head.made_at_ms, head.covers_events));
    record.extend_from_slice(part);
    record
}

/// Reads a further record of a state; none where it is of another writing than `head`.
pub(crate) fn decode_part<'a>(record: &'a [u8], head: &StateHead) -> Result<Option<&'a [u8]>, RecordError> {
    let (version, body) = record.split_first().ok_or(RecordError::Malformed)?;
    if *version != RECORD_VERSION {
        return Err(RecordError::Version { found: *version });
    }
    let (made, part): ((i64, u64), &[u8]) = postcard::take_from_bytes(body).map_err(|_| RecordError::Malformed)?;
    Ok((made == (head.made_at_ms, head.covers_events)).then_some(part))
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![RECORD_VERSION]).expect("records hold nothing that postcard refuses")
}

/// Reads a record of what has not changed since the version before.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        Some((&(RECORD_VERSION | VERSION_BEFORE), body)) => match postcard::take_from_bytes(body) {
            Ok((record, [])) => Ok(record),
            Ok(_) | Err(_) => Err(RecordError::Malformed),
        },
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

    #[test]
    fn records_are_the_bytes_they_were() {
        let demographics = Demographics { age: Some(29), country: Some("US".into()), gender: None };
        check(&UserRecord { demographics, events_total: 300 }, "02011d0102555300ac02");
        let event =
            |id| Event { item_id: ItemId::from(5), event_type: EventType::Checkout, timestamp_ms: 1_000, event_id: id };
        let events = vec![event(None), event(Some(EventId::from(7)))];
        check(&LogRecord { events }, "0202013502d00f00013502d00f010137");
    }

    #[test]
    fn states_are_the_bytes_they_were() {
        let (state, head) = (state(), StateHead::of(&state()));
        let record = encode_state(&head, state.sequence.bytes());
        assert_eq!(hex(&record), "0280010102030106003c00b80000");
        assert_eq!(decode_state(&record), Ok((head, state.sequence.bytes())));
        for damaged in [&record[..record.len() - 1], &[&record[..], &[0]].concat(), &record[..1], &[]] {
            assert_eq!(decode_state(damaged), Err(RecordError::Malformed), "{damaged:?}");
        }
        assert_eq!(decode_state(&[9, 1]), Err(RecordError::Version { found: 9 }));

        let part = encode_part(&head, &[7, 8]);
        assert_eq!(hex(&part), "028001020708");
        assert_eq!(decode_part(&part, &head), Ok(Some(&[7, 8][..])));
        assert_eq!(decode_part(&part, &StateHead { made_at_ms: 65, ..head }), Ok(None));
        assert_eq!(decode_part(&part[..2], &head), Err(RecordError::Malformed));
        assert_eq!(decode_part(&[1, 0], &head), Err(RecordError::Version { found: 1 }));
    }

    fn state() -> StoredState {
        StoredState {
            encoder: EncoderVersion::from(1),
            made_at_ms: 64,
            covers_until_ms: -1,
            covers_events: 2,
            sequence: SequenceState::new(&[1.0, -0.5, 0.0], 3, Precision::F16).unwrap(),
        }
    }

    #[test]
    fn records_of_the_version_before_are_read() {
        let demographics = Demographics { age: Some(29), country: Some("US".into()), gender: None };
        let record = UserRecord { demographics, events_total: 300 };
        assert_eq!(decode(&[&[1], &encode(&record)[1..]].concat()), Ok(record));
        let bytes = [1, 0x80, 0x01, 0x01, 0x02, 0x06, 0x00, 0x3c, 0x00, 0xb8, 0x00, 0x00];
        assert_eq!(decode_state(&bytes), Ok((StateHead::of(&state()), state().sequence.bytes())));
        assert_eq!(decode_state(&bytes[..bytes.len() - 1]), Err(RecordError::Malformed));
    }

    #[test]
    fn nothing_is_not_a_record() {
        assert_eq!(decode::<UserRecord>(&[]), Err(RecordError::Malformed));
    }
}
