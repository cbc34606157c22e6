//! The exact scan.
//!
//! Rows are compared by their codes first, four bytes for sixteen; what may be among the best by that, however the rests of
//! row and query lie, is scored in `f32`. So the answer is that of scoring every row, to the bit.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use roaring::RoaringBitmap;
#[cfg(test)]
use turret_retrieval::topk::TopK;
use turret_retrieval::vector::dot;

use crate::vectors::{BLOCK_ROWS, Block, Limits, Line, TILE_ROWS, Vectors, WORD, quantise};

use self::masks::{Mask, Masks};
use self::products::{Answer, Ask, Processor, TOGETHER, Tiles};
use self::sieve::{Between, Sieve};

mod masks;
mod products;
mod sieve;

/// A row with its score; best first, and of one score the lowest row first. That says nothing of the ads' ids: a row is taken by one
/// ad after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScoredRow {
    pub(crate) score: f32,
    pub(crate) row: u32,
}

impl Ord for ScoredRow {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for ScoredRow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ScoredRow {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ScoredRow {}

/// The best `k` of `rows`, best first, each scored in `f32`.
///
/// `rows` are rows of `vectors`, without repetition, in any order. What [`scan`] is measured against.
#[cfg(test)]
pub(crate) fn best(vectors: &Vectors, query: &[f32], rows: impl Iterator<Item = u32>, k: usize) -> Vec<ScoredRow> {
    let mut top = TopK::new(k);
    // Almost every row falls below the worst kept; this compare spares it the heap.
    let mut floor = f32::NEG_INFINITY;
    for row in rows {
        let score = dot(query, vectors.row(row));
        if score < floor {
            continue;
        }
        top.push(ScoredRow { score, row });
        if let Some(worst) = top.threshold() {
            floor = worst.score;
        }
    }
    top.into_sorted()
}

/// What a scan found.
pub(crate) struct Scanned {
    /// For each query, best first.
    pub(crate) best: Vec<Vec<ScoredRow>>,
    /// How many rows were compared, where the scan was stopped before all were.
    pub(crate) stopped_at: Option<u64>,
}

/// Blocks between two looks at whether to go on: some microseconds.
const BLOCKS_BETWEEN_STOPS: usize = 16;

/// The best `k` rows for each query, best first: of `rows`, or of all. The same as `best` finds.
///
/// Every block is read once for all queries.
pub(crate) fn scan(
    vectors: &Vectors,
    queries: &[&[f32]],
    rows: Option<&RoaringBitmap>,
    k: usize,
) -> Vec<Vec<ScoredRow>> {
    scan_until(vectors, queries, rows, k, &|| false).best
}

/// The same, of the rows that are compared before `stop` says so; it is asked now and then, and of some rows at least.
pub(crate) fn scan_until(
    vectors: &Vectors,
    queries: &[&[f32]],
    rows: Option<&RoaringBitmap>,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Scanned {
    scan_by(Processor::detect(), vectors, queries, rows, k, stop)
}

fn scan_by(
    processor: Processor,
    vectors: &Vectors,
    queries: &[&[f32]],
    rows: Option<&RoaringBitmap>,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Scanned {
    let mut scan = Scan { processor, ..Scan::new(vectors, queries, k) };
    let stopped_at = scan.over(rows, stop);
    Scanned { best: scan.finish(), stopped_at }
}

/// Rows that are scored one by one are fetched so many at a time.
const FETCHED: usize = 32;

/// A scan of one part of the rows after the other, no row twice.
pub(crate) struct Scan<'a> {
    processor: Processor,
    vectors: &'a Vectors,
    wanted: Vec<Wanted<'a>>,
    /// Rows that are yet to be scored one by one.
    single: Vec<u32>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(vectors: &'a Vectors, queries: &[&'a [f32]], k: usize) -> Self {
        let wanted = queries.iter().map(|query| Wanted::new(query, k)).collect();
        Self { processor: Processor::detect(), vectors, wanted, single: Vec::with_capacity(FETCHED) }
    }

    /// Compares `rows`, or all, at the latest as it is finished; how many were compared, where `stop` had it end before all were.
    pub(crate) fn over(&mut self, rows: Option<&RoaringBitmap>, stop: &dyn Fn() -> bool) -> Option<u64> {
        let mut masks = rows.map_or_else(|| Masks::of_all(self.vectors.len()), Masks::of).peekable();
        let (mut blocks, mut stopped_at) = (0, None);
        while let Some((at, mask)) = masks.next() {
            blocks += 1;
            if blocks % BLOCKS_BETWEEN_STOPS == 0 && stop() {
                let first = (at * BLOCK_ROWS) as u32;
                stopped_at = Some(rows.map_or(u64::from(first), |rows| rows.range_cardinality(..first)));
                break;
            }
            self.compare_block(at, &mask, masks.peek());
        }
        stopped_at
    }

    /// Compares those of `rows`, or all, that lie in `range`, at the latest as it is finished; how many these are.
    pub(crate) fn over_range(&mut self, rows: Option<&RoaringBitmap>, range: RangeInclusive<u32>) -> u64 {
        let (mut masks, mut compared) = (Masks::of_range(rows, range).peekable(), 0);
        while let Some((at, mask)) = masks.next() {
            compared += u64::from(mask.iter().map(|rows| rows.count_ones()).sum::<u32>());
            self.compare_block(at, &mask, masks.peek());
        }
        compared
    }

    /// Compares the rows of a block that `mask` has; `next` comes then.
    fn compare_block(&mut self, at: usize, mask: &Mask, next: Option<&(usize, Mask)>) {
        let (block, first) = (self.vectors.block(at), (at * BLOCK_ROWS) as u32);
        if is_read_whole(block, mask) {
            let next = next.map(|(at, mask)| (self.vectors.block(*at), mask));
            let next = next.filter(|(next, mask)| is_read_whole(next, mask));
            let ahead = next.map_or(&[][..], |(next, _)| next.codes().lines());
            let tiles = 0..block.codes().tiles();
            self.compare(Span { block, first, tiles, ahead }, mask);
            return;
        }
        for (tile, rows) in mask.iter().enumerate().filter(|(_, rows)| **rows != 0) {
            if rows.count_ones() < CODES_FROM {
                self.score_soon(first + (tile * TILE_ROWS) as u32, *rows);
            } else {
                self.compare(Span { block, first, tiles: tile..tile + 1, ahead: &[] }, mask);
            }
        }
    }

    /// What a row must score to be among the best `k` for the first query, of those that are kept and always as many, by what is compared
    /// already, but for a few of the latest.
    pub(crate) fn floor(&mut self, k: usize) -> f32 {
        self.wanted.first_mut().map_or(f32::INFINITY, |wanted| wanted.sieve.tightened(k))
    }

    /// The best rows for each query, best first.
    pub(crate) fn finish(mut self) -> Vec<Vec<ScoredRow>> {
        self.score();
        let vectors = self.vectors;
        let finish = |wanted: Wanted<'_>| {
            wanted.sieve.finish(|rows| vectors.fetch(rows), |row| dot(wanted.query, vectors.row(row)))
        };
        self.wanted.into_iter().map(finish).collect()
    }

    /// Offers the rows of `mask` in a span to every query, by their codes.
    fn compare(&mut self, span: Span<'_>, mask: &Mask) {
        let (processor, vectors) = (self.processor, self.vectors);
        let (four, rest) = self.wanted.as_chunks_mut::<TOGETHER>();
        four.iter_mut().for_each(|wanted| compare_to(processor, vectors, &span, mask, wanted));
        rest.iter_mut().for_each(|wanted| compare_to(processor, vectors, &span, mask, std::array::from_mut(wanted)));
    }

    /// Has the `rows` of the tile that begins with `first` scored, with others.
    fn score_soon(&mut self, first: u32, mut rows: u64) {
        while rows != 0 {
            self.single.push(first + rows.trailing_zeros());
            rows &= rows - 1;
            if self.single.len() == FETCHED {
                self.score();
            }
        }
    }

    /// Offers rows to every query by their scores. They lie anywhere, and all are waited for at once.
    fn score(&mut self) {
        self.vectors.fetch(&self.single);
        for row in self.single.drain(..) {
            let vector = self.vectors.row(row);
            for wanted in &mut self.wanted {
                let (query, score) = (wanted.query, dot(wanted.query, vector));
                let between = Between { row, lower: score, upper: score };
                wanted.sieve.offer(between, |row| dot(query, self.vectors.row(row)));
            }
        }
    }
}

/// What each row scores for `query` at most, by its codes.
pub(crate) fn at_most(vectors: &Vectors, query: &[f32]) -> Vec<f32> {
    let (processor, wanted) = (Processor::detect(), Wanted::new(query, 1));
    let mut scores = Vec::with_capacity(vectors.len());
    for at in 0..vectors.len().div_ceil(BLOCK_ROWS) {
        let codes = vectors.block(at).codes();
        let (lines, scales) = codes.tiles_at(0..codes.tiles());
        let mut answers = [[Answer::NONE; 1]; BLOCK_ROWS / TILE_ROWS];
        let answers = &mut answers[..codes.tiles()];
        processor.ask(Tiles { lines, scales, ahead: &[] }, &[wanted.ask(codes.limits())], answers);
        let slack = above(wanted.slack(codes.limits()));
        let left = vectors.len() - at * BLOCK_ROWS;
        scores.extend(answers.iter().flat_map(|[answer]| answer.upper).take(left).map(|upper| upper + slack));
    }
    scores
}

/// Rows of a tile from which on all of its codes are read; fewer are scored one by one.
const CODES_FROM: u32 = 8;

/// Whether the codes of all tiles are read.
fn is_read_whole(block: &Block, mask: &Mask) -> bool {
    mask.iter().take(block.codes().tiles()).all(|rows| rows.count_ones() >= CODES_FROM)
}

/// Tiles of a block.
struct Span<'a> {
    block: &'a Block,
    /// The first row of the block.
    first: u32,
    tiles: std::ops::Range<usize>,
    /// What comes next.
    ahead: &'a [Line],
}

/// A query that is scanned for.
struct Wanted<'a> {
    query: &'a [f32],
    words: Vec<u32>,
    sum: i32,
    scale: f32,
    /// Upper bounds of the length of the query, and of what its codes leave.
    length: f64,
    rest: f64,
    sieve: Sieve,
}

/// Half the distance between 1 and the next `f32`.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

impl<'a> Wanted<'a> {
    fn new(query: &'a [f32], k: usize) -> Self {
        let quantised = quantise(query);
        let word = |codes: &[i8]| {
            let mut word = [0; WORD];
            word.iter_mut().zip(codes).for_each(|(byte, code)| *byte = code.cast_unsigned());
            u32::from_le_bytes(word)
        };
        Self {
            query,
            words: quantised.codes.chunks(WORD).map(word).collect(),
            sum: quantised.codes.iter().map(|code| i32::from(*code)).sum(),
            scale: quantised.scale,
            length: quantised.length + quantised.rest,
            rest: quantised.rest,
            sieve: Sieve::new(k),
        }
    }

    /// What a score may differ by from `scale * (product * slope ± rise)` in a block: the rest of the query, the rounding of
    /// `dot`, and that of the formula itself.
    fn slack(&self, limits: &Limits) -> f64 {
        // A product passes through so many roundings in `dot`: its lane, the sum of the lanes, and that of what is over.
        let roundings = (self.query.len() / 16 + 2 * 16 + 2) as f64;
        let lengths = self.length * (limits.length + limits.rest) * (1.0 + limits.rest_in_scales);
        self.rest * limits.length + 2.0 * (roundings + 16.0) * UNIT * lengths + f64::from(f32::MIN_POSITIVE)
    }

    fn ask(&self, limits: &Limits) -> Ask<'_> {
        Ask {
            words: &self.words,
            sum: self.sum,
            slope: self.scale,
            rise: above(self.length * limits.rest_in_scales),
            least: below(f64::from(self.sieve.floor()) - self.slack(limits)),
        }
    }
}

fn above(x: f64) -> f32 {
    (x as f32).next_up()
}

fn below(x: f64) -> f32 {
    (x as f32).next_down()
}

fn compare_to<const N: usize>(
    processor: Processor,
    vectors: &Vectors,
    span: &Span<'_>,
    mask: &Mask,
    wanted: &mut [Wanted<'_>; N],
) {
    let codes = span.block.codes();
    let mut answers = [[Answer::NONE; N]; BLOCK_ROWS / TILE_ROWS];
    let asks = wanted.each_ref().map(|wanted| wanted.ask(codes.limits()));
    let answers = &mut answers[..span.tiles.len()];
    let (lines, scales) = codes.tiles_at(span.tiles.clone());
    processor.ask(Tiles { lines, scales, ahead: span.ahead }, &asks, answers);
    let rises = asks.map(|ask| ask.rise);
    for (at, answers) in answers.iter().enumerate() {
        let tile = span.tiles.start + at;
        for ((answer, wanted), rise) in answers.iter().zip(wanted.iter_mut()).zip(rises) {
            let mut reach = answer.reach & mask[tile];
            if reach == 0 {
                continue;
            }
            let slack = above(wanted.slack(codes.limits()));
            while reach != 0 {
                let lane = reach.trailing_zeros() as usize;
                reach &= reach - 1;
                let upper = answer.upper[lane];
                let between = Between {
                    row: span.first + (tile * TILE_ROWS + lane) as u32,
                    lower: upper - 2.0 * scales[at][lane] * rise - slack,
                    upper: upper + slack,
                };
                let query = wanted.query;
                wanted.sieve.offer(between, |row| dot(query, vectors.row(row)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
