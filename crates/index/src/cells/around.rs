//! The cells around a query: what passes a filter near it, and the best that does.

use super::Cells;
use super::members::Members;
use crate::bits::Bits;
use crate::exact::{Scan, ScoredRow, key};
use crate::planner::Near;
use crate::vectors::Vectors;

/// Cells between two looks at whether to go on: some microseconds.
const CELLS_BETWEEN_STOPS: usize = 32;
/// Cells that are put in order at first: so many times those expected, and so many at least.
const MORE_THAN_EXPECTED: f64 = 1.2;
const FIRST_MIN: usize = 8;
/// Cells of which it is told from what score on so many lie, about.
const SAMPLE: usize = 256;
/// Scores that are looked through together.
const SCORES_TOGETHER: usize = 16;
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
struct Promising<'a> {
    scores: &'a [f32],
    /// In order, those that score `down_to` at least: by [`key`].
    ordered: Vec<u64>,
    down_to: f32,
    next: usize,
}

impl<'a> Promising<'a> {
    /// Of which about `first` will be asked for.
    fn new(scores: &'a [f32], first: usize) -> Self {
        let mut promising = Self { scores, ordered: Vec::new(), down_to: f32::INFINITY, next: 0 };
        promising.order(first);
        promising
    }

    /// Puts about so many more in order, at least one where there is one: a sample tells down to which score.
    fn order(&mut self, more: usize) {
        let one_in = (self.scores.len() / SAMPLE).max(1);
        let above = self.down_to;
        let mut sample: Vec<f32> = self.scores.iter().step_by(one_in).copied().filter(|score| *score < above).collect();
        let at = more.max(FIRST_MIN).div_ceil(one_in);
        self.down_to = if at < sample.len() {
            *sample.select_nth_unstable_by(at, |a, b| b.total_cmp(a)).1
        } else {
            f32::NEG_INFINITY
        };
        let (from, down_to) = (self.ordered.len(), self.down_to);
        let is_next = |score: f32| (score >= down_to) & (score < above);
        for (scores, first) in self.scores.chunks(SCORES_TOGETHER).zip((0..).step_by(SCORES_TOGETHER)) {
            // Few have any, and that is told of all at once.
            if scores.iter().fold(false, |has, score| has | is_next(*score)) {
                // Each is written, and stays where it is one: nobody can foresee which are.
                let (mut kept, mut count) = ([0; SCORES_TOGETHER], 0);
                for (score, cell) in scores.iter().zip(first..) {
                    kept[count] = key(*score, cell);
                    count += usize::from(is_next(*score));
                }
                self.ordered.extend_from_slice(&kept[..count]);
            }
        }
        self.ordered[from..].sort_unstable();
    }

    /// How many may hold a row that scores `floor`; at least one.
    fn reaching(&self, floor: f32) -> usize {
        self.scores.iter().filter(|score| **score >= floor).count().max(1)
    }
}

impl Iterator for Promising<'_> {
    type Item = (f32, u32);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.ordered.len() && self.down_to > f32::NEG_INFINITY {
            self.order(self.ordered.len());
        }
        let cell = *self.ordered.get(self.next)? as u32;
        self.next += 1;
        Some((self.scores[cell as usize], cell))
    }
}

impl Around<'_> {
    /// Of the rows in the nearest cells that are `live`, or of all, how many pass.
    pub(crate) fn near(&self, passing: &Bits, live: Option<&Bits>) -> Near {
        let (mut rows, mut met) = (0, 0);
        for (_, cell) in Promising::new(&self.scores, NEAR_CELLS).take(NEAR_CELLS) {
            let members = self.cells.members.get(cell);
            rows += live.map_or(members.len(), |live| members.among(live));
            met += members.among(passing);
            if rows >= NEAR_ROWS {
                break;
            }
        }
        Near { rows: rows as u32, passing: met as u32 }
    }

    /// The best of `passing`, or of all rows, in the cells whose rows may be among the best `wanted` still; the most promising cells first.
    /// Of those met the best `kept` are told.
    pub(crate) fn nearest(
        &self,
        vectors: &Vectors,
        query: &[f32],
        passing: Option<&Bits>,
        (wanted, kept, look): (usize, usize, Look),
        stop: &dyn Fn() -> bool,
    ) -> Looked {
        let first = (look.expected * MORE_THAN_EXPECTED) as usize;
        let queries = [query];
        let mut scan = Scan::new(vectors, &queries, kept);
        let bounds = self.bounds(look.share);
        let mut promising = Promising::new(&bounds, first);
        let (mut looks, mut compared, mut end) = (0, 0, LookEnd::Enough);
        while let Some((bound, cell)) = promising.next() {
            let floor = scan.floor(wanted);
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
            compared += match self.cells.members.get(cell) {
                Members::Run(run) => scan.over_range(passing, run.clone()),
                Members::Any(rows) => scan.over_list(passing, rows),
            };
        }
        Looked { best: scan.finish().pop().unwrap_or_default(), compared, end }
    }

    /// What the rows of each cell score at most, where they score more than its centroid by no more than a share of its radius.
    fn bounds(&self, share: f32) -> Vec<f32> {
        self.scores.iter().zip(&*self.cells.radii).map(|(score, radius)| score + share * radius).collect()
    }
}
