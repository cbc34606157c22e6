//! Revisions: what decides between two writes of the same thing.

use serde::{Deserialize, Serialize};

/// Bits of the counter below the milliseconds.
const COUNTER_BITS: u32 = 16;

/// A reading of a hybrid logical clock (Kulkarni et al., 2014): milliseconds since 1970-01-01 UTC in the upper 48 bits, a
/// counter in the lower 16. Of two writes of one thing the larger revision wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// Before every write.
    pub const NONE: Self = Self(0);

    /// A revision of now that is above `stored`, even where the clock was put back meanwhile.
    #[must_use]
    pub fn mint(now_ms: i64, stored: Self) -> Self {
        let now = u64::try_from(now_ms).unwrap_or(0).min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS;
        Self(now.max(stored.0.saturating_add(1)))
    }

    /// The milliseconds of the clock.
    pub fn at_ms(self) -> i64 {
        (self.0 >> COUNTER_BITS) as i64
    }

    /// The 64 bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The revision of these bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_revision_is_of_now_and_above_what_is_stored() {
        let first = Revision::mint(1_000, Revision::NONE);
        assert_eq!((first.at_ms(), first.bits()), (1_000, 1_000 << 16));
        let second = Revision::mint(1_000, first);
        assert_eq!((second > first, second.at_ms()), (true, 1_000));
        // The clock was put back.
        assert_eq!(Revision::mint(500, second).bits(), second.bits() + 1);
        assert_eq!(Revision::mint(-5, Revision::NONE).bits(), 1);
    }

    proptest! {
        #[test]
        fn revisions_only_grow(clock in prop::collection::vec(any::<i64>(), 1..50)) {
            let mut last = Revision::NONE;
            for now_ms in clock {
                let next = Revision::mint(now_ms, last);
                prop_assert!(next > last || next.bits() == u64::MAX);
                last = next;
            }
        }
    }
}
