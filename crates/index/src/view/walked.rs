//! What becomes of the rows that a walk met.

use turret_retrieval::topk::TopK;
use turret_retrieval::vector::dot;

use super::{TIES, View};
use crate::exact::ScoredRow;
use crate::graph::Candidate;
use crate::search::Search;

impl View {
    /// The best `k` of the rows that a walk met, in the order of hits.
    pub(super) fn best_of(&self, met: &[Candidate], search: &Search<'_>) -> Vec<ScoredRow> {
        let best = |k: usize| self.scored(met, search.vector.as_slice(), k);
        self.ranked(search.k, best(search.k + TIES), |k| Some(best(k))).0
    }

    /// The best `k` of `met`, best first, each scored as a scan would.
    ///
    /// What the walk says of a row differs from its score by roundings only. So of a list best first little more than `k` rows are
    /// fetched: each is far from the last in memory, and a walk's list is several times as long.
    fn scored(&self, met: &[Candidate], query: &[f32], k: usize) -> Vec<ScoredRow> {
        // Of a sum of so many products of unit vectors, in whatever order, twice.
        let slack = query.len() as f32 * f32::EPSILON;
        self.vectors.fetch(&met.iter().take(k).map(|candidate| candidate.row).collect::<Vec<_>>());
        let mut top = TopK::new(k);
        let mut floor = f32::NEG_INFINITY;
        for candidate in met {
            if candidate.score + slack < floor {
                continue;
            }
            let score = dot(query, self.vectors.row(candidate.row));
            top.push(ScoredRow { score, row: candidate.row });
            if let Some(worst) = top.threshold() {
                floor = worst.score;
            }
        }
        top.into_sorted()
    }
}

#[cfg(test)]
mod tests;
