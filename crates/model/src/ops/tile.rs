//! Products of matrices too small for a general kernel: a head's attention, sixteen queries at a time.
//!
//! The widths of the results are whole [`WIDE`]s and their heights whole [`TALL`]s; callers pad with zeros.

/// Rows of a tile.
pub(super) const TALL: usize = 4;
/// Columns of a tile; a tile's sums stay in registers.
pub(super) const WIDE: usize = 16;

type Sums = [[f32; WIDE]; TALL];

/// A row-major matrix with a row every `stride` values.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

#[inline(always)]
fn add_outer(sums: &mut Sums, left: [f32; TALL], right: &[f32; WIDE]) {
    for row in 0..TALL {
        // As a whole array: written value by value, the sums end up in memory, twenty times slower.
        sums[row] = std::array::from_fn(|column| left[row].mul_add(right[column], sums[row][column]));
    }
}

#[inline(always)]
fn block(row: &[f32]) -> &[f32; WIDE] {
    row.first_chunk().expect("widths are whole tiles")
}

/// `out = left right`, with `left` of shape [rows, inner], `right` [inner, width], and a row of `out` every `stride`.
#[inline]
pub(super) fn product(left: Rows<'_>, inner: usize, right: Rows<'_>, out: &mut [f32], stride: usize, width: usize) {
    for (left_rows, out) in left.values.chunks(TALL * left.stride).zip(out.chunks_mut(TALL * stride)) {
        let row = |number: usize| &left_rows[number * left.stride..][..inner];
        let rows = [row(0), row(1), row(2), row(3)];
        for column in (0..width).step_by(WIDE) {
            let mut sums = Sums::default();
            for (at, right) in right.values[column..].chunks(right.stride).take(inner).enumerate() {
                add_outer(&mut sums, rows.map(|row| row[at]), block(right));
            }
            for (sums, out) in sums.iter().zip(out.chunks_mut(stride)) {
                out[column..column + WIDE].copy_from_slice(sums);
            }
        }
    }
}

/// `out += leftᵀ right`, with `left` of shape [inner, height], `right` [inner, width] and `out` [height, width].
#[inline]
pub(super) fn add_transposed_product(left: Rows<'_>, right: Rows<'_>, inner: usize, out: &mut [f32], width: usize) {
    for (tile, out) in out.chunks_exact_mut(TALL * width).enumerate() {
        for column in (0..width).step_by(WIDE) {
            let mut sums = Sums::default();
            let lefts = left.values[tile * TALL..].chunks(left.stride);
            for (left, right) in lefts.zip(right.values[column..].chunks(right.stride)).take(inner) {
                add_outer(&mut sums, *left.first_chunk().expect("heights are whole tiles"), block(right));
            }
            for (sums, out) in sums.iter().zip(out.chunks_exact_mut(width)) {
                super::add_scaled(&mut out[column..column + WIDE], 1.0, sums);
            }
        }
    }
}

/// `count` rounded up to whole tiles' columns.
pub(super) fn padded(count: usize) -> usize {
    count.next_multiple_of(WIDE)
}
