//! Weighted sums of table rows: how every embedding enters the model.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};

use super::lanes::wide;
use super::{add_scaled, for_row_chunks, with_values};

/// Columns that are summed at once, in registers.
const BLOCK: usize = 64;

/// So many entries before it is needed, a row is asked for.
const AHEAD: usize = 24;

/// Lists of table rows with weights, one list after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bags {
    rows: Vec<u32>,
    weights: Vec<f32>,
    // Bag b is rows[ends[b - 1]..ends[b]].
    ends: Vec<usize>,
}

impl Bags {
    /// Adds one row to the bag in the making.
    pub(crate) fn push(&mut self, row: u32, weight: f32) {
        self.rows.push(row);
        self.weights.push(weight);
    }

    /// Closes the bag in the making; it may be empty, which sums to zero.
    pub(crate) fn close(&mut self) {
        self.ends.push(self.rows.len());
    }

    /// How many bags are closed.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The rows and weights of all bags, one after the other, and where each bag ends.
    pub(crate) fn parts(&self) -> (&[u32], &[f32], &[usize]) {
        (&self.rows, &self.weights, &self.ends)
    }

    /// Every entry: its bag, row and weight.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, usize, f32)> {
        (0..self.len())
            .flat_map(|bag| self.entries_of(self.range(bag)).map(move |(row, weight)| (bag, row as usize, weight)))
    }

    /// The sums of the rows of `table` that each bag names, [bags, width].
    ///
    /// # Panics
    /// When a bag names a row that the table does not have.
    pub(crate) fn sums(&self, table: &[f32], width: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.len() * width];
        for_row_chunks(&mut out, width, |first, rows| {
            sum_rows(self, first, table, width, rows);
        });
        out
    }

    /// Its entries among those of all bags.
    #[inline(always)]
    fn range(&self, bag: usize) -> Range<usize> {
        let start = if bag == 0 { 0 } else { self.ends[bag - 1] };
        start..self.ends[bag]
    }

    #[inline(always)]
    fn entries_of(&self, range: Range<usize>) -> impl Iterator<Item = (u32, f32)> {
        self.rows[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }
}

wide! {
    /// Fills `out` with the sums of the bags from `first` on.
    fn sum_rows(bags: &Bags, first: usize, table: &[f32], width: usize, out: &mut [f32]) {
        for (bag, out) in out.chunks_exact_mut(width).enumerate() {
            let entries = bags.range(first + bag);
            for row in bags.rows.iter().skip(entries.start + AHEAD).take(entries.len()) {
                prefetch(table, *row as usize * width, width);
            }
            let rows = || bags.entries_of(entries.clone()).map(|(row, weight)| (&table[row as usize * width..][..width], weight));
            let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
            for (number, block) in blocks.iter_mut().enumerate() {
                let mut sums = [0.0; BLOCK];
                for (row, weight) in rows() {
                    add_scaled(&mut sums, weight, &row[number * BLOCK..][..BLOCK]);
                }
                *block = sums;
            }
            let summed = width - rest.len();
            rows().for_each(|(row, weight)| add_scaled(rest, weight, &row[summed..]));
        }
    }
}

/// Has `count` values from `start` on brought into cache; a table is larger than that, and waiting for its rows would take
/// longer than summing them.
#[inline(always)]
fn prefetch(table: &[f32], start: usize, count: usize) {
    const LINE: usize = 16;
    #[cfg(target_arch = "x86_64")]
    for at in (start..start + count).step_by(LINE) {
        // SAFETY: it reads nothing; an address that is none has no effect.
        #[expect(unsafe_code, reason = "a hint, which takes an address")]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(table.as_ptr().wrapping_add(at).cast());
        }
    }
}

/// Sums the rows of `table` [rows, width], which is on the CPU, that each bag names: [bags, width], on `device`. It has no
/// backward pass: no table is a variable.
pub(crate) fn bag(table: &Tensor, bags: &Bags, device: &Device) -> Result<Tensor> {
    let (height, width) = table.dims2()?;
    if let Some(row) = bags.rows.iter().find(|row| **row as usize >= height) {
        bail!("row {row} of a table of {height} rows");
    }
    let sums = with_values(table, |table| Ok(bags.sums(table, width)))?;
    Tensor::from_vec(sums, (bags.len(), width), device)
}
