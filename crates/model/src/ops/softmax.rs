//! The sampled softmax: cross entropy of queries against ads, corrected for how candidates were drawn.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::lanes::{largest, sum, wide};
use super::matrix::View;
use super::{add_scaled, exp, strand_length, with_all_values};

/// Rows whose scores are computed at once, few enough that they stay in cache.
const BLOCK_ROWS: usize = 128;

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

/// The mean loss over the rows of `queries` [rows, width], whose scores are the inner products with `ads`
/// [columns, width].
///
/// The scores never exist as a whole: each block of rows is scored, and leaves its part of the loss and of both
/// gradients while it is in cache.
pub(crate) fn sampled_softmax(queries: &Tensor, ads: &Tensor, softmax: &SampledSoftmax) -> Result<Tensor> {
    let ((rows, width), (columns, ads_width)) = (queries.dims2()?, ads.dims2()?);
    let covers = softmax.as_positive.len() == columns && softmax.as_negative.len() == columns;
    if rows == 0 || softmax.targets.len() != rows || !covers || width != ads_width {
        bail!("scores of {rows} x {columns} do not fit {} targets", softmax.targets.len());
    }
    let loss = with_all_values(&[queries, ads], |values| Ok(softmax.loss(values[0], values[1], width)))?;
    queries.apply_op2(ads, loss)
}

impl SampledSoftmax {
    fn loss(&self, queries: &[f32], ads: &[f32], width: usize) -> Loss {
        let rows = self.targets.len();
        let strand_rows = strand_length(rows, BLOCK_ROWS);
        let mut grad_queries = vec![0.0; queries.len()];
        let strands: Vec<(f64, Vec<f32>)> = queries
            .par_chunks(strand_rows * width)
            .zip(grad_queries.par_chunks_mut(strand_rows * width))
            .zip(self.targets.par_chunks(strand_rows))
            .map(|((queries, grad_queries), targets)| {
                self.strand(queries, grad_queries, targets, View::new(ads, width))
            })
            .collect();
        let mut total = 0.0;
        let mut grad_ads = vec![0.0; ads.len()];
        for (loss, grad) in &strands {
            total += loss;
            add_scaled(&mut grad_ads, 1.0, grad);
        }
        Loss { mean: (total / rows as f64) as f32, grad_queries, grad_ads }
    }

    /// The loss summed over the rows of a strand, and the ads' gradient from them; fills that of its queries.
    fn strand(&self, queries: &[f32], grad_queries: &mut [f32], targets: &[u32], ads: View<'_>) -> (f64, Vec<f32>) {
        let [columns, width] = ads.shape();
        let mut loss = 0.0;
        let mut grad_ads = vec![0.0; columns * width];
        let blocks = queries.chunks(BLOCK_ROWS * width).zip(grad_queries.chunks_mut(BLOCK_ROWS * width));
        for ((queries, grad_queries), targets) in blocks.zip(targets.chunks(BLOCK_ROWS)) {
            let queries = View::new(queries, width);
            let mut scores = queries.times(ads.transposed());
            for (row, target) in scores.values_mut().chunks_exact_mut(columns).zip(targets) {
                loss += f64::from(self.row(row, *target as usize));
            }
            scores.view().add_times(ads, grad_queries, width);
            scores.transposed().add_times(queries, &mut grad_ads, width);
        }
        (loss, grad_ads)
    }

    /// The loss of one row, whose scores become their gradient.
    fn row(&self, row: &mut [f32], target: usize) -> f32 {
        let scale = 1.0 / self.temperature;
        let each = scale / self.targets.len() as f32;
        let positive = row[target].mul_add(scale, self.as_positive[target]);
        let log_sum = shares_of_logits(row, &self.as_negative, scale, (target, positive), each);
        row[target] -= each;
        log_sum - positive
    }
}

wide! {
    /// Turns scores into logits, whose value at `positive` is given, and these into their shares of `all` in the softmax;
    /// returns the logarithm of the sum of their exponentials.
    fn shares_of_logits(
        row: &mut [f32],
        corrections: &[f32],
        scale: f32,
        positive: (usize, f32),
        all: f32,
    ) -> f32 {
        for (logit, correction) in row.iter_mut().zip(corrections) {
            *logit = logit.mul_add(scale, *correction);
        }
        row[positive.0] = positive.1;
        let top = largest(row);
        row.iter_mut().for_each(|logit| *logit = exp(*logit - top));
        let sum = sum(row);
        let share = all / sum;
        row.iter_mut().for_each(|weight| *weight *= share);
        top + sum.ln()
    }
}

/// The loss and its gradients, all computed in one pass.
struct Loss {
    mean: f32,
    grad_queries: Vec<f32>,
    grad_ads: Vec<f32>,
}

impl CustomOp2 for Loss {
    fn name(&self) -> &'static str {
        "sampled-softmax"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.mean]), Shape::from(())))
    }

    fn bwd(
        &self,
        queries: &Tensor,
        ads: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let scale = grad.to_scalar::<f32>()?;
        let scaled = |values: &[f32], like: &Tensor| {
            let values = values.iter().map(|value| value * scale).collect();
            Tensor::from_vec(values, like.shape(), like.device()).map(Some)
        };
        Ok((scaled(&self.grad_queries, queries)?, scaled(&self.grad_ads, ads)?))
    }
}
