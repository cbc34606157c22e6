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

/// What a plan depends on, of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Planner {
    /// What the shard has.
    backend: Backend,
    /// Whether a scan may answer what a graph could, where it is as fast.
    is_free: bool,
    exact_below_ads: usize,
    search_list: usize,
}

impl Planner {
    /// The planner of a shard of `ads` ads.
    pub(crate) fn new(settings: &IndexSettings, ads: usize) -> Self {
        let backend = match settings.backend {
            // A graph of nothing has no place to start from.
            _ if ads == 0 => Backend::Exact,
            Backend::Auto if ads < settings.exact_below_ads => Backend::Exact,
            Backend::Auto | Backend::DiskAnn => Backend::DiskAnn,
            Backend::Exact => Backend::Exact,
        };
        Self {
            backend,
            is_free: settings.backend == Backend::Auto,
            exact_below_ads: settings.exact_below_ads,
            search_list: settings.search_list.max(1),
        }
    }

    /// The planner of a shard that has nothing but its rows.
    pub(crate) fn exact() -> Self {
        Self { backend: Backend::Exact, is_free: false, exact_below_ads: 0, search_list: 1 }
    }

    /// [`Backend::Exact`] or [`Backend::DiskAnn`].
    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// How to find the best `k` of `ads`, of which `passing` pass the filter, where there is one.
    pub(crate) fn plan(&self, ads: usize, passing: Option<usize>, k: usize) -> Step {
        // A filter that everything passes is none.
        let few = passing.filter(|passing| *passing < ads);
        let rows = few.unwrap_or(ads);
        let scan = if few.is_some() { Step::ExactPostings } else { Step::Exact };
        if self.backend == Backend::Exact || rows == 0 {
            return scan;
        }
        // As if the filter had nothing to do with where ads lie; `longer` is for those that do.
        let per_hit = LIST_PER_HIT.saturating_mul(ads).div_ceil(rows);
        let list = self.search_list.max(k.saturating_mul(per_hit));
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
        self.is_free && scanned < self.exact_below_ads.saturating_mul(list) / self.search_list
    }
}

/// How many rows are scanned in the time in which those that pass are compared; where many do, all are read.
fn scanned(ads: usize, passing: Option<usize>) -> usize {
    passing.map_or(ads, |passing| ads.min(passing.saturating_mul(SCAN_ROWS_PER_POSTING)))
}

#[cfg(test)]
mod tests;
