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
    /// The graph was walked, keeping only ads that pass the filter.
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

/// Candidates for each hit wanted. A list of just `k` finds 95 % of the best 100 of 40 000 ads, twice that 98 %.
const LIST_PER_HIT: usize = 2;

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

    /// [`Backend::Exact`] or [`Backend::DiskAnn`].
    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// How to find the best `k` of `ads`, of which `passing` pass the filter, where there is one.
    pub(crate) fn plan(&self, ads: usize, passing: Option<usize>, k: usize) -> Step {
        match passing {
            Some(passing) if passing < ads => self.filtered(ads, passing, k),
            Some(_) | None => self.unfiltered(ads, k),
        }
    }

    fn unfiltered(&self, ads: usize, k: usize) -> Step {
        let list = self.search_list.max(k.saturating_mul(LIST_PER_HIT));
        match self.backend {
            Backend::Exact => Step::Exact,
            Backend::Auto | Backend::DiskAnn if list >= ads || self.scan_is_as_fast(ads, list) => Step::Exact,
            Backend::Auto | Backend::DiskAnn => Step::Graph { list },
        }
    }

    fn filtered(&self, ads: usize, passing: usize, k: usize) -> Step {
        // As many candidates pass as hits are wanted, twice over: below a half, diskann lengthens the list itself.
        let per_hit = LIST_PER_HIT.max(ads.div_ceil(passing.max(1)));
        let list = self.search_list.max(k.saturating_mul(per_hit));
        let is_few = passing <= self.exact_below_ads || passing <= ads / PASSING_ONE_IN;
        match self.backend {
            Backend::Exact => Step::ExactPostings,
            Backend::Auto | Backend::DiskAnn if is_few || list >= passing || self.scan_is_as_fast(passing, list) => {
                Step::ExactPostings
            }
            Backend::Auto | Backend::DiskAnn => Step::InGraph { list },
        }
    }

    /// The time of a graph search grows with its list, that of a scan with its rows; the settings say where they meet.
    fn scan_is_as_fast(&self, rows: usize, list: usize) -> bool {
        self.is_free && rows < self.exact_below_ads.saturating_mul(list) / self.search_list
    }
}

#[cfg(test)]
mod tests;
