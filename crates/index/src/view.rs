//! A shard at one moment: what a search sees.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use turret_retrieval::crowding::CrowdingError;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::AttributeKind;
use turret_retrieval::topk::Hit;
use turret_retrieval::vector::dot;

use crate::attributes::Postings;
use crate::blocks::Blocks;
use crate::exact::{ScoredRow, scan};
use crate::graph::{Candidate, Graph, GraphError};
use crate::planner::{Extent, Plan, Planner, Step};
use crate::search::{Found, FoundAd, Search, SearchError};
use crate::vectors::Vectors;

mod crowded;
mod walked;

/// What an answer says of an ad.
pub(crate) struct ListedAd {
    pub(crate) id: AdId,
    pub(crate) advertiser: Option<Box<str>>,
}

/// Immutable, and cheap to make from another: they share what they have in common.
///
/// Rows are slots, in no order. One that no set names is dead or free: nobody looks at what is left in it.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) vectors: Arc<Vectors>,
    pub(crate) ads: Arc<Blocks<Arc<ListedAd>>>,
    /// Rows that may be found.
    pub(crate) live: Arc<RoaringBitmap>,
    /// Rows, live or paused, that the graph does not have, where there is one.
    pub(crate) unlinked: Arc<RoaringBitmap>,
    pub(crate) postings: Arc<Postings>,
    pub(crate) kinds: Arc<BTreeMap<Box<str>, AttributeKind>>,
    pub(crate) graph: Option<Arc<Graph>>,
    pub(crate) counts: Counts,
    /// Shared by all views between two in which an ad died: once nobody holds it, nobody sees that ad.
    pub(crate) era: Arc<()>,
}

/// Sizes that would have to be looked up elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Ads, live or paused.
    pub(crate) ads: usize,
    /// Rows that the graph has, about.
    pub(crate) linked: usize,
    /// Rows that may be taken for a new ad.
    pub(crate) free: usize,
    /// Memory of ids and advertisers, about.
    pub(crate) name_bytes: usize,
}

/// Hits beyond those wanted that are gathered, so that ads of one score can be put in the order of their ids at the edge.
const TIES: usize = 16;
/// How many more are gathered where so many were of one score.
const MORE_TIES: usize = 8;

impl View {
    /// The best `k` ads that pass the filter.
    pub(crate) fn search(&self, planner: &Planner, search: &Search<'_>) -> Result<Found, SearchError> {
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
        let (rows, plan, distances) = self.best(planner, search, passing.as_ref(), 0)?;
        let (ads, distances, exhausted) = match search.crowding {
            None => {
                let ads = rows.iter().map(|row| self.found(row, search, None)).collect();
                (ads, distances, count.unwrap_or(visible) < search.k)
            }
            Some(crowding) => self.thin(planner, search, crowding, (rows, distances), passing)?,
        };
        Ok(Found {
            ads,
            exhausted,
            plan,
            selectivity: count.map(|count| count as f64 / visible.max(1) as f64),
            distances,
        })
    }

    /// The best `k` rows of `passing`, or of all that may be found, how they were found, and how many were compared.
    ///
    /// A walk meets `nearer` rows first that `passing` does not have.
    pub(crate) fn best(
        &self,
        planner: &Planner,
        search: &Search<'_>,
        passing: Option<&RoaringBitmap>,
        nearer: usize,
    ) -> Result<(Vec<ScoredRow>, Plan, u64), GraphError> {
        let (query, k) = (search.vector.as_slice(), search.k);
        let step = match (search.exact, passing) {
            (false, _) => {
                let walked = self.graph.as_ref().map(|_| self.counts.linked);
                let passing = passing.map(|rows| rows.len() as usize);
                planner.plan(Extent { ads: self.live.len() as usize, passing, walked }, k + nearer)
            }
            (true, Some(_)) => Step::ExactPostings,
            (true, None) => Step::Exact,
        };
        let rows = passing.unwrap_or(&self.live);
        let (walked, distances) = match (step, &self.graph) {
            (Step::Graph { list } | Step::InGraph { list }, Some(graph)) => {
                self.walk(graph, planner, list, search, rows)?
            }
            (Step::Graph { .. } | Step::InGraph { .. }, None) | (Step::Exact | Step::ExactPostings, _) => (None, 0),
        };
        if let Some(met) = walked {
            let plan = if matches!(step, Step::InGraph { .. }) { Plan::InGraph } else { Plan::Graph };
            return Ok((self.best_of(&met, search), plan, distances));
        }
        let plan = if passing.is_some() { Plan::ExactPostings } else { Plan::Exact };
        let scan = |k: usize| self.scan(&[query], passing, k).pop().unwrap_or_default();
        Ok((self.ranked(k, scan(k + TIES), scan), plan, distances + passing.unwrap_or(&self.live).len()))
    }

    /// The best `k` ads for each query, of all.
    pub(crate) fn scan_many(&self, queries: &[&[f32]], k: usize) -> Vec<Vec<Hit>> {
        let found = self.scan(queries, None, k + TIES).into_iter().zip(queries);
        let ranked =
            found.map(|(rows, query)| self.ranked(k, rows, |k| self.scan(&[query], None, k).pop().unwrap_or_default()));
        ranked.map(|rows| rows.iter().map(|row| self.hit(row)).collect()).collect()
    }

    /// The best `k` rows of `passing`, or of all that may be found, for each query, in no order where scores are equal.
    fn scan(&self, queries: &[&[f32]], passing: Option<&RoaringBitmap>, k: usize) -> Vec<Vec<ScoredRow>> {
        let rows = passing.unwrap_or(&self.live);
        let is_all = rows.len() as usize == self.vectors.len();
        scan(&self.vectors, queries, Some(rows).filter(|_| !is_all), k)
    }

    /// Candidates that pass, as many as wanted or more, with all that the graph does not have, and how many distances that
    /// takes; absent where the graph has fewer.
    ///
    /// Fewer are met where those that pass lie far from the query, or off the graph altogether.
    fn walk(
        &self,
        graph: &Graph,
        planner: &Planner,
        mut list: usize,
        search: &Search<'_>,
        passing: &RoaringBitmap,
    ) -> Result<(Option<Vec<Candidate>>, u64), GraphError> {
        let (visible, count) = (self.live.len() as usize, passing.len() as usize);
        let unlinked = passing & &*self.unlinked;
        let wanted = search.k.min(count - unlinked.len() as usize);
        let mut distances = unlinked.len();
        loop {
            let mut met = graph.search(search.vector.as_slice(), list)?;
            distances += met.distances;
            // The graph may be further than this view.
            met.rows.retain(|met| passing.contains(met.row) && !unlinked.contains(met.row));
            if met.rows.len() >= wanted {
                met.rows.extend(unlinked.iter().map(Candidate::unscored));
                return Ok((Some(met.rows), distances));
            }
            match planner.longer(list, visible, Some(count).filter(|count| *count < visible)) {
                Some(longer) => list = longer,
                None => return Ok((None, distances - unlinked.len())),
            }
        }
    }

    /// The best `k` rows in the order of hits: of one score, those of the smallest ids, wherever their rows are. `rows` are the
    /// best `k` and [`TIES`] more, and `best` tells so many as it is asked for.
    fn ranked(&self, k: usize, mut rows: Vec<ScoredRow>, best: impl Fn(usize) -> Vec<ScoredRow>) -> Vec<ScoredRow> {
        let mut wide = k + TIES;
        // Where the last is as good as the worst wanted, more may be.
        while rows.len() >= wide && rows.last().is_some_and(|last| last.score >= rows[k - 1].score) {
            wide *= MORE_TIES;
            rows = best(wide);
        }
        rows.sort_by(|a, b| self.order(a, b));
        rows.truncate(k);
        rows
    }

    /// The order of hits.
    fn order(&self, a: &ScoredRow, b: &ScoredRow) -> Ordering {
        let id = |row: u32| &self.ads.get(row).id;
        b.score.total_cmp(&a.score).then_with(|| id(a.row).cmp(id(b.row)))
    }

    pub(crate) fn found(&self, row: &ScoredRow, search: &Search<'_>, crowd: Option<Box<str>>) -> FoundAd {
        let ad = self.ads.get(row.row);
        FoundAd {
            hit: self.hit(row),
            advertiser: ad.advertiser.clone(),
            baseline_score: search.baseline.map(|baseline| dot(baseline.as_slice(), self.vectors.row(row.row))),
            crowd,
        }
    }

    fn hit(&self, row: &ScoredRow) -> Hit {
        Hit { ad: self.ads.get(row.row).id.clone(), score: row.score }
    }
}
