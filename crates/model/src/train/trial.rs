//! One batch of a chosen shape, to train on and to encode again and again: what the speed of this crate is measured on,
//! and what another implementation repeats to be compared with it.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device as CandleDevice, Result as CandleResult, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_retrieval::dataset::{Clock, Dataset};
use turret_retrieval::event::EventType;
use turret_retrieval::ids::{AdvertiserId, InterestId, ItemId};
use turret_retrieval::item::{Interest, Item};

use super::TrainError;
use super::run::Run;
use crate::batch::Batch;
use crate::catalogue::Catalogue;
use crate::device::Device;
use crate::features::{Features, Schema, Words};
use crate::inputs::{ContextFeatures, HeadRows, Histories, HistoryEvent, ItemRows, QueryFeatures};
use crate::model::Model;
use crate::ops::{Bags, SampledSoftmax};
use crate::parameters::TABLE;
use crate::settings::{ModelKind, ModelSettings, SettingsError, Split, TrainingSettings};

/// Interests in all, and of a context.
const INTERESTS: [u64; 2] = [1_000, 8];
const ADVERTISERS: u64 = 1_000;

/// After which events of a history something is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predicts {
    /// After the last one.
    Last,
    /// After every one.
    Each,
}

/// The shape of a [`Trial`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialShape {
    /// Items in all.
    pub items: u64,
    /// Events of each history of the batch, at least one.
    pub lengths: Vec<usize>,
    /// What is predicted.
    pub predicts: Predicts,
    /// Candidates besides the positives.
    pub negatives: usize,
}

/// A model and one batch.
pub struct Trial<'a> {
    model: &'a ModelSettings,
    shape: &'a TrialShape,
    training: &'a TrainingSettings,
    features: Features,
    catalogue: Catalogue,
    run: Run<'a>,
    steps: usize,
}

/// What one step reads; a step uses it up.
pub struct TrialBatch(Batch);

impl<'a> Trial<'a> {
    /// A new model over made-up items.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn new(
        model: &'a ModelSettings,
        training: &'a TrainingSettings,
        shape: &'a TrialShape,
    ) -> Result<Self, SettingsError> {
        model.check()?;
        training.check()?;
        let item = |number: u64| Item {
            id: ItemId::from(number),
            advertiser: Some(AdvertiserId::from(number % ADVERTISERS)),
            interests: vec![Interest { id: InterestId::from(number % INTERESTS[0]), confidence: 1.0 }],
            price: None,
            title: None,
            embedding: None,
        };
        let items: Vec<Item> = (0..shape.items).map(item).collect();
        let data = Dataset::new(items, Vec::new(), Vec::new(), Clock::Order, Vec::new());
        let features = Features::new(Schema::of(&data.items, &Words::default(), model));
        let catalogue = Catalogue::of(&data.items, &features);
        let run = Run::new(model, training, &features);
        Ok(Self { model, shape, training, features, catalogue, run, steps: 0 })
    }

    /// The same trial, computed on `device`.
    #[must_use]
    pub fn on(mut self, device: &Device) -> Self {
        self.run.device = device.clone();
        self
    }

    /// The batch; the same on every call.
    pub fn batch(&self) -> TrialBatch {
        let random = &mut ChaCha8Rng::seed_from_u64(self.training.seed);
        let mut histories = Histories::new(&self.features);
        let mut head = HeadRows::new(self.model, &self.features);
        let mut spans = Vec::new();
        for length in &self.shape.lengths {
            let start = histories.events();
            let items: Vec<u32> = (0..*length).map(|_| random.random_range(0..self.shape.items as u32)).collect();
            let events = items.iter().map(|item| HistoryEvent {
                item: self.catalogue.item(*item),
                kind: EventType::View,
                at_ms: None,
                with_id: true,
            });
            histories.push(events, &self.features);
            let first = match self.shape.predicts {
                Predicts::Last => *length,
                Predicts::Each => 1,
            };
            for known in first..=*length {
                spans.push(start..start + known);
                self.push_query(&mut head, random);
            }
        }
        let columns = spans.len().min(self.shape.items as usize / 2).min(256) + self.shape.negatives;
        let mut candidates = ItemRows::new(&self.features);
        // The numbers of the items are hashed, so any of them will do.
        (0..columns as u32).for_each(|item| candidates.push_row(self.catalogue.item(item), true));
        let mut corrections = || (0..columns).map(|_| random.random_range(0.0..5.0)).collect();
        let softmax = SampledSoftmax {
            temperature: self.training.temperature,
            as_positive: corrections(),
            as_negative: corrections(),
            targets: (0..spans.len()).map(|row| (row % (columns - self.shape.negatives)) as u32).collect(),
        };
        TrialBatch(Batch { histories, spans, head, candidates, softmax, dropout_seed: random.random() })
    }

    fn push_query(&self, head: &mut HeadRows, random: &mut ChaCha8Rng) {
        let mut interest = || (self.features.interest_row(random.random_range(0..self.features.interest_count())), 0.5);
        let contextual = self.model.kind == ModelKind::Contextual;
        let context = contextual.then(|| ContextFeatures {
            interests: (0..INTERESTS[1]).map(|_| interest()).collect(),
            query: Vec::new(),
            subject: None,
        });
        let demographics = self.features.unknown_demographics();
        head.push(&QueryFeatures { context: context.as_ref(), demographics });
    }

    /// One step of the optimiser; returns the loss before it.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn step(&mut self, batch: TrialBatch) -> Result<f32, TrainError> {
        self.steps += 1;
        Ok(self.run.step(batch.0, self.steps)?)
    }

    /// The model as it is now.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn model(&self) -> CandleResult<TrialModel> {
        let (features, catalogue) = (self.features.clone(), self.catalogue.clone());
        let table = self.run.table.values().to_vec();
        let parameters = self.run.parameters.clone();
        Model::new(self.model.clone(), features, catalogue, false, Split::leave_one_out(), parameters, table)?
            .on(&self.run.device)
            .map(TrialModel)
    }

    /// Writes the model's tensors and the batch's numbers to a safetensors file, for another implementation to read.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> CandleResult<()> {
        let TrialBatch(batch) = self.batch();
        let mut all = HashMap::new();
        for parameter in &self.run.parameters {
            all.insert(parameter.name.clone(), parameter.tensor(&CandleDevice::Cpu)?);
        }
        let table = self.run.table.values().to_vec();
        let width = self.model.dimension;
        all.insert(TABLE.to_owned(), Tensor::from_vec(table, (self.features.rows(), width), &CandleDevice::Cpu)?);
        let mut bags = |name: &str, bags: &Bags| -> CandleResult<()> {
            let (rows, weights, ends) = bags.parts();
            all.insert(format!("{name}.rows"), Tensor::new(rows, &CandleDevice::Cpu)?);
            all.insert(format!("{name}.weights"), Tensor::new(weights, &CandleDevice::Cpu)?);
            let ends: Vec<i64> = ends.iter().map(|end| *end as i64).collect();
            all.insert(format!("{name}.ends"), Tensor::new(&*ends, &CandleDevice::Cpu)?);
            Ok(())
        };
        bags("events", batch.histories.bags())?;
        bags("candidates", batch.candidates.bags())?;
        for (name, of_head) in ["interests", "age", "country", "gender"].iter().zip(batch.head.bags()) {
            bags(name, of_head)?;
        }
        let lengths: Vec<i64> = self.shape.lengths.iter().map(|length| *length as i64).collect();
        all.insert("lengths".to_owned(), Tensor::new(&*lengths, &CandleDevice::Cpu)?);
        all.insert("targets".to_owned(), Tensor::new(&*batch.softmax.targets, &CandleDevice::Cpu)?);
        all.insert("as_positive".to_owned(), Tensor::new(&*batch.softmax.as_positive, &CandleDevice::Cpu)?);
        all.insert("as_negative".to_owned(), Tensor::new(&*batch.softmax.as_negative, &CandleDevice::Cpu)?);
        candle_core::safetensors::save(&all, path)
    }
}

/// A trial's model, to encode with.
pub struct TrialModel(Model);

impl TrialModel {
    /// The state of every history of `batch`.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn encode(&self, batch: TrialBatch) -> CandleResult<Vec<Vec<f32>>> {
        self.0.states(batch.0.histories)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted;

    #[test]
    fn a_trial_repeats_its_batch_learns_it_and_writes_it_down() {
        let model = ModelSettings { subject_item: false, ..planted::model(ModelKind::Contextual) };
        let training = planted::training(100);
        for predicts in [Predicts::Last, Predicts::Each] {
            let shape = TrialShape { items: 900, lengths: vec![1, 5, 20], predicts, negatives: 30 };
            let mut trial = Trial::new(&model, &training, &shape).unwrap();
            assert_eq!(trial.model().unwrap().encode(trial.batch()).unwrap().len(), 3);

            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("trial.safetensors");
            trial.save(&file).unwrap();
            let written = candle_core::safetensors::load(&file, &CandleDevice::Cpu).unwrap();
            let rows = if predicts == Predicts::Last { 3 } else { 26 };
            assert_eq!(written["targets"].dims(), [rows]);
            assert_eq!(written["events.ends"].dims(), [26]);
            assert_eq!(written[TABLE].dims(), [trial.features.rows(), 16]);

            let losses: Vec<f32> = (0..20).map(|_| trial.step(trial.batch()).unwrap()).collect();
            assert!(losses[19] < 0.7 * losses[0], "{losses:?}");
        }
    }
}
