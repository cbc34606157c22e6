//! Rows scaled to length 1.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{for_row_chunks, slice, with_values};

/// Keeps a row of zeros from being divided by zero; far below any length that training produces.
const EPSILON: f32 = 1e-12;

/// Each row of the matrix `x` divided by its length.
pub(crate) fn unit_rows(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(1)?;
    x.contiguous()?.apply_op1(UnitRows { width })
}

struct UnitRows {
    width: usize,
}

fn inverse_length(row: &[f32]) -> f32 {
    1.0 / (row.iter().map(|x| x * x).sum::<f32>() + EPSILON).sqrt()
}

impl CustomOp1 for UnitRows {
    fn name(&self) -> &'static str {
        "unit-rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let mut out = x.to_vec();
        for_row_chunks(&mut out, self.width, |_, rows| {
            for row in rows.chunks_exact_mut(self.width) {
                let scale = inverse_length(row);
                row.iter_mut().for_each(|x| *x *= scale);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let width = self.width;
        let values = with_values(x, |x| {
            with_values(result, |unit| {
                with_values(grad, |grad| {
                    let mut out = vec![0.0; x.len()];
                    for_row_chunks(&mut out, width, |first, rows| {
                        for (row, out) in rows.chunks_exact_mut(width).enumerate() {
                            let at = (first + row) * width;
                            let (x, unit, grad) = (&x[at..][..width], &unit[at..][..width], &grad[at..][..width]);
                            let scale = inverse_length(x);
                            let along: f32 = unit.iter().zip(grad).map(|(u, g)| u * g).sum();
                            for column in 0..width {
                                out[column] = (grad[column] - unit[column] * along) * scale;
                            }
                        }
                    });
                    Ok(out)
                })
            })
        })?;
        Tensor::from_vec(values, x.shape(), x.device()).map(Some)
    }
}
