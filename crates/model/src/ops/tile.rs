//! Products of matrices too small for a general kernel: a head's attention, sixteen queries at a time.
//!
//! Matrices lie in panels of [`WIDE`] columns, which a tile reads from front to back.

/// Rows of a tile.
const TALL: usize = 4;
/// Columns of a tile; a tile's sums stay in registers.
pub(super) const WIDE: usize = 16;

/// As much of a row as a tile has.
pub(super) type Lanes = [f32; WIDE];

/// Rows of `width` values that begin every `stride` values.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) width: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(self, number: usize) -> &'a [f32] {
        &self.values[number * self.stride..][..self.width]
    }
}

/// A matrix in panels of [`WIDE`] columns, each row by row; the last panel is padded with zeros.
#[derive(Default)]
pub(super) struct Panels {
    rows: usize,
    values: Vec<Lanes>,
}

impl Panels {
    /// Makes it one of zeros, [rows, columns].
    #[inline(always)]
    pub(super) fn clear(&mut self, rows: usize, columns: usize) {
        self.values.clear();
        self.reshape(rows, columns);
    }

    /// Makes it one of that shape, with whatever values.
    #[inline(always)]
    fn reshape(&mut self, rows: usize, columns: usize) {
        self.rows = rows;
        self.values.resize(columns.div_ceil(WIDE) * rows, [0.0; WIDE]);
    }

    /// Each panel.
    #[inline(always)]
    pub(super) fn panels(&self) -> impl Iterator<Item = &[Lanes]> {
        self.values.chunks_exact(self.rows.max(1))
    }

    #[inline(always)]
    pub(super) fn panels_mut(&mut self) -> impl Iterator<Item = &mut [Lanes]> {
        self.values.chunks_exact_mut(self.rows.max(1))
    }

    /// Makes it a copy of those rows of `from` that `chosen` names.
    #[inline(always)]
    pub(super) fn take(&mut self, from: Rows<'_>, chosen: impl ExactSizeIterator<Item = usize>) {
        if from.width.is_multiple_of(WIDE) {
            self.reshape(chosen.len(), from.width);
        } else {
            self.clear(chosen.len(), from.width);
        }
        for (row, number) in chosen.enumerate() {
            let (whole, rest) = from.row(number).as_chunks::<WIDE>();
            for (panel, whole) in whole.iter().enumerate() {
                self.values[panel * self.rows + row] = *whole;
            }
            if !rest.is_empty() {
                self.values[whole.len() * self.rows + row][..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// Makes it one panel whose columns are those rows of `from` that `chosen` names, at most [`WIDE`], times `scale`.
    #[inline(always)]
    pub(super) fn take_columns(&mut self, from: Rows<'_>, chosen: &[usize], scale: f32) {
        // Half of them at once: value by value, the writes are as slow as the products that they are for.
        const HALF: usize = WIDE / 2;
        if chosen.len() == WIDE {
            self.reshape(from.width, WIDE);
        } else {
            self.clear(from.width, WIDE);
        }
        let (halves, rest) = chosen.as_chunks::<HALF>();
        for (half, chosen) in halves.iter().enumerate() {
            let rows = chosen.map(|row| from.row(row));
            for (number, lanes) in self.values.iter_mut().enumerate() {
                lanes[half * HALF..][..HALF].copy_from_slice(&rows.map(|row| scale * row[number]));
            }
        }
        for (row, number) in rest.iter().enumerate() {
            let lane = halves.len() * HALF + row;
            self.values.iter_mut().zip(from.row(*number)).for_each(|(lanes, value)| lanes[lane] = scale * value);
        }
    }
}

#[inline(always)]
fn add_outer(sums: &mut [Lanes; TALL], left: [f32; TALL], right: &Lanes) {
    for row in 0..TALL {
        // As a whole array: written value by value, the sums end up in memory, twenty times slower.
        sums[row] = std::array::from_fn(|column| left[row].mul_add(right[column], sums[row][column]));
    }
}

/// Adds the product of the first rows of `left` with `panel` to `out`, which has at most so many rows.
#[inline(always)]
pub(super) fn add_product(left: Rows<'_>, panel: &[Lanes], out: &mut [Lanes]) {
    let last = out.len().saturating_sub(1);
    for (tile, out) in out.chunks_mut(TALL).enumerate() {
        // What a tile has beyond the last row is computed for nothing.
        let row = |number: usize| left.row((tile * TALL + number).min(last)).iter();
        let mut sums = [[0.0; WIDE]; TALL];
        for (right, ((a, b), (c, d))) in panel.iter().zip(row(0).zip(row(1)).zip(row(2).zip(row(3)))) {
            add_outer(&mut sums, [*a, *b, *c, *d], right);
        }
        for (out, sums) in out.iter_mut().zip(&sums) {
            *out = std::array::from_fn(|lane| out[lane] + sums[lane]);
        }
    }
}

/// The product of the transpose of `left`, of whose columns `count` matter, with `panel`: at least so many rows.
#[inline(always)]
pub(super) fn transposed_product(left: &[Lanes], count: usize, panel: &[Lanes]) -> [Lanes; WIDE] {
    let mut out = [[0.0; WIDE]; WIDE];
    let (tiles, _) = out.as_chunks_mut::<TALL>();
    for (tile, out) in tiles.iter_mut().enumerate().take(count.div_ceil(TALL)) {
        let mut sums = [[0.0; WIDE]; TALL];
        for (left, right) in left.iter().zip(panel) {
            add_outer(&mut sums, left.as_chunks().0[tile], right);
        }
        *out = sums;
    }
    out
}
