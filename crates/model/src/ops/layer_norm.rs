//! Layer normalisation. candle-nn's fused one has no backward pass.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::lanes::{LANES, dot, fold, sum, wide};
use super::{CHUNK_ROWS, add_scaled, for_row_chunks, slice, with_values};

const EPSILON: f32 = 1e-5;

/// Each row of `x`, shifted to mean 0, scaled to variance 1, times `gain` plus `bias`.
pub(crate) fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op3(gain, bias, LayerNorm)
}

struct LayerNorm;

/// The mean, and one over the standard deviation.
#[inline(always)]
fn moments(row: &[f32]) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum(row) / n;
    let variance = fold(row, (0.0, mean), |sum, x| (x - mean).mul_add(x - mean, sum), |a, b| a + b) / n;
    (mean, 1.0 / (variance + EPSILON).sqrt())
}

wide! {
    /// Normalises the rows of `x` into `out`.
    pub(super) fn forward(x: &[f32], gain: &[f32], bias: &[f32], out: &mut [f32]) {
        let width = gain.len();
        let ((gains, gain_rest), (biases, bias_rest)) = (gain.as_chunks::<LANES>(), bias.as_chunks::<LANES>());
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let (mean, scale) = moments(x);
            let ((x, x_rest), (out, out_rest)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
            // Whole blocks: rows are short, and finding out where a loop ends takes as long as the loop.
            for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gains).zip(biases) {
                *out = std::array::from_fn(|lane| ((x[lane] - mean) * scale).mul_add(gain[lane], bias[lane]));
            }
            for (((out, x), gain), bias) in out_rest.iter_mut().zip(x_rest).zip(gain_rest).zip(bias_rest) {
                *out = ((x - mean) * scale).mul_add(*gain, *bias);
            }
        }
    }
}

wide! {
    /// Turns the gradient of the result into that of `x`, and adds to those of gain and bias.
    pub(super) fn backward(
        x: &[f32],
        gain: &[f32],
        grad: &mut [f32],
        grad_gain: &mut [f32],
        grad_bias: &mut [f32],
    ) {
        let width = gain.len();
        let mut normal = vec![0.0; width];
        let mut weighted = vec![0.0; width];
        for (x, grad) in x.chunks_exact(width).zip(grad.chunks_exact_mut(width)) {
            let (mean, scale) = moments(x);
            for column in 0..width {
                normal[column] = (x[column] - mean) * scale;
                weighted[column] = grad[column] * gain[column];
                grad_gain[column] += grad[column] * normal[column];
                grad_bias[column] += grad[column];
            }
            let (mean_grad, mean_normal) = (sum(&weighted) / width as f32, dot(&weighted, &normal) / width as f32);
            for column in 0..width {
                grad[column] = scale * (weighted[column] - mean_grad - normal[column] * mean_normal);
            }
        }
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, gain, bias) = (slice(x, x_layout)?, slice(gain, gain_layout)?, slice(bias, bias_layout)?);
        let width = gain.len();
        let mut out = vec![0.0; x.len()];
        for_row_chunks(&mut out, width, |first, rows| {
            forward(&x[first * width..][..rows.len()], gain, bias, rows);
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        _bias: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad_x, grad_gain, grad_bias) =
            with_values(x, |x| with_values(gain, |gain| with_values(grad, |grad| Ok(backward_chunks(x, gain, grad)))))?;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(grad_x, x.shape(), device)?),
            Some(Tensor::from_vec(grad_gain, gain.shape(), device)?),
            Some(Tensor::from_vec(grad_bias, gain.shape(), device)?),
        ))
    }
}

fn backward_chunks(x: &[f32], gain: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let width = gain.len();
    let mut grad_x = grad.to_vec();
    let parts: Vec<(Vec<f32>, Vec<f32>)> = grad_x
        .par_chunks_mut(CHUNK_ROWS * width)
        .zip(x.par_chunks(CHUNK_ROWS * width))
        .map(|(grad, x)| {
            let (mut grad_gain, mut grad_bias) = (vec![0.0; width], vec![0.0; width]);
            backward(x, gain, grad, &mut grad_gain, &mut grad_bias);
            (grad_gain, grad_bias)
        })
        .collect();
    let (mut grad_gain, mut grad_bias) = (vec![0.0; width], vec![0.0; width]);
    for (gain, bias) in parts {
        add_scaled(&mut grad_gain, 1.0, &gain);
        add_scaled(&mut grad_bias, 1.0, &bias);
    }
    (grad_x, grad_gain, grad_bias)
}
