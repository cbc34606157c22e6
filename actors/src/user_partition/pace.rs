//! Pure: how many users a refresh encodes at once.
//!
//! Chunks of about two milliseconds: online work that comes meanwhile waits for one of them, and each costs a message and a flush.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::protocol::ENCODE_ROWS_MAX;

/// What a chunk should take to encode.
const AIM: Duration = Duration::from_millis(2);
/// Users of the first chunk.
const ROWS_FIRST: usize = 16;
/// States of one answer: half of what a message holds.
const BYTES_MAX: usize = 512 << 10;

/// Learns from what chunks took. Clones share what they learn.
#[derive(Clone, Debug)]
pub struct Pace(Arc<AtomicUsize>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(ROWS_FIRST)))
    }
}

impl Pace {
    /// Users of the next chunk: a third while requests come, for each of them may have to wait for it.
    pub(super) fn rows(&self, is_asked: bool) -> usize {
        let rows = self.0.load(Ordering::Relaxed);
        if is_asked { rows.div_ceil(3) } else { rows }
    }

    /// Takes in that `rows` users, at least one, took so long, and have states of so many bytes.
    pub(super) fn took(&self, rows: usize, took: Duration, bytes: usize) {
        let before = self.0.load(Ordering::Relaxed);
        let wanted = rows as f64 * AIM.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // One chunk of users with long histories says little of the next.
        let step = (wanted as usize).clamp(before.div_ceil(2), 2 * before);
        let fit = BYTES_MAX * rows / bytes.max(1);
        self.0.store(step.min(fit).clamp(1, ENCODE_ROWS_MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After ten chunks of a machine that encodes a user in so many microseconds, to a state of so many bytes.
    fn settled(user_us: u64, state_bytes: usize) -> usize {
        let pace = Pace::default();
        for round in 0..10 {
            // Small chunks teach the same.
            let rows = pace.rows(round % 3 == 1);
            pace.took(rows, Duration::from_micros(user_us * rows as u64), rows * state_bytes);
        }
        pace.rows(false)
    }

    #[test]
    fn chunks_come_to_take_what_they_should() {
        assert_eq!(settled(20, 128), 100);
        assert_eq!(settled(500, 128), 4);
        assert_eq!(settled(5_000, 128), 1, "never none");
        assert_eq!(settled(1, 128), ENCODE_ROWS_MAX, "never more than a worker takes");
        assert_eq!(settled(1, 60 << 10), 8, "nor more than a message holds");
    }

    #[test]
    fn one_odd_chunk_changes_little() {
        let pace = Pace::default();
        pace.took(16, Duration::ZERO, 0);
        assert_eq!((pace.rows(false), pace.rows(true)), (32, 11));
        pace.took(32, Duration::from_secs(9), 1);
        assert_eq!(pace.rows(false), 16);
    }
}
