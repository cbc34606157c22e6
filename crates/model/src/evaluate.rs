//! Evaluation: how often held-out events are among the first K of the whole catalogue.
//!
//! The context of a case is what the user looked at just before the target, never anything of the target. Everything
//! else that an arm knows comes from before the cut. Items that the user has seen are not ranked.

use std::ops::ControlFlow;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::dataset::{Clock, Dataset};

use crate::model::{Model, ModelError};
use crate::settings::{EvaluationSettings, SettingsError, Split};

mod baselines;
mod cases;
mod metrics;
mod model_arm;
mod ranking;

pub use metrics::{ArmReport, EvaluationReport};

use baselines::Baseline;
use cases::Case;
use model_arm::{ContextSource, Prepared};
use ranking::Judged;

/// Cases ranked between two calls of the observer.
const CHUNK_CASES: usize = 256;

/// One way to rank the catalogue for a case.
pub struct Arm<'a>(Kind<'a>);

enum Kind<'a> {
    Model { name: &'static str, model: &'a Model, context: ContextSource },
    Baseline { name: &'static str, baseline: Baseline },
}

impl<'a> Arm<'a> {
    /// Every arm: both models, the controls of the contextual one, and the baselines that need no training.
    ///
    /// With a temporal split the baselines count the last 24 hours before the cut, else everything.
    pub fn all(contextual: &'a Model, history_only: &'a Model, split: &Split) -> Vec<Self> {
        let model = |name, model, context| Self(Kind::Model { name, model, context });
        let baseline = |name, baseline| Self(Kind::Baseline { name, baseline });
        let recent = matches!(split, Split::Temporal { .. });
        let pick = |with: &'static str, without: &'static str| if recent { with } else { without };
        vec![
            model("history only", history_only, ContextSource::None),
            model("contextual", contextual, ContextSource::Given),
            model("contextual, shuffled context", contextual, ContextSource::Shuffled),
            model("contextual, without context", contextual, ContextSource::None),
            baseline(pick("popularity, last 24 h", "popularity"), Baseline::Popularity),
            baseline(pick("last-item Markov, last 24 h", "last-item Markov"), Baseline::Markov),
            baseline(
                pick("subject's category x popularity, last 24 h", "subject's category x popularity"),
                Baseline::CategoryPopularity,
            ),
            baseline("random", Baseline::Random),
        ]
    }

    /// What it is called in reports.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Kind::Model { name, .. } | Kind::Baseline { name, .. } => name,
        }
    }
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationProgress {
    /// Cases ranked, over all arms.
    pub done: usize,
    /// Cases to rank, over all arms.
    pub total: usize,
    /// The arm that is ranking.
    pub arm: &'static str,
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
    /// Nothing to test on.
    #[error("the split leaves no test case: a case is a session with at least two events, or a user with three")]
    NoCases,
    /// A model failed.
    #[error("{arm}: {source}")]
    Model {
        /// Whose.
        arm: &'static str,
        /// What it said.
        source: ModelError,
    },
    /// The observer broke it off.
    #[error("the evaluation was broken off")]
    BrokenOff,
}

/// Ranks the catalogue for every test case with every arm.
///
/// # Errors
/// When a setting is out of range, the split leaves no case, a model fails or `observe` breaks off.
pub fn evaluate(
    data: &Dataset,
    split: &Split,
    arms: &[Arm<'_>],
    settings: &EvaluationSettings,
    observe: &mut dyn FnMut(EvaluationProgress) -> ControlFlow<()>,
) -> Result<EvaluationReport, EvaluateError> {
    settings.check()?;
    if matches!(split, Split::Temporal { .. }) && data.clock == Clock::Order {
        return Err(EvaluateError::NeedsTimes);
    }
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let cases = cases::of(data, split, settings.cases_max, &mut random);
    if cases.is_empty() {
        return Err(EvaluateError::NoCases);
    }
    let shuffled = cases::shuffled_contexts(&cases, &mut random);
    let total = cases.len() * arms.len();
    let mut prepared: Vec<Prepared<'_>> = Vec::new();
    let mut judged: Vec<Vec<Judged>> = Vec::with_capacity(arms.len());
    for (number, arm) in arms.iter().enumerate() {
        let name = arm.name();
        let mut step =
            |done: usize| match observe(EvaluationProgress { done: number * cases.len() + done, total, arm: name }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(EvaluateError::BrokenOff),
            };
        judged.push(match &arm.0 {
            Kind::Baseline { baseline, .. } => baselines::rank(*baseline, data, split, &cases, &mut random, &mut step)?,
            Kind::Model { model, context, .. } => {
                let fail = |source| EvaluateError::Model { arm: name, source };
                let known = prepared.iter().position(|prepared| prepared.is_of(model));
                let number = match known {
                    Some(number) => number,
                    None => {
                        prepared.push(Prepared::new(model, data, &cases).map_err(fail)?);
                        prepared.len() - 1
                    }
                };
                prepared[number].rank(data, &cases, (*context, &shuffled), name, &mut step)?
            }
        });
    }
    let names = arms.iter().map(Arm::name);
    let arms = metrics::reports(names.zip(&judged), data.items.len(), settings, &mut random);
    let ends = crate::examples::training_ends(data, split);
    let ceiling = cases::ceiling(data, &cases, &ends);
    Ok(EvaluationReport { cases: cases.len(), catalogue: data.items.len(), ceiling, arms })
}

/// A case's items that are not ranked: what its user saw before the target. Sorted, without repetitions.
fn seen(data: &Dataset, case: &Case) -> Vec<u32> {
    let first = data.range_of(case.user).start;
    let mut seen: Vec<u32> = data.events()[first..case.target].iter().map(|row| row.item).collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

#[cfg(test)]
mod tests;
