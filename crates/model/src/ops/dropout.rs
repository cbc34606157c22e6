//! Dropout whose mask is a hash of the position, so that nothing random is stored and a seed repeats it.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{for_row_chunks, slice, with_values};

/// Zeroes each value with probability `rate` and scales the others up to keep the mean.
pub(crate) fn dropout(x: &Tensor, rate: f32, seed: u32) -> Result<Tensor> {
    if rate == 0.0 {
        return Ok(x.clone());
    }
    x.contiguous()?.apply_op1(Dropout { rate, seed })
}

struct Dropout {
    rate: f32,
    seed: u32,
}

impl Dropout {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let threshold = (f64::from(self.rate) * f64::from(u32::MAX)) as u32;
        let scale = 1.0 / (1.0 - self.rate);
        let mut out = vec![0.0; x.len()];
        for_row_chunks(&mut out, 16, |first, values| {
            let start = first * 16;
            for (offset, (out, x)) in values.iter_mut().zip(&x[start..]).enumerate() {
                // The finaliser of MurmurHash3 over a counter.
                let mut hash = ((start + offset) as u32).wrapping_mul(0x9E37_79B9) ^ self.seed;
                hash = (hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B);
                hash = (hash ^ (hash >> 13)).wrapping_mul(0xC2B2_AE35);
                hash ^= hash >> 16;
                *out = if hash >= threshold { x * scale } else { 0.0 };
            }
        });
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
