//! Adam: dense with decoupled weight decay, and lazily on the rows of the embedding table that a step touched.

use candle_core::{Device, Result, Tensor, Var};

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

/// The embedding table in training. It never enters the graph: a step pulls the rows it needs as one leaf.
pub(crate) struct SparseTable {
    width: usize,
    values: Vec<f32>,
    moments: Moments,
    // Where each row stands in the leaf of the step in `pulled_at`.
    slots: Vec<u32>,
    pulled_at: Vec<u64>,
    pulls: u64,
    pulled: Vec<u32>,
}

impl SparseTable {
    /// A table of rows of `width` values.
    pub(crate) fn new(values: Vec<f32>, width: usize) -> Self {
        let rows = values.len() / width;
        Self {
            width,
            moments: Moments::new(values.len()),
            values,
            slots: vec![0; rows],
            pulled_at: vec![0; rows],
            pulls: 0,
            pulled: Vec::new(),
        }
    }

    /// Copies the rows that `bags` name into a leaf on `device`, and renumbers the bags to it.
    pub(crate) fn pull(&mut self, bags: &mut [&mut Bags], device: &Device) -> Result<Var> {
        self.pulls += 1;
        self.pulled.clear();
        for row in bags.iter_mut().flat_map(|bags| bags.rows_mut()) {
            let at = *row as usize;
            if self.pulled_at[at] != self.pulls {
                self.pulled_at[at] = self.pulls;
                self.slots[at] = self.pulled.len() as u32;
                self.pulled.push(*row);
            }
            *row = self.slots[at];
        }
        let mut leaf = Vec::with_capacity(self.pulled.len() * self.width);
        for row in &self.pulled {
            leaf.extend_from_slice(&self.values[*row as usize * self.width..][..self.width]);
        }
        Var::from_vec(leaf, (self.pulled.len(), self.width), device)
    }

    /// Moves the rows of the last pull by `grad`, the gradient of its leaf. `step` counts from 1.
    pub(crate) fn push(&mut self, grad: &Tensor, step: usize, rate: f32) -> Result<()> {
        let update = Update::new(step, rate, 0.0);
        let width = self.width;
        with_values(grad, |grad| {
            for (grad, row) in grad.chunks_exact(width).zip(&self.pulled) {
                let range = *row as usize * width..(*row as usize + 1) * width;
                let Moments { first, second } = &mut self.moments;
                update.apply(&mut self.values[range.clone()], &mut first[range.clone()], &mut second[range], grad);
            }
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
        for row in (0..self.pulled_at.len()).filter(|row| self.pulled_at[*row] == 0) {
            values[row * self.width..][..self.width].fill(0.0);
        }
    }

    /// The moments of the values.
    pub(crate) fn moments(&self) -> &Moments {
        &self.moments
    }

    /// For each row, 1 where a step has pulled it, else 0.
    pub(crate) fn touched(&self) -> Vec<f32> {
        self.pulled_at.iter().map(|at| if *at == 0 { 0.0 } else { 1.0 }).collect()
    }

    /// Becomes what these say, each as long as what it replaces.
    pub(crate) fn restore(&mut self, values: Vec<f32>, moments: Moments, touched: &[f32]) {
        self.pulls = 1;
        self.pulled_at = touched.iter().map(|touched| u64::from(*touched != 0.0)).collect();
        (self.values, self.moments) = (values, moments);
    }
}
