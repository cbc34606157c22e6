//! `x W + b`, and an activation.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::lanes::wide;
use super::matrix::{Matrix, View};
use super::{CHUNK_ROWS, add_scaled, exp, slice, strand_length, with_all_values};

/// Rows that one task works on: of a batch that is one chunk, a half.
fn task_rows(rows: usize) -> usize {
    if (CHUNK_ROWS / 2..2 * CHUNK_ROWS).contains(&rows) { rows.div_ceil(2) } else { CHUNK_ROWS }
}

/// What follows an affine map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Nothing.
    Identity,
    /// The Gaussian error linear unit, in its tanh form.
    Gelu,
}

/// `activation(x W + b)`, with x of shape `[rows, in]`, W `[in, out]` and b `[out]`.
pub(crate) fn affine(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let (inner, outer) = weight.dims2()?;
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Affine { activation, inner, outer })
}

/// gelu(x) = x (1 + tanh(z)) / 2, which is x / (1 + e^-2z), and its slope.
#[inline(always)]
fn gelu_and_slope(x: f32) -> (f32, f32) {
    const SCALE: f32 = 0.797_884_6;
    const CUBE: f32 = 0.044_715;
    let square = x * x;
    let z = SCALE * x * CUBE.mul_add(square, 1.0);
    let share = 1.0 / (1.0 + exp(-2.0 * z));
    let value = x * share;
    let z_slope = SCALE * (3.0 * CUBE).mul_add(square, 1.0);
    (value, (2.0 * value * (1.0 - share)).mul_add(z_slope, share))
}

wide! {
    /// The Gaussian error linear unit of each row of `x` plus `bias`, in one pass over memory.
    pub(crate) fn gelu_of_sums(x: &mut [f32], bias: &[f32]) {
        for x in x.chunks_exact_mut(bias.len()) {
            x.iter_mut().zip(bias).for_each(|(x, bias)| *x = gelu_and_slope(*x + bias).0);
        }
    }
}

wide! {
    /// The same, leaving its slope at each value in `slope`.
    pub(super) fn gelu_and_slope_of_sums(x: &mut [f32], bias: &[f32], slope: &mut [f32]) {
        for (x, slope) in x.chunks_exact_mut(bias.len()).zip(slope.chunks_exact_mut(bias.len())) {
            for ((x, slope), bias) in x.iter_mut().zip(slope).zip(bias) {
                (*x, *slope) = gelu_and_slope(*x + bias);
            }
        }
    }
}

wide! {
    /// Multiplies each gradient by the slope at the value.
    fn through_gelu(grad: &mut [f32], x: &[f32]) {
        grad.iter_mut().zip(x).for_each(|(grad, x)| *grad *= gelu_and_slope(*x).1);
    }
}

wide! {
    /// Adds `row` to every row of `x`.
    pub(crate) fn add_rows(x: &mut [f32], row: &[f32]) {
        x.chunks_exact_mut(row.len()).for_each(|x| add_scaled(x, 1.0, row));
    }
}

wide! {
    /// Adds the sum of the rows of `x` to `sums`.
    pub(super) fn column_sums(x: &[f32], sums: &mut [f32]) {
        let mut part = vec![0.0; sums.len()];
        x.chunks_exact(sums.len()).for_each(|row| add_scaled(&mut part, 1.0, row));
        add_scaled(sums, 1.0, &part);
    }
}

struct Affine {
    activation: Activation,
    inner: usize,
    outer: usize,
}

/// A weight and a bias.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    weight: View<'a>,
    bias: &'a [f32],
}

/// The gradients of x, weight and bias.
struct Grads {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Affine {
    fn forward(&self, x: &[f32], numbers: Numbers<'_>) -> Vec<f32> {
        let x = View::new(x, self.inner);
        match self.activation {
            Activation::Identity => x.times_plus(numbers.weight, numbers.bias).into_values(),
            Activation::Gelu => {
                let mut out = x.times(numbers.weight);
                gelu_of_sums(out.values_mut(), numbers.bias);
                out.into_values()
            }
        }
    }

    /// The gradients from some rows; adds that of x to `out`.
    fn backward_rows(&self, x: &[f32], numbers: Numbers<'_>, grad: &[f32], out: &mut [f32], sums: &mut Grads) {
        let x = View::new(x, self.inner);
        let mut grad = Matrix::new(grad.to_vec(), self.outer);
        match self.activation {
            Activation::Identity => {}
            Activation::Gelu => {
                // Computing it again is cheaper than reading it back from memory.
                let before = x.times_plus(numbers.weight, numbers.bias);
                through_gelu(grad.values_mut(), before.values());
            }
        }
        column_sums(grad.values(), &mut sums.bias);
        x.transposed().add_times(grad.view(), &mut sums.weight, self.outer);
        grad.view().add_times(numbers.weight.transposed(), out, self.inner);
    }

    fn backward(&self, x: &[f32], numbers: Numbers<'_>, grad: &[f32]) -> Grads {
        let (inner, outer) = (self.inner, self.outer);
        let none = |x: usize| Grads { x: vec![0.0; x], weight: vec![0.0; inner * outer], bias: vec![0.0; outer] };
        let mut all = none(x.len());
        let task = task_rows(x.len() / inner);
        let strand = strand_length(x.len() / inner, task);
        let strands: Vec<Grads> = all
            .x
            .par_chunks_mut(strand * inner)
            .zip(x.par_chunks(strand * inner).zip(grad.par_chunks(strand * outer)))
            .map(|(out, (x, grad))| {
                let mut sums = none(0);
                let chunks = x.chunks(task * inner).zip(grad.chunks(task * outer));
                for (out, (x, grad)) in out.chunks_mut(task * inner).zip(chunks) {
                    self.backward_rows(x, numbers, grad, out, &mut sums);
                }
                sums
            })
            .collect();
        for sums in strands {
            add_scaled(&mut all.weight, 1.0, &sums.weight);
            add_scaled(&mut all.bias, 1.0, &sums.bias);
        }
        all
    }
}

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (inner, outer) = (self.inner, self.outer);
        let x = slice(x, x_layout)?;
        let weight = View::new(slice(weight, weight_layout)?, outer);
        let numbers = Numbers { weight, bias: slice(bias, bias_layout)? };
        let rows = x.len() / inner;
        let task = task_rows(rows);
        let out = if rows <= task {
            self.forward(x, numbers)
        } else {
            let mut out = vec![0.0; rows * outer];
            let chunks = out.par_chunks_mut(task * outer).zip(x.par_chunks(task * inner));
            chunks.for_each(|(out, x)| out.copy_from_slice(&self.forward(x, numbers)));
            out
        };
        Ok((CpuStorage::F32(out), Shape::from((rows, outer))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grads = with_all_values(&[x, weight, bias, grad], |values| {
            let numbers = Numbers { weight: View::new(values[1], self.outer), bias: values[2] };
            Ok(self.backward(values[0], numbers, values[3]))
        })?;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(grads.x, x.shape(), device)?),
            Some(Tensor::from_vec(grads.weight, weight.shape(), device)?),
            Some(Tensor::from_vec(grads.bias, bias.shape(), device)?),
        ))
    }
}
