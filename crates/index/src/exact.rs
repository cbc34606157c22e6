//! The exact scan, which is also what orders the answers of the graph.

use std::cmp::Ordering;

use turret_retrieval::topk::TopK;
use turret_retrieval::vector::dot;

use crate::vectors::Vectors;

/// A row with its score; best first, as a hit is, because rows ascend by ad id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScoredRow {
    pub(crate) score: f32,
    pub(crate) row: u32,
}

impl Ord for ScoredRow {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for ScoredRow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ScoredRow {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ScoredRow {}

/// The best `k` of `rows`, best first.
///
/// `rows` are rows of `vectors`, without repetition, in any order.
pub(crate) fn best(vectors: &Vectors, query: &[f32], rows: impl Iterator<Item = u32>, k: usize) -> Vec<ScoredRow> {
    let mut top = TopK::new(k);
    // Almost every row falls below the worst kept; this compare spares it the heap.
    let mut floor = f32::NEG_INFINITY;
    for row in rows {
        let score = dot(query, vectors.row(row));
        if score < floor {
            continue;
        }
        top.push(ScoredRow { score, row });
        if let Some(worst) = top.threshold() {
            floor = worst.score;
        }
    }
    top.into_sorted()
}

#[cfg(test)]
mod tests;
