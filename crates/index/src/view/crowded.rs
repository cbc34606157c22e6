//! Crowding in a shard: what is one too many of its value is passed over, and the next best looked for.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use turret_retrieval::crowding::{Crowding, Taken};
use turret_retrieval::filter::Filter;

use super::View;
use crate::exact::ScoredRow;
use crate::graph::GraphError;
use crate::planner::Planner;
use crate::search::{FoundAd, Search};

/// The attribute that every listed ad has at hand.
const ADVERTISER: &str = "advertiser_id";
/// The fewest that are looked for in one round.
const ROUND_MIN: usize = 16;

impl View {
    /// Of `rows`, the best of `passing`, those that the crowding admits, and the next best in place of the others; how many were
    /// compared, and whether there are no more.
    ///
    /// A round takes the rows that were looked at out of those that pass, and all of the values that are full: none of these
    /// would be admitted. So the rows admitted are those that one walk over all, best first, would admit, and there are at most as
    /// many rounds as values that fill up.
    pub(super) fn thin(
        &self,
        planner: &Planner,
        search: &Search<'_>,
        crowding: &Crowding,
        (mut rows, mut distances): (Vec<ScoredRow>, u64),
        passing: Option<RoaringBitmap>,
    ) -> Result<(Vec<FoundAd>, u64, bool), GraphError> {
        let (mut taken, mut kept, mut asked) = (Taken::new(crowding.max), Vec::new(), search.k);
        let mut left = passing;
        loop {
            let mut full = BTreeSet::new();
            for row in &rows {
                let crowd = self.crowd(row.row, &crowding.field);
                if taken.admits(crowd.as_deref()) {
                    kept.push(self.found(row, search, crowd));
                } else {
                    full.extend(crowd);
                }
            }
            let is_end = rows.len() < asked;
            if is_end || kept.len() >= search.k {
                // A graph may have missed a better one in a former round.
                kept.sort_by(|a, b| a.hit.cmp(&b.hit));
                kept.truncate(search.k);
                let exhausted = is_end && kept.len() < search.k;
                return Ok((kept, distances, exhausted));
            }
            let mut others = left.unwrap_or_else(|| (*self.live).clone());
            others -= rows.iter().map(|row| row.row).collect::<RoaringBitmap>();
            let filter = Filter::AnyOf { field: crowding.field.clone(), values: full.into_iter().collect() };
            others -= self.postings.rows(&filter, &self.live);
            asked = (search.k - kept.len()).max(ROUND_MIN);
            let more;
            (rows, _, more) = self.best(planner, &Search { k: asked, ..*search }, Some(&others))?;
            distances += more;
            left = Some(others);
        }
    }

    fn crowd(&self, row: u32, field: &str) -> Option<Box<str>> {
        if field == ADVERTISER { self.ads.get(row).advertiser.clone() } else { self.postings.word(field, row) }
    }
}
