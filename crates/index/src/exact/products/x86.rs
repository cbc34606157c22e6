//! The same products by instructions that multiply bytes.

use std::arch::x86_64::*;

use super::{Answer, Ask, each_tile};
use crate::vectors::{LINE_ROWS, Line, OFFSET, TILE_LINES, TILE_ROWS};

#[target_feature(enable = "avx2")]
pub(super) fn in_256_bits<const N: usize>(
    lines: &[Line],
    scales: &[[f32; TILE_ROWS]],
    asks: &[Ask<'_>; N],
    answers: &mut [[Answer; N]],
) {
    each_tile(lines, scales, asks, answers, |lines, asks| {
        let mut products = [[0; TILE_ROWS]; N];
        for group in 0..TILE_LINES {
            let mut sums = [[_mm256_setzero_si256(); 2]; N];
            for (at, lines) in lines.as_chunks::<TILE_LINES>().0.iter().enumerate() {
                let halves: [__m256i; 2] = cast(lines[group].0);
                let rows = halves.map(|half| _mm256_xor_si256(half, _mm256_set1_epi8(OFFSET.cast_signed())));
                for query in 0..N {
                    let word = _mm256_set1_epi32(asks[query].words[at].cast_signed());
                    let without_sign = _mm256_abs_epi8(word);
                    for half in 0..2 {
                        // Two products of codes fit into 16 bits: 2 * 127 * 127 < 32,768.
                        let pairs = _mm256_maddubs_epi16(without_sign, _mm256_sign_epi8(rows[half], word));
                        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                        sums[query][half] = _mm256_add_epi32(sums[query][half], fours);
                    }
                }
            }
            for query in 0..N {
                let sums: [i32; LINE_ROWS] = cast(sums[query]);
                products[query][group * LINE_ROWS..][..LINE_ROWS].copy_from_slice(&sums);
            }
        }
        products
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn in_512_bits<const N: usize>(
    lines: &[Line],
    scales: &[[f32; TILE_ROWS]],
    asks: &[Ask<'_>; N],
    answers: &mut [[Answer; N]],
) {
    each_tile(lines, scales, asks, answers, |lines, asks| {
        let mut sums = asks.map(|ask| [_mm512_set1_epi32(-i32::from(OFFSET) * ask.sum); TILE_LINES]);
        for (at, lines) in lines.as_chunks::<TILE_LINES>().0.iter().enumerate() {
            let rows: [__m512i; TILE_LINES] = lines.map(|line| cast(line.0));
            for query in 0..N {
                let word = _mm512_set1_epi32(asks[query].words[at].cast_signed());
                for group in 0..TILE_LINES {
                    sums[query][group] = _mm512_dpbusd_epi32(sums[query][group], rows[group], word);
                }
            }
        }
        sums.map(cast)
    });
}

/// What is nothing but bits, all of which are values.
trait Bits: Copy {}
impl Bits for [u8; 64] {}
impl Bits for [i32; 16] {}
impl Bits for [i32; 64] {}
impl Bits for __m512i {}
impl Bits for [__m512i; 4] {}
impl Bits for [__m256i; 2] {}

#[inline(always)]
fn cast<A: Bits, B: Bits>(bits: A) -> B {
    const { assert!(size_of::<A>() == size_of::<B>()) }
    // SAFETY: both are as long, and any bits are a value of either.
    #[expect(unsafe_code, reason = "registers have no other safe way from and to memory")]
    unsafe {
        std::mem::transmute_copy(&bits)
    }
}
