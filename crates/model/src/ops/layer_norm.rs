//! Layer normalisation. candle-nn's fused one has no backward pass.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{CHUNK_ROWS, for_row_chunks, slice, with_values};

const EPSILON: f32 = 1e-5;

/// Each row of `x`, shifted to mean 0, scaled to variance 1, times `gain` plus `bias`.
pub(crate) fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op3(gain, bias, LayerNorm)
}

struct LayerNorm;

/// The mean, and one over the standard deviation.
#[inline]
fn moments(row: &[f32]) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = row.iter().sum::<f32>() / n;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
    (mean, 1.0 / (variance + EPSILON).sqrt())
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
            for (row, out) in rows.chunks_exact_mut(width).enumerate() {
                let x = &x[(first + row) * width..][..width];
                let (mean, scale) = moments(x);
                for column in 0..width {
                    out[column] = ((x[column] - mean) * scale).mul_add(gain[column], bias[column]);
                }
            }
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
            with_values(x, |x| with_values(gain, |gain| with_values(grad, |grad| Ok(backward(x, gain, grad)))))?;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(grad_x, x.shape(), device)?),
            Some(Tensor::from_vec(grad_gain, gain.shape(), device)?),
            Some(Tensor::from_vec(grad_bias, gain.shape(), device)?),
        ))
    }
}

fn backward(x: &[f32], gain: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let width = gain.len();
    let mut grad_x = vec![0.0; x.len()];
    let parts: Vec<(Vec<f32>, Vec<f32>)> = grad_x
        .par_chunks_mut(CHUNK_ROWS * width)
        .enumerate()
        .map(|(chunk, rows)| {
            let start = chunk * CHUNK_ROWS * width;
            backward_rows(&x[start..][..rows.len()], gain, &grad[start..][..rows.len()], rows)
        })
        .collect();
    let (mut grad_gain, mut grad_bias) = (vec![0.0; width], vec![0.0; width]);
    for (gain, bias) in parts {
        grad_gain.iter_mut().zip(gain).for_each(|(sum, x)| *sum += x);
        grad_bias.iter_mut().zip(bias).for_each(|(sum, x)| *sum += x);
    }
    (grad_x, grad_gain, grad_bias)
}

fn backward_rows(x: &[f32], gain: &[f32], grad: &[f32], out: &mut [f32]) -> (Vec<f32>, Vec<f32>) {
    let width = gain.len();
    let (mut grad_gain, mut grad_bias) = (vec![0.0; width], vec![0.0; width]);
    let mut normal = vec![0.0; width];
    for ((x, grad), out) in x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(out.chunks_exact_mut(width)) {
        let (mean, scale) = moments(x);
        let (mut sum, mut sum_normal) = (0.0, 0.0);
        for column in 0..width {
            normal[column] = (x[column] - mean) * scale;
            let weighted = grad[column] * gain[column];
            sum += weighted;
            sum_normal += weighted * normal[column];
            grad_gain[column] += grad[column] * normal[column];
            grad_bias[column] += grad[column];
        }
        let (mean_grad, mean_normal) = (sum / width as f32, sum_normal / width as f32);
        for column in 0..width {
            out[column] = scale * (grad[column] * gain[column] - mean_grad - normal[column] * mean_normal);
        }
    }
    (grad_gain, grad_bias)
}
