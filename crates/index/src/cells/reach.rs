//! How far around a query cells must be looked into, measured.

use turret_retrieval::calibration::{Reach, ReachPoint, mean_and_low};

use super::Cells;
use crate::exact::{ScoredRow, at_most};

/// Shares of a radius that are tried: so many parts of it.
const PARTS: usize = 100;

/// One query, as cells are measured with it.
struct Asked {
    /// What the centroid of each cell scores at most.
    centroids: Vec<f32>,
    /// For each `k` the score of the last row wanted.
    floors: Vec<f32>,
    /// For each `k` the share of its cell's radius by which each row wanted is found.
    needed: Vec<Vec<f32>>,
}

/// For how many hits it is measured, where a shard has twice as many ads.
const KS: [usize; 5] = [10, 30, 100, 300, 1_000];

/// The least share of their radius with which cells have the best `k`, to a mean recall of `target` less two standard errors, in parts
/// of a hundred, and not less than `before` says. `exact` has the best rows for each of `queries`, so many that its shard has twice as
/// many.
pub(crate) fn measure(
    cells: &Cells,
    queries: &[&[f32]],
    exact: &[Vec<ScoredRow>],
    target: f64,
    before: Option<&Reach>,
) -> Option<Reach> {
    let most = exact.iter().map(Vec::len).min()?;
    let ks = &KS[..KS.partition_point(|k| *k <= most)];
    let asked: Vec<Asked> = queries.iter().zip(exact).map(|(query, best)| Asked::new(cells, query, best, ks)).collect();
    let recall = |at: usize, part: usize| recall(&asked, at, part as f32 / PARTS as f32);
    let parts: Vec<usize> = (0..=PARTS).collect();
    let reaches = |at: usize, part: usize| recall(at, part).1 >= target;
    let least = |at: usize| parts.partition_point(|part| !reaches(at, *part)).min(PARTS);
    let of_before = |k: usize| {
        let points = before.iter().flat_map(|reach| &reach.points);
        let share = points.filter(|point| point.k as usize == k).map(|point| point.share).next().unwrap_or(0.0);
        (share * PARTS as f32).round() as usize
    };
    let shares: Vec<usize> = ks.iter().enumerate().map(|(at, k)| least(at).max(of_before(*k))).collect();
    let point = |(at, k): (usize, &usize)| {
        let (recall, recall_low) = recall(at, shares[at]);
        // What is asked for between two is looked for with the larger share.
        let part = shares[at..shares.len().min(at + 2)].iter().max().copied().unwrap_or_default();
        let (share, wide) = (shares[at] as f32 / PARTS as f32, part as f32 / PARTS as f32);
        let (mut looked, mut rows) = (0, 0);
        for asked in &asked {
            let is_looked_into =
                |cell: u32| asked.centroids[cell as usize] + wide * cells.radii[cell as usize] >= asked.floors[at];
            for cell in (0..cells.len() as u32).filter(|cell| is_looked_into(*cell)) {
                looked += 1;
                rows += cells.members.get(cell).len();
            }
        }
        let mean = |sum: u64| sum.div_ceil(asked.len() as u64).max(1);
        ReachPoint { k: *k as u32, share, recall, recall_low, cells: mean(looked), rows: mean(rows) }
    };
    let mut points: Vec<ReachPoint> = ks.iter().enumerate().map(point).collect();
    // Where fewer do for more, that is chance.
    for at in 1..points.len() {
        points[at].cells = points[at].cells.max(points[at - 1].cells);
        points[at].rows = points[at].rows.max(points[at - 1].rows);
    }
    Some(Reach { cells: cells.len() as u64, points })
}

impl Asked {
    fn new(cells: &Cells, query: &[f32], best: &[ScoredRow], ks: &[usize]) -> Self {
        let centroids = at_most(&cells.centroids, query);
        let floor = |k: &usize| best[..best.len().min(*k)].last().map_or(f32::INFINITY, |last| last.score);
        let floors: Vec<f32> = ks.iter().map(floor).collect();
        let needed = ks.iter().zip(&floors).map(|(k, floor)| {
            let of_row = |row: &ScoredRow| {
                let cell = cells.of_row(row.row);
                let short = floor - centroids[cell as usize];
                // A cell of one point has no radius.
                if short <= 0.0 { 0.0 } else { short / cells.radii[cell as usize].max(f32::MIN_POSITIVE) }
            };
            best.iter().take(*k).map(of_row).collect()
        });
        Self { needed: needed.collect(), centroids, floors }
    }
}

/// The mean share of the best rows that are found with a reach, and that less two standard errors.
fn recall(asked: &[Asked], at: usize, share: f32) -> (f64, f64) {
    let of = |asked: &Asked| {
        let needed = &asked.needed[at];
        needed.iter().filter(|needed| **needed <= share).count() as f64 / needed.len().max(1) as f64
    };
    mean_and_low(&asked.iter().map(of).collect::<Vec<_>>())
}
