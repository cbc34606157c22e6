//! Pure: when a dead child is started again.
//!
//! Exponential back-off from [`RestartPolicy::base`] to [`RestartPolicy::max`]; a child that then lives for
//! [`RestartPolicy::healthy_after`] starts over from the base.

use std::time::Duration;

/// The back-off of one kind of child.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    /// Wait before the first restart.
    pub base: Duration,
    /// The longest wait.
    pub max: Duration,
    /// A child that lived this long is forgiven its earlier deaths.
    pub healthy_after: Duration,
}

impl RestartPolicy {
    /// 50 ms doubling to 10 s, forgiven after 30 s.
    pub const STANDARD: Self =
        Self { base: Duration::from_millis(50), max: Duration::from_secs(10), healthy_after: Duration::from_secs(30) };

    /// How long to wait after the death of a child that lived for `lived`, having died `deaths` times in a row before.
    /// Also the number of deaths in a row now.
    pub fn after_death(&self, deaths: u32, lived: Duration) -> (Duration, u32) {
        let deaths = if lived >= self.healthy_after { 0 } else { deaths };
        let wait = self.base.saturating_mul(1u32.checked_shl(deaths).unwrap_or(u32::MAX)).min(self.max);
        (wait, deaths.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_restart_is_never_faster_than_the_back_off(lives_ms in prop::collection::vec(0u64..60_000, 1..60)) {
            let policy = RestartPolicy::STANDARD;
            let (mut deaths, mut last) = (0, Duration::ZERO);
            for lived in lives_ms.into_iter().map(Duration::from_millis) {
                let (wait, now) = policy.after_death(deaths, lived);
                prop_assert!(wait >= policy.base && wait <= policy.max);
                if lived < policy.healthy_after {
                    prop_assert!(wait >= last);
                } else {
                    prop_assert_eq!(wait, policy.base);
                }
                (deaths, last) = (now, wait);
            }
        }
    }

    #[test]
    fn the_wait_doubles_and_stops_at_the_maximum() {
        let mut deaths = 0;
        let mut waits = vec![];
        for _ in 0..10 {
            let (wait, now) = RestartPolicy::STANDARD.after_death(deaths, Duration::ZERO);
            waits.push(wait.as_millis());
            deaths = now;
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(RestartPolicy::STANDARD.after_death(u32::MAX, Duration::ZERO).0.as_secs(), 10);
    }
}
