//! Pure: how to search, from the size of the shard, of the filter and of the answer, and from what was measured of the graph.
//!
//! A cost is counted in rows of a dense scan, so that a choice depends on no clock. A walk is begun only where it is expected to
//! cost less than comparing all that passes, and lengthened only while all of it together does. A look into cells that was in vain, which
//! is bounded by itself, is not counted with what follows it.

use serde::{Deserialize, Serialize};
use turret_retrieval::calibration::{Calibration, LIST_MAX};

use crate::cells::{Look, NEAR_CELLS};
use crate::settings::{Backend, IndexSettings};

/// How a shard was searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Every ad was compared with the query.
    Exact,
    /// Every ad that passes the filter was compared with the query.
    ExactPostings,
    /// The graph was walked, and what does not pass the filter left out: the list was long enough for what did.
    PostFilter,
    /// The graph was walked again with longer lists until the last hit lay well inside.
    AdaptiveList,
    /// The graph was walked.
    Graph,
    /// Of the cells of rows that lie together those near the query were looked into, and what passes there compared.
    NearestCells,
}

impl Plan {
    /// As answers and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::ExactPostings => "exact_postings",
            Self::PostFilter => "post_filter",
            Self::AdaptiveList => "adaptive_list",
            Self::Graph => "graph",
            Self::NearestCells => "nearest_cells",
        }
    }
}

/// What to do, with the length of the candidate list where the graph is walked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    Scan,
    Walk {
        list: usize,
    },
    /// Look into the nearest cells.
    Look(Look),
}

/// What to do after a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Enough,
    Longer { list: usize },
    Scan,
}

/// What things cost, in rows of a dense scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// An ad that a walk compares: it waits for memory each time.
    pub(crate) distance: f64,
    /// A row of a filter where few pass: its codes are fetched by themselves.
    pub(crate) posting: f64,
    /// A row that the graph does not have: it is fetched by itself, and whole.
    pub(crate) unlinked: f64,
    /// To find a row of a filter where many pass, and all rows are read.
    pub(crate) masked: f64,
    /// To look into a cell, without its rows.
    pub(crate) look: f64,
    /// To know of a cell how near it is.
    pub(crate) cell: f64,
    /// To count what passes in one.
    pub(crate) near: f64,
}

impl Costs {
    /// By `just bench-filters`, of 200,000 ads of 64 values, and then by what a row of a scan took less by AVX2 since, 0.67 of the time, and each
    /// of these: a walk 1, rows 0.92, a look 0.88. What is of a scan's kind, `masked` and `cell`, stayed.
    pub(crate) const MEASURED: Self =
        Self { distance: 60.0, posting: 11.0, unlinked: 15.0, masked: 0.2, look: 80.0, cell: 1.5, near: 13.0 };
}

/// A walk for a filter that is expected to cost more than so much of the scan is not begun: another may have to follow it. Nor is it asked
/// whether a filter correlates with the query where a look could save less than that.
const WORTH: f64 = 0.5;
/// Nor is a look that is expected to cost more than so much of it: it may turn out to come to more cells.
const WORTH_A_LOOK: f64 = 0.8;
/// A walk that costs so many times the scan is dear: that of a filter costs a fifth more, and a quarter more ads may come.
const DEAR: f64 = 1.5;
/// Cells are not looked into for a rank beyond so many times the largest that was measured.
const MEASURED_TIMES: f64 = 8.0;
/// Of what passes overall, what must pass near a query for a look.
const NEAR_MIN: f64 = 0.5;
/// Cells that may be looked into, in place of those expected; of few, so many.
const MORE_CELLS: f64 = 4.0;
const CELLS_MIN: f64 = 64.0;
/// By so many standard deviations fewer or more must pass near a query than elsewhere for a filter to have to do with it; and by so many fewer
/// there is no doubt of it.
const FEWER: f64 = 2.5;
const MORE: f64 = 2.0;
const MUCH_FEWER: f64 = 4.5;
/// The rank of the last hit of a filter varies by the root of the hits; a list has room for so many times that.
const SPREAD: f64 = 1.5;

/// What a plan depends on, of the settings.
#[derive(Clone, Debug)]
pub(crate) struct Planner {
    backend: Backend,
    exact_below_ads: usize,
    pub(crate) costs: Costs,
}

/// What a plan depends on, of the shard and the filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent<'a> {
    /// Ads that may be found.
    pub(crate) ads: usize,
    /// How many of them pass the filter, where there is one that some do not pass.
    pub(crate) passing: Option<usize>,
    /// Ads that are wanted.
    pub(crate) k: usize,
    /// Ads that do not pass and are known to be nearer than those that do.
    pub(crate) nearer: usize,
    /// The graph, where there is one that was measured.
    pub(crate) graph: Option<Walked<'a>>,
}

/// What a plan depends on, of the graph.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walked<'a> {
    /// Rows that a walk may meet: those that are paused or dead too.
    pub(crate) rows: usize,
    /// Ads that it does not have, and that are compared with every query.
    pub(crate) unlinked: usize,
    pub(crate) calibration: &'a Calibration,
}

/// Some hundred rows near the query, and how many of them pass the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Near {
    pub(crate) rows: u32,
    pub(crate) passing: u32,
}

/// What a walk met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met {
    pub(crate) list: usize,
    /// Ads compared, by all walks together.
    pub(crate) distances: u64,
    /// Rows that are wanted of it.
    pub(crate) wanted: usize,
    /// Rows met that pass.
    pub(crate) passing: usize,
    /// How many rows were met up to the last one wanted, and with it, where so many pass.
    pub(crate) rank: Option<usize>,
}

impl Near {
    /// The share of the rows near the query that pass, not to be taken for too large; `overall` is that of all rows.
    ///
    /// Where they do not contradict it, that is `overall`.
    pub(crate) fn rate(self, overall: f64) -> f64 {
        if self.passing == 0 {
            return 0.0;
        }
        let near = f64::from(self.passing) / f64::from(self.rows);
        if (-FEWER..=MORE).contains(&self.deviations(overall)) {
            return overall;
        }
        (near - self.deviation(near)).max(0.0)
    }

    /// Whether fewer pass than chance would have, if it were `overall` of all rows, and yet not clearly: some more should be asked.
    pub(crate) fn is_doubtful(self, overall: f64) -> bool {
        (-MUCH_FEWER..-FEWER).contains(&self.deviations(overall))
    }

    /// By how many standard deviations more pass than if it were `overall` of all rows.
    fn deviations(self, overall: f64) -> f64 {
        let more = f64::from(self.passing) / f64::from(self.rows.max(1)) - overall;
        if more == 0.0 { 0.0 } else { more / self.deviation(overall) }
    }

    /// The standard deviation of the share of so many rows that pass.
    fn deviation(self, rate: f64) -> f64 {
        (rate * (1.0 - rate).max(0.0) / f64::from(self.rows.max(1))).sqrt()
    }
}

impl Planner {
    pub(crate) fn new(settings: &IndexSettings) -> Self {
        Self { backend: settings.backend, exact_below_ads: settings.exact_below_ads, costs: Costs::MEASURED }
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

    /// Whether a walk that compares so many ads is never worth it in a shard of `ads`, though some more may come, and the settings do not ask
    /// for it all the same.
    pub(crate) fn is_dear(&self, distances: u64, ads: usize) -> bool {
        self.backend != Backend::DiskAnn && distances as f64 * self.costs.distance > DEAR * ads as f64
    }

    /// How to find the best `k` ads, at the least cost. `near` is asked only where the answer depends on it, and by a filter; before that
    /// `correlates`, which costs little, where a filter that has nothing to do with the query would be scanned for: whether what passes scores
    /// more than other ads.
    pub(crate) fn plan(
        &self,
        extent: &Extent<'_>,
        correlates: impl FnOnce() -> bool,
        near: impl FnOnce() -> Near,
    ) -> Step {
        let Some(graph) = extent.graph else { return Step::Scan };
        let shown = self.shown(extent, graph);
        let Some(passing) = extent.passing else {
            let walk = self.walk_of_all(extent, graph);
            let look = self.look(extent, graph, shown).filter(|_| self.backend == Backend::Auto);
            let look = look.filter(|(cost, _)| *cost <= self.scan(extent));
            return Self::cheapest(walk.into_iter().chain(look));
        };
        let scan = self.scan(extent);
        let counting = NEAR_CELLS as f64 * self.costs.near;
        let pays = |rate: f64, worth_a_look: f64| {
            let (walk, look) = (self.walk(extent, graph, rate * shown), self.look(extent, graph, rate));
            // A look has to know how near cells are anyway.
            walk.is_some_and(|(cost, _)| cost + counting + self.cost_of_cells(graph) <= WORTH * scan)
                || look.is_some_and(|(cost, _)| cost + counting <= worth_a_look * scan)
        };
        // Were as many to pass near the query as elsewhere; or were all to pass there, where that would save so much that it is worth asking.
        let overall = passing as f64 / extent.ads.max(1) as f64;
        if !(pays(overall, WORTH_A_LOOK) || pays(1.0, WORTH) && correlates()) {
            return Step::Scan;
        }
        let near = near();
        let walk = self.walk_near(extent, graph, passing, near);
        let look = self.look_near(extent, graph, near).filter(|(cost, _)| *cost <= WORTH_A_LOOK * scan);
        Self::cheapest(walk.into_iter().chain(look))
    }

    fn cheapest(steps: impl Iterator<Item = (f64, Step)>) -> Step {
        steps.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(Step::Scan, |(_, step)| step)
    }

    /// What to do where more cells came into question than were to be looked into; `near` is what passes there, where there is a filter.
    pub(crate) fn after_look(&self, extent: &Extent<'_>, near: Option<Near>) -> Step {
        let walk = extent.graph.and_then(|graph| match (extent.passing, near) {
            (None, _) => self.walk_of_all(extent, graph),
            (Some(passing), Some(near)) => self.walk_near(extent, graph, passing, near),
            (Some(_), None) => None,
        });
        Self::cheapest(walk.into_iter())
    }

    /// A walk for a filter, where it costs so little beside the scan that another may follow it.
    fn walk_near(&self, extent: &Extent<'_>, graph: Walked<'_>, passing: usize, near: Near) -> Option<(f64, Step)> {
        let rate = near.rate(passing as f64 / extent.ads.max(1) as f64) * self.shown(extent, graph);
        self.walk(extent, graph, rate).filter(|(cost, _)| *cost <= WORTH * self.scan(extent))
    }

    /// A walk where there is no filter and it costs no more than it may.
    fn walk_of_all(&self, extent: &Extent<'_>, graph: Walked<'_>) -> Option<(f64, Step)> {
        self.walk(extent, graph, self.shown(extent, graph)).filter(|(cost, _)| *cost <= self.budget(extent))
    }

    /// What is met and may not be found takes room in a list too.
    fn shown(&self, extent: &Extent<'_>, graph: Walked<'_>) -> f64 {
        extent.ads as f64 / graph.rows.max(extent.ads).max(1) as f64
    }

    fn walk(&self, extent: &Extent<'_>, graph: Walked<'_>, rate: f64) -> Option<(f64, Step)> {
        self.list(extent, graph, rate).map(|list| (self.cost(graph, list), Step::Walk { list }))
    }

    /// A look into the cells that have the hits wanted where `rate` of the rows there pass.
    fn look(&self, extent: &Extent<'_>, graph: Walked<'_>, rate: f64) -> Option<(f64, Step)> {
        let (reach, costs) = (graph.calibration.reach.as_ref()?, self.costs);
        let rank = (Self::rank(extent.k, rate) + extent.nearer) as f64;
        let (looks, share) = (reach.looks(rank)?, reach.share(rank));
        // Of what lies much further away nothing was measured.
        if rank > MEASURED_TIMES * f64::from(reach.points.last()?.k) {
            return None;
        }
        let rows = (looks.rows * rate * costs.posting).min(looks.rows);
        let (whole, each) = (self.cost_of_cells(graph), costs.look + rows / looks.cells);
        // Where less passes than was thought, more cells come into question: as many as a scan costs, and not much further away.
        let most = ((self.scan(extent) - whole) / each).min((looks.cells * MORE_CELLS).max(CELLS_MIN)).max(1.0);
        Some((whole + looks.cells * each, Step::Look(Look { share, expected: looks.cells, most: most as usize })))
    }

    /// What it costs to know of all cells how near they are.
    fn cost_of_cells(&self, graph: Walked<'_>) -> f64 {
        graph.calibration.reach.as_ref().map_or(0.0, |reach| reach.cells as f64 * self.costs.cell)
    }

    /// A look, where what passes near the query is not much less than elsewhere. Where it is, all hits lie where it begins to be more,
    /// and not among the nearest, of which the share of a radius was measured.
    fn look_near(&self, extent: &Extent<'_>, graph: Walked<'_>, near: Near) -> Option<(f64, Step)> {
        let overall = extent.passing? as f64 / extent.ads.max(1) as f64;
        let rate = near.rate(overall);
        if rate < NEAR_MIN * overall { None } else { self.look(extent, graph, rate) }
    }

    /// What to do instead of walks that did not do.
    pub(crate) fn instead(&self, extent: &Extent<'_>, near: Near) -> Step {
        let look = extent.graph.and_then(|graph| self.look_near(extent, graph, near));
        look.filter(|(cost, _)| *cost <= WORTH_A_LOOK * self.scan(extent)).map_or(Step::Scan, |(_, step)| step)
    }

    /// What to do after a walk. The last hit wanted must lie at a rank that the list is calibrated for: then rows as near as
    /// those met were not missed because the list was short.
    pub(crate) fn after(&self, extent: &Extent<'_>, met: Met) -> Next {
        let Some(graph) = extent.graph else { return Next::Scan };
        if met.wanted == 0 {
            return Next::Enough;
        }
        let seen = met.passing.max(1);
        let rank = met.rank.unwrap_or_else(|| (met.wanted * met.list).div_ceil(seen));
        let Some(list) = graph.calibration.list(rank) else { return Next::Scan };
        if met.rank.is_some() && list <= met.list {
            return Next::Enough;
        }
        // Where nothing was measured for this rank, or it was for fewer, it grows all the same.
        let list = list.max(met.list + met.list / 8 + 1);
        let spent = met.distances as f64 * self.costs.distance;
        if list < graph.rows && list <= LIST_MAX as usize && spent + self.cost(graph, list) <= self.budget(extent) {
            Next::Longer { list }
        } else {
            Next::Scan
        }
    }

    /// The list for the hits wanted where `rate` of what is met passes; absent where that is all there is, or more than any walk takes.
    fn list(&self, extent: &Extent<'_>, graph: Walked<'_>, rate: f64) -> Option<usize> {
        let list = graph.calibration.list(Self::rank(extent.k, rate) + extent.nearer)?;
        let rows = graph.rows.min(extent.passing.unwrap_or(extent.ads));
        // Nobody can stop a walk, and of longer lists nothing was measured.
        (list < rows && list <= LIST_MAX as usize).then_some(list)
    }

    /// How many rows must be met, of which `rate` pass, for the hits wanted, rather too many than too few.
    fn rank(k: usize, rate: f64) -> usize {
        let k = k as f64;
        let spread = if rate < 1.0 { SPREAD * (k * (1.0 - rate)).sqrt() } else { 0.0 };
        ((k + spread) / rate).ceil().min(1e9) as usize
    }

    /// What a walk costs.
    fn cost(&self, graph: Walked<'_>, list: usize) -> f64 {
        graph.calibration.distances(list) as f64 * self.costs.distance + graph.unlinked as f64 * self.costs.unlinked
    }

    /// What all walks together may cost. Whoever asks for the graph gets it, up to the longest list.
    fn budget(&self, extent: &Extent<'_>) -> f64 {
        let is_asked_for = extent.passing.is_none() && self.backend == Backend::DiskAnn;
        if is_asked_for { f64::INFINITY } else { self.scan(extent) }
    }

    /// What it costs to compare all that passes; where much does, all rows are read.
    fn scan(&self, extent: &Extent<'_>) -> f64 {
        let (ads, costs) = (extent.ads as f64, self.costs);
        let of = |passing: f64| (ads + passing * costs.masked).min(passing * costs.posting);
        extent.passing.map_or(ads, |passing| of(passing as f64))
    }
}

#[cfg(test)]
mod tests;
