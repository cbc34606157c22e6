//! How long the candidate list of a shard's graph must be, as it was measured.

use serde::{Deserialize, Serialize};

use crate::topk::K_MAX;

/// The most points of a calibration.
pub const POINTS_MAX: usize = 8;
/// The longest list that a point may name.
pub const LIST_MAX: u32 = 1 << 14;

/// The lists with which the graph of one shard reaches a recall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The recall that was asked for, in (0, 1].
    pub target_recall: f64,
    /// Edges kept for each ad of the graph.
    pub degree: u32,
    /// Length of the candidate list while the graph was built.
    pub build_list: u32,
    /// How much longer than the nearest way an edge of the graph may be.
    pub alpha: f32,
    /// Ads of the shard when it was measured.
    pub ads: u64,
    /// How many queries it was measured with; lists with some of them.
    pub queries: u32,
    /// Ascending by `k`. Empty where the shard has too few ads to tell: it is scanned.
    pub points: Vec<ListPoint>,
    /// How far around a query the cells of rows that lie together are looked into; absent where the shard has none.
    pub reach: Option<Reach>,
}

/// With what share of its radius a cell counts as near a query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// How many cells the shard had.
    pub cells: u64,
    /// Ascending by `k`.
    pub points: Vec<ReachPoint>,
}

/// The least share that reaches the target for one `k`, of those tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReachPoint {
    /// How many ads were asked for.
    pub k: u32,
    /// Of the radius, in [0, 1]: with 1 nothing is missed.
    pub share: f32,
    /// The share of an exact scan's ads that are found, in [0, 1], mean over the queries.
    pub recall: f64,
    /// `recall` less two standard errors of that mean.
    pub recall_low: f64,
    /// Cells looked into, mean over the queries.
    pub cells: u64,
    /// Rows of these.
    pub rows: u64,
}

/// The mean of shares in [0, 1], one for each query and at least one, and that less two of its standard errors.
pub fn mean_and_low(shares: &[f64]) -> (f64, f64) {
    let count = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / count;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean.min(1.0), mean.min(1.0) - 2.0 * (variance / count).sqrt())
}

/// What a look into cells costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Looks {
    /// Cells looked into.
    pub cells: f64,
    /// Rows of these.
    pub rows: f64,
}

impl Reach {
    fn check(&self) -> Result<(), &'static str> {
        let is_share = |x: f64| (0.0..=1.0).contains(&x);
        let rises = |a: &ReachPoint, b: &ReachPoint| a.k < b.k && a.cells <= b.cells && a.rows <= b.rows;
        if self.points.len() > POINTS_MAX || !self.points.is_sorted_by(rises) {
            return Err("must have a reach of at most 8 points, none of which falls");
        }
        let is_sound = |point: &ReachPoint| {
            (1..=K_MAX as u32).contains(&point.k)
                && is_share(point.share.into())
                && is_share(point.recall)
                && (-1.0..=point.recall).contains(&point.recall_low)
                && (1..=self.cells).contains(&point.cells)
                && (1..=u64::from(u32::MAX)).contains(&point.rows)
        };
        if self.cells <= u64::from(u32::MAX) && self.points.iter().all(is_sound) {
            Ok(())
        } else {
            Err(
                "must have a reach of points with k in 1..=2000, share and recall in 0..=1, cells that there are, and rows",
            )
        }
    }

    /// The share for the best `k`: the larger of those of the points around it, 1 where nothing was measured.
    pub fn share(&self, k: f64) -> f32 {
        let at = self.points.iter().position(|point| f64::from(point.k) >= k);
        let around = match at {
            Some(at) => &self.points[if f64::from(self.points[at].k) > k { at.saturating_sub(1) } else { at }..=at],
            None => &self.points[self.points.len().saturating_sub(1)..],
        };
        around.iter().map(|point| point.share).reduce(f32::max).unwrap_or(1.0)
    }

    /// What the best `k` cost, about: between two points it is interpolated, below the first it is that of the first, beyond the
    /// last it goes on in proportion. Absent where nothing was measured.
    pub fn looks(&self, k: f64) -> Option<Looks> {
        let of = |point: &ReachPoint| (f64::from(point.k), point.cells as f64, point.rows as f64);
        let (mut before, mut looks) = (None, None);
        for (at, cells, rows) in self.points.iter().map(of) {
            looks = Some(match before {
                Some((from, cells_before, rows_before)) if k > from => {
                    let share = ((k - from) / (at - from)).min(1.0);
                    let between = |before: f64, after: f64| before + share * (after - before);
                    Looks { cells: between(cells_before, cells), rows: between(rows_before, rows) }
                }
                Some(_) => break,
                None => Looks { cells, rows },
            });
            before = Some((at, cells, rows));
        }
        let times = self.points.last().map_or(1.0, |last| (k / f64::from(last.k)).max(1.0));
        looks.map(|Looks { cells, rows }| Looks { cells: (cells * times).min(self.cells as f64), rows: rows * times })
    }
}

/// The shortest list that reaches the target for one `k`, of those tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListPoint {
    /// How many ads were asked for.
    pub k: u32,
    /// The length of the list.
    pub list: u32,
    /// The share of an exact scan's ads that were found with it, in [0, 1], mean over the queries; of a list that was given up, over those
    /// that were asked until then.
    pub recall: f64,
    /// `recall` less two standard errors of that mean; -1 where too few were asked to say, as no walk with any list for so many ads is worth it.
    pub recall_low: f64,
    /// Ads compared by a walk with that list, mean over the queries.
    pub distances: u64,
}

impl Calibration {
    /// Checks what a reader relies on.
    ///
    /// # Errors
    /// The rule that it broke.
    pub fn check(&self) -> Result<(), &'static str> {
        let is_share = |x: f64| (0.0..=1.0).contains(&x);
        if !(is_share(self.target_recall) && self.target_recall > 0.0) {
            return Err("must have a target_recall in (0, 1]");
        }
        if self.points.len() > POINTS_MAX {
            return Err("must have at most 8 points");
        }
        if !self.points.is_sorted_by(|a, b| a.k < b.k && a.list <= b.list && a.distances <= b.distances) {
            return Err("must have points of ascending k whose lists and distances do not fall");
        }
        let is_sound = |point: &ListPoint| {
            (1..=K_MAX as u32).contains(&point.k)
                && (point.k..=LIST_MAX).contains(&point.list)
                && is_share(point.recall)
                && (-1.0..=point.recall).contains(&point.recall_low)
                && point.distances > 0
                && point.distances <= u64::from(u32::MAX)
        };
        if !self.points.iter().all(is_sound) {
            return Err("must have points with k in 1..=2000, a list from k to 16384 and a recall in 0..=1");
        }
        self.reach.as_ref().map_or(Ok(()), Reach::check)
    }

    /// The list with which the best `k` reach the target; absent where none that was tried does. Between two points it is
    /// interpolated, below the first it is that of the first, beyond the last it goes on in proportion, above [`LIST_MAX`] too.
    pub fn list(&self, k: usize) -> Option<usize> {
        let reaches = |point: &ListPoint| point.recall_low >= self.target_recall;
        let at = self.points.iter().position(|point| point.k as usize >= k);
        let (before, after) = match at {
            Some(0) => return self.points.first().filter(|point| reaches(point)).map(|point| point.list as usize),
            Some(at) => (self.points[at - 1], self.points[at]),
            None => {
                let last = self.points.last().filter(|point| reaches(point))?;
                return Some(k.saturating_mul(last.list as usize).div_ceil(last.k as usize));
            }
        };
        let share = (k - before.k as usize) as f64 / f64::from(after.k - before.k);
        let list = f64::from(before.list) + share * (f64::from(after.list) - f64::from(before.list));
        (reaches(&before) && reaches(&after)).then_some(list.ceil() as usize)
    }

    /// How many ads a walk with a list of `list` compares, about; 0 where nothing was measured.
    pub fn distances(&self, list: usize) -> u64 {
        let list = list as f64;
        let mut before = (0.0, 0.0);
        for point in &self.points {
            let (to, distances) = (f64::from(point.list), point.distances as f64);
            if list <= to {
                let share = (list - before.0) / (to - before.0).max(1.0);
                return (before.1 + share * (distances - before.1)).ceil() as u64;
            }
            before = (to, distances);
        }
        // Longer lists meet less that is new for each entry, so this is too many rather than too few.
        if before.0 == 0.0 { 0 } else { (list * before.1 / before.0).ceil() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(k: u32, list: u32, recall: f64) -> ListPoint {
        ListPoint { k, list, recall, recall_low: recall - 0.01, distances: u64::from(list) * 20 }
    }

    fn calibration(points: Vec<ListPoint>) -> Calibration {
        let (target_recall, degree, build_list, alpha) = (0.95, 32, 100, 1.2);
        Calibration { target_recall, degree, build_list, alpha, ads: 5_000, queries: 64, points, reach: None }
    }

    #[test]
    fn lists_lie_between_those_that_were_measured() {
        let three = calibration(vec![point(10, 20, 0.97), point(100, 110, 0.97), point(1_000, 1_100, 0.97)]);
        three.check().unwrap();
        let check = |k, list| assert_eq!(three.list(k), Some(list), "{k}");
        check(1, 20);
        check(10, 20);
        check(55, 65);
        check(100, 110);
        check(101, 112);
        check(2_000, 2_200);
        assert_eq!(three.list(usize::MAX), Some((usize::MAX).div_ceil(1_000)));
        assert_eq!((three.distances(10), three.distances(20), three.distances(2_200)), (200, 400, 44_000));
        assert_eq!((calibration(vec![]).list(1), calibration(vec![]).distances(50)), (None, 0));
    }

    #[test]
    fn lists_that_fall_are_not_sound_and_do_no_harm() {
        let two = calibration(vec![point(100, 1_066, 0.97), point(1_000, 1_000, 0.97)]);
        assert!(two.check().is_err());
        assert_eq!(two.list(1_000), Some(1_000));
    }

    #[test]
    fn where_the_target_was_not_reached_there_is_no_list() {
        let two = calibration(vec![point(10, 20, 0.97), point(100, 800, 0.94)]);
        assert_eq!((two.list(10), two.list(11), two.list(100), two.list(500)), (Some(20), None, None, None));
        // The margin counts.
        assert_eq!(calibration(vec![point(10, 20, 0.955)]).list(10), None);
    }

    #[test]
    fn what_no_measurement_gives_is_refused() {
        let good = calibration(vec![point(10, 20, 0.97), point(100, 110, 0.97)]);
        let check = |change: fn(&mut Calibration), part: &str| {
            let mut bad = good.clone();
            change(&mut bad);
            let rule = bad.check().unwrap_err();
            assert!(rule.contains(part), "{rule}");
        };
        check(|c| c.target_recall = 0.0, "target_recall");
        check(|c| c.target_recall = f64::NAN, "target_recall");
        check(|c| c.points = vec![c.points[0]; 9], "8 points");
        check(|c| c.points.reverse(), "ascending");
        check(|c| c.points[1].k = 10, "ascending");
        check(|c| c.points[1].list = 19, "do not fall");
        check(|c| c.points[0].list = 9, "list from k");
        check(|c| c.points[1].list = LIST_MAX + 1, "16384");
        check(|c| c.points[1].recall = 1.5, "recall");
        check(|c| c.points[1].recall_low = f64::NAN, "recall");
        check(|c| c.points[0].distances = 0, "points");
        check(|c| c.points[0].k = 0, "points");
    }

    fn reach(points: &[(u32, f32, u64)]) -> Reach {
        let point =
            |&(k, share, cells)| ReachPoint { k, share, recall: 0.97, recall_low: 0.96, cells, rows: cells * 50 };
        Reach { cells: 400, points: points.iter().map(point).collect() }
    }

    #[test]
    fn reaches_lie_between_those_that_were_measured() {
        let two = reach(&[(10, 0.5, 3), (100, 0.25, 13)]);
        assert_eq!([1.0, 10.0, 10.5, 100.0, 5_000.0].map(|k| two.share(k)), [0.5, 0.5, 0.5, 0.25, 0.25]);
        let looks = |k| two.looks(k).map(|looks| (looks.cells, looks.rows)).unwrap();
        assert_eq!(
            (looks(1.0), looks(10.0), looks(55.0), looks(100.0)),
            ((3.0, 150.0), (3.0, 150.0), (8.0, 400.0), (13.0, 650.0))
        );
        // No more cells than there are.
        assert_eq!((looks(200.0), looks(1e9).0), ((26.0, 1_300.0), 400.0));
        assert_eq!((reach(&[]).looks(10.0), reach(&[]).share(10.0)), (None, 1.0));
    }

    #[test]
    fn a_reach_that_no_measurement_gives_is_refused() {
        let check = |change: fn(&mut Reach), part: &str| {
            let mut bad = reach(&[(10, 0.5, 3), (100, 0.25, 13)]);
            let of = |reach: &Reach| Calibration { reach: Some(reach.clone()), ..calibration(vec![]) }.check();
            assert_eq!(of(&bad), Ok(()));
            change(&mut bad);
            let rule = of(&bad).unwrap_err();
            assert!(rule.contains(part), "{rule}");
        };
        check(|reach| reach.points.reverse(), "none of which falls");
        check(|reach| reach.points[1].cells = 2, "none of which falls");
        check(|reach| reach.points = vec![reach.points[0]; 9], "8 points");
        check(|reach| reach.points[0].k = 0, "k in 1..=2000");
        check(|reach| reach.points[1].share = 1.5, "share");
        check(|reach| reach.points[1].share = f32::NAN, "share");
        check(|reach| reach.points[1].recall = -0.5, "recall");
        check(|reach| reach.points[1].cells = 401, "cells that there are");
        check(|reach| reach.points[1].rows = 1 << 40, "rows");
        check(|reach| reach.cells = 1 << 40, "cells that there are");
    }

    proptest! {
        #[test]
        fn a_list_never_shrinks_with_k_and_holds_it(
            steps in prop::collection::vec((1u32..300, 0u32..500), 1..6), ks in prop::collection::vec(1usize..4_000, 2..20),
        ) {
            let (mut k, mut list) = (0, 0);
            let points = steps.iter().map(|(more, longer)| {
                k += more;
                list = k.max(list) + longer;
                point(k, list, 0.99)
            });
            let calibration = calibration(points.collect());
            calibration.check().unwrap();
            let mut ks = ks;
            ks.sort_unstable();
            let lists: Vec<usize> = ks.iter().map(|k| calibration.list(*k).unwrap()).collect();
            prop_assert!(lists.is_sorted() && lists.iter().zip(&ks).all(|(list, k)| list >= k), "{lists:?} of {ks:?}");
            let distances: Vec<u64> = lists.iter().map(|list| calibration.distances(*list)).collect();
            prop_assert!(distances.is_sorted(), "{distances:?}");
        }
    }
}
