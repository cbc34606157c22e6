//! Evaluation: how often held-out events are among the first K of the whole catalogue.
//!
//! The context of a case is what the user looked at just before the target, never anything of the target. Everything
//! else that an arm knows comes from before the cut. Items that the user has seen are not ranked. What the arms and the
//! metrics are stands in `docs/evaluation.md`; what a report holds, in [`EvaluationReport`].

use std::ops::ControlFlow;

use turret_retrieval::dataset::Dataset;

use crate::model::{Model, ModelError};
use crate::settings::{EvaluationSettings, SettingsError, Split};

mod arms;
mod baselines;
mod bootstrap;
mod cases;
mod interests;
mod levels;
mod log;
mod model_arm;
mod ranking;
mod report;
mod run;
mod skew;
mod slices;
mod tally;
mod trial;
mod validation;

pub use arms::{Arm, Arms};
pub use log::Request;
pub use report::{ArmReport, CUT_OFFS, Comparison, Estimate, EvaluationReport, LeftOut, Role, SliceReport};
pub use skew::{PairReport, SKEW_VERSIONS_MAX, SkewError, SkewReport, VersionReport};
pub use validation::{Validation, ValidationScore};

/// A trained model, under the name that its arms carry.
pub struct Contender<'a> {
    /// As it is called in reports.
    pub name: String,
    /// The model.
    pub model: &'a Model,
}

/// What is evaluated on.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    /// Everything that is known, the cases included.
    pub data: &'a Dataset,
    /// What of it the cases are.
    pub split: &'a Split,
    /// How.
    pub settings: &'a EvaluationSettings,
    /// Requests whose delivered ads are the cases, in place of held-out events: those between the split's cut and its
    /// end.
    pub log: Option<&'a [Request]>,
}

impl Evaluation<'_> {
    /// Ranks the catalogue for every case with every arm.
    ///
    /// Takes memory for the catalogue, for 256 rows of scores and a few bytes for each case and arm.
    ///
    /// # Errors
    /// When a setting is out of range, a model has seen the cases, there is no case, a model fails or `observe` breaks
    /// off.
    pub fn run(
        &self,
        arms: &Arms<'_>,
        observe: &mut dyn FnMut(EvaluationProgress<'_>) -> ControlFlow<()>,
    ) -> Result<EvaluationReport, EvaluateError> {
        run::run(self, arms, observe)
    }

    /// Ranks the catalogue for every case with every pair of `versions` of one model: as a cluster would answer that let
    /// the head of one version meet the index, or the sequence states, of another.
    ///
    /// Takes memory for the catalogue once for each version, and otherwise as [`run`](Self::run).
    ///
    /// # Errors
    /// When there are not 2 to [`SKEW_VERSIONS_MAX`] versions of different names, two of them cannot be put together at all, or
    /// as [`run`](Self::run).
    pub fn skew(
        &self,
        versions: &[Contender<'_>],
        observe: &mut dyn FnMut(EvaluationProgress<'_>) -> ControlFlow<()>,
    ) -> Result<SkewReport, SkewError> {
        skew::run(self, versions, observe)
    }
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationProgress<'a> {
    /// Cases ranked, over all arms.
    pub done: usize,
    /// Cases to rank, over all arms.
    pub total: usize,
    /// The arm, or the first of the arms, that is ranking.
    pub arm: &'a str,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A setting is out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A temporal split of data without times.
    #[error("split: needs times, and the data has only an order")]
    NeedsTimes,
    /// A log of requests without a time to cut at.
    #[error("split: a log of requests needs a temporal one, which says when training ended")]
    LogNeedsTimes,
    /// Nothing to test on.
    #[error(
        "the split leaves no case: a case is a session with at least two events of the chosen types, a user with three, \
         or a delivered ad"
    )]
    NoCases,
    /// A model was trained on what it would be tested on.
    #[error("{model}: was trained on {trained}, the cases are held out of {tested}")]
    Seen {
        /// Its arm.
        model: String,
        /// What it was trained on.
        trained: Split,
        /// What it may have been trained on.
        tested: Split,
    },
    /// A model failed.
    #[error("model: {0}")]
    Model(#[from] ModelError),
    /// The observer broke it off.
    #[error("the evaluation was broken off")]
    BrokenOff,
}

#[cfg(test)]
mod tests;
