//! Pure: how to search, from the size of the shard, of the filter and of the answer.

use serde::{Deserialize, Serialize};

use crate::settings::{Backend, IndexSettings};

/// How a shard was searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Every ad was compared with the query.
    Exact,
    /// Every ad that passes the filter was compared with the query.
    ExactPostings,
    /// The graph was walked with a list so long that enough of it passes the filter.
    InGraph,
    /// The graph was walked.
    Graph,
}

/// What to do, with the length of the candidate list where the graph is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Exact,
    ExactPostings,
    InGraph { list: usize },
    Graph { list: usize },
}

/// Candidates that pass, for each hit wanted. A list of just `k` finds 95 % of the best 100 of 40 000 ads, twice that
/// 98 %.
const LIST_PER_HIT: usize = 2;

/// Rows that are scanned in the time that a walk takes for one entry of its list: 2.6 ns each, against 1 µs or more.
const SCAN_ROWS_PER_ENTRY: usize = 400;

/// Rows that are scanned in the time that one of a filter takes where few pass: it is fetched by itself, and whole.
const SCAN_ROWS_PER_POSTING: usize = 8;

/// How much longer the list is made where too few of it pass.
const LENGTHEN_BY: usize = 4;

/// Of a filter that passes at most one in so many, the graph loses too many hits to be worth walking.
const PASSING_ONE_IN: usize = 100;

/// What a plan depends on, of the settings.
#[derive(Clone, Debug)]
pub(crate) struct Planner {
    backend: Backend,
    exact_below_ads: usize,
    search_list: usize,
}

/// What a plan depends on, of the shard and the filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Ads that may be found.
    pub(crate) ads: usize,
    /// How many of them pass the filter, where there is one.
    pub(crate) passing: Option<usize>,
    /// Rows that a walk may meet, where there is a graph: those that are paused or dead too.
    pub(crate) walked: Option<usize>,
}

impl Planner {
    pub(crate) fn new(settings: &IndexSettings) -> Self {
        Self {
            backend: settings.backend,
            exact_below_ads: settings.exact_below_ads,
            search_list: settings.search_list.max(1),
        }
    }

    /// Whether a shard of `ads` ads is to have a graph.
    pub(crate) fn wants_graph(&self, ads: usize) -> bool {
        match self.backend {
            // A graph of nothing has no place to start from.
            Backend::Auto | Backend::DiskAnn if ads == 0 => false,
            Backend::Auto => ads >= self.exact_below_ads,
            Backend::DiskAnn => true,
            Backend::Exact => false,
        }
    }

    /// How to find the best `k` ads.
    pub(crate) fn plan(&self, extent: Extent, k: usize) -> Step {
        let Extent { ads, passing, walked } = extent;
        // A filter that everything passes is none.
        let few = passing.filter(|passing| *passing < ads);
        let rows = few.unwrap_or(ads);
        let scan = if few.is_some() { Step::ExactPostings } else { Step::Exact };
        let Some(walked) = walked.filter(|_| rows > 0) else { return scan };
        // As if the filter had nothing to do with where ads lie; `longer` is for those that do.
        let per_hit = LIST_PER_HIT.saturating_mul(ads).div_ceil(rows);
        // What is met and may not be found takes room in the list too.
        let list = k.saturating_mul(per_hit).saturating_mul(walked.max(ads)).div_ceil(ads);
        let list = self.search_list.max(list);
        let scanned = scanned(ads, few);
        let is_few = few.is_some_and(|few| scanned <= self.exact_below_ads || few <= ads / PASSING_ONE_IN);
        if is_few || list >= rows || self.scan_is_as_fast(scanned, list) {
            return scan;
        }
        if few.is_some() { Step::InGraph { list } } else { Step::Graph { list } }
    }

    /// The list to try next where too few of `list` entries pass; absent where comparing all that pass is faster.
    ///
    /// Walks that were in vain so cost no more than that, and a third.
    pub(crate) fn longer(&self, list: usize, ads: usize, passing: Option<usize>) -> Option<usize> {
        let longer = list.saturating_mul(LENGTHEN_BY);
        (longer.saturating_mul(SCAN_ROWS_PER_ENTRY) < scanned(ads, passing)).then_some(longer)
    }

    /// The time of a graph search grows with its list, that of a scan with its rows; the settings say where they meet.
    fn scan_is_as_fast(&self, scanned: usize, list: usize) -> bool {
        self.backend == Backend::Auto && scanned < self.exact_below_ads.saturating_mul(list) / self.search_list
    }
}

/// How many rows are scanned in the time in which those that pass are compared; where many do, all are read.
fn scanned(ads: usize, passing: Option<usize>) -> usize {
    passing.map_or(ads, |passing| ads.min(passing.saturating_mul(SCAN_ROWS_PER_POSTING)))
}

#[cfg(test)]
mod tests;
