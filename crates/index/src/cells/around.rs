//! The cells around a query: what passes a filter near it, and the best that does.

use super::Cells;
use super::members::Members;
use super::promising::Promising;
use crate::bits::Bits;
use crate::exact::{Scan, ScoredRow};
use crate::planner::Near;
use crate::vectors::Vectors;

/// Cells between two looks at whether to go on: some microseconds.
const CELLS_BETWEEN_STOPS: usize = 32;
/// Cells that are put in order at first: so many times those expected.
const MORE_THAN_EXPECTED: f64 = 1.2;
/// Rows near a query of which it is counted how many pass, about, and the cells that these are sought in, at most.
const NEAR_ROWS: u32 = 512;
pub(crate) const NEAR_CELLS: usize = 8;
/// And so many times as many of both where these tell nothing for sure.
const IF_DOUBTFUL: usize = 4;

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

impl Around<'_> {
    /// Of the rows in the nearest cells that are `live`, or of all, how many pass, which is `overall` of all rows.
    pub(crate) fn near(&self, passing: &Bits, live: Option<&Bits>, overall: f64) -> Near {
        let mut near = Near::default();
        let mut promising = Promising::new(&self.scores, NEAR_CELLS);
        for (cells, enough) in [(NEAR_CELLS, 1), (NEAR_CELLS * (IF_DOUBTFUL - 1), IF_DOUBTFUL as u32)] {
            for _ in 0..cells {
                if near.rows >= NEAR_ROWS * enough {
                    break;
                }
                let Some(cell) = promising.next(f32::NEG_INFINITY) else { break };
                let members = self.cells.members.get(cell);
                near.rows += live.map_or(members.len(), |live| members.among(live)) as u32;
                near.passing += members.among(passing) as u32;
            }
            if !near.is_doubtful(overall) {
                break;
            }
        }
        near
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
        loop {
            let floor = scan.floor(wanted, look.share < 1.0);
            let Some(cell) = promising.next(floor) else { break };
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
