//! The sampled softmax: cross entropy of scores against each row's positive, corrected for how candidates were drawn.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{exp, slice, with_values};

/// What turns scores into logits: `score / temperature` plus the correction of the column.
///
/// Candidates are distinct, so a row's positive stands in exactly one column and an accidental hit cannot occur.
#[derive(Debug)]
pub(crate) struct SampledSoftmax {
    /// Scores are divided by it.
    pub(crate) temperature: f32,
    /// The column of each row's positive.
    pub(crate) targets: Vec<u32>,
    /// Added to a column where it is the row's positive.
    pub(crate) as_positive: Vec<f32>,
    /// Added to a column where it is a negative.
    pub(crate) as_negative: Vec<f32>,
}

/// The mean loss over the rows of `scores` [rows, columns].
pub(crate) fn sampled_softmax(scores: &Tensor, softmax: &Arc<SampledSoftmax>) -> Result<Tensor> {
    let (rows, columns) = scores.dims2()?;
    let covers = softmax.as_positive.len() == columns && softmax.as_negative.len() == columns;
    if rows == 0 || softmax.targets.len() != rows || !covers {
        bail!("scores of {rows} x {columns} do not fit {} targets", softmax.targets.len());
    }
    scores.contiguous()?.apply_op1(Loss(softmax.clone()))
}

struct Loss(Arc<SampledSoftmax>);

impl Loss {
    /// Fills `logits` and returns their largest and the sum of exponentials above it.
    fn logits(&self, row: usize, scores: &[f32], logits: &mut [f32]) -> (f32, f32) {
        let softmax = &*self.0;
        let scale = 1.0 / softmax.temperature;
        for ((logit, score), correction) in logits.iter_mut().zip(scores).zip(&softmax.as_negative) {
            *logit = score.mul_add(scale, *correction);
        }
        let target = softmax.targets[row] as usize;
        logits[target] = scores[target].mul_add(scale, softmax.as_positive[target]);
        let top = logits.iter().fold(f32::MIN, |top, logit| if *logit > top { *logit } else { top });
        (top, logits.iter().map(|logit| exp(logit - top)).sum())
    }
}

impl CustomOp1 for Loss {
    fn name(&self) -> &'static str {
        "sampled-softmax"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let scores = slice(scores, layout)?;
        let columns = self.0.as_positive.len();
        let losses: Vec<f32> = scores
            .par_chunks(columns)
            .enumerate()
            .map_init(
                || vec![0.0; columns],
                |logits, (row, scores)| {
                    let (top, sum) = self.logits(row, scores, logits);
                    top + sum.ln() - logits[self.0.targets[row] as usize]
                },
            )
            .collect();
        let mean = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len() as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(&self, scores: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let rows = self.0.targets.len();
        let columns = self.0.as_positive.len();
        let each = grad.to_scalar::<f32>()? / (rows as f32 * self.0.temperature);
        let values = with_values(scores, |scores| {
            let mut out = vec![0.0; scores.len()];
            out.par_chunks_mut(columns).zip(scores.par_chunks(columns)).enumerate().for_each(|(row, (out, scores))| {
                let (top, sum) = self.logits(row, scores, out);
                let scale = each / sum;
                out.iter_mut().for_each(|x| *x = exp(*x - top) * scale);
                out[self.0.targets[row] as usize] -= each;
            });
            Ok(out)
        })?;
        Tensor::from_vec(values, scores.shape(), scores.device()).map(Some)
    }
}
