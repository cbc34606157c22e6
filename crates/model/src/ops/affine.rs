//! `x W + b`, and an activation.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::matrix::{Matrix, View};
use super::{CHUNK_ROWS, add_scaled, exp, slice, strand_length, with_storage, with_values};

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
#[inline]
pub(super) fn gelu_and_slope(x: f32) -> (f32, f32) {
    const SCALE: f32 = 0.797_884_6;
    const CUBE: f32 = 0.044_715;
    let square = x * x;
    let z = SCALE * x * CUBE.mul_add(square, 1.0);
    let share = 1.0 / (1.0 + exp(-2.0 * z));
    let value = x * share;
    let z_slope = SCALE * (3.0 * CUBE).mul_add(square, 1.0);
    (value, (2.0 * value * (1.0 - share)).mul_add(z_slope, share))
}

/// Adds `row` to every row of `x`.
pub(super) fn add_rows(x: &mut [f32], row: &[f32]) {
    x.chunks_exact_mut(row.len()).for_each(|x| add_scaled(x, 1.0, row));
}

/// Adds the sum of the rows of `x` to `sums`.
pub(super) fn column_sums(x: &[f32], sums: &mut [f32]) {
    let mut part = vec![0.0; sums.len()];
    x.chunks_exact(sums.len()).for_each(|row| add_scaled(&mut part, 1.0, row));
    add_scaled(sums, 1.0, &part);
}

struct Affine {
    activation: Activation,
    inner: usize,
    outer: usize,
}

/// A weight in its storage, and a bias.
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
    /// `x W + b` for some rows.
    fn map(x: View<'_>, numbers: Numbers<'_>) -> Result<Matrix> {
        let mut out = x.times(numbers.weight)?;
        add_rows(out.values_mut(), numbers.bias);
        Ok(out)
    }

    fn forward(&self, x: View<'_>, numbers: Numbers<'_>) -> Result<Matrix> {
        let mut out = Self::map(x, numbers)?;
        match self.activation {
            Activation::Identity => {}
            Activation::Gelu => out.values_mut().iter_mut().for_each(|x| *x = gelu_and_slope(*x).0),
        }
        Ok(out)
    }

    /// The gradients from some rows; fills `out` with that of x.
    fn backward_rows(
        &self,
        x: &[f32],
        numbers: Numbers<'_>,
        grad: &[f32],
        out: &mut [f32],
        sums: &mut Grads,
    ) -> Result<()> {
        let x = Matrix::new(x.to_vec(), self.inner);
        let mut grad = Matrix::new(grad.to_vec(), self.outer);
        match self.activation {
            Activation::Identity => {}
            Activation::Gelu => {
                // Computing it again is cheaper than reading it back from memory.
                let before = Self::map(x.view(), numbers)?;
                let values = grad.values_mut().iter_mut().zip(before.values());
                values.for_each(|(grad, x)| *grad *= gelu_and_slope(*x).1);
            }
        }
        column_sums(grad.values(), &mut sums.bias);
        add_scaled(&mut sums.weight, 1.0, x.transposed().times(grad.view())?.values());
        out.copy_from_slice(grad.view().times(numbers.weight.transposed())?.values());
        Ok(())
    }

    fn backward(&self, x: &[f32], numbers: Numbers<'_>, grad: &[f32]) -> Result<Grads> {
        let (inner, outer) = (self.inner, self.outer);
        let none = |x: usize| Grads { x: vec![0.0; x], weight: vec![0.0; inner * outer], bias: vec![0.0; outer] };
        let mut all = none(x.len());
        let strand = strand_length(x.len() / inner, CHUNK_ROWS);
        let strands: Vec<Grads> = all
            .x
            .par_chunks_mut(strand * inner)
            .zip(x.par_chunks(strand * inner).zip(grad.par_chunks(strand * outer)))
            .map(|(out, (x, grad))| {
                let mut sums = none(0);
                let chunks = x.chunks(CHUNK_ROWS * inner).zip(grad.chunks(CHUNK_ROWS * outer));
                for (out, (x, grad)) in out.chunks_mut(CHUNK_ROWS * inner).zip(chunks) {
                    self.backward_rows(x, numbers, grad, out, &mut sums)?;
                }
                Ok(sums)
            })
            .collect::<Result<_>>()?;
        for sums in strands {
            add_scaled(&mut all.weight, 1.0, &sums.weight);
            add_scaled(&mut all.bias, 1.0, &sums.bias);
        }
        Ok(all)
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
        let rows = x_layout.shape().elem_count() / inner;
        let weight = View::new(weight, weight_layout.start_offset(), inner, outer);
        let numbers = Numbers { weight, bias: slice(bias, bias_layout)? };
        let part = |first: usize, rows: usize| View::new(x, x_layout.start_offset() + first * inner, rows, inner);
        let out = if rows <= CHUNK_ROWS {
            self.forward(part(0, rows), numbers)?.into_values()
        } else {
            let mut out = vec![0.0; rows * outer];
            out.par_chunks_mut(CHUNK_ROWS * outer).enumerate().try_for_each(|(chunk, out)| -> Result<()> {
                out.copy_from_slice(self.forward(part(chunk * CHUNK_ROWS, out.len() / outer), numbers)?.values());
                Ok(())
            })?;
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
        let grads = with_storage(weight, |storage, layout| {
            let weight = View::new(storage, layout.start_offset(), self.inner, self.outer);
            let back = |x: &[f32], bias: &[f32], grad: &[f32]| self.backward(x, Numbers { weight, bias }, grad);
            with_values(x, |x| with_values(bias, |bias| with_values(grad, |grad| back(x, bias, grad))))
        })?;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(grads.x, x.shape(), device)?),
            Some(Tensor::from_vec(grads.weight, weight.shape(), device)?),
            Some(Tensor::from_vec(grads.bias, bias.shape(), device)?),
        ))
    }
}
