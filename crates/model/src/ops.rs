//! Operations with a backward pass, on CPU.
//!
//! Several fused operations of candle-nn (`LayerNorm::forward`, `softmax_last_dim`, `RmsNorm::forward`) have no backward
//! pass and say nothing; what is here has one, allocates less, and skips padding altogether. Matrix products are
//! those of `gemm`, which candle calls too. Reductions run over chunks of a fixed size, so results do not depend on the number of threads. The same by
//! candle's own operations is in [`stock`]: the oracle, and what runs on other devices.

use candle_core::{CpuStorage, Device, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

mod absorbed_attention;
mod affine;
mod backend;
mod bag;
mod dropout;
mod encoder;
mod lanes;
mod layer_norm;
mod matrix;
mod packed;
mod softmax;
mod stock;
mod tile;
mod unit;

pub(crate) use absorbed_attention::{Look, Scratch, add_mean};
pub(crate) use affine::{Activation, add_rows, gelu_of_sums};
pub(crate) use backend::Backend;
pub(crate) use bag::{Bags, bag};
pub(crate) use dropout::Mask;
pub(crate) use encoder::{Encoding, LayerShape};
pub(crate) use lanes::{has_avx_512, wide};
pub(crate) use matrix::times_transposed;
pub(crate) use packed::Packed;
pub(crate) use softmax::SampledSoftmax;

/// Rows that one task works on.
const CHUNK_ROWS: usize = 256;

/// The values of a contiguous `f32` CPU tensor, inside a custom operation.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a custom operation was given a tensor that is not contiguous"),
    }
}

/// Calls `f` with the values of `tensor`, made contiguous and brought to the CPU.
pub(crate) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    with_all_values(&[tensor], |values| f(values[0]))
}

/// Calls `f` with the values of each of `tensors`.
pub(crate) fn with_all_values<R>(tensors: &[&Tensor], f: impl FnOnce(&[&[f32]]) -> Result<R>) -> Result<R> {
    let on_cpu = |tensor: &&Tensor| tensor.contiguous()?.to_device(&Device::Cpu);
    let tensors: Vec<Tensor> = tensors.iter().map(on_cpu).collect::<Result<_>>()?;
    let storages: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let values = storages.iter().map(|(storage, layout)| slice(cpu_storage(storage)?, layout));
    f(&values.collect::<Result<Vec<_>>>()?)
}

fn cpu_storage(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        Storage::Cuda(_) | Storage::Metal(_) => bail!("a tensor that was brought to the CPU is not there"),
    }
}

/// How many of `count` things one strand of a reduction takes, in whole `unit`s. Strands are summed by themselves, then
/// in their order; so many at most keep every thread busy, and do not depend on how many threads there are.
fn strand_length(count: usize, unit: usize) -> usize {
    const STRANDS: usize = 16;
    count.div_ceil(STRANDS).next_multiple_of(unit).max(unit)
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
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], scale: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = scale.mul_add(*x, *y);
    }
}

/// `e^x` to about 2e-7 relative, in operations that vectorise.
#[inline(always)]
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
