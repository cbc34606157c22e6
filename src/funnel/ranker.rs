//! The ranker: a logistic regression that learns clicks from the log before the simulated day, and is frozen then.

use anyhow::bail;
use serde::Serialize;
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters};

use super::features::FEATURES;

/// The fewest clicks, and the fewest impressions without one, that are learned from.
const EXAMPLES_MIN: usize = 50;
/// What the square of every weight costs, against the loss of one impression.
const PENALTY: f64 = 1.0;

/// Impressions with their features and whether they were clicked on.
#[derive(Default)]
pub(super) struct Examples {
    rows: Vec<[f64; FEATURES]>,
    /// 1 for a click, 0 for none.
    clicked: Vec<f64>,
}

impl Examples {
    pub(super) fn push(&mut self, features: [f64; FEATURES], clicked: f64) {
        self.rows.push(features);
        self.clicked.push(clicked);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// How good a ranker is on impressions that it has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RankerQuality {
    /// Impressions that it learned from.
    pub trained_on: usize,
    /// Impressions that it is judged by.
    pub held_out: usize,
    /// The share of those that were clicked on.
    pub click_rate: f64,
    /// The probability that a clicked impression scores above one that was not; ties count half.
    pub auc: f64,
    /// The mean loss, in nats.
    pub log_loss: f64,
    /// The mean loss of always saying the click rate of what was learned from.
    pub log_loss_of_constant: f64,
}

/// Predicts clicks.
pub(super) struct Ranker {
    scales: [Scale; FEATURES],
    weights: [f64; FEATURES],
    intercept: f64,
    click_rate: f64,
    trained_on: usize,
}

/// Where a feature lies among those learned from.
#[derive(Clone, Copy)]
struct Scale {
    mean: f64,
    deviation: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let known = values.filter(|value| value.is_finite());
        let count = known.clone().count().max(1) as f64;
        let mean = known.clone().sum::<f64>() / count;
        let variance = known.map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Self { mean, deviation: variance.sqrt().max(1e-9) }
    }

    /// In deviations from the mean; what is not known is the mean.
    fn apply(self, value: f64) -> f64 {
        if value.is_finite() { (value - self.mean) / self.deviation } else { 0.0 }
    }
}

impl Ranker {
    /// Learns from `examples`; the same ones give the same ranker.
    ///
    /// # Errors
    /// Where there are too few clicks to learn from.
    pub(super) fn fit(examples: &Examples) -> anyhow::Result<Self> {
        let clicks = examples.clicked.iter().sum::<f64>();
        let fewest = clicks.min(examples.len() as f64 - clicks) as usize;
        if fewest < EXAMPLES_MIN {
            bail!(
                "{} impressions with {clicks} clicks before the simulated day are too few to train a ranker on: \
                 {EXAMPLES_MIN} with and without a click are needed",
                examples.len()
            );
        }
        let column = |feature: usize| examples.rows.iter().map(move |row| row[feature]);
        let scales: [Scale; FEATURES] = std::array::from_fn(|feature| Scale::of(column(feature)));
        let columns = (0..FEATURES).flat_map(|feature| column(feature).map(move |value| scales[feature].apply(value)));
        let rows = DenseMatrix::new(examples.len(), FEATURES, columns.collect(), true)?;
        let clicked: Vec<u32> = examples.clicked.iter().map(|clicked| *clicked as u32).collect();
        let penalty = LogisticRegressionParameters::default().with_alpha(PENALTY);
        let fitted = LogisticRegression::fit(&rows, &clicked, penalty)?;
        let ranker = Self {
            scales,
            weights: std::array::from_fn(|feature| *fitted.coefficients().get((0, feature))),
            intercept: *fitted.intercept().get((0, 0)),
            click_rate: clicks / examples.len() as f64,
            trained_on: examples.len(),
        };
        if !ranker.weights.iter().all(|weight| weight.is_finite()) || !ranker.intercept.is_finite() {
            bail!("the ranker's weights are not finite: what the impressions tell cannot be learned");
        }
        Ok(ranker)
    }

    /// The share of the impressions learned from that were clicked on.
    pub(super) fn click_rate(&self) -> f64 {
        self.click_rate
    }

    /// The probability of a click.
    pub(super) fn predict(&self, features: &[f64; FEATURES]) -> f64 {
        let scaled = features.iter().zip(&self.scales).map(|(value, scale)| scale.apply(*value));
        let odds = self.intercept + scaled.zip(self.weights).map(|(value, weight)| value * weight).sum::<f64>();
        1.0 / (1.0 + (-odds).exp())
    }

    /// How good it is on `held_out`.
    pub(super) fn judge(&self, held_out: &Examples) -> RankerQuality {
        let predicted: Vec<f64> = held_out.rows.iter().map(|row| self.predict(row)).collect();
        let constant = vec![self.click_rate; held_out.len()];
        RankerQuality {
            trained_on: self.trained_on,
            held_out: held_out.len(),
            click_rate: held_out.clicked.iter().sum::<f64>() / held_out.len().max(1) as f64,
            auc: auc(&predicted, &held_out.clicked),
            log_loss: log_loss(&predicted, &held_out.clicked),
            log_loss_of_constant: log_loss(&constant, &held_out.clicked),
        }
    }
}

fn log_loss(predicted: &[f64], clicked: &[f64]) -> f64 {
    let loss = |(predicted, clicked): (&f64, &f64)| {
        let sure = predicted.clamp(1e-9, 1.0 - 1e-9);
        -(clicked * sure.ln() + (1.0 - clicked) * (1.0 - sure).ln())
    };
    predicted.iter().zip(clicked).map(loss).sum::<f64>() / predicted.len().max(1) as f64
}

/// By ranks; of equal scores each has the mean rank.
fn auc(predicted: &[f64], clicked: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..predicted.len()).collect();
    order.sort_by(|a, b| predicted[*a].total_cmp(&predicted[*b]));
    let (mut ranks, mut before) = (0.0, 0.0);
    for ties in order.chunk_by(|a, b| predicted[*a] == predicted[*b]) {
        let clicks: f64 = ties.iter().map(|row| clicked[*row]).sum();
        ranks += clicks * (before + (ties.len() as f64 + 1.0) / 2.0);
        before += ties.len() as f64;
    }
    let clicks: f64 = clicked.iter().sum();
    (ranks - clicks * (clicks + 1.0) / 2.0) / (clicks * (predicted.len() as f64 - clicks))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Clicks follow the first feature; the second is unknown now and then, and the others say nothing.
    fn examples(count: usize, seed: u64) -> Examples {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut examples = Examples::default();
        for _ in 0..count {
            let mut row: [f64; FEATURES] = std::array::from_fn(|_| random.random());
            let clicked = random.random::<f64>() < 0.02 + 0.3 * row[0] * row[0];
            if row[1] < 0.3 {
                row[1] = f64::NAN;
            }
            examples.push(row, f64::from(u8::from(clicked)));
        }
        examples
    }

    #[test]
    fn what_clicks_follow_is_found_and_two_trainings_agree() {
        let (known, held_out) = (examples(8_000, 1), examples(4_000, 2));
        let ranker = Ranker::fit(&known).unwrap();
        let quality = ranker.judge(&held_out);
        assert!(quality.auc > 0.68 && quality.log_loss < quality.log_loss_of_constant, "{quality:?}");
        let mean = held_out.rows.iter().map(|row| ranker.predict(row)).sum::<f64>() / held_out.len() as f64;
        assert!((mean - quality.click_rate).abs() < 0.02, "calibrated: {mean} {quality:?}");
        assert_eq!(Ranker::fit(&known).unwrap().judge(&held_out), quality);
    }

    #[test]
    fn too_few_clicks_are_refused() {
        let error = Ranker::fit(&examples(100, 1)).err().unwrap().to_string();
        assert!(error.contains("are too few to train a ranker on: 50 with and without"), "{error}");
    }

    #[test]
    fn the_auc_counts_ties_half() {
        assert_eq!(auc(&[0.1, 0.2, 0.3, 0.4], &[0.0, 0.0, 1.0, 1.0]), 1.0);
        assert_eq!(auc(&[0.4, 0.3, 0.2, 0.1], &[0.0, 0.0, 1.0, 1.0]), 0.0);
        assert_eq!(auc(&[0.5; 4], &[0.0, 1.0, 0.0, 1.0]), 0.5);
        assert_eq!(auc(&[0.1, 0.5, 0.5, 0.9], &[0.0, 1.0, 0.0, 1.0]), 0.875);
    }
}
