//! Pure: what requests of one generation came to, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets of latency: four an octave from 16 µs, the last one for everything beyond 16 s.
const BUCKETS: usize = 80;
const FIRST_US: f64 = 16.0;
const PER_OCTAVE: f64 = 4.0;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With ads.
    Answered,
    /// Without any, although every shard answered.
    Empty,
    /// Without an answer, before its caller gave up too, or without some of the shards.
    Failed,
}

/// Counts the requests that pinned one generation.
#[derive(Debug)]
pub struct Tally {
    started: AtomicU64,
    ended: AtomicU64,
    empty: AtomicU64,
    failed: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Default for Tally {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            started: zero(),
            ended: zero(),
            empty: zero(),
            failed: zero(),
            latencies: std::array::from_fn(|_| zero()),
        }
    }
}

/// A tally at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that have ended.
    pub requests: u64,
    /// Those that found no ad at all.
    pub empty: u64,
    /// Those that had no answer, or not of all shards.
    pub failed: u64,
    /// The latency that 99 of 100 were not above, in microseconds; absent before the first.
    pub p99_us: Option<u64>,
}

impl Tally {
    /// A request begins; whoever calls this calls [`Self::ended`] too.
    pub(crate) fn began(&self) {
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    /// A request ends; one without `end` was refused before it was looked at, and counts for nothing.
    pub(crate) fn ended(&self, end: Option<(End, Duration)>) {
        if let Some((end, took)) = end {
            self.latencies[bucket(took)].fetch_add(1, Ordering::Relaxed);
            match end {
                End::Answered => {}
                End::Empty => drop(self.empty.fetch_add(1, Ordering::Relaxed)),
                End::Failed => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
            }
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Requests that have begun and not ended.
    pub fn running(&self) -> u64 {
        // Those that ended first: else one that begins between the two reads would count below zero.
        let ended = self.ended.load(Ordering::SeqCst);
        self.started.load(Ordering::SeqCst).saturating_sub(ended)
    }

    /// What there is now.
    pub fn counts(&self) -> Counts {
        let latencies: Vec<u64> = self.latencies.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let requests: u64 = latencies.iter().sum();
        // One of a hundred may be slower.
        let mut slower = requests / 100;
        let slowest = latencies.iter().enumerate().rev().find_map(|(at, count)| {
            let is_here = *count > slower;
            slower = slower.saturating_sub(*count);
            is_here.then_some(at)
        });
        Counts {
            requests,
            empty: self.empty.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            p99_us: slowest.map(|at| (FIRST_US * 2f64.powf((at + 1) as f64 / PER_OCTAVE)).ceil() as u64),
        }
    }
}

fn bucket(took: Duration) -> usize {
    let octaves = (took.as_secs_f64() * 1e6 / FIRST_US).max(1.0).log2();
    ((octaves * PER_OCTAVE) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_p99_is_within_a_bucket_of_the_true_one(mut took_us in prop::collection::vec(16u64..10_000_000, 1..400)) {
            let tally = Tally::default();
            for took in &took_us {
                tally.began();
                tally.ended(Some((End::Answered, Duration::from_micros(*took))));
            }
            took_us.sort_unstable();
            let true_us = took_us[took_us.len() * 99 / 100 - usize::from(took_us.len().is_multiple_of(100))] as f64;
            let told_us = tally.counts().p99_us.unwrap() as f64;
            prop_assert!(told_us >= true_us && told_us <= true_us * 1.2 + 1.0, "{} for {}", told_us, true_us);
        }
    }

    #[test]
    fn what_ended_is_counted_and_what_runs_is_known() {
        let tally = Tally::default();
        assert_eq!(tally.counts(), Counts::default());
        (0..5).for_each(|_| tally.began());
        assert_eq!(tally.running(), 5);
        tally.ended(Some((End::Empty, Duration::from_micros(90))));
        tally.ended(Some((End::Failed, Duration::from_secs(100))));
        tally.ended(None);
        let counts = tally.counts();
        assert_eq!((tally.running(), counts.requests, counts.empty, counts.failed), (2, 2, 1, 1));
        assert!(counts.p99_us.is_some_and(|p99| p99 > 10_000_000));
    }
}
