//! How the model in the making does on cases that it is not trained on.

use turret_retrieval::dataset::{Part, Parts};

use super::fault::TrainError;
use super::progress::Validated;
use crate::evaluate::Validation;
use crate::model::Model;
use crate::settings::{self, EvaluationSettings, Split, TrainingSettings};

/// The validation cases: of a log in parts, those of its first part, which stays in memory.
pub(super) struct Validator<'a> {
    part: Part<'a>,
    split: &'a Split,
    settings: &'a EvaluationSettings,
    cases_max: usize,
}

impl<'a> Validator<'a> {
    /// Checks that there is something to validate on; none where that is not wanted, or where the training part holds
    /// the cases.
    pub(super) fn new(
        data: &'a dyn Parts,
        split: &'a Split,
        training: &TrainingSettings,
        settings: &'a EvaluationSettings,
    ) -> Result<Option<Self>, TrainError> {
        if training.validation_every_steps == 0 || has_seen_the_validation(split) {
            return Ok(None);
        }
        let part = data.read(0)?;
        let validator = Self { part, split, settings, cases_max: training.validation_cases_max };
        validator.validation()?;
        Ok(Some(validator))
    }

    fn validation(&self) -> Result<Validation<'_>, TrainError> {
        Ok(Validation::new(&self.part, self.split, self.settings, self.cases_max)?)
    }

    /// How `model` does after `step` steps.
    pub(super) fn validate(&self, model: &Model, step: usize) -> Result<Validated, TrainError> {
        let score = self.validation()?.score(model)?;
        Ok(Validated { step, recall_at_10: score.recall_at_10, ndcg_at_10: score.ndcg_at_10 })
    }
}

/// Whether the training part of `split` reaches up to the test, and so over the validation.
pub(super) fn has_seen_the_validation(split: &Split) -> bool {
    match split {
        Split::Temporal { part, .. } => *part == settings::Part::Test,
        Split::LeaveOneOut { .. } => false,
    }
}
