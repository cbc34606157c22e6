//! What is remembered of a training: where it is, its losses and its validations.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use turret_retrieval::digest::Digest;

use super::survey::Caution;
use crate::settings::{Split, TrainingSettings};

/// How far a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingProgress {
    /// Steps done.
    pub step: usize,
    /// Steps in all, where it does not end early.
    pub steps: usize,
    /// How often each event has been predicted by now, on average: 3.2 in the fourth epoch.
    pub epoch: f64,
    /// The mean loss of late, in nats.
    pub loss: f32,
    /// The learning rate of this step.
    pub learning_rate: f32,
    /// Events that this step predicted.
    pub examples: usize,
    /// How long this step took, with its validation.
    pub took: Duration,
    /// How much of that was spent waiting for data.
    pub waited: Duration,
    /// How the model does, where it was validated after this step.
    pub validation: Option<Validated>,
}

/// How a model in the making did on the validation part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// After how many steps.
    pub step: usize,
    /// The share of the cases whose target was among the first 10.
    #[serde(rename = "recall@10")]
    pub recall_at_10: f64,
    /// The mean normalised discounted cumulative gain of the first 10.
    #[serde(rename = "ndcg@10")]
    pub ndcg_at_10: f64,
}

/// What a training came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingRecord {
    /// The digest of settings, split and data; see [`Trainer::digest`](super::Trainer::digest).
    pub run: Digest,
    /// Steps done; fewer than the settings say where training ended early.
    pub steps: usize,
    /// How often each event was predicted, on average.
    pub epochs: f64,
    /// The mean loss over the last twentieth of the steps, in nats.
    pub final_loss: f32,
    /// The mean loss over the first twentieth.
    pub first_loss: f32,
    /// Every validation, in order.
    pub validations: Vec<Validated>,
    /// The best of them; with `keep_best` the model is the one of its step.
    pub best: Option<Validated>,
    /// What its owner should know of the data.
    pub cautions: Vec<Caution>,
    /// Events that were drawn from as positives.
    pub positives: u64,
    /// Rows of the embedding table.
    pub table_rows: usize,
    /// Numbers in all other tensors.
    pub dense_parameters: usize,
    /// What it was trained on.
    pub split: Split,
    /// The settings.
    pub settings: TrainingSettings,
    /// What computed it: `cpu`, or `cuda:` and a number.
    pub device: String,
    /// How long it took, with what went before it was broken off and went on.
    pub seconds: f64,
    /// Events predicted in a second.
    pub examples_per_second: f64,
    /// The share of the time that was spent waiting for data.
    pub waiting_share: f64,
}

/// What went before, as a checkpoint keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct History {
    /// Steps done.
    pub(super) step: usize,
    pub(super) recent_loss: f32,
    // Sums over the first and the last twentieth of all steps.
    first_losses: f64,
    last_losses: f64,
    pub(super) validations: Vec<Validated>,
    pub(super) keeps_best: bool,
    pub(super) examples: u64,
    pub(super) took: Duration,
    pub(super) waited: Duration,
}

impl History {
    pub(super) fn new(keeps_best: bool) -> Self {
        Self {
            step: 0,
            recent_loss: 0.0,
            first_losses: 0.0,
            last_losses: 0.0,
            validations: Vec::new(),
            keeps_best,
            examples: 0,
            took: Duration::ZERO,
            waited: Duration::ZERO,
        }
    }

    /// Notes the loss of the next of `steps` steps.
    pub(super) fn add_loss(&mut self, loss: f32, steps: usize) {
        self.step += 1;
        self.recent_loss = if self.step == 1 { loss } else { 0.98 * self.recent_loss + 0.02 * loss };
        if self.step <= twentieth(steps) {
            self.first_losses += f64::from(loss);
        }
        if self.step > steps - twentieth(steps) {
            self.last_losses += f64::from(loss);
        }
    }

    /// Notes how long a step took, how much of it was spent waiting for data, and what it predicted.
    pub(super) fn add_time(&mut self, examples: usize, took: Duration, waited: Duration) {
        self.examples += examples as u64;
        self.took += took;
        self.waited += waited;
    }

    /// Notes a validation; says whether it is better than all before.
    pub(super) fn add_validation(&mut self, validation: Validated) -> bool {
        let is_best = self.best().is_none_or(|best| validation.ndcg_at_10 > best.ndcg_at_10);
        self.validations.push(validation);
        is_best
    }

    /// The validation of the largest NDCG, the first of several.
    pub(super) fn best(&self) -> Option<Validated> {
        let better =
            |best: Validated, other: &Validated| if other.ndcg_at_10 > best.ndcg_at_10 { *other } else { best };
        let (first, rest) = self.validations.split_first()?;
        Some(rest.iter().fold(*first, better))
    }

    /// Whether `patience` validations in a row were no better than one before them.
    pub(super) fn is_out_of_patience(&self, patience: usize) -> bool {
        let since = |best: Validated| self.validations.iter().rev().take_while(|other| other.step > best.step).count();
        patience > 0 && self.best().is_some_and(|best| since(best) >= patience)
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_over(&self, training: &TrainingSettings) -> bool {
        self.step >= training.steps || self.is_out_of_patience(training.patience)
    }

    /// The mean losses over the first twentieth of the steps and over the last; where training ended early, that is the
    /// recent one.
    pub(super) fn mean_losses(&self, steps: usize) -> (f32, f32) {
        let count = twentieth(steps);
        let first = self.first_losses / count.min(self.step.max(1)) as f64;
        let last = if self.step < steps { self.recent_loss } else { (self.last_losses / count as f64) as f32 };
        (first as f32, last)
    }
}

fn twentieth(steps: usize) -> usize {
    steps.div_ceil(20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(ndcgs: &[f64]) -> History {
        let mut history = History::new(true);
        for (number, ndcg) in (1..).zip(ndcgs) {
            history.add_validation(Validated { step: 10 * number, recall_at_10: 0.5, ndcg_at_10: *ndcg });
        }
        history
    }

    #[test]
    fn the_best_validation_is_the_first_of_the_largest() {
        assert_eq!(with(&[]).best(), None);
        assert_eq!(with(&[0.1, 0.3, 0.2, 0.3]).best().map(|best| best.step), Some(20));
        let mut history = with(&[0.2]);
        let next = |ndcg| Validated { step: 20, recall_at_10: 0.5, ndcg_at_10: ndcg };
        assert!(!history.clone().add_validation(next(0.2)) && history.add_validation(next(0.3)));
    }

    #[test]
    fn patience_counts_validations_since_the_best() {
        let check = |ndcgs: &[f64], patience, expected| {
            assert_eq!(with(ndcgs).is_out_of_patience(patience), expected, "{ndcgs:?} {patience}");
        };
        check(&[], 1, false);
        check(&[0.1, 0.2, 0.1], 2, false);
        check(&[0.1, 0.2, 0.1, 0.2], 2, true);
        check(&[0.3, 0.2, 0.1, 0.0], 0, false);
        check(&[0.1, 0.2, 0.3], 1, false);
    }

    #[test]
    fn mean_losses_are_of_the_first_and_the_last_twentieth() {
        let mut history = History::new(false);
        (1..=40).for_each(|step| history.add_loss(step as f32, 40));
        assert_eq!(history.mean_losses(40), (1.5, 39.5));
        let mut early = History::new(false);
        (1..=10).for_each(|_| early.add_loss(2.0, 40));
        assert_eq!(early.mean_losses(40), (2.0, 2.0));
        assert!(!early.is_over(&crate::planted::training(40)) && history.is_over(&crate::planted::training(40)));
    }
}
