//! Some of the latest queries, to measure lists by.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// One query in so many is kept.
const EVERY: u32 = 16;
/// Queries that are kept.
const KEPT_MAX: usize = 64;
/// Fewer say too little.
const KEPT_MIN: usize = 32;

/// The latest queries, in memory only.
#[derive(Default)]
pub(super) struct Recent {
    asked: AtomicU32,
    kept: Mutex<VecDeque<Vec<f32>>>,
}

impl Recent {
    /// Keeps the query, or not. Never waits.
    pub(super) fn note(&self, query: &[f32]) {
        if !self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY) {
            return;
        }
        let Ok(mut kept) = self.kept.try_lock() else { return };
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(query.to_vec());
    }

    /// A copy of them; none where they are few.
    pub(super) fn take(&self) -> Vec<Vec<f32>> {
        let kept = self.kept.lock().map(|kept| Vec::from(kept.clone())).unwrap_or_default();
        if kept.len() < KEPT_MIN { Vec::new() } else { kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_queries_are_kept_and_few_are_none() {
        let recent = Recent::default();
        let note = |from: u32, to: u32| (from..to).for_each(|at| recent.note(&[at as f32]));
        note(0, 31 * EVERY);
        assert!(recent.take().is_empty());
        note(31 * EVERY, 100 * EVERY);
        let kept = recent.take();
        assert_eq!((kept.len(), &kept[0], &kept[63]), (64, &vec![576.0], &vec![1_584.0]));
    }
}
