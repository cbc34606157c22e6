//! Weighted sums of table rows: how every embedding enters the model.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{add_scaled, for_row_chunks, slice, with_values};

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

    /// The rows, to be renumbered.
    pub(crate) fn rows_mut(&mut self) -> &mut [u32] {
        &mut self.rows
    }

    /// The rows and weights of all bags, one after the other, and where each bag ends.
    pub(crate) fn parts(&self) -> (&[u32], &[f32], &[usize]) {
        (&self.rows, &self.weights, &self.ends)
    }

    /// Every entry: its bag, row and weight.
    pub(super) fn entries(&self) -> Vec<(u32, u32, f32)> {
        (0..self.len()).flat_map(|bag| self.bag(bag).map(move |(row, weight)| (bag as u32, row, weight))).collect()
    }

    fn bag(&self, bag: usize) -> impl Iterator<Item = (u32, f32)> {
        let start = if bag == 0 { 0 } else { self.ends[bag - 1] };
        let range = start..self.ends[bag];
        self.rows[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }
}

/// Sums the rows of `table` [rows, width] that each bag names: [bags, width].
pub(crate) fn bag(table: &Tensor, bags: &Arc<Bags>) -> Result<Tensor> {
    let (height, width) = table.dims2()?;
    if let Some(row) = bags.rows.iter().find(|row| **row as usize >= height) {
        bail!("row {row} of a table of {height} rows");
    }
    table.contiguous()?.apply_op1(SumBags { bags: bags.clone(), width })
}

struct SumBags {
    bags: Arc<Bags>,
    width: usize,
}

impl CustomOp1 for SumBags {
    fn name(&self) -> &'static str {
        "sum-bags"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (table, width) = (slice(table, layout)?, self.width);
        let mut out = vec![0.0; self.bags.len() * width];
        for_row_chunks(&mut out, width, |first, rows| {
            for (bag, out) in rows.chunks_exact_mut(width).enumerate() {
                for (row, weight) in self.bags.bag(first + bag) {
                    add_scaled(out, weight, &table[row as usize * width..][..width]);
                }
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((self.bags.len(), width))))
    }

    fn bwd(&self, table: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = self.width;
        let values = with_values(grad, |grad| {
            let mut out = vec![0.0; table.elem_count()];
            for (bag, grad) in grad.chunks_exact(width).enumerate() {
                for (row, weight) in self.bags.bag(bag) {
                    add_scaled(&mut out[row as usize * width..][..width], weight, grad);
                }
            }
            Ok(out)
        })?;
        Tensor::from_vec(values, table.shape(), table.device()).map(Some)
    }
}
