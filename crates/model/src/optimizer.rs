//! Adam: dense with decoupled weight decay, and lazily on the rows of the embedding table that a step touched.

use candle_core::{Device, Result, Tensor, Var};
use rayon::prelude::*;

use crate::ops::{Bags, with_values};
use crate::parameters::Parameter;

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// Running means of gradients and of their squares.
pub(crate) struct Moments {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
}

impl Moments {
    fn new(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count] }
    }
}

/// What one step does to every value.
#[derive(Clone, Copy)]
struct Update {
    rate: f32,
    decay: f32,
    first_scale: f32,
    second_scale: f32,
}

impl Update {
    fn new(step: usize, rate: f32, decay: f32) -> Self {
        let steps = i32::try_from(step).unwrap_or(i32::MAX);
        Self {
            rate,
            decay: 1.0 - rate * decay,
            first_scale: 1.0 / (1.0 - BETA_1.powi(steps)),
            second_scale: 1.0 / (1.0 - BETA_2.powi(steps)),
        }
    }

    fn apply(self, values: &mut [f32], first: &mut [f32], second: &mut [f32], grad: &[f32]) {
        for (((value, first), second), grad) in values.iter_mut().zip(first).zip(second).zip(grad) {
            *first = BETA_1 * *first + (1.0 - BETA_1) * grad;
            *second = BETA_2 * *second + (1.0 - BETA_2) * grad * grad;
            let step = *first * self.first_scale / ((*second * self.second_scale).sqrt() + EPSILON);
            *value = *value * self.decay - self.rate * step;
        }
    }
}

/// AdamW over the dense tensors.
pub(crate) struct DenseAdam {
    moments: Vec<Moments>,
    decay: f32,
}

impl DenseAdam {
    /// For `parameters`, always given in this order.
    pub(crate) fn new(parameters: &[Parameter], decay: f32) -> Self {
        Self { moments: parameters.iter().map(|parameter| Moments::new(parameter.values.len())).collect(), decay }
    }

    /// The moments of each parameter, in their order.
    pub(crate) fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// To be set to those of a checkpoint, without a change of lengths.
    pub(crate) fn moments_mut(&mut self) -> &mut [Moments] {
        &mut self.moments
    }

    /// One step; `grads[i]` is the gradient of `parameters[i]`, where it took part. `step` counts from 1.
    pub(crate) fn step(
        &mut self,
        parameters: &mut [Parameter],
        grads: &[Option<&Tensor>],
        step: usize,
        rate: f32,
    ) -> Result<()> {
        for ((parameter, moments), grad) in parameters.iter_mut().zip(&mut self.moments).zip(grads) {
            let Some(grad) = grad else { continue };
            let update = Update::new(step, rate, if parameter.decays() { self.decay } else { 0.0 });
            with_values(grad, |grad| {
                update.apply(&mut parameter.values, &mut moments.first, &mut moments.second, grad);
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The embedding table in training. It never enters the graph: a step pulls the rows it needs as leaves.
pub(crate) struct SparseTable {
    width: usize,
    values: Vec<f32>,
    moments: Moments,
    slots: Slots,
    // The rows of each leaf of this step.
    leaves: Vec<Vec<u32>>,
}

/// Rows of the table that are one task of an update.
const BLOCK_ROWS: usize = 4_096;

/// Where rows stand in a list in the making, each once.
struct Slots {
    // Of the list in `listed_at`; 0 where the row was in none.
    slots: Vec<u32>,
    listed_at: Vec<u64>,
    lists: u64,
}

impl Slots {
    fn new(rows: usize) -> Self {
        Self { slots: vec![0; rows], listed_at: vec![0; rows], lists: 0 }
    }

    /// Begins a new list.
    fn begin(&mut self) {
        self.lists += 1;
    }

    /// Where `row` stands in `list`, which it is added to if it is new.
    fn place(&mut self, row: u32, list: &mut Vec<u32>) -> u32 {
        let at = row as usize;
        if self.listed_at[at] != self.lists {
            self.listed_at[at] = self.lists;
            self.slots[at] = list.len() as u32;
            list.push(row);
        }
        self.slots[at]
    }
}

impl SparseTable {
    /// A table of rows of `width` values.
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        let rows = values.len() / width;
        Self { width, moments: Moments::new(values.len()), values, slots: Slots::new(rows), leaves: Vec::new() }
    }

    /// Begins a step: no leaf is pulled yet.
    pub(crate) fn begin(&mut self) {
        self.leaves.clear();
    }

    /// Copies the rows that `bags` name into a leaf of this step, on `device`, and renumbers the bags to it.
    ///
    /// Bags of few rows do well to have a leaf of their own: every use of a leaf makes a gradient of its size.
    pub(crate) fn pull(&mut self, bags: &mut [&mut Bags], device: &Device) -> Result<Var> {
        self.slots.begin();
        let mut rows = Vec::new();
        for row in bags.iter_mut().flat_map(|bags| bags.rows_mut()) {
            *row = self.slots.place(*row, &mut rows);
        }
        let mut leaf = Vec::with_capacity(rows.len() * self.width);
        for row in &rows {
            leaf.extend_from_slice(&self.values[*row as usize * self.width..][..self.width]);
        }
        let leaf = Var::from_vec(leaf, (rows.len(), self.width), device)?;
        self.leaves.push(rows);
        Ok(leaf)
    }

    /// Moves the rows of this step's leaves by `grads`, those of the leaves in the order of their pulls, where they took
    /// part. `step` counts from 1.
    pub(crate) fn push(&mut self, grads: &[Option<&Tensor>], step: usize, rate: f32) -> Result<()> {
        let update = Update::new(step, rate, 0.0);
        let width = self.width;
        let (rows, sums) = self.sum(grads)?;
        // Which of the rows lie in each block of the table.
        let mut blocks = vec![Vec::new(); self.values.len().div_ceil(BLOCK_ROWS * width)];
        rows.iter().enumerate().for_each(|(number, row)| blocks[*row as usize / BLOCK_ROWS].push((number, *row)));
        let Moments { first, second } = &mut self.moments;
        self.values
            .par_chunks_mut(BLOCK_ROWS * width)
            .zip(first.par_chunks_mut(BLOCK_ROWS * width).zip(second.par_chunks_mut(BLOCK_ROWS * width)))
            .zip(&blocks)
            .for_each(|((values, (first, second)), block)| {
                for (number, row) in block {
                    let start = *row as usize % BLOCK_ROWS * width;
                    let range = start..start + width;
                    let grad = &sums[number * width..][..width];
                    update.apply(&mut values[range.clone()], &mut first[range.clone()], &mut second[range], grad);
                }
            });
        Ok(())
    }

    /// Every row of the leaves that have a gradient, once, and the sum of its gradients.
    fn sum(&mut self, grads: &[Option<&Tensor>]) -> Result<(Vec<u32>, Vec<f32>)> {
        let width = self.width;
        let (mut rows, mut sums) = (Vec::new(), Vec::new());
        self.slots.begin();
        for (leaf, grad) in self.leaves.iter().zip(grads) {
            let Some(grad) = grad else { continue };
            with_values(grad, |grad| {
                for (row, grad) in leaf.iter().zip(grad.chunks_exact(width)) {
                    let slot = self.slots.place(*row, &mut rows) as usize;
                    if slot * width == sums.len() {
                        sums.extend_from_slice(grad);
                    } else {
                        sums[slot * width..][..width].iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
                    }
                }
                Ok(())
            })?;
        }
        Ok((rows, sums))
    }

    /// The values as they are, row by row.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, with those of rows that no step ever pulled set to zero: what was never trained must not speak.
    pub(crate) fn trained(&self) -> Vec<f32> {
        let mut values = self.values.clone();
        self.forget_untouched(&mut values);
        values
    }

    /// The same, of a table that is not trained any further.
    pub(crate) fn finish(mut self) -> Vec<f32> {
        let mut values = std::mem::take(&mut self.values);
        self.forget_untouched(&mut values);
        values
    }

    fn forget_untouched(&self, values: &mut [f32]) {
        for (row, _) in self.slots.listed_at.iter().enumerate().filter(|(_, at)| **at == 0) {
            values[row * self.width..][..self.width].fill(0.0);
        }
    }

    /// The moments of the values.
    pub(crate) fn moments(&self) -> &Moments {
        &self.moments
    }

    /// For each row, 1 where a step has pulled it, else 0.
    pub(crate) fn touched(&self) -> Vec<f32> {
        self.slots.listed_at.iter().map(|at| if *at == 0 { 0.0 } else { 1.0 }).collect()
    }

    /// Becomes what these say, each as long as what it replaces.
    pub(crate) fn restore(&mut self, values: Vec<f32>, moments: Moments, touched: &[f32]) {
        self.slots.lists = 1;
        self.slots.listed_at = touched.iter().map(|touched| u64::from(*touched != 0.0)).collect();
        (self.values, self.moments) = (values, moments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bags(rows: &[u32]) -> Bags {
        let mut bags = Bags::default();
        for row in rows {
            bags.push(*row, 1.0);
            bags.close();
        }
        bags
    }

    fn ones(rows: usize, each: f32) -> Tensor {
        Tensor::full(each, (rows, 2), &Device::Cpu).unwrap()
    }

    /// More rows than a block has; some are in both leaves, some in one, some in none.
    #[test]
    fn a_row_of_several_leaves_moves_once_by_the_sum_of_its_gradients() {
        let rows = 2 * BLOCK_ROWS as u32 + 5;
        let values: Vec<f32> = (0..2 * rows).map(|value| value as f32).collect();
        let last = rows - 1;
        let pulled = |together: bool| {
            let mut table = SparseTable::new(values.clone(), 2);
            table.begin();
            let (mut left, mut right) = (bags(&[last, 3, 3, 4_100]), bags(&[7, 3, last]));
            if together {
                let leaf = table.pull(&mut [&mut left, &mut right], &Device::Cpu).unwrap();
                assert_eq!(leaf.dims(), [4, 2]);
                // In the order in which they were named first: last, 3, 4100, 7.
                let grad = Tensor::new(&[[1.5f32; 2], [1.5; 2], [1.0; 2], [0.5; 2]], &Device::Cpu).unwrap();
                table.push(&[Some(&grad)], 1, 0.1).unwrap();
            } else {
                let leaf = table.pull(&mut [&mut left], &Device::Cpu).unwrap();
                assert_eq!(leaf.to_vec2::<f32>().unwrap()[1], [6.0, 7.0]);
                assert_eq!(left.parts().0, [0, 1, 1, 2]);
                table.pull(&mut [&mut right], &Device::Cpu).unwrap();
                assert_eq!(right.parts().0, [0, 1, 2]);
                // A leaf that took no part is pulled, and moves nothing.
                table.pull(&mut [&mut bags(&[9])], &Device::Cpu).unwrap();
                table.push(&[Some(&ones(3, 1.0)), Some(&ones(3, 0.5)), None], 1, 0.1).unwrap();
            }
            table
        };
        let (one, three) = (pulled(true), pulled(false));
        assert_eq!(one.values(), three.values());
        assert_eq!(one.moments().second, three.moments().second);
        let moved: Vec<usize> = (0..rows as usize).filter(|row| three.values()[2 * row] != values[2 * row]).collect();
        assert_eq!(moved, [3, 7, 4_100, last as usize]);
        assert!((three.moments().first[6] - 0.15).abs() < 1e-6, "{}", three.moments().first[6]);
        let touched: Vec<usize> = (0..rows as usize).filter(|row| three.touched()[*row] == 1.0).collect();
        assert_eq!(touched, [3, 7, 9, 4_100, last as usize]);
    }
}
