//! Training examples: which positives are drawn, where their histories end, and what their context is made of.

use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::dataset::{Clock, Dataset};

use crate::settings::{HistoryGap, Objective, Split, TrainingSettings};

const DAY_MS: i64 = 86_400_000;
/// Without sessions, events of one user at most this far apart are neighbours.
pub(crate) const NEIGHBOUR_MS: i64 = 30 * 60 * 1_000;

/// One history with what is predicted from it. Numbers index [`Dataset::events`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Example {
    pub(crate) user: u32,
    /// The events that the encoder sees.
    pub(crate) history: Range<usize>,
    pub(crate) predictions: Vec<Prediction>,
}

/// One event to be predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prediction {
    /// From the state after this event of the history; none: from no history.
    pub(crate) after: Option<usize>,
    /// The event.
    pub(crate) positive: usize,
}

/// Which events of a data set may be drawn as positives, and how often.
pub(crate) struct Draws<'a> {
    data: &'a Dataset,
    settings: &'a TrainingSettings,
    /// The end of each user's training events.
    pub(crate) ends: Vec<usize>,
    /// With a half-life, what the age of an event is counted from.
    pub(crate) reference_ms: i64,
}

impl<'a> Draws<'a> {
    /// Those of the training part of `data`.
    pub(crate) fn of(data: &'a Dataset, split: &Split, settings: &'a TrainingSettings) -> Self {
        let reference_ms = match split {
            Split::Temporal { cut_ms, .. } => *cut_ms,
            Split::LeaveOneOut { .. } => data.events().iter().map(|row| row.at).max().unwrap_or(0),
        };
        Self { data, settings, ends: training_ends(data, split), reference_ms }
    }

    /// Each event that may be drawn, with how often relative to the others; above 0, in the order of events.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (usize, f64)> {
        let half_life_ms = self.settings.half_life_hours.map(|hours| f64::from(hours) * 3.6e6);
        let weight = move |at: usize| {
            let row = &self.data.events()[at];
            let age = half_life_ms.map_or(1.0, |half| (-((self.reference_ms - row.at) as f64) / half).exp2());
            f64::from(self.settings.event_weights.of(row.kind)) * age
        };
        let users = (0..).zip(&self.ends);
        let events = users.flat_map(|(user, end)| self.data.range_of(user).start..*end);
        events.map(move |at| (at, weight(at))).filter(|(_, weight)| *weight > 0.0)
    }
}

/// How often a user is drawn of whose `events` positives the weights sum to `sum`. Where every position predicts, one
/// draw covers many positives, and users with long histories are drawn no more often than others.
pub(crate) fn user_weight(objective: Objective, sum: f64, events: usize) -> f64 {
    match objective {
        Objective::AllAction | Objective::NextAction => sum,
        Objective::DenseAllAction => sum / events.max(1) as f64,
    }
}

/// Draws examples.
pub(crate) struct Sampler<'a> {
    data: &'a Dataset,
    settings: &'a TrainingSettings,
    history_max: usize,
    // Running sums of the weights of `positives`.
    sums: Vec<f64>,
    positives: Vec<usize>,
    // Those who have positives: the running sum of [`user_weight`], and where in `positives` theirs end.
    users: Vec<(f64, usize)>,
}

/// The end of the training events of every user.
pub(crate) fn training_ends(data: &Dataset, split: &Split) -> Vec<usize> {
    let end = |user: u32| {
        let range = data.range_of(user);
        match split {
            Split::Temporal { cut_ms, .. } => {
                range.start + data.events_of(user).partition_point(|row| row.at < *cut_ms)
            }
            Split::LeaveOneOut { .. } => range.end.saturating_sub(2).max(range.start),
        }
    };
    (0..data.users.len() as u32).map(end).collect()
}

/// Whether each item occurs among the training events, which end at `ends`.
pub(crate) fn known_items(data: &Dataset, ends: &[usize]) -> Vec<bool> {
    let mut known = vec![false; data.items.len()];
    for (user, end) in (0..).zip(ends) {
        data.events()[data.range_of(user).start..*end].iter().for_each(|row| known[row.item as usize] = true);
    }
    known
}

impl<'a> Sampler<'a> {
    /// Prepares to draw from the training part of `data`; none where it holds no positive.
    pub(crate) fn new(
        data: &'a Dataset,
        split: &Split,
        settings: &'a TrainingSettings,
        history_max: usize,
    ) -> Option<Self> {
        let (mut sums, mut positives) = (Vec::new(), Vec::new());
        let mut sum = 0.0;
        for (at, weight) in Draws::of(data, split, settings).weights() {
            sum += weight;
            sums.push(sum);
            positives.push(at);
        }
        let mut users = Vec::new();
        let (mut of_users, mut of_events, mut start) = (0.0, 0.0, 0);
        for own in positives.chunk_by(|one, other| data.events()[*one].user == data.events()[*other].user) {
            let end = start + own.len();
            of_users += user_weight(settings.objective, sums[end - 1] - of_events, own.len());
            users.push((of_users, end));
            (of_events, start) = (sums[end - 1], end);
        }
        (sum > 0.0).then_some(Self { data, settings, history_max, sums, positives, users })
    }

    /// Draws one example.
    pub(crate) fn draw(&self, random: &mut ChaCha8Rng) -> Example {
        let own = self.user(random);
        let user = self.data.events()[self.positives[own.start]].user;
        let first = self.data.range_of(user).start;
        if self.settings.objective == Objective::DenseAllAction {
            let last = self.last_of(first, &self.positives[own], random);
            return self.dense(user, first, last, random);
        }
        let positive = self.positive_of(own, random);
        let end = match self.settings.objective {
            Objective::NextAction => positive,
            Objective::AllAction | Objective::DenseAllAction => self.history_end(first, positive, random),
        };
        let start = end.saturating_sub(self.history_max).max(first);
        let after = end.checked_sub(1).filter(|last| *last >= first);
        Example { user, history: start..end, predictions: vec![Prediction { after, positive }] }
    }

    /// Draws a user: the range of `positives` that is theirs.
    fn user(&self, random: &mut ChaCha8Rng) -> Range<usize> {
        let whole = self.users.last().map_or(0.0, |(sum, _)| *sum);
        let at = random.random::<f64>() * whole;
        let drawn = self.users.partition_point(|(sum, _)| *sum <= at).min(self.users.len() - 1);
        let start = drawn.checked_sub(1).map_or(0, |before| self.users[before].1);
        start..self.users[drawn].1
    }

    /// The last event of a window over a user's `positives`, whose events begin at `first`: the latest one, or any that
    /// has a full window before it where the events are more than that.
    fn last_of(&self, first: usize, positives: &[usize], random: &mut ChaCha8Rng) -> usize {
        let full = positives.partition_point(|row| row - first < self.history_max);
        let full = full.min(positives.len() - 1);
        positives[random.random_range(full..positives.len())]
    }

    /// Draws one of `positives[range]`, which is not empty, by weight.
    fn positive_of(&self, range: Range<usize>, random: &mut ChaCha8Rng) -> usize {
        let before = range.start.checked_sub(1).map_or(0.0, |before| self.sums[before]);
        let at = before + random.random::<f64>() * (self.sums[range.end - 1] - before);
        let drawn = self.sums[range.clone()].partition_point(|sum| *sum <= at);
        self.positives[(range.start + drawn).min(range.end - 1)]
    }

    /// Where the history of `positive` ends: exclusive, so that the positive lies in the window after it.
    fn history_end(&self, first: usize, positive: usize, random: &mut ChaCha8Rng) -> usize {
        let rows = &self.data.events()[first..=positive];
        let at = self.data.events()[positive].at;
        let earliest = match (self.data.clock, self.settings.history_gap) {
            (Clock::Milliseconds, HistoryGap::Day) => {
                // What was known at the midnight before the positive, as the daily run leaves it.
                return first + rows.partition_point(|row| row.at < at.div_euclid(DAY_MS) * DAY_MS);
            }
            (Clock::Milliseconds, HistoryGap::None) => {
                let window = i64::from(self.settings.window_days) * DAY_MS;
                first + rows.partition_point(|row| row.at < at - window) + 1
            }
            (Clock::Order, _) => (positive + 1).saturating_sub(self.settings.window_events as usize),
        };
        random.random_range(earliest.clamp(first.min(positive), positive)..=positive)
    }

    /// Every position before the event `last` predicts something in the window after it.
    fn dense(&self, user: u32, first: usize, last: usize, random: &mut ChaCha8Rng) -> Example {
        let start = last.saturating_sub(self.history_max).max(first);
        let rows = self.data.events();
        let window = i64::from(self.settings.window_days) * DAY_MS;
        let mut predictions = Vec::with_capacity(last - start);
        for after in start..last {
            let end = match self.data.clock {
                Clock::Milliseconds => {
                    let at = rows[after].at;
                    after + 1 + rows[after + 1..=last].partition_point(|row| row.at <= at + window)
                }
                Clock::Order => (after + 1 + self.settings.window_events as usize).min(last + 1),
            };
            let of_window = |row: usize| self.positives.partition_point(|positive| *positive < row);
            let window = of_window(after + 1)..of_window(end);
            if !window.is_empty() {
                predictions.push(Prediction { after: Some(after), positive: self.positive_of(window, random) });
            }
        }
        if predictions.is_empty() {
            // What was drawn lies in no window: it is predicted from the event before it, where there is one.
            predictions
                .push(Prediction { after: last.checked_sub(1).filter(|before| *before >= start), positive: last });
        }
        Example { user, history: start..last, predictions }
    }

    /// The event just before `event` that the user made in the same session.
    pub(crate) fn neighbour(&self, event: usize) -> Option<usize> {
        neighbour(self.data, event)
    }
}

/// The event just before `event` that the user made in the same session (without sessions: at most half an hour
/// before; with only an order: whatever came before).
pub(crate) fn neighbour(data: &Dataset, event: usize) -> Option<usize> {
    let rows = data.events();
    let before = event.checked_sub(1)?;
    let (row, other) = (&rows[event], &rows[before]);
    let same = row.user == other.user
        && match (row.session, other.session, data.clock) {
            (Some(own), Some(its), _) => own == its,
            (_, _, Clock::Order) => true,
            (_, _, Clock::Milliseconds) => row.at - other.at <= NEIGHBOUR_MS,
        };
    same.then_some(before)
}

#[cfg(test)]
mod tests;
