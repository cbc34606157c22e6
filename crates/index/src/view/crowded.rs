//! Crowding in a shard: what is one too many of its value is passed over, and the next best looked for.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use turret_retrieval::crowding::{Crowding, Taken};
use turret_retrieval::filter::Filter;
use turret_retrieval::vector::dot;

use super::View;
use super::round::{Round, Way};
use crate::exact::{ROWS_BETWEEN_STOPS, ScoredRow};
use crate::graph::GraphError;
use crate::row_set::RowSet;
use crate::search::{FoundAd, Search};

/// The attribute that every listed ad has at hand.
const ADVERTISER: &str = "advertiser_id";
/// The fewest that are looked for in a round after the first.
const ROUND_MIN: usize = 16;
/// Rounds before all that is left is compared and walked over.
const ROUNDS_MAX: usize = 4;

impl View {
    /// Of `rows`, the best of `passing`, those that the crowding admits, and the next best in place of the others; whether there
    /// are no more. What that costs is added to `all`.
    ///
    /// A round takes the rows that were looked at out of those that pass, and all of the values that are full: none of these
    /// would be admitted. So the rows admitted are those that one walk over all, best first, would admit. Each round looks at twice
    /// as many as the one before, and what [`ROUNDS_MAX`] of them leave is walked over indeed.
    pub(super) fn thin(
        &self,
        way: Way<'_>,
        search: &Search<'_>,
        crowding: &Crowding,
        (mut rows, all): (Vec<ScoredRow>, &mut Round),
        passing: Option<RowSet>,
    ) -> Result<(Vec<FoundAd>, bool), GraphError> {
        let words = (&*crowding.field != ADVERTISER).then(|| self.postings.words(&crowding.field));
        let crowd = |row: u32| match &words {
            Some(words) => words.of(row),
            None => self.names.get(row).advertiser,
        };
        let (mut taken, mut kept, mut asked, mut looked) = (Taken::new(crowding.max), Vec::new(), search.k, 0);
        let mut left = passing;
        let met = |kept: usize| kept.min(search.k) as f64 / search.k as f64;
        for round in 1.. {
            let mut values = BTreeSet::new();
            for row in &rows {
                let crowd = crowd(row.row);
                if taken.admits(crowd) {
                    kept.push(self.found(row, search, crowd.map(Into::into)));
                }
                values.extend(crowd);
            }
            if rows.len() < asked || kept.len() >= search.k || all.stopped.is_some() {
                // Of a round after the first, the share of what it had left to compare says nothing of the answer.
                all.stopped = all.stopped.map(|share| if round == 1 { share } else { met(kept.len()) });
                break;
            }
            if (way.stop)() {
                all.stopped = Some(met(kept.len()));
                break;
            }
            looked += rows.len();
            let seen = RowSet::from(rows.iter().map(|row| row.row).collect::<RoaringBitmap>());
            let full = values.into_iter().filter(|value| taken.is_full(value)).map(Into::into);
            let filter = Filter::AnyOf { field: crowding.field.clone(), values: full.collect() };
            let full = self.postings.rows(&filter, &self.live);
            let others = left.as_ref().unwrap_or(&self.live).and_not(&seen).and_not(&full);
            if round == ROUNDS_MAX {
                all.distances += others.len();
                let is_whole = self.walk_over(way, search.vector.as_slice(), &others.to_vec(), asked, |row| {
                    let crowd = crowd(row.row);
                    if taken.admits(crowd) {
                        kept.push(self.found(row, search, crowd.map(Into::into)));
                    }
                    kept.len() < search.k
                });
                if !is_whole {
                    all.stopped = Some(met(kept.len()));
                }
                break;
            }
            asked = asked.saturating_mul(2).max(ROUND_MIN);
            let round = self.best(way, &Search { k: asked, ..*search }, Some(&others), looked)?;
            rows = round.rows;
            all.distances += round.distances;
            all.list = all.list.max(round.list);
            all.stopped = round.stopped;
            left = Some(others);
        }
        let exhausted = kept.len() < search.k;
        // A graph may have missed a better one in a former round.
        kept.sort_by(|a, b| a.hit.cmp(&b.hit));
        kept.truncate(search.k);
        Ok((kept, exhausted))
    }

    /// Calls `each` with all of `rows`, best first, as long as it says so; about `first` are expected to do. Whether they were
    /// all there: when time is up, no more are compared.
    fn walk_over(
        &self,
        way: Way<'_>,
        query: &[f32],
        rows: &[u32],
        first: usize,
        mut each: impl FnMut(&ScoredRow) -> bool,
    ) -> bool {
        let score = |row: u32| ScoredRow { score: dot(query, self.vectors.row(row)), row };
        let (mut scored, mut is_whole) = (Vec::with_capacity(rows.len()), true);
        for (at, row) in rows.iter().copied().enumerate() {
            if at % ROWS_BETWEEN_STOPS == ROWS_BETWEEN_STOPS - 1 && (way.stop)() {
                is_whole = false;
                break;
            }
            scored.push(score(row));
        }
        let (mut rest, mut next) = (&mut scored[..], first.max(1));
        while !rest.is_empty() {
            next = next.min(rest.len());
            rest.select_nth_unstable_by(next - 1, |a, b| self.order(a, b));
            let best;
            (best, rest) = rest.split_at_mut(next);
            best.sort_unstable_by(|a, b| self.order(a, b));
            if !best.iter().all(&mut each) {
                break;
            }
            next = next.saturating_mul(4);
        }
        is_whole
    }
}
