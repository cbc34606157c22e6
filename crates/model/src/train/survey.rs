//! One pass over the log before training: what is drawn how often, and what is wrong with it.

use std::fmt;
use std::ops::ControlFlow;

use serde::Serialize;
use turret_retrieval::dataset::{Dataset, Parts, Row};
use turret_retrieval::event::EventType;
use turret_retrieval::item::Item;

use super::TrainError;
use crate::examples::{Draws, user_weight};
use crate::features::Words;
use crate::settings::{EventWeights, ModelKind, ModelSettings, Objective, Split, TrainingSettings};

/// What is known of the whole log.
pub(super) struct Survey {
    /// The users' words for countries and genders.
    pub(super) words: Words,
    /// How likely each prediction is to be of each item; they sum to 1.
    pub(super) item_shares: Vec<f64>,
    /// Whether each item occurs among the training events, of whichever type.
    pub(super) seen_items: Vec<bool>,
    /// How likely each draw is to be from each part; they sum to 1.
    pub(super) part_shares: Vec<f64>,
    /// Events that may be drawn.
    pub(super) positives: u64,
    /// Events that one draw predicts, on average.
    pub(super) predictions_per_draw: f64,
    pub(super) cautions: Vec<Caution>,
}

/// Something about the data that training can live with and its owner should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Caution {
    /// One user has all training events.
    OneUser,
    /// All training events are of one item.
    OneItem,
    /// No user has two training events.
    NoHistories,
    /// Several users, whose training events name the same items in the same order.
    SameHistories,
    /// A contextual model, and no item has an interest.
    NoInterests,
    /// The settings ask for validation, and the training part of a temporal split for the test holds its cases.
    NotValidated,
}

impl fmt::Display for Caution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneUser => "all training events are of one user: what is learnt holds for that user alone",
            Self::OneItem => "all training events are of one item: there is nothing to learn but to recommend it",
            Self::NoHistories => "no user has two training events: there is no history to learn from",
            Self::SameHistories => "all users have the same training events: history tells none from another",
            Self::NoInterests => "no item has an interest: contexts say nothing but the item that is looked at",
            Self::NotValidated => {
                "the training is not validated: up to the test, it sees what it would be validated on"
            }
        })
    }
}

/// Reads every part once, telling `watch` of each: parts done, parts in all.
pub(super) fn survey(
    data: &dyn Parts,
    split: &Split,
    (model, training): (&ModelSettings, &TrainingSettings),
    watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Survey, TrainError> {
    let items = data.items().len();
    let mut count = Count { item_weights: vec![0.0; items], seen_items: vec![false; items], ..Count::default() };
    for number in 0..data.count() {
        if watch(number, data.count()).is_break() {
            return Err(TrainError::BrokenOff { step: 0 });
        }
        let part = data.read(number)?;
        count.add(&part, split, model, training);
    }
    count.finish(data.items(), model, &training.event_weights)
}

/// A survey in the making.
#[derive(Default)]
struct Count {
    words: Words,
    item_weights: Vec<f64>,
    seen_items: Vec<bool>,
    part_weights: Vec<f64>,
    // What the weights above are relative to.
    reference_ms: i64,
    positives: u64,
    // The sum over the draws of weight times predictions.
    predictions: f64,
    users: u64,
    users_with_history: u64,
    kinds: [u64; EventType::ALL.len()],
    // The digest of the first user's items in their order, and whether another user's differs.
    first_history: Option<u64>,
    histories_differ: bool,
}

impl Count {
    fn add(&mut self, data: &Dataset, split: &Split, model: &ModelSettings, training: &TrainingSettings) {
        self.words.count(&data.users);
        let draws = Draws::of(data, split, training);
        let scale = self.refer_to(draws.reference_ms, training);
        let mut of_users = vec![(0.0, 0); draws.ends.len()];
        for (row, weight) in draws.weights() {
            let event = &data.events()[row];
            let weight = weight * scale;
            self.item_weights[event.item as usize] += weight;
            self.positives += 1;
            let own: &mut (f64, usize) = &mut of_users[event.user as usize];
            *own = (own.0 + weight, own.1 + 1);
        }
        let mut part = 0.0;
        for (sum, events) in of_users {
            let weight = user_weight(training.objective, sum, events);
            let predictions = match training.objective {
                Objective::AllAction | Objective::NextAction => 1,
                Objective::DenseAllAction => events.saturating_sub(1).clamp(1, model.history_length_max),
            };
            part += weight;
            self.predictions += weight * predictions as f64;
        }
        self.part_weights.push(part);
        for (user, end) in (0..).zip(&draws.ends) {
            self.add_history(&data.events()[data.range_of(user).start..*end]);
        }
    }

    /// Makes weights relative to the latest reference of all parts so far, and says what those of a part with this one
    /// are to be multiplied by: with a half-life, an order has a reference in each part.
    fn refer_to(&mut self, reference_ms: i64, training: &TrainingSettings) -> f64 {
        let later = if self.part_weights.is_empty() { reference_ms } else { reference_ms.max(self.reference_ms) };
        if !self.part_weights.is_empty() {
            let scale = aged(later - self.reference_ms, training);
            self.item_weights.iter_mut().chain(&mut self.part_weights).for_each(|weight| *weight *= scale);
            self.predictions *= scale;
        }
        self.reference_ms = later;
        aged(later - reference_ms, training)
    }

    fn add_history(&mut self, events: &[Row]) {
        if events.is_empty() {
            return;
        }
        self.users += 1;
        self.users_with_history += u64::from(events.len() > 1);
        let mut digest = events.len() as u64;
        for event in events {
            self.kinds[event.kind as usize] += 1;
            self.seen_items[event.item as usize] = true;
            // FNV-1a over whole numbers: it only has to tell histories apart.
            digest = (digest ^ u64::from(event.item)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        self.histories_differ |= *self.first_history.get_or_insert(digest) != digest;
    }

    fn finish(mut self, items: &[Item], model: &ModelSettings, weights: &EventWeights) -> Result<Survey, TrainError> {
        let sum: f64 = self.part_weights.iter().sum();
        if sum <= 0.0 {
            return Err(self.nothing_to_draw(weights));
        }
        if items.len() == 1 {
            return Err(TrainError::OneItem { id: items[0].id.clone() });
        }
        let cautions = self.cautions(items, model);
        let shares = |weights: &mut Vec<f64>| {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        };
        shares(&mut self.item_weights);
        shares(&mut self.part_weights);
        Ok(Survey {
            words: self.words,
            item_shares: self.item_weights,
            seen_items: self.seen_items,
            part_shares: self.part_weights,
            positives: self.positives,
            predictions_per_draw: self.predictions / sum,
            cautions,
        })
    }

    /// Why nothing can be drawn.
    fn nothing_to_draw(&self, weights: &EventWeights) -> TrainError {
        let names = |wanted: &dyn Fn(EventType) -> bool| {
            let names: Vec<&str> =
                EventType::ALL.into_iter().filter(|kind| wanted(*kind)).map(EventType::name).collect();
            names.join(", ")
        };
        if self.users == 0 {
            return TrainError::NoEvents;
        }
        TrainError::NoPositives {
            found: names(&|kind| self.kinds[kind as usize] > 0),
            weighted: names(&|kind| weights.of(kind) > 0.0),
        }
    }

    fn cautions(&self, items: &[Item], model: &ModelSettings) -> Vec<Caution> {
        let drawn = self.item_weights.iter().filter(|weight| **weight > 0.0).count();
        let no_interests = || items.iter().all(|item| item.interests.is_empty());
        [
            (self.users == 1, Caution::OneUser),
            (drawn == 1, Caution::OneItem),
            (self.users_with_history == 0, Caution::NoHistories),
            (self.users > 1 && self.users_with_history > 0 && !self.histories_differ, Caution::SameHistories),
            (model.kind == ModelKind::Contextual && no_interests(), Caution::NoInterests),
        ]
        .into_iter()
        .filter_map(|(applies, caution)| applies.then_some(caution))
        .collect()
    }
}

/// What is left of a weight after this time.
fn aged(milliseconds: i64, training: &TrainingSettings) -> f64 {
    let hours = training.half_life_hours;
    hours.map_or(1.0, |hours| (-(milliseconds as f64) / (f64::from(hours) * 3.6e6)).exp2())
}

#[cfg(test)]
mod tests;
