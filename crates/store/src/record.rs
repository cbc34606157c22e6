//! What stands in the store, byte for byte: a version byte, then postcard.

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use turret_retrieval::event::Event;
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::user::Demographics;

use crate::SequenceState;

/// The version of every record below; a change of any layout raises it and teaches [`decode`] the old one.
pub(crate) const RECORD_VERSION: u8 = 1;

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

/// A sequence state without its encoder, which is part of the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub(crate) made_at_ms: i64,
    pub(crate) covers_until_ms: i64,
    pub(crate) covers_events: u64,
    // Little-endian f16: half the bytes, and a state is read on every request.
    vector: Vec<u8>,
}

impl StateRecord {
    pub(crate) fn of(state: &SequenceState) -> Self {
        let vector = state.vector.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        Self {
            made_at_ms: state.made_at_ms,
            covers_until_ms: state.covers_until_ms,
            covers_events: state.covers_events,
            vector,
        }
    }

    pub(crate) fn into_state(self, encoder: EncoderVersion) -> SequenceState {
        let (pairs, _) = self.vector.as_chunks::<2>();
        let halves: Vec<f16> = pairs.iter().map(|pair| f16::from_le_bytes(*pair)).collect();
        SequenceState {
            encoder,
            made_at_ms: self.made_at_ms,
            covers_until_ms: self.covers_until_ms,
            covers_events: self.covers_events,
            vector: halves.to_f32_vec(),
        }
    }
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![RECORD_VERSION]).expect("records hold nothing that postcard refuses")
}

/// Reads a record.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, body)) => match postcard::take_from_bytes(body) {
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
        check(&UserRecord { demographics, events_total: 300 }, "01011d0102555300ac02");
        let event =
            |id| Event { item_id: ItemId::from(5), event_type: EventType::Checkout, timestamp_ms: 1_000, event_id: id };
        let events = vec![event(None), event(Some(EventId::from(7)))];
        check(&LogRecord { events }, "0102013502d00f00013502d00f010137");
        let state = SequenceState {
            encoder: EncoderVersion::from(1),
            made_at_ms: 64,
            covers_until_ms: -1,
            covers_events: 2,
            vector: vec![1.0, -0.5, 0.0],
        };
        let record = StateRecord::of(&state);
        check(&record, "018001010206003c00b80000");
        assert_eq!(record.into_state(state.encoder.clone()), state);
    }

    #[test]
    fn nothing_is_not_a_record() {
        assert_eq!(decode::<UserRecord>(&[]), Err(RecordError::Malformed));
    }
}
