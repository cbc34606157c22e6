//! The tensors of a training, and one step of the optimiser on them.

use candle_core::{Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::batch::Batch;
use crate::device::Device;
use crate::features::Features;
use crate::ops::{Backend, Bags};
use crate::optimizer::{DenseAdam, SparseTable};
use crate::parameters::{Parameter, initial, initial_table};
use crate::settings::{ModelSettings, TrainingSettings};
use crate::towers::{Dropout, Network};

/// The tensors and what the optimiser knows of them.
pub(super) struct Run<'a> {
    model: &'a ModelSettings,
    training: &'a TrainingSettings,
    content_dimension: usize,
    /// Where losses and gradients are computed; the tensors and the optimiser stay on the CPU.
    pub(super) device: Device,
    pub(super) parameters: Vec<Parameter>,
    pub(super) table: SparseTable,
    pub(super) adam: DenseAdam,
}

/// The tensors of a model.
#[derive(Clone)]
pub(super) struct Tensors {
    pub(super) parameters: Vec<Parameter>,
    pub(super) table: Vec<f32>,
}

impl<'a> Run<'a> {
    /// New tensors.
    pub(super) fn new(model: &'a ModelSettings, training: &'a TrainingSettings, features: &Features) -> Self {
        // Stream 0 is the weights', so that both models start from the same; the steps have one each.
        let mut random = ChaCha8Rng::seed_from_u64(training.seed);
        let content_dimension = features.schema.content_dimension();
        let table = initial_table(features.rows(), model.dimension, &mut random);
        let parameters = initial(model, content_dimension, &mut random);
        let adam = DenseAdam::new(&parameters, training.weight_decay);
        let table = SparseTable::new(table, model.dimension);
        let device = Device::CPU;
        Self { model, training, content_dimension, device, parameters, table, adam }
    }

    /// Whether every number is one.
    pub(super) fn is_finite(&self) -> bool {
        let dense = self.parameters.iter().flat_map(|parameter| &parameter.values);
        dense.chain(self.table.values()).all(|value| value.is_finite())
    }

    /// The model's tensors as they are now.
    pub(super) fn tensors(&self) -> Tensors {
        Tensors { parameters: self.parameters.clone(), table: self.table.trained() }
    }

    /// The same, of a training that is over.
    pub(super) fn finish(self) -> Tensors {
        Tensors { parameters: self.parameters, table: self.table.finish() }
    }

    /// One step of the optimiser; returns the loss before it. Steps count from 1.
    pub(super) fn step(&mut self, batch: Batch, step: usize) -> candle_core::Result<f32> {
        // By a thread of the pool, which takes part in what is parallel; another one would hand it over and wait, each time.
        rayon::scope(|_| self.step_here(batch, step))
    }

    fn step_here(&mut self, batch: Batch, step: usize) -> candle_core::Result<f32> {
        let drop = Dropout {
            encoder: self.training.encoder_dropout,
            context: self.training.context_dropout,
            seed: batch.dropout_seed,
        };
        let Pass { loss, variables } = self.pass(batch, drop, Backend::of(&self.device.0))?;
        let value = loss.to_scalar::<f32>()?;
        let grads = loss.backward()?;
        let rate = rate(self.training, step);
        let dense: Vec<Option<&Tensor>> = variables.iter().map(|one| grads.get(one)).collect();
        self.adam.step(&mut self.parameters, &dense, step, rate)?;
        self.table.push(&grads, step, rate)?;
        Ok(value)
    }

    /// The loss of a batch, with the variables that it depends on besides those of the table.
    pub(super) fn pass(&mut self, batch: Batch, drop: Dropout, backend: Backend) -> candle_core::Result<Pass> {
        let variables: Vec<Var> = self
            .parameters
            .iter()
            .map(|parameter| Var::from_tensor(&parameter.tensor(&self.device.0)?))
            .collect::<candle_core::Result<_>>()?;
        let mut find = |name: &str| {
            let number = self.parameters.iter().position(|parameter| parameter.name == name)?;
            Some(variables[number].as_tensor().clone())
        };
        let network = Network::new(self.model, self.content_dimension, backend, &mut find)?;
        self.table.begin();
        let sums = &mut |bags: Bags| self.table.sum(bags, &self.device.0);
        let states = batch.histories.states(batch.spans, sums, &network, drop)?;
        let queries = network.head(batch.head.embed(states, sums, &network)?, drop)?;
        let ads = network.ads(&batch.candidates.embed(sums, &network)?)?;
        let loss = backend.sampled_softmax(&queries, &ads, &batch.softmax)?;
        Ok(Pass { loss, variables })
    }
}

/// A loss and what it depends on.
pub(super) struct Pass {
    pub(super) loss: Tensor,
    pub(super) variables: Vec<Var>,
}

/// Rises linearly to the peak, then falls linearly to 0.
pub(super) fn rate(settings: &TrainingSettings, step: usize) -> f32 {
    if step <= settings.warmup_steps {
        return settings.learning_rate * step as f32 / settings.warmup_steps as f32;
    }
    let rest = (settings.steps - settings.warmup_steps).max(1) as f32;
    settings.learning_rate * (settings.steps + 1 - step) as f32 / rest
}
