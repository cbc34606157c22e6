//! Operations with a backward pass, on CPU and in safe code.
//!
//! Several fused operations of candle-nn (`LayerNorm::forward`, `softmax_last_dim`, `RmsNorm::forward`) have no backward
//! pass and say nothing; what is here has one, allocates less, and skips padding altogether. Matrix products stay
//! candle's. Reductions run over chunks of a fixed size, so results do not depend on the number of threads.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;

mod absorbed_attention;
mod affine;
mod attention;
mod bag;
mod dropout;
mod lanes;
mod layer_norm;
mod softmax;
mod unit;

pub(crate) use absorbed_attention::absorbed_attention;
pub(crate) use affine::{Activation, affine};
pub(crate) use attention::attention;
pub(crate) use bag::{Bags, bag};
pub(crate) use dropout::dropout;
pub(crate) use layer_norm::layer_norm;
pub(crate) use softmax::{SampledSoftmax, sampled_softmax};
pub(crate) use unit::unit_rows;

/// Rows that one task works on.
const CHUNK_ROWS: usize = 256;

/// The values of a contiguous `f32` CPU tensor, inside a custom operation.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a custom operation was given a tensor that is not contiguous"),
    }
}

/// Calls `f` with the values of `tensor`.
pub(crate) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(slice(storage, layout)?),
        Storage::Cuda(_) | Storage::Metal(_) => bail!("only the CPU is supported"),
    }
}

/// The matrix product of two matrices, each a storage with its layout; row-major.
fn product(
    (left, left_layout): (&CpuStorage, &Layout),
    (right, right_layout): (&CpuStorage, &Layout),
) -> Result<Vec<f32>> {
    let (&[rows, inner], &[_, columns]) = (left_layout.dims(), right_layout.dims()) else {
        bail!("a product of tensors that are not matrices");
    };
    f32::cpu_storage_data(left.matmul(right, (1, rows, columns, inner), left_layout, right_layout)?)
}

/// The layout of the transpose, [columns, rows], of a contiguous matrix [rows, columns].
fn transposed(rows: usize, columns: usize) -> Layout {
    Layout::new(Shape::from((columns, rows)), vec![1, columns], 0)
}

/// Calls `f(first row, rows)` on disjoint chunks of whole rows of `out`, in parallel.
fn for_row_chunks(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() <= CHUNK_ROWS * width {
        f(0, out);
        return;
    }
    out.par_chunks_mut(CHUNK_ROWS * width).enumerate().for_each(|(chunk, rows)| f(chunk * CHUNK_ROWS, rows));
}

/// Adds `scale * x` to `y`.
#[inline]
fn add_scaled(y: &mut [f32], scale: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = scale.mul_add(*x, *y);
    }
}

/// `e^x` to about 2e-7 relative, in operations that vectorise.
#[inline]
fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_2e-3).mul_add(r, 8.333_452e-3).mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1).mul_add(r, 0.5);
    let y = (p * r).mul_add(r, r) + 1.0;
    f32::from_bits(shifted.to_bits().wrapping_add(127) << 23) * y
}

#[cfg(test)]
mod tests;
