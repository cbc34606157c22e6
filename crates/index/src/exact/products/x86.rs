//! The same products by instructions that multiply bytes.

use std::arch::x86_64::*;

use super::{Answer, Ask, Tiles, each_row, each_tile};
use crate::vectors::{CodesOfRow, LINE_ROWS, Line, OFFSET, ROW_LINE, RowLine, TILE_LINES, TILE_ROWS, prefetch};

#[target_feature(enable = "avx2")]
pub(super) fn in_256_bits<const N: usize>(tiles: Tiles<'_>, asks: &[Ask<'_>; N], answers: &mut [[Answer; N]]) {
    // One query has registers for the sums of all rows, and so reads lines as they follow each other.
    let products = |lines: &[Line], ahead: &[Line], asks: &[Ask<'_>; N]| match N {
        1 => products_in_256_bits::<N, TILE_LINES>(lines, ahead, asks),
        _ => products_in_256_bits::<N, 1>(lines, ahead, asks),
    };
    each_tile(tiles, asks, answers, products, |upper, least| reaching_in_256_bits(upper, least));
}

#[target_feature(enable = "avx2")]
pub(super) fn rows_in_256_bits(query: &[[i8; ROW_LINE]], rows: &[CodesOfRow<'_>], products: &mut [i32]) {
    let product = |query: &[[i8; ROW_LINE]], row: &[RowLine]| {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (query, row) in query.iter().zip(row) {
            let (query, row): ([__m256i; 2], [__m256i; 2]) = (cast(*query), cast(row.0));
            for ((query, row), sum) in query.into_iter().zip(row).zip(&mut sums) {
                *sum = add_fours(*sum, without_offset(row), query, _mm256_abs_epi8(query));
            }
        }
        let fours = _mm256_add_epi32(sums[0], sums[1]);
        let twos = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256::<1>(fours));
        let ones = _mm_add_epi32(twos, _mm_shuffle_epi32::<0b00_00_11_10>(twos));
        _mm_cvtsi128_si32(_mm_add_epi32(ones, _mm_shuffle_epi32::<0b00_00_00_01>(ones)))
    };
    // The offset is taken off already.
    each_row(query, 0, rows, products, product);
}

/// The products of a tile, of so many of the lines of a word at a time.
#[target_feature(enable = "avx2")]
#[inline]
fn products_in_256_bits<const N: usize, const GROUPS: usize>(
    lines: &[Line],
    ahead: &[Line],
    asks: &[Ask<'_>; N],
) -> [[i32; TILE_ROWS]; N] {
    let mut products = [[0; TILE_ROWS]; N];
    for first in (0..TILE_LINES).step_by(GROUPS) {
        let mut sums = [[[_mm256_setzero_si256(); 2]; N]; GROUPS];
        for (at, lines) in lines.as_chunks::<TILE_LINES>().0.iter().enumerate() {
            if first == 0 {
                fetch(ahead, at);
            }
            for (line, sums) in lines[first..].iter().zip(&mut sums) {
                let halves: [__m256i; 2] = cast(line.0);
                let rows = halves.map(|half| without_offset(half));
                for (ask, sums) in asks.iter().zip(sums) {
                    let word = _mm256_set1_epi32(ask.words[at].cast_signed());
                    let without_sign = _mm256_abs_epi8(word);
                    for (half, sum) in rows.iter().zip(sums) {
                        *sum = add_fours(*sum, *half, word, without_sign);
                    }
                }
            }
        }
        for (group, sums) in (first..).zip(sums) {
            for (products, sums) in products.iter_mut().zip(sums) {
                let sums: [i32; LINE_ROWS] = cast(sums);
                products[group * LINE_ROWS..][..LINE_ROWS].copy_from_slice(&sums);
            }
        }
    }
    products
}

#[target_feature(enable = "avx2")]
#[inline]
fn without_offset(codes: __m256i) -> __m256i {
    _mm256_xor_si256(codes, _mm256_set1_epi8(OFFSET.cast_signed()))
}

/// Adds the products of each four codes; `magnitude` is the query without signs.
#[target_feature(enable = "avx2")]
#[inline]
fn add_fours(sum: __m256i, row: __m256i, query: __m256i, magnitude: __m256i) -> __m256i {
    // Two products of codes fit into 16 bits: 2 * 127 * 127 < 32,768.
    let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(row, query));
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn reaching_in_256_bits(scores: &[f32; TILE_ROWS], least: f32) -> u64 {
    let (mut reach, least) = (0, _mm256_set1_ps(least));
    for (at, scores) in cast::<_, [__m256; 8]>(*scores).into_iter().enumerate() {
        let bits = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(scores, least));
        reach |= u64::from(bits.cast_unsigned()) << (8 * at);
    }
    reach
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn in_512_bits<const N: usize>(tiles: Tiles<'_>, asks: &[Ask<'_>; N], answers: &mut [[Answer; N]]) {
    let products = |lines: &[Line], ahead: &[Line], asks: &[Ask<'_>; N]| {
        let mut sums = asks.map(|ask| [_mm512_set1_epi32(-i32::from(OFFSET) * ask.sum); TILE_LINES]);
        for (at, lines) in lines.as_chunks::<TILE_LINES>().0.iter().enumerate() {
            fetch(ahead, at);
            let rows: [__m512i; TILE_LINES] = lines.map(|line| cast(line.0));
            for query in 0..N {
                let word = _mm512_set1_epi32(asks[query].words[at].cast_signed());
                for group in 0..TILE_LINES {
                    sums[query][group] = _mm512_dpbusd_epi32(sums[query][group], rows[group], word);
                }
            }
        }
        sums.map(cast)
    };
    each_tile(tiles, asks, answers, products, |upper, least| reaching_in_512_bits(upper, least));
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
pub(super) fn reaching_in_512_bits(scores: &[f32; TILE_ROWS], least: f32) -> u64 {
    let (mut reach, least) = (0, _mm512_set1_ps(least));
    for (at, scores) in cast::<_, [__m512; 4]>(*scores).into_iter().enumerate() {
        reach |= u64::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, least)) << (16 * at);
    }
    reach
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn rows_in_512_bits(query: &[[i8; ROW_LINE]], sum: i32, rows: &[CodesOfRow<'_>], products: &mut [i32]) {
    let product = |query: &[[i8; ROW_LINE]], row: &[RowLine]| {
        let lines = query.iter().zip(row);
        _mm512_reduce_add_epi32(
            lines.fold(_mm512_setzero_si512(), |sum, (query, row)| _mm512_dpbusd_epi32(sum, cast(row.0), cast(*query))),
        )
    };
    each_row(query, sum, rows, products, product);
}

/// Brings the lines of a word into cache, while others are computed with: blocks lie anywhere in memory, and the processor
/// foresees no more than a page.
#[inline(always)]
fn fetch(ahead: &[Line], word: usize) {
    ahead.iter().skip(word * TILE_LINES).take(TILE_LINES).for_each(prefetch);
}

/// What is nothing but bits, all of which are values.
trait AnyBits: Copy {}
impl AnyBits for [u8; 64] {}
impl AnyBits for [i8; 64] {}
impl AnyBits for [i32; 16] {}
impl AnyBits for [f32; 64] {}
impl AnyBits for [__m256; 8] {}
impl AnyBits for [__m512; 4] {}
impl AnyBits for [i32; 64] {}
impl AnyBits for __m512i {}
impl AnyBits for [__m512i; 4] {}
impl AnyBits for [__m256i; 2] {}

#[inline(always)]
fn cast<A: AnyBits, B: AnyBits>(bits: A) -> B {
    const { assert!(size_of::<A>() == size_of::<B>()) }
    // SAFETY: both are as long, and any bits are a value of either.
    #[expect(unsafe_code, reason = "registers have no other safe way from and to memory")]
    unsafe {
        std::mem::transmute_copy(&bits)
    }
}
