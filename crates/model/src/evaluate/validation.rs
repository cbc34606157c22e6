//! Judging a model in the making.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use turret_retrieval::dataset::Dataset;

use super::arms::Arms;
use super::{Contender, EvaluateError, Evaluation};
use crate::model::Model;
use crate::settings::{EvaluationSettings, Part, SettingsError, Split};

/// A sample of the validation cases of a split: the same ones for every model.
pub struct Validation<'a> {
    data: &'a Dataset,
    split: Split,
    settings: EvaluationSettings,
}

/// How a model does on it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationScore {
    /// The share of the cases whose target was among the first 10.
    pub recall_at_10: f64,
    /// The mean normalised discounted cumulative gain of the first 10.
    pub ndcg_at_10: f64,
    /// Cases.
    pub cases: usize,
}

impl<'a> Validation<'a> {
    /// The validation of models that are trained on the training part of `split`, on at most `cases_max` cases.
    ///
    /// # Errors
    /// When such a model has seen the validation's cases: a temporal split is for validation, or is not validated on.
    pub fn new(
        data: &'a Dataset,
        split: &Split,
        settings: &EvaluationSettings,
        cases_max: usize,
    ) -> Result<Self, EvaluateError> {
        let validation = match split {
            Split::Temporal { part: Part::Test, .. } => {
                let rule = "trains up to the test, so there is nothing left to validate on: train for validation";
                return Err(SettingsError { field: "split", rule }.into());
            }
            Split::Temporal { part: Part::Validation, .. } | Split::LeaveOneOut { .. } => split.of(Part::Validation)?,
        };
        let cases_max = Some(settings.cases_max.map_or(cases_max, |max| max.min(cases_max)));
        let settings =
            EvaluationSettings { cases_max, bootstrap_samples: 0, state_age_days: Vec::new(), ..settings.clone() };
        Ok(Self { data, split: validation, settings })
    }

    /// How `model` does, with everything that it would be given in service.
    ///
    /// # Errors
    /// When there is no case, or the model fails.
    pub fn score(&self, model: &Model) -> Result<ValidationScore, EvaluateError> {
        let evaluation = Evaluation { data: self.data, split: &self.split, settings: &self.settings, log: None };
        let mut arms = Arms::of(&evaluation, &[Contender { name: "model".to_owned(), model }]);
        arms.retain(|name| name == "model");
        let report = evaluation.run(&arms, &mut |_| ControlFlow::Continue(()))?;
        let metric = |key| report.arms[0].metric(key).expect("every arm has it");
        Ok(ValidationScore { recall_at_10: metric("recall@10"), ndcg_at_10: metric("ndcg@10"), cases: report.cases })
    }
}
