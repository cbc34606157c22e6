//! A shard at one moment: what a search sees.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use turret_retrieval::calibration::Calibration;
use turret_retrieval::crowding::CrowdingError;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::AttributeKind;
use turret_retrieval::topk::Hit;
use turret_retrieval::vector::dot;

use crate::attributes::Postings;
use crate::bits::Bits;
use crate::cells::Cells;
use crate::exact::{Scanned, ScoredRow, scan_list_until, scan_until};
use crate::graph::Graph;
use crate::names::Names;
use crate::planner::Planner;
use crate::row_set::RowSet;
use crate::search::{Found, FoundAd, Search, SearchError};
use crate::vectors::Vectors;

mod correlation;
mod crowded;
mod forced;
mod round;
mod walked;

use round::Way;

/// Immutable, and cheap to make from another: they share what they have in common.
///
/// Rows are slots, in no order. One that no set names is dead or free: nobody looks at what is left in it.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) names: Arc<Names>,
    /// Rows that may be found.
    pub(crate) live: Arc<RowSet>,
    /// Rows, live or paused, that the graph does not have, where there is one.
    pub(crate) unlinked: Arc<RoaringBitmap>,
    pub(crate) postings: Arc<Postings>,
    pub(crate) kinds: Arc<BTreeMap<Box<str>, AttributeKind>>,
    pub(crate) graph: Option<Arc<Graph>>,
    /// Which rows lie together, of all that are live or paused, where there is a graph.
    pub(crate) cells: Option<Arc<Cells>>,
    /// What was measured of the graph, where there is one; until then all is scanned.
    pub(crate) measured: Option<Arc<Measured>>,
    pub(crate) counts: Counts,
    /// Shared by all views between two in which an ad died: once nobody holds it, nobody sees that ad.
    pub(crate) era: Arc<()>,
}

/// What was measured of a shard's graph and cells.
pub(crate) struct Measured {
    pub(crate) calibration: Calibration,
    /// Ads that had come into the shard then, as [`Counts`] counts them.
    pub(crate) born: u64,
}

/// Sizes that would have to be looked up elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Ads, live or paused.
    pub(crate) ads: usize,
    /// Rows that the graph has, about.
    pub(crate) linked: usize,
    /// Ads that have come into the shard, replaced ones with another embedding too, since its graph was measured as it was opened.
    pub(crate) born: u64,
    /// Rows that may be taken for a new ad.
    pub(crate) free: usize,
}

/// Hits beyond those wanted that are gathered, so that ads of one score can be put in the order of their ids at the edge.
pub(crate) const TIES: usize = 16;
/// How many more are gathered where so many were of one score.
const MORE_TIES: usize = 8;
/// Where fewer than one row of so many is to be compared, they are compared as a list, and no bits are made of them.
const FEW_ONE_IN: usize = 512;

impl View {
    /// The best `k` ads that pass the filter, or the best so far when `stop` says so.
    pub(crate) fn search(
        &self,
        planner: &Planner,
        search: &Search<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Found, SearchError> {
        search.check(self.vectors.dimension())?;
        let crowding = search.crowding.map(|crowding| crowding.check(&self.kinds));
        // Where no ad has the attribute, nobody is crowded.
        if let Some(Err(error @ CrowdingError::Kind { .. })) = crowding {
            return Err(error.into());
        }
        let visible = self.live.len() as usize;
        let passing = search.filter.map(|filter| self.postings.rows(filter, &self.live));
        let count = passing.as_ref().map(|rows| rows.len() as usize);
        // A filter that everything passes is none.
        let passing = passing.filter(|rows| (rows.len() as usize) < visible);
        let way = Way { planner, stop };
        let mut round = self.best(way, search, passing.as_ref(), 0)?;
        let rows = std::mem::take(&mut round.rows);
        let (ads, is_all) = match search.crowding {
            None => (self.found_all(&rows, search), count.unwrap_or(visible) < search.k),
            Some(crowding) => self.thin(way, search, crowding, (rows, &mut round), passing)?,
        };
        Ok(Found {
            ads,
            exhausted: is_all && round.stopped.is_none(),
            plan: round.plan,
            selectivity: count.map(|count| count as f64 / visible.max(1) as f64),
            selectivity_near: round.near,
            list: round.list as u32,
            distances: round.distances,
            early_stopped: round.stopped.is_some(),
            compared: round.stopped.unwrap_or(1.0),
        })
    }

    /// The best `k` ads for each query, of all.
    pub(crate) fn scan_many(&self, queries: &[&[f32]], k: usize) -> Vec<Vec<Hit>> {
        let scan = |queries: &[&[f32]], k| self.scan(queries, None, k, &|| false).best;
        let found = scan(queries, k + TIES).into_iter().zip(queries);
        let ranked = found.map(|(rows, query)| self.ranked(k, rows, |k| scan(&[query], k).pop()).0);
        ranked.map(|rows| rows.iter().map(|row| self.hit(row)).collect()).collect()
    }

    /// The best `k` rows of `passing`, or of all that may be found, for each query, in no order where scores are equal.
    pub(crate) fn scan(
        &self,
        queries: &[&[f32]],
        passing: Option<&RowSet>,
        k: usize,
        stop: &dyn Fn() -> bool,
    ) -> Scanned {
        let rows = passing.unwrap_or(&self.live);
        if rows.len() as usize * FEW_ONE_IN < self.vectors.len() {
            return scan_list_until(&self.vectors, queries, &rows.to_vec(), k, stop);
        }
        scan_until(&self.vectors, queries, self.unless_all(rows), k, stop)
    }

    /// `rows`, unless they are all that there are: nobody has to look for those.
    fn unless_all<'a>(&self, rows: &'a RowSet) -> Option<&'a Bits> {
        Some(rows).filter(|rows| rows.len() as usize != self.vectors.len()).map(RowSet::bits)
    }

    /// The best `k` rows in the order of hits: of one score, those of the smallest ids, wherever their rows are. `rows` are the
    /// best `k` and [`TIES`] more, and `best` tells so many as it is asked for, unless there is no time: whether there was.
    fn ranked(
        &self,
        k: usize,
        mut rows: Vec<ScoredRow>,
        best: impl Fn(usize) -> Option<Vec<ScoredRow>>,
    ) -> (Vec<ScoredRow>, bool) {
        let (mut wide, mut is_whole) = (k + TIES, true);
        // Where the last is as good as the worst wanted, more may be.
        while rows.len() >= wide && rows.last().is_some_and(|last| last.score >= rows[k - 1].score) {
            wide *= MORE_TIES;
            match best(wide) {
                Some(more) => rows = more,
                None => {
                    is_whole = false;
                    break;
                }
            }
        }
        rows.sort_by(|a, b| self.order(a, b));
        rows.truncate(k);
        (rows, is_whole)
    }

    /// The order of hits.
    fn order(&self, a: &ScoredRow, b: &ScoredRow) -> Ordering {
        let id = |row: u32| self.names.get(row).id;
        b.score.total_cmp(&a.score).then_with(|| id(a.row).cmp(id(b.row)))
    }

    /// What an answer says of rows: all of it is brought near first, and waited for at once.
    pub(crate) fn found_all(&self, rows: &[ScoredRow], search: &Search<'_>) -> Vec<FoundAd> {
        self.names.fetch(rows.iter().map(|row| row.row));
        rows.iter().map(|row| self.found(row, search, None)).collect()
    }

    pub(crate) fn found(&self, row: &ScoredRow, search: &Search<'_>, crowd: Option<Box<str>>) -> FoundAd {
        let name = self.names.get(row.row);
        FoundAd {
            hit: Hit { ad: AdId::known(name.id), score: row.score },
            advertiser: name.advertiser.map(Into::into),
            baseline_score: search.baseline.map(|baseline| dot(baseline.as_slice(), self.vectors.row(row.row))),
            crowd,
        }
    }

    fn hit(&self, row: &ScoredRow) -> Hit {
        Hit { ad: AdId::known(self.names.get(row.row).id), score: row.score }
    }
}
