//! Hits, and the best k of many.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use crate::ids::AdId;

/// The largest `k` that may be asked for.
pub const K_MAX: usize = 2_000;

/// One ad with its score.
///
/// Ordered best first: score descending, then ad id ascending. This is the one order of the whole system, so shards
/// and the merge agree on ties. Scores are finite.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hit {
    /// The ad.
    pub ad: AdId,
    /// Inner product of the query and ad embeddings, in [-1, 1].
    pub score: f32,
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then_with(|| self.ad.cmp(&other.ad))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Hit {}

/// Keeps the best `k` of the rows pushed into it.
///
/// Generic over the row's order so that a scan can push `(score, row number)` without making ids: `T: Ord`, smallest
/// first, as [`Hit`] is.
pub struct TopK<T> {
    k: usize,
    // The worst kept row on top.
    heap: BinaryHeap<T>,
}

impl<T: Ord> TopK<T> {
    /// An empty selection of at most `k` rows.
    pub fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::with_capacity(k.min(K_MAX) + 1) }
    }

    /// Offers one row. O(log k) where it is kept, O(1) where it is not.
    pub fn push(&mut self, row: T) {
        if self.heap.len() < self.k {
            self.heap.push(row);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && row < *worst
        {
            *worst = row;
        }
    }

    /// The worst row kept, once `k` rows are held: only a better one will still be kept.
    pub fn threshold(&self) -> Option<&T> {
        if self.heap.len() < self.k { None } else { self.heap.peek() }
    }

    /// The rows kept, best first.
    pub fn into_sorted(self) -> Vec<T> {
        self.heap.into_sorted_vec()
    }
}
