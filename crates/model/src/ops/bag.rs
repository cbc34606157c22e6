//! Weighted sums of table rows: how every embedding enters the model.

use candle_core::{Result, Tensor, bail};

use super::{add_scaled, for_row_chunks, with_values};

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
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, u32, f32)> {
        (0..self.len()).flat_map(|bag| self.bag(bag).map(move |(row, weight)| (bag as u32, row, weight)))
    }

    /// The sums of the rows of `table` that each bag names, [bags, width].
    ///
    /// # Panics
    /// When a bag names a row that the table does not have.
    pub(crate) fn sums(&self, table: &[f32], width: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.len() * width];
        for_row_chunks(&mut out, width, |first, rows| {
            for (bag, out) in rows.chunks_exact_mut(width).enumerate() {
                for (row, weight) in self.bag(first + bag) {
                    add_scaled(out, weight, &table[row as usize * width..][..width]);
                }
            }
        });
        out
    }

    fn bag(&self, bag: usize) -> impl Iterator<Item = (u32, f32)> {
        let start = if bag == 0 { 0 } else { self.ends[bag - 1] };
        let range = start..self.ends[bag];
        self.rows[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }
}

/// Sums the rows of `table` [rows, width] that each bag names: [bags, width]. It has no backward pass: no table is a
/// variable.
pub(crate) fn bag(table: &Tensor, bags: &Bags) -> Result<Tensor> {
    let (height, width) = table.dims2()?;
    if let Some(row) = bags.rows.iter().find(|row| **row as usize >= height) {
        bail!("row {row} of a table of {height} rows");
    }
    let sums = with_values(table, |table| Ok(bags.sums(table, width)))?;
    Tensor::from_vec(sums, (bags.len(), width), table.device())
}
