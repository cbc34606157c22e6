//! Pure: when a refresh is due.

use std::time::Duration;

const DAY_MS: i64 = 86_400_000;

/// When refreshes start by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Never.
    #[default]
    OnCommand,
    /// Every day, so many minutes after midnight UTC.
    Daily {
        /// 0..1440.
        minute: u32,
    },
    /// So long after the node has started, and after the last one was due.
    Every(Duration),
}

impl Schedule {
    /// From `now_ms` to the next start; none where nothing starts by itself.
    pub fn wait(self, now_ms: i64) -> Option<Duration> {
        match self {
            Self::OnCommand => None,
            Self::Daily { minute } => {
                let today = now_ms.rem_euclid(DAY_MS);
                let wait = (i64::from(minute) * 60_000 - today).rem_euclid(DAY_MS);
                // What is due this very moment has just been started.
                Some(Duration::from_millis(if wait == 0 { DAY_MS } else { wait } as u64))
            }
            Self::Every(interval) => Some(interval),
        }
    }

    /// Whether one was due since the last began, at `last_ms`, as where the node was down: the states of a day would be missing.
    pub(crate) fn was_missed(self, last_ms: i64, now_ms: i64) -> bool {
        match self {
            Self::OnCommand | Self::Every(_) => false,
            Self::Daily { minute } => {
                let due_ms = now_ms - (now_ms - i64::from(minute) * 60_000).rem_euclid(DAY_MS);
                last_ms > 0 && last_ms < due_ms
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_daily_refresh_starts_at_its_minute() {
        let at = |minute, now_ms| Schedule::Daily { minute }.wait(now_ms).unwrap().as_millis() as i64;
        // 2026-11-26 02:30 UTC.
        let now_ms = 1_795_660_200_000;
        assert_eq!(at(3 * 60, now_ms), 30 * 60_000);
        assert_eq!(at(2 * 60, now_ms), DAY_MS - 30 * 60_000);
        assert_eq!(at(150, now_ms), DAY_MS);
        assert_eq!(at(150, now_ms + 1), DAY_MS - 1);
        assert_eq!(Schedule::OnCommand.wait(now_ms), None);
        assert_eq!(Schedule::Every(Duration::from_secs(5)).wait(now_ms), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_daily_refresh_that_was_due_while_the_node_was_down_is_missed() {
        let (schedule, due_ms) = (Schedule::Daily { minute: 150 }, 1_795_660_200_000);
        let missed = |last_ms, now_ms| schedule.was_missed(last_ms, now_ms);
        assert!(missed(due_ms - 1, due_ms) && missed(due_ms - DAY_MS, due_ms + DAY_MS - 1));
        assert!(!missed(due_ms, due_ms) && !missed(due_ms + 5, due_ms + DAY_MS - 1));
        assert!(missed(due_ms + 5, due_ms + DAY_MS), "the next one");
        assert!(!missed(0, due_ms), "a node that never refreshed has what was published");
        let every = Schedule::Every(Duration::from_secs(5));
        assert!(!every.was_missed(1, due_ms) && !Schedule::OnCommand.was_missed(1, due_ms));
    }

    proptest! {
        #[test]
        fn it_is_due_once_a_day(minute in 0u32..1_440, now_ms in 0i64..4_000_000_000_000) {
            let schedule = Schedule::Daily { minute };
            let due = now_ms + schedule.wait(now_ms).unwrap().as_millis() as i64;
            prop_assert_eq!(due.rem_euclid(DAY_MS), i64::from(minute) * 60_000);
            prop_assert!(due > now_ms && due <= now_ms + DAY_MS);
            prop_assert_eq!(schedule.wait(due).unwrap().as_millis() as i64, DAY_MS);
        }
    }
}
