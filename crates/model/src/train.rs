//! Training: draw, embed, score, step.

use std::ops::ControlFlow;
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use turret_retrieval::dataset::{Clock, Dataset};

use crate::batch::{Batch, Batches};
use crate::catalogue::Catalogue;
use crate::examples::{Sampler, known_items, training_ends};
use crate::features::{Features, Schema};
use crate::model::Model;
use crate::ops::Backend;
use crate::optimizer::{DenseAdam, SparseTable};
use crate::parameters::{Parameter, initial, initial_table};
use crate::settings::{Attention, HistoryGap, ModelSettings, Objective, SettingsError, Split, TrainingSettings};
use crate::towers::{Dropout, Network};

/// How far a training is.
#[derive(Clone, Copy, Debug)]
pub struct TrainingProgress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The mean loss of late, in nats.
    pub loss: f32,
}

/// What a training came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingRecord {
    /// Steps done.
    pub steps: usize,
    /// The mean loss over the last twentieth of the steps, in nats.
    pub final_loss: f32,
    /// The mean loss over the first twentieth.
    pub first_loss: f32,
    /// Events that were drawn from as positives.
    pub positives: usize,
    /// Rows of the embedding table.
    pub table_rows: usize,
    /// Numbers in all other tensors.
    pub dense_parameters: usize,
    /// The settings.
    pub settings: TrainingSettings,
    /// How long it took.
    pub seconds: f64,
}

/// Why a model was not trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting of the model or the training is out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Nothing to learn from.
    #[error("the training part of the data holds no event of a type that has a weight")]
    NoPositives,
    /// A setting needs times, and the data has only an order.
    #[error("{field}: needs times, and the data has only an order")]
    NeedsTimes {
        /// The setting.
        field: &'static str,
    },
    /// The loss is no longer a number.
    #[error("the loss is {loss} at step {step}; a lower learning_rate may help")]
    Diverged {
        /// When.
        step: usize,
        /// What it is.
        loss: f32,
    },
    /// The observer broke it off.
    #[error("training was broken off")]
    BrokenOff,
    /// An operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Trains a model on the part of `data` that `split` leaves for it.
///
/// The same data, settings and seed give the same tensors, whatever the number of threads. `observe` is called after
/// every step.
///
/// # Errors
/// When a setting is out of range or does not fit the data, there is nothing to learn from, the loss diverges or
/// `observe` breaks off.
pub fn train(
    data: &Dataset,
    split: &Split,
    model: &ModelSettings,
    training: &TrainingSettings,
    observe: &mut dyn FnMut(TrainingProgress) -> ControlFlow<()>,
) -> Result<(Model, TrainingRecord), TrainError> {
    check(data, split, model, training)?;
    let started = Instant::now();
    let features = Features::new(Schema::of(data, model));
    let mut catalogue = Catalogue::of(&data.items, &features);
    let sampler = Sampler::new(data, split, training, model.history_length_max).ok_or(TrainError::NoPositives)?;
    let mut run = Run::new(model, training, &features);
    let mut batches = Batches::new(data, &sampler, (&features, &catalogue), (model, training));
    let mut losses = Vec::with_capacity(training.steps);
    let mut recent = 0.0;
    for step in 1..=training.steps {
        let batch = batches.next(&mut run.random);
        let loss = run.step(batch, step)?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step, loss });
        }
        recent = if step == 1 { loss } else { 0.98 * recent + 0.02 * loss };
        losses.push(loss);
        if observe(TrainingProgress { step, steps: training.steps, loss: recent }).is_break() {
            return Err(TrainError::BrokenOff);
        }
    }
    let twentieth = losses.len().div_ceil(20);
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let record = TrainingRecord {
        steps: training.steps,
        final_loss: mean(&losses[losses.len() - twentieth..]),
        first_loss: mean(&losses[..twentieth]),
        positives: sampler.positives(),
        table_rows: features.rows(),
        dense_parameters: run.parameters.iter().map(|parameter| parameter.values.len()).sum(),
        settings: training.clone(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let table = run.table.finish();
    catalogue.keep_ids(&known_items(data, &training_ends(data, split)));
    let timed = data.clock == Clock::Milliseconds;
    let model = Model::new(model.clone(), features, catalogue, timed, *split, run.parameters, table)?;
    Ok((model, record))
}

fn check(data: &Dataset, split: &Split, model: &ModelSettings, training: &TrainingSettings) -> Result<(), TrainError> {
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
    if data.clock == Clock::Order {
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

/// The state of a training.
struct Run<'a> {
    model: &'a ModelSettings,
    training: &'a TrainingSettings,
    content_dimension: usize,
    parameters: Vec<Parameter>,
    table: SparseTable,
    adam: DenseAdam,
    random: ChaCha8Rng,
}

impl<'a> Run<'a> {
    fn new(model: &'a ModelSettings, training: &'a TrainingSettings, features: &Features) -> Self {
        // One stream for the weights and one for the draws, so that both models start from the same weights.
        let mut weights = ChaCha8Rng::seed_from_u64(training.seed);
        let mut random = ChaCha8Rng::seed_from_u64(training.seed);
        random.set_stream(1);
        let content_dimension = features.schema.content_dimension();
        let table = initial_table(features.rows(), model.dimension, &mut weights);
        let parameters = initial(model, content_dimension, &mut weights);
        let adam = DenseAdam::new(&parameters, training.weight_decay);
        let table = SparseTable::new(table, model.dimension);
        Self { model, training, content_dimension, parameters, table, adam, random }
    }

    /// One step of the optimiser; returns the loss before it.
    fn step(&mut self, batch: Batch, step: usize) -> Result<f32, TrainError> {
        let drop = Dropout {
            encoder: self.training.encoder_dropout,
            context: self.training.context_dropout,
            seed: self.random.random(),
        };
        let Pass { loss, leaf, variables } = self.pass(batch, drop, Backend::of(&Device::Cpu))?;
        let value = loss.to_scalar::<f32>()?;
        let grads = loss.backward()?;
        let rate = rate(self.training, step);
        let dense: Vec<Option<&Tensor>> = variables.iter().map(|variable| grads.get(variable)).collect();
        self.adam.step(&mut self.parameters, &dense, step, rate)?;
        if let Some(grad) = grads.get(&leaf) {
            self.table.push(grad, step, rate)?;
        }
        Ok(value)
    }

    /// The loss of a batch, with the variables that it depends on.
    fn pass(&mut self, mut batch: Batch, drop: Dropout, backend: Backend) -> candle_core::Result<Pass> {
        let mut bags = batch.head.bags_mut();
        bags.push(batch.histories.bags_mut());
        bags.push(batch.candidates.bags_mut());
        let leaf = self.table.pull(&mut bags)?;
        let table = leaf.as_tensor();
        let variables: Vec<Var> = self
            .parameters
            .iter()
            .map(|parameter| Var::from_tensor(&parameter.tensor()?))
            .collect::<candle_core::Result<_>>()?;
        let mut find = |name: &str| {
            let number = self.parameters.iter().position(|parameter| parameter.name == name)?;
            Some(variables[number].as_tensor().clone())
        };
        let network = Network::new(self.model, self.content_dimension, backend, &mut find)?;
        let states = batch.histories.states(batch.spans, table, &network, drop)?;
        let queries = network.head(batch.head.embed(states, table, &network)?, drop)?;
        let ads = network.ads(&batch.candidates.embed(table, &network)?)?;
        let loss = backend.sampled_softmax(&queries, &ads, &batch.softmax)?;
        Ok(Pass { loss, leaf, variables })
    }
}

/// A loss and what it depends on.
struct Pass {
    loss: Tensor,
    leaf: Var,
    variables: Vec<Var>,
}

/// Rises linearly to the peak, then falls linearly to 0.
fn rate(settings: &TrainingSettings, step: usize) -> f32 {
    if step <= settings.warmup_steps {
        return settings.learning_rate * step as f32 / settings.warmup_steps as f32;
    }
    let rest = (settings.steps - settings.warmup_steps).max(1) as f32;
    settings.learning_rate * (settings.steps + 1 - step) as f32 / rest
}

mod trial;

pub use trial::{Predicts, Trial, TrialBatch, TrialModel, TrialShape};

#[cfg(test)]
mod tests;
