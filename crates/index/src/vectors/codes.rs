//! Rows of a block as whole numbers of 8 bits, and how far they may be from what they stand for.
//!
//! A row `v` is `scale` times whole numbers in -127..=127, its *codes*, and a rest. So is a query `q`. With `v^` and `q^` for
//! what the codes say, `|q.v - q^.v^| <= |q - q^| |v^| + |q| |v - v^|`, whatever the vectors are.

use super::{BLOCK_ROWS, prefetch};

/// Rows that are compared together: one bit each in a `u64`.
pub(crate) const TILE_ROWS: usize = 64;
/// Rows of a [`Line`].
pub(crate) const LINE_ROWS: usize = 16;
/// Components of a row in a [`Line`]: as many bytes as a 32-bit lane has.
pub(crate) const WORD: usize = 4;
/// Lines of a tile that hold the same components.
pub(crate) const TILE_LINES: usize = TILE_ROWS / LINE_ROWS;
/// What is added to a code in a [`Line`], because processors multiply bytes without a sign by bytes with one.
pub(crate) const OFFSET: u8 = 128;

const CODE_MAX: f32 = 127.0;
/// Room for the rounding of sums in `f64`, which is a thousand times smaller.
const ABOVE: f64 = 1.0 + 1e-9;

/// Four components of sixteen rows, `[LINE_ROWS, WORD]`, each plus [`OFFSET`].
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [u8; LINE_ROWS * WORD]);

/// Components of one row, each plus [`OFFSET`], and no more than that beyond its last one.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct RowLine(pub(crate) [u8; ROW_LINE]);
/// Components of a [`RowLine`]: a line of the cache.
pub(crate) const ROW_LINE: usize = 64;

/// The codes of a block, twice: of many rows together, and of each by itself, for whoever compares a few.
#[derive(Clone)]
pub(crate) struct Codes {
    /// `[tiles, words, TILE_LINES]`, so that a tile is read from its beginning to its end.
    lines: Vec<Line>,
    /// `[tiles, TILE_ROWS, row_lines]`.
    rows: Vec<RowLine>,
    row_lines: usize,
    /// `[tiles]`; NaN for rows that are not there.
    scales: Vec<[f32; TILE_ROWS]>,
    /// The places of the same scales in [`SCALES`]: whoever compares a few rows has those of a tile in one line of the cache.
    places: Vec<[u8; TILE_ROWS]>,
    words: usize,
    limits: Limits,
}

/// A row by its codes.
pub(crate) struct CodesOfRow<'a> {
    pub(crate) lines: &'a [RowLine],
    /// The place of its scale in [`SCALES`], which comes from memory too.
    pub(crate) place: &'a u8,
}

impl CodesOfRow<'_> {
    pub(crate) fn scale(&self) -> f32 {
        SCALES[usize::from(*self.place)]
    }
}

/// What no row exceeds; rows that were replaced count too.
#[derive(Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Length of the rest, in units of the row's scale.
    pub(crate) rest_in_scales: f64,
    /// Length of the rest.
    pub(crate) rest: f64,
    /// Length of what the codes say.
    pub(crate) length: f64,
}

impl Limits {
    /// What neither exceeds.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            rest_in_scales: self.rest_in_scales.max(other.rest_in_scales),
            rest: self.rest.max(other.rest),
            length: self.length.max(other.length),
        }
    }
}

/// A vector as codes.
pub(crate) struct Quantised {
    pub(crate) codes: Vec<i8>,
    pub(crate) scale: f32,
    /// Upper bounds of the lengths of the rest and of what the codes say.
    pub(crate) rest: f64,
    pub(crate) length: f64,
}

impl Codes {
    pub(super) fn new(dimension: usize) -> Self {
        let (words, row_lines) = (dimension.div_ceil(WORD), dimension.div_ceil(ROW_LINE));
        let (lines, rows, scales, places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { lines, rows, row_lines, scales, places, words, limits: Limits::default() }
    }

    /// Takes `vector` for the row at `at`, which is at most the first that is not there.
    pub(super) fn set(&mut self, at: usize, vector: &[f32]) {
        debug_assert!(at < BLOCK_ROWS);
        let (tile, lane) = (at / TILE_ROWS, at % TILE_ROWS);
        if tile == self.scales.len() {
            self.scales.push([f32::NAN; TILE_ROWS]);
            self.places.push([NOT_THERE; TILE_ROWS]);
            let (lines, rows) = (self.words * TILE_LINES, self.row_lines * TILE_ROWS);
            self.lines.reserve_exact(lines);
            self.lines.resize((tile + 1) * lines, Line([OFFSET; LINE_ROWS * WORD]));
            self.rows.reserve_exact(rows);
            self.rows.resize((tile + 1) * rows, RowLine([OFFSET; ROW_LINE]));
        }
        let place = place_of_scale(vector);
        let quantised = quantise_by(vector, SCALES[usize::from(place)]);
        let lines = &mut self.lines[tile * self.words * TILE_LINES..][..self.words * TILE_LINES];
        for (codes, lines) in quantised.codes.chunks(WORD).zip(lines.chunks_exact_mut(TILE_LINES)) {
            let place = &mut lines[lane / LINE_ROWS].0[lane % LINE_ROWS * WORD..];
            place.iter_mut().zip(codes).for_each(|(place, code)| *place = with_offset(*code));
        }
        let row = self.rows[at * self.row_lines..][..self.row_lines].iter_mut().flat_map(|line| &mut line.0);
        row.zip(&quantised.codes).for_each(|(place, code)| *place = with_offset(*code));
        (self.scales[tile][lane], self.places[tile][lane]) = (quantised.scale, place);
        // A rest of nothing is none, whatever the scale.
        let in_scales = if quantised.rest > 0.0 { quantised.rest / f64::from(quantised.scale) * ABOVE } else { 0.0 };
        let of_row = Limits { rest_in_scales: in_scales, rest: quantised.rest, length: quantised.length };
        self.limits = self.limits.and(&of_row);
    }

    /// How many tiles there are; the last may have rows that are not there.
    pub(crate) fn tiles(&self) -> usize {
        self.scales.len()
    }

    /// The codes of all tiles.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The codes of some tiles, `[tiles, words, TILE_LINES]`, and their scales.
    pub(crate) fn tiles_at(&self, tiles: std::ops::Range<usize>) -> (&[Line], &[[f32; TILE_ROWS]]) {
        let lines = self.words * TILE_LINES;
        (&self.lines[tiles.start * lines..tiles.end * lines], &self.scales[tiles])
    }

    /// The codes of the row at `at`, by itself. They are asked for from memory, and not waited for.
    #[inline]
    pub(crate) fn row_soon(&self, at: usize) -> CodesOfRow<'_> {
        let place = &self.places[at / TILE_ROWS][at % TILE_ROWS];
        prefetch(place);
        let lines = &self.rows[at * self.row_lines..][..self.row_lines];
        lines.iter().for_each(prefetch);
        CodesOfRow { lines, place }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn bytes(&self) -> usize {
        let scales = size_of_val(&*self.scales) + size_of_val(&*self.places);
        size_of_val(&*self.lines) + size_of_val(&*self.rows) + scales
    }
}

fn with_offset(code: i8) -> u8 {
    code.cast_unsigned().wrapping_add(OFFSET)
}

/// The scales that rows have, each by a 32nd root of 2 below the one before: a row of length 1 and at most 4,096 components has one of 1/64 at
/// least, and the least here is of 1/245. Of a row whose components are too large or too small more is rest. The last is no scale.
const SCALES: [f32; 256] = {
    let (mut scales, mut largest, mut at) = ([f32::NAN; 256], 1.0, 0);
    while at < NOT_THERE as usize {
        scales[at] = (largest / CODE_MAX as f64) as f32;
        largest *= 0.978_572_062_087_700_1;
        at += 1;
    }
    scales
};
const NOT_THERE: u8 = u8::MAX;

/// The place of the least of [`SCALES`] by which no code of `vector` is too large; where all are too small, of the largest.
fn place_of_scale(vector: &[f32]) -> u8 {
    let scale = largest(vector) / CODE_MAX;
    let least = SCALES[..usize::from(NOT_THERE)].partition_point(|larger| *larger >= scale);
    least.saturating_sub(1) as u8
}

/// The largest component of `vector`, without its sign.
fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(0f32, |largest, x| if x.abs() > largest { x.abs() } else { largest })
}

/// The codes of `vector`, whose components are finite.
pub(crate) fn quantise(vector: &[f32]) -> Quantised {
    quantise_by(vector, largest(vector) / CODE_MAX)
}

/// The same, as so many times whole numbers.
fn quantise_by(vector: &[f32], scale: f32) -> Quantised {
    // Too small to divide by, or nothing at all: then all of it is rest.
    let per_scale = if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    let scale = if per_scale > 0.0 { scale } else { f32::MIN_POSITIVE };
    let code = |x: &f32| (x * per_scale).round_ties_even().clamp(-CODE_MAX, CODE_MAX) as i8;
    let codes: Vec<i8> = vector.iter().map(code).collect();
    let (mut rest, mut length) = (0f64, 0f64);
    for (x, code) in vector.iter().zip(&codes) {
        let said = f64::from(scale) * f64::from(*code);
        rest += (f64::from(*x) - said).powi(2);
        length += said.powi(2);
    }
    Quantised { codes, scale, rest: rest.sqrt() * ABOVE, length: length.sqrt() * ABOVE }
}

#[cfg(test)]
mod tests;
