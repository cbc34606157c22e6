//! Inner products of codes, for the processor that is there: which rows of a tile may reach what a query asks for.
//!
//! Products are whole numbers, so every processor finds the same.

use crate::vectors::{LINE_ROWS, Line, OFFSET, TILE_LINES, TILE_ROWS};

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
    /// The product of each row; meaningless for rows that are not there.
    pub(crate) products: [i32; TILE_ROWS],
}

impl Answer {
    pub(crate) const NONE: Self = Self { reach: 0, products: [0; TILE_ROWS] };
}

impl Ask<'_> {
    /// The upper end of what a row may score, but for what is the same for all rows.
    #[inline(always)]
    pub(crate) fn upper(&self, scale: f32, product: i32) -> f32 {
        scale * (product as f32 * self.slope + self.rise)
    }

    #[inline(always)]
    fn answer(&self, products: [i32; TILE_ROWS], scales: &[f32; TILE_ROWS], answer: &mut Answer) {
        let mut any = false;
        for (product, scale) in products.iter().zip(scales) {
            any |= self.upper(*scale, *product) >= self.least;
        }
        answer.reach = 0;
        // Hardly ever, once the scan is under way; the loop above is the one that vectorises.
        if any {
            for (row, (product, scale)) in products.iter().zip(scales).enumerate() {
                answer.reach |= u64::from(self.upper(*scale, *product) >= self.least) << row;
            }
            answer.products = products;
        }
    }
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

    /// Compares every query with every tile. `lines` is `[tiles, words, TILE_LINES]`, and `answers` as long as `scales`.
    pub(crate) fn ask<const N: usize>(
        self,
        (lines, scales): (&[Line], &[[f32; TILE_ROWS]]),
        asks: &[Ask<'_>; N],
        answers: &mut [[Answer; N]],
    ) {
        match self {
            Self::Any => each_tile(lines, scales, asks, answers, |lines, asks| plain(lines, asks)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                assert!(is_x86_feature_detected!("avx2"));
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                unsafe {
                    x86::in_256_bits(lines, scales, asks, answers);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                assert!(has_vnni());
                // SAFETY: the processor has just been asked.
                #[expect(unsafe_code, reason = "a function for some processors only")]
                unsafe {
                    x86::in_512_bits(lines, scales, asks, answers);
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

#[inline(always)]
fn each_tile<const N: usize>(
    lines: &[Line],
    scales: &[[f32; TILE_ROWS]],
    asks: &[Ask<'_>; N],
    answers: &mut [[Answer; N]],
    products: impl Fn(&[Line], &[Ask<'_>; N]) -> [[i32; TILE_ROWS]; N],
) {
    let words = asks[0].words.len();
    for ((lines, scales), answers) in lines.chunks_exact(words * TILE_LINES).zip(scales).zip(answers) {
        let products = products(lines, asks);
        for query in 0..N {
            asks[query].answer(products[query], scales, &mut answers[query]);
        }
    }
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
