//! Dropout whose mask is a hash of the position, so that nothing random is stored and a seed repeats it.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};

use super::{for_row_chunks, slice, with_values};

/// What is zeroed: each value with probability `rate`; the others are scaled up to keep the mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    pub(crate) rate: f32,
    pub(crate) seed: u32,
}

impl Mask {
    /// Applies the mask to values whose counters begin at `first`.
    #[inline]
    fn apply(self, values: &mut [f32], first: usize) {
        let threshold = (f64::from(self.rate) * f64::from(u32::MAX)) as u32;
        let scale = 1.0 / (1.0 - self.rate);
        for (offset, value) in values.iter_mut().enumerate() {
            // The finaliser of MurmurHash3 over a counter.
            let counter = (first as u32).wrapping_add(offset as u32);
            let mut hash = counter.wrapping_mul(0x9E37_79B9) ^ self.seed;
            hash = (hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B);
            hash = (hash ^ (hash >> 13)).wrapping_mul(0xC2B2_AE35);
            hash ^= hash >> 16;
            *value = if hash >= threshold { *value * scale } else { 0.0 };
        }
    }

    /// Applies the mask to rows that are those of the given numbers in a larger matrix.
    pub(super) fn apply_rows(self, values: &mut [f32], width: usize, numbers: &[usize]) {
        if self.rate > 0.0 {
            for (row, number) in values.chunks_exact_mut(width).zip(numbers) {
                self.apply(row, number * width);
            }
        }
    }

    /// What each value of a matrix is multiplied with.
    pub(super) fn factors(self, shape: (usize, usize), device: &Device) -> Result<Tensor> {
        let mut factors = vec![1.0; shape.0 * shape.1];
        if self.rate > 0.0 {
            self.apply(&mut factors, 0);
        }
        Tensor::from_vec(factors, shape, device)
    }
}

/// Applies `mask` to `x`.
pub(crate) fn dropout(x: &Tensor, mask: Mask) -> Result<Tensor> {
    if mask.rate == 0.0 {
        return Ok(x.clone());
    }
    x.contiguous()?.apply_op1(Dropout(mask))
}

struct Dropout(Mask);

impl Dropout {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut out = x.to_vec();
        for_row_chunks(&mut out, 16, |first, values| self.0.apply(values, first * 16));
        out
    }
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.apply(slice(x, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let values = with_values(grad, |grad| Ok(self.apply(grad)))?;
        Tensor::from_vec(values, x.shape(), x.device()).map(Some)
    }
}
