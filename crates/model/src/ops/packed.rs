//! Products with a matrix that stays the same: its columns are laid out once, sixty-four beside each other, so that a row or
//! four are multiplied from front to back without going through a general kernel.
//!
//! A value is summed up in the order of the rows of the matrix, however many rows are multiplied at once: a request gets the
//! same bits alone and in a batch.

use super::lanes::{LANES, wide};

/// Lanes of a strip; with four rows, their sums stay in registers.
const PANEL: usize = 4;
/// Rows that are multiplied at once.
const TALL: usize = 4;

type Strip = [[f32; LANES]; PANEL];

/// A matrix, [inner, columns].
pub(crate) struct Packed {
    inner: usize,
    columns: usize,
    // Panel after panel of columns, each row by row; the last one is padded with zeros.
    strips: Vec<Strip>,
}

impl Packed {
    /// Of `values`, row by row.
    pub(crate) fn new(values: &[f32], columns: usize) -> Self {
        let inner = values.len() / columns;
        let mut strips = Vec::with_capacity(inner * columns.div_ceil(PANEL * LANES));
        for first in (0..columns).step_by(PANEL * LANES) {
            let count = (columns - first).min(PANEL * LANES);
            strips.extend(values.chunks_exact(columns).map(|row| {
                let mut strip = Strip::default();
                strip.as_flattened_mut()[..count].copy_from_slice(&row[first..first + count]);
                strip
            }));
        }
        Self { inner, columns, strips }
    }

    /// The product of `x` [rows, inner], row by row, with this: [rows, columns].
    pub(crate) fn product(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.inner * self.columns];
        product(self, x, &mut out);
        out
    }
}

wide! {
    fn product(packed: &Packed, x: &[f32], out: &mut [f32]) {
        let (inner, columns) = (packed.inner, packed.columns);
        for (panel, strips) in packed.strips.chunks_exact(inner).enumerate() {
            let of_panel = panel * PANEL * LANES..columns.min((panel + 1) * PANEL * LANES);
            for (x, out) in x.chunks(TALL * inner).zip(out.chunks_mut(TALL * columns)) {
                if x.len() == TALL * inner {
                    let sums = multiply_four(x, strips);
                    for (out, sums) in out.chunks_exact_mut(columns).zip(&sums) {
                        out[of_panel.clone()].copy_from_slice(&sums.as_flattened()[..of_panel.len()]);
                    }
                } else {
                    for (x, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(columns)) {
                        let sums = multiply_one(x, strips);
                        out[of_panel.clone()].copy_from_slice(&sums.as_flattened()[..of_panel.len()]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn multiply_one(x: &[f32], strips: &[Strip]) -> Strip {
    x.iter().zip(strips).fold(Strip::default(), |sums, (value, strip)| plus(sums, *value, strip))
}

/// The same of four rows; each strip is read once. Four variables: an array of them would end up in memory.
#[inline(always)]
fn multiply_four(x: &[f32], strips: &[Strip]) -> [Strip; TALL] {
    let rows: [&[f32]; TALL] = std::array::from_fn(|row| &x[row * strips.len()..][..strips.len()]);
    let (mut a, mut b, mut c, mut d) = (Strip::default(), Strip::default(), Strip::default(), Strip::default());
    for (at, strip) in strips.iter().enumerate() {
        a = plus(a, rows[0][at], strip);
        b = plus(b, rows[1][at], strip);
        c = plus(c, rows[2][at], strip);
        d = plus(d, rows[3][at], strip);
    }
    [a, b, c, d]
}

#[inline(always)]
fn plus(sums: Strip, value: f32, strip: &Strip) -> Strip {
    // As whole arrays, see tile.rs.
    let lanes = |sums: [f32; LANES], strip: &[f32; LANES]| -> [f32; LANES] {
        std::array::from_fn(|lane| value.mul_add(strip[lane], sums[lane]))
    };
    [lanes(sums[0], &strip[0]), lanes(sums[1], &strip[1]), lanes(sums[2], &strip[2]), lanes(sums[3], &strip[3])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_values_and_of_one_row_as_of_many() {
        let waves = |count: usize, by: f32| (0..count).map(|at| (at as f32 * by).sin()).collect::<Vec<f32>>();
        for (inner, columns) in [(1, 1), (7, 5), (64, 64), (80, 130), (3, 65)] {
            let (weight, x) = (waves(inner * columns, 0.37), waves(11 * inner, 0.11));
            let packed = Packed::new(&weight, columns);
            let all = packed.product(&x);
            for (number, (row, found)) in x.chunks(inner).zip(all.chunks(columns)).enumerate() {
                for (column, found) in found.iter().enumerate() {
                    let exact: f64 =
                        (0..inner).map(|at| f64::from(row[at]) * f64::from(weight[at * columns + column])).sum();
                    assert!((f64::from(*found) - exact).abs() < 1e-5, "{inner} x {columns}: {found} for {exact}");
                }
                assert!(packed.product(row) == found, "{inner} x {columns}: row {number} alone");
                let few = packed.product(&x[number * inner..(number + 3).min(11) * inner]);
                assert!(few[..columns] == *found, "{inner} x {columns}: row {number} among few");
            }
        }
        assert!(Packed::new(&[1.0, 2.0], 2).product(&[]).is_empty());
    }
}
