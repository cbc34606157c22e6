//! The rows that may be among the best of one query, while a scan goes on.

use turret_retrieval::topk::TopK;

use super::best::least_of_best;
use super::scored::{ScoredRow, key, of_key};

/// Rows that are held before the hopeless among them are thrown out: so many for each row wanted, or of few wanted more.
const HELD_PER_ROW: usize = 4;
const HELD_PER_ROW_OF_FEW: usize = 16;
/// The fewest, and the most where few are wanted.
const HELD_MIN: usize = 32;
const HELD_OF_FEW_MAX: usize = 256;

/// A row whose score is known to lie between two numbers, ends included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between {
    pub(super) row: u32,
    pub(super) lower: f32,
    pub(super) upper: f32,
}

impl Between {
    /// What the score is on average of such rows.
    fn likely(&self) -> f32 {
        (self.lower + self.upper) / 2.0
    }
}

/// Keeps what may be among the best `k` rows.
///
/// Each row is offered once. Scores are computed where bounds no longer tell rows apart, so that the rows held are never
/// more than [`HELD_OF_FEW_MAX`] or [`HELD_PER_ROW`] `* k`.
pub(super) struct Sieve {
    k: usize,
    /// No row of a lower score is among the best.
    floor: f32,
    held: Vec<Between>,
    held_max: usize,
    pub(super) top: TopK<ScoredRow>,
    /// How many were held after the hopeless were last thrown out.
    raised_at: usize,
    /// No row of a lower score is, or is likely to be, among the best of those that [`tightened`](Self::tightened) is asked for.
    floor_of_wanted: f32,
}

impl Sieve {
    pub(super) fn new(k: usize) -> Self {
        let of_few = k.saturating_mul(HELD_PER_ROW_OF_FEW).clamp(HELD_MIN, HELD_OF_FEW_MAX);
        let held_max = of_few.max(k.saturating_mul(HELD_PER_ROW));
        let (floor, floor_of_wanted) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        Self { k, floor, held: Vec::new(), held_max, top: TopK::new(k), raised_at: 0, floor_of_wanted }
    }

    /// What a row must score to be wanted still.
    pub(super) fn floor(&self) -> f32 {
        self.floor
    }

    /// What a row must score to be among the best `wanted`, at most `k` and always as many, by all rows held but for a few of the latest: at least,
    /// or where that will do, likely, by what their scores may be on average.
    pub(super) fn tightened(&mut self, wanted: usize, likely: bool) -> f32 {
        if self.held.len() >= self.k.max(self.raised_at + self.k / 4 + 8) {
            self.raise();
            let score = |row: &Between| if likely { row.likely() } else { row.lower };
            self.floor_of_wanted = self.floor_of_wanted.max(self.least_of_best(wanted, score));
        }
        self.floor_of_wanted.max(self.floor)
    }

    /// A row by its score.
    fn push(&mut self, row: u32, score: f32) {
        if score < self.floor {
            return;
        }
        self.top.push(ScoredRow { score, row });
        if let Some(worst) = self.top.threshold() {
            self.floor = self.floor.max(worst.score);
        }
    }

    /// A row by bounds of its score; `score` tells that of any row.
    #[inline]
    pub(super) fn offer(&mut self, row: Between, score: impl Fn(u32) -> f32) {
        if row.upper < self.floor {
            return;
        }
        self.held.push(row);
        if self.held.len() == self.held_max {
            self.raise();
            if self.held.len() > self.held_max / 2 {
                self.resolve(score);
            }
        }
    }

    /// Throws out what at least `k` rows held are known to exceed.
    fn raise(&mut self) {
        self.floor = self.floor.max(self.least_of_best(self.k, |row| row.lower));
        // Nobody foresees which ones stay: all are written.
        let mut kept = 0;
        for at in 0..self.held.len() {
            let row = self.held[at];
            self.held[kept] = row;
            kept += usize::from(row.upper >= self.floor);
        }
        self.held.truncate(kept);
        self.raised_at = kept;
    }

    /// What the best `k` of the rows held reach, and hardly less, by some number of each.
    fn least_of_best(&self, k: usize, of: impl Fn(&Between) -> f32) -> f32 {
        least_of_best(k, &self.held.iter().map(of).collect::<Vec<_>>())
    }

    /// Computes the scores of all rows held that need it, the likeliest first.
    fn resolve(&mut self, score: impl Fn(u32) -> f32) {
        let mut held = std::mem::take(&mut self.held);
        if held.len() > self.k && self.k > 0 {
            held.select_nth_unstable_by(self.k - 1, |a, b| b.upper.total_cmp(&a.upper));
        }
        for row in held.drain(..) {
            if row.upper >= self.floor {
                self.push(row.row, score(row.row));
            }
        }
        (self.held, self.raised_at) = (held, 0);
    }

    /// The best `k` rows of those offered, best first; `fetch` is told which rows are scored.
    pub(super) fn finish(mut self, fetch: impl Fn(&[u32]), score: impl Fn(u32) -> f32) -> Vec<ScoredRow> {
        self.raise();
        let scored = |rows: &[Between]| -> Vec<ScoredRow> {
            let rows: Vec<u32> = rows.iter().map(|row| row.row).collect();
            fetch(&rows);
            rows.into_iter().map(|row| ScoredRow { score: score(row), row }).collect()
        };
        // What the likeliest score tells of most others that they need not be.
        let likely = self.least_of_best(self.k, Between::likely);
        let (first, mut others): (Vec<_>, Vec<_>) = self.held.iter().partition(|row| row.likely() >= likely);
        let first = scored(&first);
        if first.len() >= self.k {
            let least = first.iter().map(|row| row.score).fold(f32::INFINITY, f32::min);
            others.retain(|row| row.upper >= least);
        }
        let rows = self.top.into_sorted().into_iter().chain(first).chain(scored(&others));
        let mut keys: Vec<u64> = rows.map(|row| key(row.score, row.row)).collect();
        if keys.len() > self.k {
            keys.select_nth_unstable(self.k);
            keys.truncate(self.k);
        }
        keys.sort_unstable();
        keys.into_iter().map(of_key).collect()
    }
}
