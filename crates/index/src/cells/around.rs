//! The cells around a query: what passes a filter near it, and the best that does.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use super::Cells;
use crate::exact::{Scan, ScoredRow};
use crate::planner::Near;
use crate::vectors::Vectors;

/// Cells between two looks at whether to go on: some microseconds.
const CELLS_BETWEEN_STOPS: usize = 32;
/// Cells that are put in order at first: so many times those expected, and so many at least.
const MORE_THAN_EXPECTED: f64 = 1.5;
const FIRST_MIN: usize = 8;
/// Rows near a query of which it is counted how many pass, about, and the cells that these are sought in, at most.
const NEAR_ROWS: u64 = 512;
pub(crate) const NEAR_CELLS: usize = 8;

/// The cells of a shard as they lie around one query.
pub(crate) struct Around<'a> {
    pub(super) cells: &'a Cells,
    /// What the centroid of each scores at most.
    pub(super) scores: Vec<f32>,
}

/// How to look into cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    /// Of a cell's radius, what rows are taken to score more than its centroid: with 1 none is missed.
    pub(crate) share: f32,
    /// How many cells that comes to, about.
    pub(crate) expected: f64,
    /// If it comes to more than so many, all that passes is to be compared instead.
    pub(crate) most: usize,
}

/// What a look into the cells near a query came to.
pub(crate) struct Looked {
    /// Best first.
    pub(crate) best: Vec<ScoredRow>,
    /// Rows compared.
    pub(crate) compared: u64,
    pub(crate) end: LookEnd,
}

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LookEnd {
    Enough,
    /// Time was up when so much of the cells in question was looked into.
    Stopped(f64),
    /// More cells are in question than were to be looked into.
    TooMany,
}

/// Cells by what their rows may score, the most promising first. Most are never asked for, and not put in order.
struct Promising {
    /// In order up to `ordered`, and none behind that is better than one before.
    cells: Vec<(f32, u32)>,
    ordered: usize,
    next: usize,
}

impl Promising {
    /// Of which about `first` will be asked for.
    fn new(cells: Vec<(f32, u32)>, first: usize) -> Self {
        let mut promising = Self { cells, ordered: 0, next: 0 };
        promising.order(first);
        promising
    }

    fn order(&mut self, more: usize) {
        let by_score = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let rest = &mut self.cells[self.ordered..];
        let more = more.max(FIRST_MIN).min(rest.len());
        if more < rest.len() {
            rest.select_nth_unstable_by(more, by_score);
        }
        rest[..more].sort_unstable_by(by_score);
        self.ordered += more;
    }

    /// How many may hold a row that scores `floor`; at least one.
    fn reaching(&self, floor: f32) -> usize {
        self.cells.iter().filter(|(score, _)| *score >= floor).count().max(1)
    }
}

impl Iterator for Promising {
    type Item = (f32, u32);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.ordered {
            self.order(self.ordered * 2);
        }
        let cell = *self.cells.get(self.next)?;
        self.next += 1;
        Some(cell)
    }
}

impl Around<'_> {
    /// Of the rows in the nearest cells that are `live`, how many pass.
    pub(crate) fn near(&self, passing: &RoaringBitmap, live: &RoaringBitmap) -> Near {
        let (mut rows, mut met) = (0, 0);
        for (_, cell) in Promising::new(self.bounds(0.0), NEAR_CELLS).take(NEAR_CELLS) {
            let of_cell = self.cells.rows.get(cell);
            let shared = |with: &RoaringBitmap| match run(of_cell) {
                Some(range) => with.range_cardinality(range),
                None => with.intersection_len(of_cell),
            };
            rows += shared(live);
            met += shared(passing);
            if rows >= NEAR_ROWS {
                break;
            }
        }
        Near { rows: rows as u32, passing: met as u32 }
    }

    /// The best `k` of `passing` in the cells whose rows may be better than those found; the most promising cells first.
    pub(crate) fn nearest(
        &self,
        vectors: &Vectors,
        query: &[f32],
        passing: &RoaringBitmap,
        (k, look): (usize, Look),
        stop: &dyn Fn() -> bool,
    ) -> Looked {
        let first = (look.expected * MORE_THAN_EXPECTED) as usize;
        let queries = [query];
        let mut scan = Scan::new(vectors, &queries, k);
        let mut promising = Promising::new(self.bounds(look.share), first);
        let (mut looks, mut compared, mut end) = (0, 0, LookEnd::Enough);
        while let Some((bound, cell)) = promising.next() {
            let floor = scan.floor();
            if bound < floor {
                break;
            }
            if looks == look.most {
                end = LookEnd::TooMany;
                break;
            }
            if looks % CELLS_BETWEEN_STOPS == CELLS_BETWEEN_STOPS - 1 && stop() {
                end = LookEnd::Stopped(looks as f64 / promising.reaching(floor) as f64);
                break;
            }
            looks += 1;
            let of_cell = self.cells.rows.get(cell);
            compared += match run(of_cell) {
                Some(range) => scan.over_range(passing, range),
                None => {
                    let rows = passing & &**of_cell;
                    scan.over(Some(&rows), &|| false);
                    rows.len()
                }
            };
        }
        Looked { best: scan.finish().pop().unwrap_or_default(), compared, end }
    }

    /// What the rows of each cell score at most, where they score more than its centroid by no more than a share of its radius.
    fn bounds(&self, share: f32) -> Vec<(f32, u32)> {
        let bound = |(cell, score): (u32, &f32)| (score + share * self.cells.radii.get(cell), cell);
        (0..).zip(&self.scores).map(bound).collect()
    }
}

/// The rows of a cell, where they follow each other, as in a shard that was built and not changed since: they are found faster then.
fn run(rows: &RoaringBitmap) -> Option<RangeInclusive<u32>> {
    let (first, last) = (rows.min()?, rows.max()?);
    (u64::from(last - first) + 1 == rows.len()).then_some(first..=last)
}
