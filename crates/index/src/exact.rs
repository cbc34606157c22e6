//! The exact scan.
//!
//! Rows are compared by their codes first, four bytes for sixteen; what may be among the best by that, however the rests of
//! row and query lie, is scored in `f32`. So the answer is that of scoring every row, to the bit.

use std::ops::RangeInclusive;

#[cfg(test)]
use turret_retrieval::topk::TopK;
use turret_retrieval::vector::dot;

use crate::bits::{Bits, ones, words_of};
use crate::vectors::{BLOCK_ROWS, Block, CodesOfRow, Line, TILE_ROWS, Vectors};

use self::masks::{Mask, NONE, TILES, blocks, mask_of};
use self::products::{Answer, Processor, TOGETHER, Tiles, plain_reach};
use self::wanted::Wanted;

mod best;
mod masks;
mod products;
mod scored;
mod sieve;
mod wanted;

pub(crate) use self::best::least_of_best;
pub(crate) use self::scored::ScoredRow;

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
pub(crate) fn scan(vectors: &Vectors, queries: &[&[f32]], rows: Option<&Bits>, k: usize) -> Vec<Vec<ScoredRow>> {
    scan_until(vectors, queries, rows, k, &|| false).best
}

/// The same, of the rows that are compared before `stop` says so; it is asked now and then, and of some rows at least.
pub(crate) fn scan_until(
    vectors: &Vectors,
    queries: &[&[f32]],
    rows: Option<&Bits>,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Scanned {
    scan_by(Processor::detect(), vectors, queries, rows, k, stop)
}

/// Rows of a list between two looks at whether to go on.
pub(crate) const ROWS_BETWEEN_STOPS: usize = 1_024;

/// The same of the rows of a list, which is ascending: of few beside all, it takes less than to go through the bits of all.
pub(crate) fn scan_list_until(
    vectors: &Vectors,
    queries: &[&[f32]],
    list: &[u32],
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Scanned {
    let (mut scan, mut compared) = (Scan::new(vectors, queries, k), 0);
    for rows in list.chunks(ROWS_BETWEEN_STOPS) {
        if compared > 0 && stop() {
            return Scanned { best: scan.finish(), stopped_at: Some(compared) };
        }
        compared += scan.over_list(None, rows);
    }
    Scanned { best: scan.finish(), stopped_at: None }
}

fn scan_by(
    processor: Processor,
    vectors: &Vectors,
    queries: &[&[f32]],
    rows: Option<&Bits>,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Scanned {
    let mut scan = Scan { processor, ..Scan::new(vectors, queries, k) };
    let stopped_at = scan.over(rows, stop);
    Scanned { best: scan.finish(), stopped_at }
}

/// Rows that are compared one by one are fetched so many at a time, and some more where a tile has them.
const FETCHED: usize = 32;
/// Room for all of them: one bit each in a `u64`.
const FETCHED_MAX: usize = u64::BITS as usize;
/// Rows of a tile that are written down without a look at whether there are as many: nobody foresees that, and most have few.
const WRITTEN: usize = 4;

/// A scan of one part of the rows after the other, no row twice.
pub(crate) struct Scan<'a> {
    processor: Processor,
    vectors: &'a Vectors,
    wanted: Vec<Wanted<'a>>,
    /// Rows that are yet to be compared one by one.
    single: [u32; FETCHED_MAX],
    singles: usize,
    /// Their codes, while they are compared.
    codes: Vec<CodesOfRow<'a>>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(vectors: &'a Vectors, queries: &[&'a [f32]], k: usize) -> Self {
        let wanted = queries.iter().map(|query| Wanted::new(query, vectors.limits(), k)).collect();
        let (single, codes) = ([0; FETCHED_MAX], Vec::with_capacity(FETCHED_MAX));
        Self { processor: Processor::detect(), vectors, wanted, single, singles: 0, codes }
    }

    /// Compares `rows`, or all, at the latest as it is finished; how many were compared, where `stop` had it end before all were.
    pub(crate) fn over(&mut self, rows: Option<&Bits>, stop: &dyn Fn() -> bool) -> Option<u64> {
        let range = 0..=self.vectors.len().checked_sub(1)? as u32;
        let (mut read, mut compared) = (0, 0);
        for at in blocks(&range) {
            let mask = mask_of(rows, &range, at);
            if mask == NONE {
                continue;
            }
            read += 1;
            if read % BLOCKS_BETWEEN_STOPS == 0 && stop() {
                return Some(compared);
            }
            compared += rows_of(&mask);
            self.compare_block(at, &mask, |next| mask_of(rows, &range, next));
        }
        None
    }

    /// Compares those of `rows`, or all, that lie in `range`, at the latest as it is finished; how many these are.
    pub(crate) fn over_range(&mut self, rows: Option<&Bits>, range: RangeInclusive<u32>) -> u64 {
        let mut compared = 0;
        // Few rows go tile by tile.
        if range.end() - range.start() < BLOCK_ROWS as u32 - 1 {
            for (tile, within) in words_of(range) {
                let mask = rows.map_or(within, |rows| rows.word(tile) & within);
                compared += u64::from(mask.count_ones());
                self.compare_tile(tile, mask, CODES_OF_ONE_FROM);
            }
            return compared;
        }
        for at in blocks(&range) {
            let mask = mask_of(rows, &range, at);
            compared += rows_of(&mask);
            self.compare_block(at, &mask, |next| mask_of(rows, &range, next));
        }
        compared
    }

    /// Compares those of `rows`, or all, that are in `list`, which is ascending, at the latest as it is finished; how many these are.
    pub(crate) fn over_list(&mut self, rows: Option<&Bits>, list: &[u32]) -> u64 {
        debug_assert!(list.is_sorted());
        let of_tile = |row: u32| row as usize / TILE_ROWS;
        let compare = |list: &[u32]| {
            let tile = list.first().map_or(0, |row| of_tile(*row));
            let mask = list.iter().fold(0, |mask, row| mask | 1 << (*row as usize % TILE_ROWS));
            let mask = rows.map_or(mask, |rows| rows.word(tile) & mask);
            self.compare_tile(tile, mask, CODES_OF_ONE_FROM);
            u64::from(mask.count_ones())
        };
        list.chunk_by(|a, b| of_tile(*a) == of_tile(*b)).map(compare).sum()
    }

    /// Compares the rows of a block that `mask` has; `mask_at` tells the mask of the block that comes then.
    fn compare_block(&mut self, at: usize, mask: &Mask, mask_at: impl FnOnce(usize) -> Mask) {
        let block = self.vectors.block(at);
        if is_read_whole(block, mask) {
            let next = self.vectors.get_block(at + 1).filter(|next| is_read_whole(next, &mask_at(at + 1)));
            let ahead = next.map_or(&[][..], |next| next.codes().lines());
            let (tiles, first) = (0..block.codes().tiles(), (at * BLOCK_ROWS) as u32);
            self.compare(Span { block, first, tiles, ahead }, mask);
            return;
        }
        (at * TILES..).zip(*mask).for_each(|(tile, rows)| self.compare_tile(tile, rows, CODES_FROM));
    }

    /// Compares the rows of a tile that `rows` has a bit for: together by all of its codes where there are as many as `from`, or else each by
    /// its own.
    fn compare_tile(&mut self, tile: usize, mut rows: u64, from: usize) {
        if rows == 0 {
            return;
        }
        let count = rows.count_ones() as usize;
        if count >= from {
            let (at, of_block) = (tile / TILES, tile % TILES);
            let mut mask = NONE;
            mask[of_block] = rows;
            let (block, first) = (self.vectors.block(at), (at * BLOCK_ROWS) as u32);
            self.compare(Span { block, first, tiles: of_block..of_block + 1, ahead: &[] }, &mask);
            return;
        }
        let first = (tile * TILE_ROWS) as u32;
        let mut write = |at: usize| {
            self.single[self.singles + at] = first.wrapping_add(rows.trailing_zeros());
            rows &= rows.wrapping_sub(1);
        };
        (0..WRITTEN).for_each(&mut write);
        (WRITTEN..count).for_each(write);
        self.singles += count;
        if self.singles >= FETCHED {
            self.compare_single();
        }
    }

    /// What a row must score to be among the best `k` for the first query, or is `likely` to have to, of those that are kept and always as many,
    /// by what is compared already, but for a few of the latest.
    pub(crate) fn floor(&mut self, k: usize, likely: bool) -> f32 {
        self.wanted.first_mut().map_or(f32::INFINITY, |wanted| wanted.sieve.tightened(k, likely))
    }

    /// The best rows for each query, best first.
    pub(crate) fn finish(mut self) -> Vec<Vec<ScoredRow>> {
        self.compare_single();
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

    /// Offers rows to every query, by their codes. They lie anywhere, and all are waited for at once.
    fn compare_single(&mut self) {
        let (vectors, processor) = (self.vectors, self.processor);
        let single = &self.single[..self.singles];
        self.codes.extend(single.iter().map(|row| vectors.codes_soon(*row)));
        let mut products = [0; FETCHED_MAX];
        for wanted in &mut self.wanted {
            let query = wanted.query;
            let score = |row: u32| dot(query, vectors.row(row));
            processor.rows(&wanted.codes, wanted.sum, &self.codes, &mut products);
            let (mut uppers, mut reach) = ([0.0; FETCHED_MAX], 0u64);
            for ((codes, product), upper) in self.codes.iter().zip(products).zip(&mut uppers) {
                *upper = wanted.upper(codes.scale(), product);
            }
            for (at, upper) in uppers[..single.len()].iter().enumerate() {
                reach |= u64::from(*upper >= wanted.sieve.floor()) << at;
            }
            for at in ones(reach).map(|at| at as usize) {
                wanted.sieve.offer(wanted.between(single[at], self.codes[at].scale(), uppers[at]), score);
            }
        }
        self.singles = 0;
        self.codes.clear();
    }
}

/// What each row scores for `query` at most, by its codes.
pub(crate) fn at_most(vectors: &Vectors, query: &[f32]) -> Vec<f32> {
    let (processor, wanted) = (Processor::detect(), Wanted::new(query, vectors.limits(), 1));
    let mut scores = Vec::with_capacity(vectors.len());
    for at in 0..vectors.len().div_ceil(BLOCK_ROWS) {
        let codes = vectors.block(at).codes();
        let (lines, scales) = codes.tiles_at(0..codes.tiles());
        let mut answers = [[Answer::NONE; 1]; TILES];
        let answers = &mut answers[..codes.tiles()];
        processor.ask(Tiles { lines, scales, ahead: &[] }, &[wanted.ask()], answers);
        let left = vectors.len() - at * BLOCK_ROWS;
        scores.extend(answers.iter().flat_map(|[answer]| answer.upper).take(left).map(|upper| upper + wanted.slack));
    }
    scores
}

/// Of some scores those that are `least` at least, with their places; those that are no numbers are not.
pub(crate) fn at_least(scores: &[f32], least: f32) -> impl Iterator<Item = (u32, f32)> {
    let processor = Processor::detect();
    scores.chunks(TILE_ROWS).zip((0..).step_by(TILE_ROWS)).flat_map(move |(scores, first)| {
        let reach = match scores.as_array() {
            Some(scores) => processor.reaching(scores, least),
            None => plain_reach(scores, least),
        };
        ones(reach).map(move |at| (first + at, scores[at as usize]))
    })
}

/// What the rows of each list score for `query` by their codes alone.
pub(crate) fn scores_by_codes<const N: usize>(vectors: &Vectors, query: &[f32], lists: [&[u32]; N]) -> [Vec<f32>; N] {
    let (wanted, processor) = (Wanted::new(query, vectors.limits(), 0), Processor::detect());
    lists.map(|rows| {
        let codes: Vec<_> = rows.iter().map(|row| vectors.codes_soon(*row)).collect();
        let mut products = vec![0; rows.len()];
        processor.rows(&wanted.codes, wanted.sum, &codes, &mut products);
        products.iter().zip(&codes).map(|(product, codes)| *product as f32 * wanted.scale * codes.scale()).collect()
    })
}

/// Rows of a tile from which on all of its codes are read, where tiles follow each other; fewer are compared one by one.
const CODES_FROM: usize = 18;
/// The same of lists and short ranges, before whose tiles no other was read: they come from memory line by line, most of which nobody would
/// look at.
const CODES_OF_ONE_FROM: usize = TILE_ROWS / 2;
const _: () = assert!(CODES_FROM <= CODES_OF_ONE_FROM && WRITTEN < CODES_OF_ONE_FROM);
const _: () = assert!((FETCHED - 1) + (CODES_OF_ONE_FROM - 1) <= FETCHED_MAX);

/// Whether the codes of all tiles are read.
fn is_read_whole(block: &Block, mask: &Mask) -> bool {
    mask.iter().take(block.codes().tiles()).all(|rows| rows.count_ones() as usize >= CODES_FROM)
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

fn rows_of(mask: &Mask) -> u64 {
    mask.iter().map(|rows| u64::from(rows.count_ones())).sum()
}

fn compare_to<const N: usize>(
    processor: Processor,
    vectors: &Vectors,
    span: &Span<'_>,
    mask: &Mask,
    wanted: &mut [Wanted<'_>; N],
) {
    let codes = span.block.codes();
    let mut answers = [[Answer::NONE; N]; TILES];
    let asks = wanted.each_ref().map(|wanted| wanted.ask());
    let answers = &mut answers[..span.tiles.len()];
    let (lines, scales) = codes.tiles_at(span.tiles.clone());
    processor.ask(Tiles { lines, scales, ahead: span.ahead }, &asks, answers);
    for (at, answers) in answers.iter().enumerate() {
        let tile = span.tiles.start + at;
        for (answer, wanted) in answers.iter().zip(wanted.iter_mut()) {
            let query = wanted.query;
            for lane in ones(answer.reach & mask[tile]).map(|lane| lane as usize) {
                let (row, upper) = (span.first + (tile * TILE_ROWS + lane) as u32, answer.upper[lane] + wanted.slack);
                wanted.sieve.offer(wanted.between(row, scales[at][lane], upper), |row| dot(query, vectors.row(row)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
