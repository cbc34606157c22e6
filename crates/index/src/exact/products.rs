//! Inner products of codes, for the processor that is there: which rows of a tile may reach what a query asks for.
//!
//! Products are whole numbers, so every processor finds the same.

use crate::vectors::{CodesOfRow, LINE_ROWS, Line, OFFSET, ROW_LINE, RowLine, TILE_LINES, TILE_ROWS};

/// Queries that are compared with a tile together, where there are so many.
pub(crate) const TOGETHER: usize = 4;

/// How products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processor {
    /// By what the program is compiled for.
    Any,
    /// By AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// By AVX-512 with products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// Tiles of a block.
#[derive(Clone, Copy)]
pub(crate) struct Tiles<'a> {
    /// `[tiles, words, TILE_LINES]`.
    pub(crate) lines: &'a [Line],
    /// One for each tile.
    pub(crate) scales: &'a [[f32; TILE_ROWS]],
    /// What will be read next, if that is known; it is fetched meanwhile.
    pub(crate) ahead: &'a [Line],
}

/// A query as a tile is asked: a row may reach it where `scale * (product * slope + rise) >= least`.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// The codes of the query, four in each, the first in the lowest bits.
    pub(crate) words: &'a [u32],
    /// The sum of all of them.
    pub(crate) sum: i32,
    pub(crate) slope: f32,
    pub(crate) rise: f32,
    pub(crate) least: f32,
}

/// What a tile answers.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// A bit for each row that may reach the query.
    pub(crate) reach: u64,
    /// `scale * (product * slope + rise)` of each row; NaN for rows that are not there.
    pub(crate) upper: [f32; TILE_ROWS],
}

impl Answer {
    pub(crate) const NONE: Self = Self { reach: 0, upper: [0.0; TILE_ROWS] };
}

impl Processor {
    /// The best that this machine has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_vnni() {
                return Self::Avx512Vnni;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Any
    }

    /// The products of some rows, which lie anywhere, with one query: `query` has its codes, with zeros up to whole lines, and `sum` the sum
    /// of them.
    pub(crate) fn rows(self, query: &[[i8; ROW_LINE]], sum: i32, rows: &[CodesOfRow<'_>], products: &mut [i32]) {
        match self {
            Self::Any => each_row(query, sum, rows, products, plain_row),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                assert!(is_x86_feature_detected!("avx2"));
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                unsafe {
                    x86::rows_in_256_bits(query, rows, products);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                assert!(has_vnni());
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                unsafe {
                    x86::rows_in_512_bits(query, sum, rows, products);
                }
            }
        }
    }

    /// A bit for each of some scores that is `least` at least.
    #[inline]
    pub(crate) fn reaching(self, scores: &[f32; TILE_ROWS], least: f32) -> u64 {
        match self {
            Self::Any => plain_reach(scores, least),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                assert!(is_x86_feature_detected!("avx2"));
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                unsafe {
                    x86::reaching_in_256_bits(scores, least)
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                assert!(has_vnni());
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                unsafe {
                    x86::reaching_in_512_bits(scores, least)
                }
            }
        }
    }

    /// Compares every query with every tile; there is an answer for each.
    pub(crate) fn ask<const N: usize>(self, tiles: Tiles<'_>, asks: &[Ask<'_>; N], answers: &mut [[Answer; N]]) {
        match self {
            Self::Any => each_tile(
                tiles,
                asks,
                answers,
                |lines, _, asks| plain(lines, asks),
                |upper, least| plain_reach(upper, least),
            ),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                assert!(is_x86_feature_detected!("avx2"));
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                unsafe {
                    x86::in_256_bits(tiles, asks, answers);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                assert!(has_vnni());
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                unsafe {
                    x86::in_512_bits(tiles, asks, answers);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// The answers of each tile, by its products and by which of 64 numbers are not below another.
#[inline(always)]
fn each_tile<const N: usize>(
    tiles: Tiles<'_>,
    asks: &[Ask<'_>; N],
    answers: &mut [[Answer; N]],
    products: impl Fn(&[Line], &[Line], &[Ask<'_>; N]) -> [[i32; TILE_ROWS]; N],
    reach: impl Fn(&[f32; TILE_ROWS], f32) -> u64,
) {
    let lines = asks[0].words.len() * TILE_LINES;
    let mut ahead = tiles.ahead.chunks_exact(lines);
    for ((tile, scales), answers) in tiles.lines.chunks_exact(lines).zip(tiles.scales).zip(answers) {
        let products = products(tile, ahead.next().unwrap_or_default(), asks);
        for ((ask, products), answer) in asks.iter().zip(products).zip(answers) {
            answer.upper = std::array::from_fn(|row| scales[row] * (products[row] as f32 * ask.slope + ask.rise));
            answer.reach = reach(&answer.upper, ask.least);
        }
    }
}

/// The product of each row, by that of its lines, in which codes are [`OFFSET`] too large.
#[inline(always)]
fn each_row(
    query: &[[i8; ROW_LINE]],
    sum: i32,
    rows: &[CodesOfRow<'_>],
    products: &mut [i32],
    product: impl Fn(&[[i8; ROW_LINE]], &[RowLine]) -> i32,
) {
    let more = i32::from(OFFSET) * sum;
    rows.iter().zip(products).for_each(|(row, to)| *to = product(query, row.lines) - more);
}

fn plain_row(query: &[[i8; ROW_LINE]], row: &[RowLine]) -> i32 {
    let product = |(query, row): (&i8, &u8)| i32::from(*query) * i32::from(*row);
    query.iter().zip(row).map(|(query, row)| query.iter().zip(&row.0).map(product).sum::<i32>()).sum()
}

#[inline(always)]
pub(super) fn plain_reach(scores: &[f32], least: f32) -> u64 {
    scores.iter().enumerate().fold(0, |reach, (at, score)| reach | u64::from(*score >= least) << at)
}

#[inline(always)]
fn plain<const N: usize>(lines: &[Line], asks: &[Ask<'_>; N]) -> [[i32; TILE_ROWS]; N] {
    let mut products = asks.map(|ask| [-i32::from(OFFSET) * ask.sum; TILE_ROWS]);
    for (at, lines) in lines.as_chunks::<TILE_LINES>().0.iter().enumerate() {
        for (ask, products) in asks.iter().zip(&mut products) {
            let codes = ask.words[at].to_le_bytes().map(|code| i32::from(code.cast_signed()));
            for (line, products) in lines.iter().zip(products.as_chunks_mut::<LINE_ROWS>().0) {
                for (row, product) in line.0.as_chunks::<4>().0.iter().zip(products) {
                    *product += (0..4).map(|at| i32::from(row[at]) * codes[at]).sum::<i32>();
                }
            }
        }
    }
    products
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;
