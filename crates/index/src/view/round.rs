//! One round of a search: the best rows of those that pass, by the plan that is cheapest.

use roaring::RoaringBitmap;

use super::{TIES, View};
use crate::cells::{Around, Look, LookEnd, Looked};
use crate::exact::ScoredRow;
use crate::graph::{Candidate, Graph, GraphError};
use crate::planner::{Extent, Met, Near, Next, Plan, Planner, Step, Walked};
use crate::row_set::RowSet;
use crate::search::Search;

/// How a search goes about it.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) planner: &'a Planner,
    /// Whether time is up.
    pub(crate) stop: &'a dyn Fn() -> bool,
}

/// What a round came to.
pub(crate) struct Round {
    /// The best, in the order of hits.
    pub(crate) rows: Vec<ScoredRow>,
    pub(crate) plan: Plan,
    /// The longest list that the graph was walked with; 0 where it was not.
    pub(crate) list: usize,
    /// The share that was expected to pass near the query, where that was looked at.
    pub(crate) near: Option<f64>,
    pub(crate) distances: u64,
    /// Where time was up before all was compared that had to be, the share of it that was, about.
    pub(crate) stopped: Option<f64>,
}

/// What walks came to.
#[derive(Default)]
struct Walk {
    /// Rows that pass, those that the graph does not have among them.
    met: Vec<Candidate>,
    list: usize,
    walks: usize,
    distances: u64,
    end: End,
}

#[derive(Default)]
enum End {
    Enough,
    /// Comparing all that pass is cheaper.
    #[default]
    Scan,
    /// Time was up when so much of what is wanted was met.
    Stopped(f64),
}

impl View {
    /// The best `k` rows of `passing`, or of all that may be found.
    ///
    /// A walk meets `nearer` rows first that `passing` does not have.
    pub(super) fn best(
        &self,
        way: Way<'_>,
        search: &Search<'_>,
        passing: Option<&RowSet>,
        nearer: usize,
    ) -> Result<Round, GraphError> {
        let query = search.vector.as_slice();
        let rows = passing.unwrap_or(&self.live);
        let extent = self.extent(search, passing, nearer);
        let (mut near, mut around) = (None, None);
        let correlates = || self.correlates(query, rows);
        let mut step = way.planner.plan(&extent, correlates, || {
            let Some(cells) = &self.cells else { return Near::default() };
            let around = around.insert(cells.around(query));
            let overall = rows.len() as f64 / self.live.len().max(1) as f64;
            *near.insert(around.near(rows.bits(), self.unless_all(&self.live), overall))
        });
        let share_near = near.map(|near: Near| f64::from(near.passing) / f64::from(near.rows.max(1)));
        let (mut spent, mut has_looked) = (0, false);
        if let Step::Look(look) = step {
            has_looked = true;
            match self.look(&mut around, look, way.stop, search, passing) {
                Ok(round) => return Ok(Round { near: share_near, ..round }),
                Err(looked) => (step, spent) = (way.planner.after_look(&extent, near), looked),
            }
        }
        let walk = match (step, &self.graph) {
            (Step::Walk { list }, Some(graph)) => self.walk(graph, way, &extent, list, search, rows)?,
            (Step::Walk { .. }, None) | (Step::Look(_) | Step::Scan, _) => Walk::default(),
        };
        spent += walk.distances;
        let stopped = match walk.end {
            End::Enough => None,
            End::Stopped(share) => Some(share),
            End::Scan => {
                let instead =
                    near.filter(|_| walk.walks > 0 && !has_looked).map(|near| way.planner.instead(&extent, near));
                if let Some(Step::Look(look)) = instead {
                    match self.look(&mut around, look, way.stop, search, passing) {
                        Ok(round) => {
                            return Ok(Round {
                                list: walk.list,
                                near: share_near,
                                distances: spent + round.distances,
                                ..round
                            });
                        }
                        Err(looked) => spent += looked,
                    }
                }
                return Ok(self.compare_all(way, search, passing, (walk.met, walk.list, share_near, spent)));
            }
        };
        let rows = self.best_of(&walk.met, search);
        let plan = match (passing, walk.walks) {
            (None, _) => Plan::Graph,
            (Some(_), 1) => Plan::PostFilter,
            (Some(_), _) => Plan::AdaptiveList,
        };
        Ok(Round { rows, plan, list: walk.list, near: share_near, distances: spent, stopped })
    }

    fn extent(&self, search: &Search<'_>, passing: Option<&RowSet>, nearer: usize) -> Extent<'_> {
        let measured = self.measured.as_ref().filter(|_| !search.exact && self.graph.is_some());
        let walked = |calibration| {
            let (rows, unlinked) = (self.counts.linked, self.unlinked.len() as usize);
            Walked { rows, unlinked, calibration }
        };
        let graph = measured.map(|measured| walked(&measured.calibration));
        let passing = passing.map(|rows| rows.len() as usize);
        Extent { ads: self.live.len() as usize, passing, k: search.k, nearer, graph }
    }

    /// Compares what passes in the cells near the query; where too many are in question, how many rows were compared in vain.
    pub(super) fn look<'a>(
        &'a self,
        around: &mut Option<Around<'a>>,
        look: Look,
        stop: &dyn Fn() -> bool,
        search: &Search<'_>,
        passing: Option<&RowSet>,
    ) -> Result<Round, u64> {
        let (query, k) = (search.vector.as_slice(), search.k);
        let Some(cells) = &self.cells else { return Err(0) };
        let around = around.get_or_insert_with(|| cells.around(query));
        let passing = self.unless_all(passing.unwrap_or(&self.live));
        let nearest = |kept: usize, look: Look| around.nearest(&self.vectors, query, passing, (k, kept, look), stop);
        let Looked { best, compared: distances, end } = nearest(k + TIES, look);
        let stopped = match end {
            LookEnd::Enough => None,
            LookEnd::Stopped(share) => Some(share),
            LookEnd::TooMany => return Err(distances),
        };
        let again = |kept: usize| {
            let looked = nearest(kept, Look { most: usize::MAX, ..look });
            (stopped.is_none() && looked.end == LookEnd::Enough).then_some(looked.best)
        };
        let (rows, is_whole) = self.ranked(k, best, again);
        let stopped = stopped.or((!is_whole).then_some(1.0));
        Ok(Round { rows, plan: Plan::NearestCells, list: 0, near: None, distances, stopped })
    }

    /// Compares all that pass; of walks that were in vain, what they met is of use where time is up.
    fn compare_all(
        &self,
        way: Way<'_>,
        search: &Search<'_>,
        passing: Option<&RowSet>,
        (met, list, near, distances): (Vec<Candidate>, usize, Option<f64>, u64),
    ) -> Round {
        let (query, k) = (search.vector.as_slice(), search.k);
        let plan = if passing.is_some() { Plan::ExactPostings } else { Plan::Exact };
        let count = passing.unwrap_or(&self.live).len();
        let mut scanned = self.scan(&[query], passing, k + TIES, way.stop);
        let mut rows = scanned.best.pop().unwrap_or_default();
        let Some(compared) = scanned.stopped_at else {
            let again = |k: usize| {
                let mut scanned = self.scan(&[query], passing, k, way.stop);
                scanned.best.pop().filter(|_| scanned.stopped_at.is_none())
            };
            let (rows, is_whole) = self.ranked(k, rows, again);
            // All was compared, but of those of one score at the edge others may come first.
            let stopped = (!is_whole).then_some(1.0);
            return Round { rows, plan, list, near, distances: distances + count, stopped };
        };
        rows.extend(self.best_of(&met, search));
        rows.sort_by(|a, b| self.order(a, b));
        rows.dedup_by_key(|row| row.row);
        rows.truncate(k);
        let share = compared as f64 / count.max(1) as f64;
        Round { rows, plan, list, near, distances: distances + compared, stopped: Some(share) }
    }

    /// Walks the graph until the last hit wanted lies well inside the list, or comparing all that pass is cheaper.
    fn walk(
        &self,
        graph: &Graph,
        way: Way<'_>,
        extent: &Extent<'_>,
        list: usize,
        search: &Search<'_>,
        passing: &RowSet,
    ) -> Result<Walk, GraphError> {
        let unlinked: RoaringBitmap = self.unlinked.iter().filter(|row| passing.has(*row)).collect();
        let wanted = search.k.min((passing.len() - unlinked.len()) as usize);
        let mut walk = Walk { list, distances: unlinked.len(), ..Walk::default() };
        loop {
            let met = graph.search(search.vector.as_slice(), walk.list)?;
            walk.walks += 1;
            walk.distances += met.distances;
            walk.met.clear();
            let mut rank = None;
            for (at, candidate) in (1..).zip(met.rows) {
                // The graph may be further than this view.
                if passing.bits().has(candidate.row) && !unlinked.contains(candidate.row) {
                    walk.met.push(candidate);
                    if walk.met.len() == wanted {
                        rank = Some(at);
                    }
                }
            }
            let passing = walk.met.len();
            let met = Met { list: walk.list, distances: walk.distances, wanted, passing, rank };
            let next = way.planner.after(extent, met);
            walk.end = match next {
                Next::Longer { .. } | Next::Scan if (way.stop)() => {
                    End::Stopped((passing as f64 / wanted as f64).min(1.0))
                }
                Next::Longer { list } => {
                    walk.list = list;
                    continue;
                }
                Next::Enough => End::Enough,
                Next::Scan => End::Scan,
            };
            match walk.end {
                // They are compared with all others.
                End::Scan => walk.distances -= unlinked.len(),
                End::Enough | End::Stopped(_) => walk.met.extend(unlinked.iter().map(Candidate::unscored)),
            }
            return Ok(walk);
        }
    }
}
