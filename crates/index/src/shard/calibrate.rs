//! How long candidate lists must be: measured against an exact scan, when a shard is built and again as it changes.

use std::sync::Arc;

use turret_retrieval::calibration::{Calibration, LIST_MAX, ListPoint, mean_and_low};
use turret_retrieval::hashing::stable_hash;
use turret_retrieval::vector::{UnitVector, dot};

use super::ShardIndex;
use crate::cells::{self, Cells};
use crate::exact::ScoredRow;
use crate::format::calibration::Known;
use crate::graph::{Candidate, Graph, GraphError};
use crate::planner::Planner;
use crate::row_set::RowSet;
use crate::rows::{UnitError, check_unit};
use crate::settings::{Backend, IndexSettings};
use crate::view::{Measured, View};

/// For how many hits a list is looked for, where a shard has twice as many ads.
const KS: [usize; 3] = [10, 100, 1_000];
/// The shortest list.
const LIST_MIN: usize = 16;
/// Each list that is tried is so many times the one before.
const LONGER_BY: f64 = 1.15;
/// The last one tried is 8 times the hits wanted.
const LISTS: usize = 16;
/// Queries made of ads, where there are no others; of a small shard one for each so many ads, and a few at least.
const QUERIES: usize = 256;
const QUERY_ADS: usize = 32;
const QUERIES_MIN: usize = 16;
/// The most queries that are measured with; lists with so many of them, for each list that is tried is walked with for each, and where
/// queries are made of ads.
const QUERIES_MAX: usize = 256;
const OF_LISTS_MAX: usize = 128;
const OF_LISTS_BY_ADS: usize = 64;
/// After each so many queries it is told whether a list can do at all: long ones take milliseconds a query.
const HOPELESS_AFTER: usize = 32;
/// The shortest list that may do is tried with so many first: where it is dear, so are all.
const DEAR_AFTER: usize = 8;
/// What is known of the recall then, less its errors: nothing.
const UNKNOWN: f64 = -1.0;
/// Of the ads that are taken for queries.
const QUERY_SEED: u64 = 11;
/// How far such a query leans from its ad to another one.
const LEAN: f32 = 0.5;
/// Ads that come into a shard, for each that it had, before it is measured again; and the fewest.
const BORN_ONE_IN: u64 = 4;
const BORN_MIN: u64 = 4_096;

impl ShardIndex {
    /// What is known of the graph's lists, where there is a graph.
    pub fn calibration(&self) -> Option<Calibration> {
        self.view().measured.as_ref().map(|measured| measured.calibration.clone())
    }

    /// Whether so many ads came since it was measured that it must be again.
    pub(super) fn is_measure_due(&self, view: &View) -> bool {
        let Some(measured) = &view.measured else { return view.graph.is_some() };
        view.counts.born.saturating_sub(measured.born) > BORN_MIN.max(measured.calibration.ads / BORN_ONE_IN)
    }

    /// Measures with the latest searches. Where these are few, with ads: those are easier to find than what is asked for, so
    /// that no list is shortened then.
    pub(super) fn measure_again(&self) -> Result<(), GraphError> {
        let queries = self.recent.take();
        // It dies like any other row's: nobody is kept from taking rows out meanwhile.
        let view = View { era: Arc::default(), ..(*self.view()).clone() };
        let live = || self.view().live.clone();
        let Some(measured) = measured(&view, &self.settings, &queries, view.measured.as_deref(), &live)? else {
            return Ok(());
        };
        // Nobody else publishes meanwhile.
        let Ok(_writer) = self.writer.lock() else { return Ok(()) };
        let mut next = (*self.view()).clone();
        // Of another graph, which came meanwhile and was measured too, it says nothing.
        let is_same = |(now, then): (&Arc<Graph>, &Arc<Graph>)| Arc::ptr_eq(now, then);
        if next.graph.as_ref().zip(view.graph.as_ref()).is_some_and(is_same) {
            next.measured = Some(Arc::new(measured));
            self.publish(next);
        }
        Ok(())
    }
}

/// Where it is known from how long the lists of a graph must be.
pub(super) enum Lists<'a> {
    /// Of the file.
    Known(Known),
    /// It is measured, by these queries.
    MeasuredBy(&'a [UnitVector]),
}

impl Lists<'_> {
    /// What is to be known of the graph of `view`, with how many ads came since it was measured.
    pub(super) fn of(self, view: &View, settings: &IndexSettings) -> Result<Option<(Measured, u64)>, GraphError> {
        match self {
            Self::Known(Known { calibration, born }) => Ok(Some((Measured { calibration, born: 0 }, u64::from(born)))),
            Self::MeasuredBy(queries) => {
                let queries: Vec<Vec<f32>> = queries.iter().map(|query| query.as_slice().to_vec()).collect();
                let measured = measured(view, settings, &queries, None, &|| view.live.clone())?;
                Ok(measured.map(|measured| (measured, 0)))
            }
        }
    }
}

/// Checks that all can be asked of a shard of `dimension`.
pub(super) fn check(queries: &[UnitVector], dimension: usize) -> Result<(), UnitError> {
    queries.iter().try_for_each(|query| check_unit(query.as_slice(), dimension))
}

/// What is to be known of the graph of `view`, by `queries` or, where there are none, by its ads; absent without a graph. `live`
/// tells the rows of now, where others take rows out of the graph meanwhile.
pub(super) fn measured(
    view: &View,
    settings: &IndexSettings,
    queries: &[Vec<f32>],
    before: Option<&Measured>,
    live: &dyn Fn() -> Arc<RowSet>,
) -> Result<Option<Measured>, GraphError> {
    let Some(graph) = &view.graph else { return Ok(None) };
    let linked = RowSet::from(view.live.bitmap() - &*view.unlinked);
    let every = queries.len().div_ceil(QUERIES_MAX).max(1);
    let mut asked: Vec<&[f32]> = queries.iter().step_by(every).map(Vec::as_slice).collect();
    let own = if asked.is_empty() { leaning(view, &linked) } else { Vec::new() };
    let by_ads = asked.is_empty();
    asked.extend(own.iter().map(Vec::as_slice));
    let ks: Vec<usize> = KS.into_iter().filter(|k| 2 * k <= linked.len() as usize && !asked.is_empty()).collect();
    let exact = view.scan(&asked, Some(&linked), ks.last().copied().unwrap_or(0), &|| false).best;
    let every = asked.len().div_ceil(if by_ads { OF_LISTS_BY_ADS } else { OF_LISTS_MAX }).max(1);
    let of_lists: (Vec<&[f32]>, Vec<&[ScoredRow]>) =
        asked.iter().zip(&exact).step_by(every).map(|(query, best)| (*query, &**best)).unzip();
    let mut points = points((view, graph), (&linked, live), settings, (&of_lists.0, &of_lists.1, &ks))?;
    let before = before.filter(|before| by_ads && fits(&before.calibration, settings));
    if let Some(before) = before {
        keep_longer(&mut points, &before.calibration);
    }
    let of_before = before.and_then(|before| before.calibration.reach.as_ref());
    let measure = |cells: &Arc<Cells>| cells::measure(cells, &asked, &exact, settings.target_recall, of_before);
    let reach = view.cells.as_ref().and_then(measure);
    let calibration =
        Calibration { ads: linked.len(), queries: asked.len() as u32, points, reach, ..unmeasured(settings) };
    Ok(Some(Measured { calibration, born: view.counts.born }))
}

/// Whether what was measured holds for a graph by these settings.
pub(super) fn fits(calibration: &Calibration, settings: &IndexSettings) -> bool {
    let nothing = unmeasured(settings);
    let by = |of: &Calibration| (of.target_recall, of.degree, of.build_list, of.alpha);
    // Where the graph is walked at any cost, dear lists are walked with too.
    let known = calibration.points.iter().filter(|point| point.recall_low > UNKNOWN).count();
    let is_whole = settings.backend != Backend::DiskAnn
        || KS.iter().filter(|k| 2 * **k as u64 <= calibration.ads).count() <= known;
    by(calibration) == by(&nothing) && is_whole && calibration.check().is_ok()
}

fn unmeasured(settings: &IndexSettings) -> Calibration {
    Calibration {
        target_recall: settings.target_recall,
        degree: settings.degree as u32,
        build_list: settings.build_list as u32,
        alpha: settings.alpha,
        ads: 0,
        queries: 0,
        points: Vec::new(),
        reach: None,
    }
}

/// Lengthens lists to those of before; what a longer list costs is taken in proportion. Neither falls with `k` then.
pub(super) fn keep_longer(points: &mut [ListPoint], before: &Calibration) {
    let (mut list, mut distances) = (0, 0);
    for point in points {
        let of_before = before.points.iter().find(|other| other.k == point.k).map_or(0, |other| other.list);
        list = point.list.max(of_before).max(list);
        let scaled = point.distances.saturating_mul(u64::from(list)) / u64::from(point.list);
        distances = scaled.min(u64::from(u32::MAX)).max(distances);
        (point.list, point.distances) = (list, distances);
    }
}

/// Some ads, each leaned half-way to another.
fn leaning(view: &View, linked: &RowSet) -> Vec<Vec<f32>> {
    let at = |query: usize, which: u8| -> Option<&[f32]> {
        let hash = stable_hash(QUERY_SEED, &[query.to_le_bytes().as_slice(), &[which]].concat());
        linked.bitmap().select((hash % linked.len().max(1)) as u32).map(|row| view.vectors.row(row))
    };
    let query = |query| {
        let (ad, other) = (at(query, 0)?, at(query, 1)?);
        let leaned: Vec<f32> = ad.iter().zip(other).map(|(x, y)| x + LEAN * y).collect();
        // Two that cancel out are no query.
        UnitVector::normalize(leaned).ok().map(|vector| vector.as_slice().to_vec())
    };
    let queries = (linked.len() as usize / QUERY_ADS).clamp(QUERIES_MIN, QUERIES);
    (0..queries).filter_map(query).collect()
}

/// The shortest list for each `k` that the shard has ads enough for, up to the first whose walk costs so much more than a scan that it is never
/// worth it; what it finds may be unknown.
fn points(
    (view, graph): (&View, &Graph),
    (linked, live): (&RowSet, &dyn Fn() -> Arc<RowSet>),
    settings: &IndexSettings,
    (queries, exact, ks): (&[&[f32]], &[&[ScoredRow]], &[usize]),
) -> Result<Vec<ListPoint>, GraphError> {
    // Those who ask first may be of one kind.
    let mut order: Vec<usize> = (0..queries.len()).collect();
    order.sort_by_cached_key(|at| stable_hash(QUERY_SEED, &at.to_le_bytes()));
    let planner = Planner::new(settings);
    let mut points: Vec<ListPoint> = Vec::new();
    for &k in ks {
        let from = points.last().map_or(LIST_MIN, |point| point.list as usize).max(k);
        let lists = (0..LISTS).map(|at| (from as f64 * LONGER_BY.powi(at as i32)).ceil() as usize);
        let lists: Vec<usize> = lists.filter(|list| *list <= LIST_MAX as usize).collect();
        let try_with = |list: usize, order: &[usize]| -> Result<ListPoint, GraphError> {
            let share = |query: &[f32], exact: &[ScoredRow]| {
                let met = graph.search(query, list)?;
                // A row that died meanwhile may have been met or not: it is neither wanted nor found.
                let live = live();
                let wanted: Vec<f32> =
                    exact.iter().filter(|row| live.has(row.row)).take(k).map(|row| row.score).collect();
                let Some(floor) = wanted.last() else { return Ok((1.0, met.distances)) };
                let is_best = |met: &&Candidate| {
                    linked.has(met.row) && live.has(met.row) && dot(query, view.vectors.row(met.row)) >= *floor
                };
                let best = met.rows.iter().filter(is_best).count().min(wanted.len());
                Ok((best as f64 / wanted.len() as f64, met.distances))
            };
            let mut found = Vec::with_capacity(order.len());
            for at in order {
                found.push(share(queries[*at], exact[*at])?);
                if found.len().is_multiple_of(HOPELESS_AFTER) && is_hopeless(&found, settings.target_recall) {
                    break;
                }
            }
            Ok(point(k, list, &found))
        };
        let try_list = |list: usize| try_with(list, &order);
        let floor = points.last().map_or(1, |point| point.distances);
        let first = try_with(lists[0], &order[..order.len().min(DEAR_AFTER)])?;
        if planner.is_dear(first.distances, view.counts.ads) {
            points.push(ListPoint { recall_low: UNKNOWN, distances: first.distances.max(floor), ..first });
            break;
        }
        // Of ascending lists the first that does, by halving: recall does not fall with the list, but for noise.
        let (mut low, mut high, mut best) = (0, lists.len() - 1, None);
        while low < high {
            let middle = low.midpoint(high);
            let tried = try_list(lists[middle])?;
            if tried.recall_low >= settings.target_recall {
                (high, best) = (middle, Some(tried));
            } else {
                low = middle + 1;
            }
        }
        let mut best = match best.filter(|best| best.list as usize == lists[low]) {
            Some(best) => best,
            None => try_list(lists[low])?,
        };
        best.distances = best.distances.max(floor);
        points.push(best);
        if planner.is_dear(best.distances, view.counts.ads) {
            break;
        }
    }
    Ok(points)
}

/// Whether what so many queries found is so far from the target that others will not make up for it: by two standard errors, and by what
/// one query makes.
fn is_hopeless(found: &[(f64, u64)], target: f64) -> bool {
    let (mean, low) = recall_of(found);
    mean + (mean - low).max(1.0 / found.len() as f64) < target
}

/// The mean recall of some queries, and that less two standard errors.
fn recall_of(found: &[(f64, u64)]) -> (f64, f64) {
    mean_and_low(&found.iter().map(|(recall, _)| *recall).collect::<Vec<_>>())
}

fn point(k: usize, list: usize, found: &[(f64, u64)]) -> ListPoint {
    let (recall, recall_low) = recall_of(found);
    let distances = found.iter().map(|(_, distances)| distances).sum::<u64>() / found.len() as u64;
    ListPoint { k: k as u32, list: list as u32, recall, recall_low, distances }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_hopeless_where_no_others_can_make_up_for_what_it_missed() {
        let check = |found: &[f64], expected| {
            let found: Vec<(f64, u64)> = found.iter().map(|recall| (*recall, 1)).collect();
            assert_eq!(is_hopeless(&found, 0.95), expected, "{found:?}");
        };
        check(&[1.0; 32], false);
        check(&[0.93; 32], false);
        check(&[0.9; 32], true);
        // One that found nothing, and as many as make it likely.
        check(&[&[1.0; 31][..], &[0.0]].concat(), false);
        check(&[&[1.0; 29][..], &[0.0; 3]].concat(), false);
        check(&[&[1.0; 24][..], &[0.0; 8]].concat(), true);
    }
}
