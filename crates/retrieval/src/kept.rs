//! All that a partition keeps of a user, as it is exported and put back.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::ids::{EncoderVersion, UserId};
use crate::revision::Revision;
use crate::state::SequenceState;
use crate::user::{Demographics, DemographicsError};

/// Encoder versions whose states are kept of one user: the one that serves, and the next.
pub const STATES_MAX: usize = 2;

/// What the encoder made of a user's history, and of how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredState {
    /// The encoder that made it; no other model part may read it.
    pub encoder: EncoderVersion,
    /// When: milliseconds since 1970-01-01 UTC.
    pub made_at_ms: i64,
    /// The time of the latest event that it covers.
    pub covers_until_ms: i64,
    /// The position in the user's log that it covers; it is current while the log has not changed since. In a snapshot,
    /// which has no positions, it says nothing.
    pub covers: Revision,
    /// The state.
    pub sequence: SequenceState,
}

/// The mark that an erasure leaves, which keeps late and repeated events from bringing the user back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// The revision of the erasure; a state that covers less was made of what is gone.
    pub at: Revision,
    /// Events of this time and before are ignored: milliseconds since 1970-01-01 UTC.
    pub watermark_ms: i64,
}

/// A user, whole: nothing else is kept of one.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptUser {
    /// Who.
    pub user: UserId,
    /// What is known.
    pub demographics: Demographics,
    /// When that was last set; [`Revision::NONE`] where it never was.
    pub demographics_at: Revision,
    /// The position in the log: when it last changed. [`Revision::NONE`] while there is no event.
    pub log_at: Revision,
    /// What an erasure left.
    pub erased: Option<Erased>,
    /// The latest events, oldest first.
    pub events: Vec<Event>,
    /// At most [`STATES_MAX`], each of another encoder, the one that was put last first.
    pub states: Vec<StoredState>,
}

/// Why what is said of a user cannot be what is kept of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// Demographics that no request may set.
    #[error(transparent)]
    Demographics(#[from] DemographicsError),
    /// Events in another order than that of their times.
    #[error("event {position} is of {at}, and the one before it of {before}")]
    Order {
        /// Which event, from 0.
        position: usize,
        /// Its time.
        at: i64,
        /// The time of the event before it.
        before: i64,
    },
    /// An event that an erasure forbids.
    #[error("an event is of {at}, and what was until {watermark_ms} is erased")]
    Erased {
        /// Its time.
        at: i64,
        /// Until when everything is erased.
        watermark_ms: i64,
    },
    /// Events without a position in their log.
    #[error("is 0, and there are events")]
    NoPosition,
    /// More states than are kept.
    #[error("{found} states, the limit is {STATES_MAX}")]
    States {
        /// How many there are.
        found: usize,
    },
    /// Two states of one encoder.
    #[error("two states are by {encoder}")]
    SameEncoder {
        /// Which.
        encoder: EncoderVersion,
    },
    /// A state of events that the log has never held, or of those before an erasure.
    #[error("the state by {encoder} covers {covers}, which is not in {first}..={last}")]
    Covers {
        /// Who made it.
        encoder: EncoderVersion,
        /// What it covers, in bits as the others.
        covers: u64,
        /// The least it may cover: the erasure.
        first: u64,
        /// The most: the position in the log.
        last: u64,
    },
}

impl KeptError {
    /// The name of the offending field, as files of users have it.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Demographics(error) => error.field(),
            Self::Order { .. } | Self::Erased { .. } => "events",
            Self::NoPosition => "log_revision",
            Self::States { .. } | Self::SameEncoder { .. } | Self::Covers { .. } => "states",
        }
    }
}

impl KeptUser {
    /// Checks what came from outside. What a partition keeps is always sound.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), KeptError> {
        self.demographics.check()?;
        self.check_events()?;
        self.check_states()
    }

    fn check_events(&self) -> Result<(), KeptError> {
        if self.log_at == Revision::NONE && !self.events.is_empty() {
            return Err(KeptError::NoPosition);
        }
        let times = || self.events.iter().map(|event| event.timestamp_ms);
        for (position, (at, before)) in (1..).zip(times().skip(1).zip(times())) {
            if at < before {
                return Err(KeptError::Order { position, at, before });
            }
        }
        // They are in order, so that the first stands for all.
        match (self.erased, times().next()) {
            (Some(Erased { watermark_ms, .. }), Some(at)) if at <= watermark_ms => {
                Err(KeptError::Erased { at, watermark_ms })
            }
            _ => Ok(()),
        }
    }

    fn check_states(&self) -> Result<(), KeptError> {
        if self.states.len() > STATES_MAX {
            return Err(KeptError::States { found: self.states.len() });
        }
        let first = self.erased.map_or(Revision::NONE, |erased| erased.at);
        for (position, state) in self.states.iter().enumerate() {
            let encoder = || state.encoder.clone();
            if self.states[..position].iter().any(|other| other.encoder == state.encoder) {
                return Err(KeptError::SameEncoder { encoder: encoder() });
            }
            if !(first..=self.log_at).contains(&state.covers) {
                let (covers, first, last) = (state.covers.bits(), first.bits(), self.log_at.bits());
                return Err(KeptError::Covers { encoder: encoder(), covers, first, last });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;
    use crate::ids::ItemId;
    use crate::state::Precision;

    fn event(at: i64) -> Event {
        Event { item_id: ItemId::from(1), event_type: EventType::View, timestamp_ms: at, event_id: None }
    }

    fn state(encoder: u64, covers: u64) -> StoredState {
        StoredState {
            encoder: EncoderVersion::from(encoder),
            made_at_ms: 0,
            covers_until_ms: 0,
            covers: Revision::from_bits(covers),
            sequence: SequenceState::new(&[0.5], 1, Precision::F16).unwrap(),
        }
    }

    fn sound() -> KeptUser {
        KeptUser {
            user: UserId::from(1),
            demographics: Demographics { age: Some(29), country: None, gender: None },
            demographics_at: Revision::from_bits(9),
            log_at: Revision::from_bits(8),
            erased: Some(Erased { at: Revision::from_bits(3), watermark_ms: 4 }),
            events: vec![event(5), event(5), event(6)],
            states: vec![state(1, 3), state(2, 8)],
        }
    }

    #[test]
    fn what_no_partition_would_keep_is_refused_by_its_field() {
        assert_eq!(sound().check(), Ok(()));
        let check = |spoil: fn(&mut KeptUser), field: &str, rule: &str| {
            let mut user = sound();
            spoil(&mut user);
            let error = user.check().unwrap_err();
            assert_eq!((error.field(), error.to_string().as_str()), (field, rule));
        };
        check(|user| user.demographics.age = Some(121), "age", "age: 121 is not in 0..=120");
        check(|user| user.events.swap(1, 2), "events", "event 2 is of 5, and the one before it of 6");
        check(|user| user.events[0] = event(4), "events", "an event is of 4, and what was until 4 is erased");
        check(|user| user.log_at = Revision::NONE, "log_revision", "is 0, and there are events");
        check(|user| user.states.push(state(3, 8)), "states", "3 states, the limit is 2");
        check(|user| user.states[1] = state(1, 8), "states", "two states are by 1");
        check(|user| user.states[1] = state(2, 9), "states", "the state by 2 covers 9, which is not in 3..=8");
        check(|user| user.states[1] = state(2, 2), "states", "the state by 2 covers 2, which is not in 3..=8");
    }

    #[test]
    fn the_log_of_a_state_may_be_gone_and_so_may_everything() {
        let cut_off = KeptUser { events: Vec::new(), ..sound() };
        assert_eq!(cut_off.check(), Ok(()));
        let (log_at, states) = (Revision::NONE, Vec::new());
        assert_eq!(KeptUser { log_at, states, ..cut_off }.check(), Ok(()));
    }
}
