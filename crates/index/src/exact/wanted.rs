//! A query, as rows are compared with it by their codes.

use super::products::Ask;
use super::sieve::{Between, Sieve};
use crate::vectors::{Limits, ROW_LINE, WORD, quantise};

/// A query that is scanned for.
pub(super) struct Wanted<'a> {
    pub(super) query: &'a [f32],
    words: Vec<u32>,
    /// The same codes, as rows have theirs by themselves.
    pub(super) codes: Vec<[i8; ROW_LINE]>,
    pub(super) sum: i32,
    pub(super) scale: f32,
    /// What the rest of a row may add to its score, at most, in units of the row's scale.
    rise: f32,
    /// What a score may differ by from `scale * (product * slope ± rise)`, at most: the rest of the query, the rounding of `dot`, and that of
    /// the formula itself.
    pub(super) slack: f32,
    pub(super) sieve: Sieve,
}

/// Half the distance between 1 and the next `f32`.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

impl<'a> Wanted<'a> {
    /// To be compared with rows that do not exceed `limits`.
    pub(super) fn new(query: &'a [f32], limits: &Limits, k: usize) -> Self {
        let quantised = quantise(query);
        let word = |codes: &[i8]| {
            let mut word = [0; WORD];
            word.iter_mut().zip(codes).for_each(|(byte, code)| *byte = code.cast_unsigned());
            u32::from_le_bytes(word)
        };
        // A product passes through so many roundings in `dot`: its lane, the sum of the lanes, and that of what is over.
        let (roundings, length) = ((query.len() / 16 + 2 * 16 + 2) as f64, quantised.length + quantised.rest);
        let rounding = 2.0 * (roundings + 16.0) * UNIT * length;
        let lengths = (limits.length + limits.rest) * (1.0 + limits.rest_in_scales);
        let line = |codes: &[i8]| {
            let mut line = [0; ROW_LINE];
            line[..codes.len()].copy_from_slice(codes);
            line
        };
        Self {
            query,
            words: quantised.codes.chunks(WORD).map(word).collect(),
            codes: quantised.codes.chunks(ROW_LINE).map(line).collect(),
            sum: quantised.codes.iter().map(|code| i32::from(*code)).sum(),
            scale: quantised.scale,
            rise: above(length * limits.rest_in_scales),
            slack: above(quantised.rest * limits.length + rounding * lengths + f64::from(f32::MIN_POSITIVE)),
            sieve: Sieve::new(k),
        }
    }

    /// What a row scores at most, by its scale and the product of its codes.
    pub(super) fn upper(&self, scale: f32, product: i32) -> f32 {
        scale * (product as f32 * self.scale + self.rise) + self.slack
    }

    /// Between which numbers the score of a row lies that scores `upper` at most.
    pub(super) fn between(&self, row: u32, scale: f32, upper: f32) -> Between {
        Between { row, lower: upper - 2.0 * (scale * self.rise + self.slack), upper }
    }

    pub(super) fn ask(&self) -> Ask<'_> {
        Ask {
            words: &self.words,
            sum: self.sum,
            slope: self.scale,
            rise: self.rise,
            least: below(f64::from(self.sieve.floor()) - f64::from(self.slack)),
        }
    }
}

/// A number above `x`, which is not negative, by more than a rounding: what is lost of the least numbers is in the slack.
pub(super) fn above(x: f64) -> f32 {
    (x * (1.0 + 4.0 * UNIT)) as f32
}

fn below(x: f64) -> f32 {
    (x as f32).next_down()
}
