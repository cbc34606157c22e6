//! A training as a loop of steps.

use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use turret_retrieval::dataset::Parts;
use turret_retrieval::digest::{Digest, Digester};

use super::Checkpoints;
use super::checkpoint;
use super::fault::TrainError;
use super::feed::Feed;
use super::progress::{History, TrainingProgress, TrainingRecord, Validated};
use super::run::{Run, Tensors, rate};
use super::survey::Survey;
use super::validation::Validator;
use crate::blueprint::Blueprint;
use crate::model::Model;
use crate::settings::{EvaluationSettings, ModelSettings, Split, TrainingSettings};

/// What a training is of; it does not change.
pub(super) struct Job<'a> {
    pub(super) data: &'a dyn Parts,
    pub(super) split: &'a Split,
    pub(super) model: &'a ModelSettings,
    pub(super) training: &'a TrainingSettings,
    pub(super) evaluation: &'a EvaluationSettings,
    pub(super) blueprint: Blueprint,
    pub(super) survey: Survey,
    pub(super) validator: Option<Validator<'a>>,
    /// The versions of the model whose tensors it starts from; none: from new ones.
    pub(super) start: Option<Digest>,
}

/// Where a training is.
pub(super) struct State<'a> {
    pub(super) run: Run<'a>,
    pub(super) history: History,
    pub(super) best: Option<Tensors>,
}

/// Everything that decides what comes out.
#[derive(Serialize)]
struct Identity<'a> {
    model: &'a ModelSettings,
    training: &'a TrainingSettings,
    split: &'a Split,
    /// What the best model is the best of; null where none is validated.
    evaluation: Option<&'a EvaluationSettings>,
    data: Known,
    /// Absent where it starts from new tensors, so that the digests of trainings of before stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<&'a Digest>,
}

#[derive(Serialize)]
struct Known {
    parts: usize,
    items: usize,
    positives: u64,
    features: Digest,
    /// Of all items, and of how often each is drawn.
    digest: Digest,
}

impl Job<'_> {
    /// Takes step after step.
    pub(super) fn drive(
        &self,
        state: &mut State<'_>,
        feed: Feed,
        checkpoints: Option<&Checkpoints>,
        observe: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        let mut kept = Instant::now();
        while !state.history.is_over(self.training) {
            let progress = self.step(state, &feed)?;
            let goes_on = observe(progress).is_continue();
            if let Some(Checkpoints { path, every }) = checkpoints
                && (!goes_on || kept.elapsed() >= *every)
            {
                self.check_finite(state)?;
                checkpoint::save(path, &self.identity(), &state.history, &state.run, state.best.as_ref())?;
                kept = Instant::now();
            }
            if !goes_on {
                return Err(TrainError::BrokenOff { step: progress.step });
            }
        }
        Ok(())
    }

    fn step(&self, state: &mut State<'_>, feed: &Feed) -> Result<TrainingProgress, TrainError> {
        let started = Instant::now();
        let batch = feed.next()?;
        let waited = started.elapsed();
        let examples = batch.softmax.targets.len();
        let step = state.history.step + 1;
        let learning_rate = rate(self.training, step);
        let loss = state.run.step(batch, step)?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step, loss, learning_rate });
        }
        state.history.add_loss(loss, self.training.steps);
        let validation = self.validate(state)?;
        let took = started.elapsed();
        state.history.add_time(examples, took, waited);
        Ok(TrainingProgress {
            step,
            steps: self.training.steps,
            epoch: step as f64 * self.epochs_per_step(),
            loss: state.history.recent_loss,
            learning_rate,
            examples,
            took,
            waited,
            validation,
        })
    }

    /// Validates the model in the making, where that is due, and keeps it if it is the best so far.
    fn validate(&self, state: &mut State<'_>) -> Result<Option<Validated>, TrainError> {
        let (step, every) = (state.history.step, self.training.validation_every_steps);
        let Some(validator) = &self.validator else { return Ok(None) };
        if !step.is_multiple_of(every) && step != self.training.steps {
            return Ok(None);
        }
        self.check_finite(state)?;
        let tensors = state.run.tensors();
        let validation = validator.validate(&self.model_of(tensors.clone())?.on(&state.run.device)?, step)?;
        if state.history.add_validation(validation) && state.history.keeps_best {
            state.best = Some(tensors);
        }
        Ok(Some(validation))
    }

    pub(super) fn finish(self, state: State<'_>) -> Result<(Model, TrainingRecord), TrainError> {
        self.check_finite(&state)?;
        let State { run, history, best } = state;
        let (first_loss, final_loss) = history.mean_losses(self.training.steps);
        let seconds = history.took.as_secs_f64();
        let record = TrainingRecord {
            run: self.digest(),
            steps: history.step,
            epochs: history.step as f64 * self.epochs_per_step(),
            final_loss,
            first_loss,
            best: history.best(),
            cautions: self.survey.cautions.clone(),
            positives: self.survey.positives,
            table_rows: self.blueprint.features.rows(),
            dense_parameters: run.parameters.iter().map(|parameter| parameter.values.len()).sum(),
            split: *self.split,
            settings: self.training.clone(),
            device: run.device.to_string(),
            seconds,
            examples_per_second: history.examples as f64 / seconds,
            waiting_share: history.waited.as_secs_f64() / seconds,
            validations: history.validations,
        };
        let tensors = best.unwrap_or_else(|| run.finish());
        Ok((self.model_of(tensors)?, record))
    }

    fn model_of(&self, Tensors { parameters, table }: Tensors) -> candle_core::Result<Model> {
        self.blueprint.model(parameters, table)
    }

    /// Refuses tensors that the last step has spoilt.
    fn check_finite(&self, state: &State<'_>) -> Result<(), TrainError> {
        let step = state.history.step;
        if state.run.is_finite() {
            return Ok(());
        }
        Err(TrainError::Diverged { step, loss: f32::NAN, learning_rate: rate(self.training, step) })
    }

    /// In how many steps each event is predicted once, on average: one by that.
    pub(super) fn epochs_per_step(&self) -> f64 {
        let predictions = self.training.batch_size as f64 * self.survey.predictions_per_draw;
        predictions / self.survey.positives as f64
    }

    /// The digest of [`identity`](Self::identity).
    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.identity().to_string().as_bytes())
    }

    /// Everything that decides what comes out, to compare with that of a checkpoint.
    pub(super) fn identity(&self) -> Value {
        let mut digester = Digester::default();
        digester.update(&self.blueprint.catalogue.to_bytes());
        self.survey.item_shares.iter().for_each(|share| digester.update(&share.to_le_bytes()));
        let identity = Identity {
            model: self.model,
            training: self.training,
            split: self.split,
            evaluation: self.validator.is_some().then_some(self.evaluation),
            data: Known {
                parts: self.data.count(),
                items: self.data.items().len(),
                positives: self.survey.positives,
                features: self.blueprint.features.schema.digest(),
                digest: digester.finish(),
            },
            start: self.start.as_ref(),
        };
        let text = serde_json::to_vec(&identity).expect("settings and numbers are JSON");
        serde_json::from_slice(&text).expect("what was written is JSON")
    }
}
