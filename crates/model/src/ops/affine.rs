//! `x W + b`, and an activation.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{CHUNK_ROWS, exp, for_row_chunks, slice, with_values};

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
    x.matmul(weight)?.apply_op2(bias, BiasActivation(activation))
}

struct BiasActivation(Activation);

/// tanh(z) where gelu(x) = x (1 + tanh(z)) / 2.
#[inline]
fn gelu_tanh(x: f32) -> f32 {
    let z = 0.797_884_6 * (0.044_715 * x * x).mul_add(x, x);
    let e = exp(2.0 * z.clamp(-9.0, 9.0));
    (e - 1.0) / (e + 1.0)
}

#[inline]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + gelu_tanh(x))
}

#[inline]
fn gelu_slope(x: f32) -> f32 {
    let t = gelu_tanh(x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.797_884_6 * (1.0 + 3.0 * 0.044_715 * x * x)
}

impl CustomOp2 for BiasActivation {
    fn name(&self) -> &'static str {
        "bias-activation"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (slice(x, x_layout)?, slice(bias, bias_layout)?);
        let width = bias.len();
        let mut out = vec![0.0; x.len()];
        for_row_chunks(&mut out, width, |first, rows| {
            let x = &x[first * width..][..rows.len()];
            for (out, x) in rows.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
                    *out = match self.0 {
                        Activation::Identity => x + bias,
                        Activation::Gelu => gelu(x + bias),
                    };
                }
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, bias: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = bias.elem_count();
        let grad_x = match self.0 {
            Activation::Identity => grad.contiguous()?,
            Activation::Gelu => {
                let values = with_values(x, |x| {
                    with_values(bias, |bias| with_values(grad, |grad| Ok(through_gelu(x, bias, grad))))
                })?;
                Tensor::from_vec(values, x.shape(), x.device())?
            }
        };
        let grad_bias = with_values(&grad_x, |grad| Ok(column_sums(grad, width)))?;
        let grad_bias = Tensor::from_vec(grad_bias, bias.shape(), bias.device())?;
        Ok((Some(grad_x), Some(grad_bias)))
    }
}

fn through_gelu(x: &[f32], bias: &[f32], grad: &[f32]) -> Vec<f32> {
    let width = bias.len();
    let mut out = vec![0.0; x.len()];
    for_row_chunks(&mut out, width, |first, rows| {
        let (x, grad) = (&x[first * width..], &grad[first * width..]);
        for (row, out) in rows.chunks_exact_mut(width).enumerate() {
            let (x, grad) = (&x[row * width..][..width], &grad[row * width..][..width]);
            for column in 0..width {
                out[column] = grad[column] * gelu_slope(x[column] + bias[column]);
            }
        }
    });
    out
}

/// The sum of the rows of `x`, chunk by chunk so that long sums keep their precision.
fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    for chunk in x.chunks(CHUNK_ROWS * width) {
        let mut sums = vec![0.0; width];
        for row in chunk.chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        total.iter_mut().zip(&sums).for_each(|(total, sum)| *total += sum);
    }
    total
}
