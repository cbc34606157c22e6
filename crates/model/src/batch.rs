//! One training step's inputs: examples with their synthetic context, candidates, and the log-Q correction.

use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::dataset::{Clock, Dataset};

use crate::catalogue::{Catalogue, ItemFeatures};
use crate::examples::{Example, Sampler};
use crate::features::Features;
use crate::inputs::{ContextFeatures, HeadRows, Histories, HistoryEvent, ItemRows, QueryFeatures, demographics};
use crate::ops::SampledSoftmax;
use crate::settings::{ModelKind, ModelSettings, TrainingSettings};
use crate::text::words;

/// The inputs of one step.
pub(crate) struct Batch {
    pub(crate) histories: Histories,
    /// For each row: the events of `histories` that it knows.
    pub(crate) spans: Vec<Range<usize>>,
    pub(crate) head: HeadRows,
    pub(crate) candidates: ItemRows,
    pub(crate) softmax: SampledSoftmax,
    /// What is dropped follows from it.
    pub(crate) dropout_seed: u32,
}

/// What all batches of a training have in common.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) features: &'a Features,
    pub(crate) catalogue: &'a Catalogue,
    /// How likely a draw is to be of each item; they sum to 1.
    pub(crate) item_shares: &'a [f64],
    pub(crate) model: &'a ModelSettings,
    pub(crate) training: &'a TrainingSettings,
}

/// Makes batches.
pub(crate) struct Batches<'a> {
    pub(crate) data: &'a Dataset,
    pub(crate) sampler: &'a Sampler<'a>,
    pub(crate) features: &'a Features,
    pub(crate) catalogue: &'a Catalogue,
    item_shares: &'a [f64],
    pub(crate) model: &'a ModelSettings,
    pub(crate) training: &'a TrainingSettings,
    // The column of each item in the batch of `column_of_batch`.
    columns: Vec<(u64, u32)>,
    batches: u64,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(data: &'a Dataset, sampler: &'a Sampler<'a>, shared: Shared<'a>) -> Self {
        let Shared { features, catalogue, item_shares, model, training } = shared;
        let columns = vec![(0, 0); data.items.len()];
        Self { data, sampler, features, catalogue, item_shares, model, training, columns, batches: 0 }
    }

    /// The next batch.
    pub(crate) fn next(&mut self, random: &mut ChaCha8Rng) -> Batch {
        self.batches += 1;
        let mut histories = Histories::new(self.features);
        let mut head = HeadRows::new(self.model, self.features);
        let mut candidates = ItemRows::new(self.features);
        let mut spans = Vec::new();
        let mut targets = Vec::new();
        let mut items = Vec::new();
        for _ in 0..self.training.batch_size {
            let mut example = self.sampler.draw(random);
            if chance(random, self.training.history_drop) {
                example.history = example.history.start..example.history.start;
                example.predictions.iter_mut().for_each(|prediction| prediction.after = None);
            }
            let offset = histories.events();
            self.push_history(&example, &mut histories, random);
            for prediction in &example.predictions {
                let known = prediction.after.map_or(0, |after| after + 1 - example.history.start);
                spans.push(offset..offset + known);
                self.push_query(&example, prediction.positive, &mut head, random);
                targets.push(self.column(self.data.events()[prediction.positive].item, &mut items));
            }
        }
        for _ in 0..self.training.negatives {
            let drawn = random.random_range(0..self.data.items.len() as u32);
            self.column(drawn, &mut items);
        }
        for item in &items {
            // An item that is never a positive would only be pushed away by its id: its other features speak for it.
            let with_id = self.item_shares[*item as usize] > 0.0 && !chance(random, self.training.id_drop);
            candidates.push_row(self.catalogue.item(*item), with_id);
        }
        let softmax = self.softmax(&items, targets);
        Batch { histories, spans, head, candidates, softmax, dropout_seed: random.random() }
    }

    /// The column of `item`, which becomes a candidate if it is none yet.
    fn column(&mut self, item: u32, items: &mut Vec<u32>) -> u32 {
        let known = &mut self.columns[item as usize];
        if known.0 != self.batches {
            *known = (self.batches, items.len() as u32);
            items.push(item);
        }
        known.1
    }

    /// Bengio and Senécal, "Adaptive importance sampling to accelerate training of a neural probabilistic language
    /// model", 2008: a candidate counts as often as it would have been drawn, so its logit is lowered by the logarithm
    /// of that. Candidates are distinct here, so that is the probability of being drawn at all.
    fn softmax(&self, items: &[u32], targets: Vec<u32>) -> SampledSoftmax {
        let draws = targets.len() as f64;
        let uniform = 1.0 / self.data.items.len() as f64;
        let log_q = |item: &u32| {
            let missed = draws * (-self.item_shares[*item as usize]).ln_1p()
                + self.training.negatives as f64 * (-uniform).ln_1p();
            // An item that every draw yields has a share of 1, and is surely there.
            (-missed.exp_m1()).max(1e-12).ln() as f32
        };
        let log_q: Vec<f32> = items.iter().map(log_q).collect();
        let lowered = |weight: f32| log_q.iter().map(|log_q| -weight * log_q).collect();
        SampledSoftmax {
            temperature: self.training.temperature,
            targets,
            as_positive: lowered(self.training.log_q_positives),
            as_negative: lowered(self.training.log_q_negatives),
        }
    }

    fn push_history(&self, example: &Example, histories: &mut Histories, random: &mut ChaCha8Rng) {
        let events = &self.data.events()[example.history.clone()];
        let timed = self.data.clock == Clock::Milliseconds;
        let history = events.iter().map(|row| HistoryEvent {
            item: self.catalogue.item(row.item),
            kind: row.kind,
            at_ms: timed.then_some(row.at),
            with_id: !chance(random, self.training.id_drop),
        });
        histories.push(history, self.features);
    }

    fn push_query(&self, example: &Example, positive: usize, head: &mut HeadRows, random: &mut ChaCha8Rng) {
        let facts = &self.data.users[example.user as usize].demographics;
        let hide = self.training.demographics_drop;
        let demographics = demographics(facts, self.features, || chance(random, hide));
        let context = match self.model.kind {
            ModelKind::Contextual => self.synthetic_context(positive, random),
            ModelKind::HistoryOnly => None,
        };
        head.push(&QueryFeatures { context: context.as_ref(), demographics });
    }

    /// The pseudo-context of a positive; see [`SyntheticContext`](crate::settings::SyntheticContext).
    fn synthetic_context(&self, positive: usize, random: &mut ChaCha8Rng) -> Option<ContextFeatures<'a>> {
        if chance(random, self.training.context_drop) {
            return None;
        }
        let settings = &self.training.synthetic_context;
        let item_of = |event: usize| self.data.events()[event].item;
        // A repeated item is the label itself.
        let neighbour = self.sampler.neighbour(positive).filter(|event| item_of(*event) != item_of(positive));
        let neighbour = neighbour.map(|event| self.feature_of(event));
        let from_label = chance(random, settings.label_share);
        let source = if from_label { Some(self.feature_of(positive)) } else { neighbour };
        if chance(random, settings.query_share) {
            return self.pseudo_query(positive, random);
        }
        let mut interests = Vec::new();
        for (row, confidence) in source.map_or(&[][..], |item| &item.interests) {
            if !chance(random, settings.interest_drop) {
                let noise = 1.0 + settings.confidence_noise * random.random_range(-1.0..=1.0f32);
                interests.push((*row, (confidence * noise).clamp(0.01, 1.0)));
            }
        }
        let known = self.features.interest_count();
        if source.is_some() && known > 0 && chance(random, settings.interest_add) {
            let added = self.features.interest_row(random.random_range(0..known));
            interests.push((added, random.random_range(0.05..=0.5f32)));
        }
        let subject = neighbour.filter(|_| self.model.subject_item);
        let subject = subject.map(|item| (item, !chance(random, self.training.id_drop)));
        let context = ContextFeatures { interests, query: Vec::new(), subject };
        (!context.interests.is_empty() || context.subject.is_some()).then_some(context)
    }

    /// A search that would lead to the positive: some words in a row of its title, or of an interest's name.
    fn pseudo_query(&self, positive: usize, random: &mut ChaCha8Rng) -> Option<ContextFeatures<'a>> {
        let item = &self.data.items[self.data.events()[positive].item as usize];
        let interest = || {
            let drawn = random.random_range(0..item.interests.len().max(1));
            item.interests.get(drawn).map(|interest| interest.id.as_str())
        };
        let text = item.title.as_deref().or_else(interest)?;
        let words: Vec<String> = words(text).collect();
        let length = random.random_range(1..=words.len().max(1));
        let first = random.random_range(0..=words.len().saturating_sub(length));
        let query = self.features.query(&words.get(first..first + length)?.join(" "));
        (!query.is_empty()).then_some(ContextFeatures { interests: Vec::new(), query, subject: None })
    }

    fn feature_of(&self, event: usize) -> &'a ItemFeatures {
        self.catalogue.item(self.data.events()[event].item)
    }
}

fn chance(random: &mut ChaCha8Rng, share: f32) -> bool {
    share > 0.0 && random.random::<f32>() < share
}
