//! Adam: dense with decoupled weight decay, and lazily on the rows of the embedding table that a step touched.

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use rayon::prelude::*;

use crate::ops::{Bags, add_scaled, wide, with_all_values, with_values};
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

    #[inline(always)]
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

/// The embedding table in training. It never enters the graph: sums of its rows do, and a step gives each row what the
/// gradients of its sums say.
pub(crate) struct SparseTable {
    width: usize,
    values: Vec<f32>,
    moments: Moments,
    /// For each row, whether a step has ever read it.
    touched: Vec<bool>,
    /// What this step reads.
    uses: Vec<(Var, Bags)>,
}

/// Rows of the table that are one task of an update.
const BLOCK_ROWS: usize = 1_024;

/// Where a sum names a row of a block.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    sum: usize,
    bag: usize,
    weight: f32,
}

/// Some rows of the table, and what is known of them.
struct Block<'a> {
    values: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

wide! {
    /// Moves the rows of `block` that `places` name, each once, by what the gradients of the sums say.
    fn move_rows(block: Block<'_>, places: &[Place], grads: &[&[f32]], width: usize, update: Update) {
        // For each row, where its gradient begins; there is none before a place names it.
        let mut starts = vec![usize::MAX; block.values.len() / width];
        let (mut rows, mut of_rows) = (Vec::new(), Vec::new());
        for Place { row, sum, bag, weight } in places {
            if starts[*row] == usize::MAX {
                starts[*row] = of_rows.len();
                of_rows.resize(of_rows.len() + width, 0.0);
                rows.push(*row);
            }
            let grad = &grads[*sum][bag * width..][..width];
            add_scaled(&mut of_rows[starts[*row]..][..width], *weight, grad);
        }
        for (row, grad) in rows.into_iter().zip(of_rows.chunks_exact(width)) {
            let range = row * width..(row + 1) * width;
            let (values, first) = (&mut block.values[range.clone()], &mut block.first[range.clone()]);
            update.apply(values, first, &mut block.second[range], grad);
        }
    }
}

impl SparseTable {
    /// A table of rows of `width` values.
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        let rows = values.len() / width;
        let moments = Moments::new(values.len());
        Self { width, moments, values, touched: vec![false; rows], uses: Vec::new() }
    }

    /// Begins a step: nothing is read yet.
    pub(crate) fn begin(&mut self) {
        self.uses.clear();
    }

    /// The sums of the rows that `bags` name, [bags, width], on `device`, as a variable of this step.
    pub(crate) fn sum(&mut self, bags: Bags, device: &Device) -> Result<Tensor> {
        let sums = bags.sums(&self.values, self.width);
        let variable = Var::from_vec(sums, (bags.len(), self.width), device)?;
        bags.parts().0.iter().for_each(|row| self.touched[*row as usize] = true);
        let tensor = variable.as_tensor().clone();
        self.uses.push((variable, bags));
        Ok(tensor)
    }

    /// The variables of this step, in the order of their sums.
    #[cfg(test)]
    pub(crate) fn variables(&self) -> impl Iterator<Item = &Var> {
        self.uses.iter().map(|(variable, _)| variable)
    }

    /// Moves the rows of this step's sums, where these took part in the loss. `step` counts from 1.
    pub(crate) fn push(&mut self, grads: &GradStore, step: usize, rate: f32) -> Result<()> {
        let update = Update::new(step, rate, 0.0);
        let width = self.width;
        let uses = std::mem::take(&mut self.uses);
        let (grads, uses): (Vec<&Tensor>, Vec<&Bags>) =
            uses.iter().filter_map(|(variable, bags)| Some((grads.get(variable)?, bags))).unzip();
        let mut blocks = vec![Vec::new(); self.values.len().div_ceil(BLOCK_ROWS * width)];
        for (sum, bags) in uses.into_iter().enumerate() {
            for (bag, row, weight) in bags.entries() {
                blocks[row / BLOCK_ROWS].push(Place { row: row % BLOCK_ROWS, sum, bag, weight });
            }
        }
        let Moments { first, second } = &mut self.moments;
        with_all_values(&grads, |grads| {
            self.values
                .par_chunks_mut(BLOCK_ROWS * width)
                .zip(first.par_chunks_mut(BLOCK_ROWS * width).zip(second.par_chunks_mut(BLOCK_ROWS * width)))
                .zip(&blocks)
                .filter(|(_, places)| !places.is_empty())
                .for_each(|((values, (first, second)), places)| {
                    move_rows(Block { values, first, second }, places, grads, width, update);
                });
            Ok(())
        })
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
        for (row, _) in self.touched.iter().enumerate().filter(|(_, touched)| !**touched) {
            values[row * self.width..][..self.width].fill(0.0);
        }
    }

    /// The moments of the values.
    pub(crate) fn moments(&self) -> &Moments {
        &self.moments
    }

    /// For each row, 1 where a step has read it, else 0.
    pub(crate) fn touched(&self) -> Vec<f32> {
        self.touched.iter().map(|touched| if *touched { 1.0 } else { 0.0 }).collect()
    }

    /// Takes the rows of `trained`, a table of the same shape that was trained before; rows of zeros never were, and stay as
    /// they are here.
    pub(crate) fn start_from(&mut self, trained: &[f32]) {
        let rows = self.values.chunks_exact_mut(self.width).zip(trained.chunks_exact(self.width));
        for ((own, trained), touched) in rows.zip(&mut self.touched) {
            if trained.iter().any(|value| *value != 0.0) {
                own.copy_from_slice(trained);
                *touched = true;
            }
        }
    }

    /// Becomes what these say, each as long as what it replaces.
    pub(crate) fn restore(&mut self, values: Vec<f32>, moments: Moments, touched: &[f32]) {
        self.touched = touched.iter().map(|touched| *touched != 0.0).collect();
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

    /// More rows than a block has; some are in both sums, some in one, some in one that has no part in the loss.
    #[test]
    fn a_row_of_several_sums_moves_once_by_all_that_their_gradients_say() {
        let rows = 2 * BLOCK_ROWS as u32 + 5;
        let values: Vec<f32> = (0..2 * rows).map(|value| value as f32).collect();
        let (second, last) = (BLOCK_ROWS as u32 + 4, rows - 1);
        let mut table = SparseTable::new(values.clone(), 2);
        // What a step before has read is forgotten.
        table.sum(bags(&[11]), &Device::Cpu).unwrap();
        table.begin();
        let left = table.sum(bags(&[last, 3, 3, second]), &Device::Cpu).unwrap();
        assert_eq!(left.to_vec2::<f32>().unwrap()[1], [6.0, 7.0]);
        let mut both = Bags::default();
        [(7, 2.0), (3, -1.0)].into_iter().for_each(|(row, weight)| both.push(row, weight));
        both.close();
        both.close();
        both.push(last, 1.0);
        both.close();
        let right = table.sum(both, &Device::Cpu).unwrap();
        assert_eq!(
            right.to_vec2::<f32>().unwrap(),
            [[22.0, 23.0], [0.0, 0.0], [2.0 * last as f32, 2.0 * last as f32 + 1.0]]
        );
        table.sum(bags(&[9]), &Device::Cpu).unwrap();
        let loss = (left.sum_all().unwrap() + (right * 0.5).unwrap().sum_all().unwrap()).unwrap();
        table.push(&loss.backward().unwrap(), 1, 0.1).unwrap();

        let moved: Vec<usize> = (0..rows as usize).filter(|row| table.values()[2 * row] != values[2 * row]).collect();
        assert_eq!(moved, [3, 7, second as usize, last as usize]);
        // A tenth of the gradients: 1 + 1 - 0.5, 2 x 0.5, 1, and 1 + 0.5.
        let first: Vec<f32> = moved.iter().map(|row| table.moments().first[2 * row]).collect();
        assert!(
            first.iter().zip([0.15, 0.1, 0.1, 0.15]).all(|(found, expected)| (found - expected).abs() < 1e-6),
            "{first:?}"
        );
        let touched: Vec<usize> = (0..rows as usize).filter(|row| table.touched()[*row] == 1.0).collect();
        assert_eq!(touched, [3, 7, 9, 11, second as usize, last as usize]);
    }
}
