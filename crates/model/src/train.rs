//! Training: know the log, then draw, embed, score, step.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use turret_retrieval::dataset::{Clock, Parts};
use turret_retrieval::digest::Digest;

use crate::batch::Shared;
use crate::blueprint::Blueprint;
use crate::device::Device;
use crate::model::Model;
use crate::settings::{
    Attention, EvaluationSettings, HistoryGap, ModelSettings, Objective, SettingsError, Split, TrainingSettings,
};

mod checkpoint;
mod fault;
mod feed;
mod job;
mod plan;
mod progress;
mod run;
mod start;
mod survey;
mod trial;
mod validation;

pub use checkpoint::CheckpointError;
pub use fault::TrainError;
pub use progress::{TrainingProgress, TrainingRecord, Validated};
pub use start::StartError;
pub use survey::Caution;
pub use trial::{Predicts, Trial, TrialBatch, TrialModel, TrialShape};

use feed::{Source, with_feed};
use job::{Job, State};
use plan::Plan;
use progress::History;
use run::Run;
use validation::{Validator, has_seen_the_validation};

/// A training that is about to begin, or to go on.
pub struct Trainer<'a> {
    job: Job<'a>,
    state: State<'a>,
}

/// Where and how often a training is kept, to go on after it was broken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// The file; each checkpoint replaces the one before.
    pub path: PathBuf,
    /// The time from one to the next. A training that is broken off is kept besides.
    pub every: Duration,
}

/// Trains a model on the part of `data` that `split` leaves for it, without checkpoints. Where the settings validate, every
/// held-out event is a target.
///
/// The same data, settings and seed give the same tensors, whatever the number of threads. `observe` is called after
/// every step.
///
/// # Errors
/// As those of [`Trainer::new`] and [`Trainer::train`].
pub fn train(
    data: &dyn Parts,
    split: &Split,
    model: &ModelSettings,
    training: &TrainingSettings,
    observe: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
) -> Result<(Model, TrainingRecord), TrainError> {
    let evaluation = EvaluationSettings::plain(training.seed);
    Trainer::new(data, split, (model, training, &evaluation), &mut |_, _| ControlFlow::Continue(()))?
        .train(None, observe)
}

impl<'a> Trainer<'a> {
    /// Checks settings and data; `evaluation` says what the model in the making is validated by. This reads the whole log
    /// once; `watch` is told the parts done, and parts in all.
    ///
    /// # Errors
    /// When a setting is out of range or does not fit the data, there is nothing to learn from, a part cannot be read or
    /// `watch` breaks off.
    pub fn new(
        data: &'a dyn Parts,
        split: &'a Split,
        (model, training, evaluation): (&'a ModelSettings, &'a TrainingSettings, &'a EvaluationSettings),
        watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        check(data.clock(), split, model, training)?;
        let mut survey = survey::survey(data, split, (model, training), watch)?;
        if training.validation_every_steps > 0 && has_seen_the_validation(split) {
            survey.cautions.push(Caution::NotValidated);
        }
        let blueprint = Blueprint::new(data, split, model, (&survey.words, &survey.seen_items));
        let validator = Validator::new(data, split, training, evaluation)?;
        let state = State {
            run: Run::new(model, training, &blueprint.features),
            history: History::new(training.keep_best && validator.is_some()),
            best: None,
        };
        let job = Job { data, split, model, training, evaluation, blueprint, survey, validator, start: None };
        Ok(Self { job, state })
    }

    /// The same training, computed on `device`. Tensors and optimiser stay on the CPU, where the table of embeddings may be
    /// larger than a GPU.
    #[must_use]
    pub fn on(mut self, device: &Device) -> Self {
        self.state.run.device = device.clone();
        self
    }

    /// What the data's owner should know before the training begins.
    pub fn cautions(&self) -> &[Caution] {
        &self.job.survey.cautions
    }

    /// The digest of everything that decides what comes out: settings, split and data. Two trainings of one digest end
    /// with the same tensors.
    pub fn digest(&self) -> Digest {
        self.job.digest()
    }

    /// Goes on from the checkpoint at `path`; returns the steps that were done. The training ends with the very tensors
    /// that it would have ended with, had it not been broken off.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is of other settings or other data.
    pub fn resume(&mut self, path: &Path) -> Result<usize, CheckpointError> {
        let (history, best) = checkpoint::load(path, &self.job.identity(), &mut self.state.run)?;
        (self.state.history, self.state.best) = (history, best);
        Ok(self.state.history.step)
    }

    /// Trains, calling `observe` after every step. Where that breaks off, a checkpoint is written first, if any are.
    ///
    /// # Errors
    /// When the loss diverges, a part cannot be read, a checkpoint cannot be written, or `observe` breaks off.
    pub fn train(
        self,
        checkpoints: Option<&Checkpoints>,
        observe: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<(Model, TrainingRecord), TrainError> {
        let Self { job, mut state } = self;
        let shared = Shared {
            features: &job.blueprint.features,
            catalogue: &job.blueprint.catalogue,
            item_shares: &job.survey.item_shares,
            model: job.model,
            training: job.training,
        };
        let plan = Plan::new(job.training.seed, job.survey.part_shares.clone(), 1.0 / job.epochs_per_step());
        let source = Source { data: job.data, split: job.split, shared, plan: &plan };
        let steps = state.history.step + 1..=job.training.steps;
        with_feed(source, steps, |feed| job.drive(&mut state, feed, checkpoints, observe))?;
        job.finish(state)
    }
}

fn check(clock: Clock, split: &Split, model: &ModelSettings, training: &TrainingSettings) -> Result<(), TrainError> {
    model.check()?;
    training.check()?;
    split.check()?;
    if training.objective == Objective::DenseAllAction && model.attention == Attention::Bidirectional {
        let rule = "must be causal where every position predicts";
        return Err(SettingsError { field: "attention", rule }.into());
    }
    if training.synthetic_context.query_share > 0.0 && model.query_buckets == 0 {
        return Err(SettingsError { field: "query_share", rule: "must be 0 where query_buckets is 0" }.into());
    }
    if clock == Clock::Order {
        let needs = [
            ("split", matches!(split, Split::Temporal { .. })),
            ("history_gap", training.history_gap == HistoryGap::Day),
            ("half_life_hours", training.half_life_hours.is_some()),
        ];
        if let Some((field, _)) = needs.into_iter().find(|(_, needed)| *needed) {
            return Err(TrainError::NeedsTimes { field });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
