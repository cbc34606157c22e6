//! The settings of the model, of its training and of its evaluation. There are no defaults: the caller knows its data.

use serde::{Deserialize, Serialize};
use turret_retrieval::event::EventType;

mod evaluation;

pub use evaluation::{CaseChoice, EvaluationSettings, Part, Split};

/// Whether the head sees a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// History, context and demographics.
    Contextual,
    /// History and demographics: the model without a context layer, and what the contextual one is compared with.
    HistoryOnly,
}

/// How the head joins history and context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// The last state and the context side by side: the published design. A user's state is one vector.
    Concat,
    /// Besides, the context asks all encoded events what matters to it. A user's state is one vector for each event.
    CrossAttention,
}

/// Which events an event of the history may attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// Itself and those before it.
    Causal,
    /// All of them.
    Bidirectional,
}

/// The shape of the model: everything that decides the shapes of its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// With or without a context layer.
    pub kind: ModelKind,
    /// Whether the context layer also sees the subject item's own vector, besides its interests.
    pub subject_item: bool,
    /// How history and context are joined. Without a context layer there is nothing to ask with: it is `Concat` then.
    pub fusion: Fusion,
    /// The length of embeddings, sequence states, query and ad vectors; a multiple of `heads`, at most 1024.
    pub dimension: usize,
    /// Transformer layers of the encoder, 1..=16.
    pub layers: usize,
    /// Attention heads of each layer.
    pub heads: usize,
    /// Width of the feed-forward part of a layer, 1..=8192.
    pub feed_forward: usize,
    /// Width of the hidden layer of the head and of the ad tower, 1..=8192.
    pub head_hidden: usize,
    /// What attends to what.
    pub attention: Attention,
    /// The latest events of a history that are encoded, 1..=1024.
    pub history_length_max: usize,
    /// Rows of the hashed item id embedding, 2..=2^26; each id uses two of them.
    pub id_buckets: u32,
    /// Rows of the hashed advertiser embedding, 1..=2^24.
    pub advertiser_buckets: u32,
    /// Rows of the hashed embedding of query words and character n-grams, 0..=2^24; with 0 queries are not read.
    pub query_buckets: u32,
    /// Whether the items' content embeddings are projected into the item vector, where the data has them.
    pub content_embedding: bool,
}

/// Which events a history is trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Any event within the window after the history's end.
    AllAction,
    /// Only the event right after the history's end.
    NextAction,
    /// From every position of the history, any event within the window after it. Needs causal attention.
    DenseAllAction,
}

/// Where a training history ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryGap {
    /// Anywhere before the positive.
    None,
    /// At the midnight (UTC) before the positive, because serving uses the state of the last daily run; the window does
    /// not matter then.
    Day,
}

/// How often an event of each type is drawn as a positive, relative to the others; finite, not negative, not all 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventWeights {
    /// Views, clicks and ratings.
    pub view: f32,
    /// Carts and favourites.
    pub add_to_cart: f32,
    /// Purchases.
    pub checkout: f32,
    /// Sign-ups.
    pub signup: f32,
}

/// How the context of a training example is made up, since the real one is not known offline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticContext {
    /// How often the context is a search query, made of words of the positive's title, or of its interests' names where
    /// it has none; in 0..=1. Needs `query_buckets`.
    pub query_share: f32,
    /// How often the interests are those of the positive; otherwise those of its neighbour, the event just before it
    /// in the session. In 0..=1. The subject item's own vector is always the neighbour's.
    pub label_share: f32,
    /// Confidences are multiplied by 1 plus or minus up to this, in 0..=1.
    pub confidence_noise: f32,
    /// How often an interest is left out, in 0..1.
    pub interest_drop: f32,
    /// How often a random interest is added, in 0..=1.
    pub interest_add: f32,
}

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSettings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Optimiser steps, 1..=10,000,000.
    pub steps: usize,
    /// Positives of one step (for [`Objective::DenseAllAction`] histories, whose users are drawn alike), 1..=65,536.
    pub batch_size: usize,
    /// Uniformly drawn negatives of one step, 0..=1,000,000; they join those in the batch.
    pub negatives: usize,
    /// The peak learning rate, in (0, 1).
    pub learning_rate: f32,
    /// Steps over which the rate rises to its peak; after them it falls linearly to 0.
    pub warmup_steps: usize,
    /// Decoupled weight decay of the dense matrices, in 0..1.
    pub weight_decay: f32,
    /// Scores are divided by it, in (0, 10).
    pub temperature: f32,
    /// The weight of the log-Q correction of a row's positive, in 0..=1.
    pub log_q_positives: f32,
    /// The weight of the log-Q correction of the negatives, in 0..=1.
    pub log_q_negatives: f32,
    /// What is predicted.
    pub objective: Objective,
    /// With times: positives lie at most this many days after the history's end, 1..=3650.
    pub window_days: u32,
    /// With only an order: positives are among this many events after the history's end, 1..=1024.
    pub window_events: u32,
    /// What counts how much.
    pub event_weights: EventWeights,
    /// An event this many hours before the end of training is drawn half as often; none: all alike. Needs times.
    pub half_life_hours: Option<f32>,
    /// Where a history ends. [`HistoryGap::Day`] needs times, and not [`Objective::DenseAllAction`].
    pub history_gap: HistoryGap,
    /// Dropout inside the encoder, in 0..1.
    pub encoder_dropout: f32,
    /// Dropout after the context layer, in 0..1.
    pub context_dropout: f32,
    /// How often an example gets no context at all, in 0..=1.
    pub context_drop: f32,
    /// How often an item's id is hidden, in 0..=1, so that unknown items are scored by their other features.
    pub id_drop: f32,
    /// How often an example gets no history, in 0..=1.
    pub history_drop: f32,
    /// How often each demographic fact is hidden, in 0..=1.
    pub demographics_drop: f32,
    /// What a context is made of.
    pub synthetic_context: SyntheticContext,
    /// The model in the making is ranked against held-out events after so many steps, and after the last; 0: never.
    pub validation_every_steps: usize,
    /// A sample of at most this many validation cases, 1..=1,000,000.
    pub validation_cases_max: usize,
    /// Whether the model is the one of the best validation NDCG@10, and not that of the last step.
    pub keep_best: bool,
    /// Training ends after so many validations in a row without a better NDCG@10; 0: after all its steps.
    pub patience: usize,
}

/// A setting that would break the model or its training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct SettingsError {
    /// Its name.
    pub field: &'static str,
    /// What it broke.
    pub rule: &'static str,
}

fn require(holds: bool, field: &'static str, rule: &'static str) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError { field, rule }) }
}

impl ModelSettings {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range, and the range.
    pub fn check(&self) -> Result<(), SettingsError> {
        require((1..=1024).contains(&self.dimension), "dimension", "is not in 1..=1024")?;
        require((1..=64).contains(&self.heads), "heads", "is not in 1..=64")?;
        require(self.dimension.is_multiple_of(self.heads), "heads", "does not divide the dimension")?;
        require((1..=16).contains(&self.layers), "layers", "is not in 1..=16")?;
        require((1..=8192).contains(&self.feed_forward), "feed_forward", "is not in 1..=8192")?;
        require((1..=8192).contains(&self.head_hidden), "head_hidden", "is not in 1..=8192")?;
        require((1..=1024).contains(&self.history_length_max), "history_length_max", "is not in 1..=1024")?;
        require((2..=1 << 26).contains(&self.id_buckets), "id_buckets", "is not in 2..=67108864")?;
        require((1..=1 << 24).contains(&self.advertiser_buckets), "advertiser_buckets", "is not in 1..=16777216")?;
        require(self.query_buckets <= 1 << 24, "query_buckets", "is not in 0..=16777216")?;
        let buckets = [self.id_buckets, self.advertiser_buckets, self.query_buckets].map(|count| count as usize);
        let table = buckets.iter().sum::<usize>() * self.dimension;
        require(table <= 1 << 30, "id_buckets", "buckets x dimension is more than 1073741824")
    }

    /// How many rows of `dimension` values a sequence state has at most: 1, or with cross-attention one for each encoded
    /// event.
    pub fn state_rows_max(&self) -> usize {
        if self.keeps_events() { self.history_length_max } else { 1 }
    }

    /// Whether a user's state is every encoded event.
    pub(crate) fn keeps_events(&self) -> bool {
        self.kind == ModelKind::Contextual && self.fusion == Fusion::CrossAttention
    }
}

impl TrainingSettings {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range, and the range.
    pub fn check(&self) -> Result<(), SettingsError> {
        require((1..=10_000_000).contains(&self.steps), "steps", "is not in 1..=10000000")?;
        require((1..=65_536).contains(&self.batch_size), "batch_size", "is not in 1..=65536")?;
        require(self.negatives <= 1_000_000, "negatives", "is not in 0..=1000000")?;
        let scores = self.batch_size * (self.batch_size + self.negatives);
        require(scores <= 1 << 30, "negatives", "batch_size x (batch_size + negatives) is more than 1073741824")?;
        require(self.learning_rate > 0.0 && self.learning_rate < 1.0, "learning_rate", "is not in (0, 1)")?;
        require(self.warmup_steps <= self.steps, "warmup_steps", "is more than steps")?;
        require(self.temperature > 0.0 && self.temperature < 10.0, "temperature", "is not in (0, 10)")?;
        require((1..=3650).contains(&self.window_days), "window_days", "is not in 1..=3650")?;
        require((1..=1024).contains(&self.window_events), "window_events", "is not in 1..=1024")?;
        if let Some(hours) = self.half_life_hours {
            require(hours.is_finite() && hours > 0.0, "half_life_hours", "is not a positive number")?;
        }
        self.event_weights.check()?;
        require((1..=1_000_000).contains(&self.validation_cases_max), "validation_cases_max", "is not in 1..=1000000")?;
        let validates = self.validation_every_steps > 0;
        require(validates || self.patience == 0, "patience", "must be 0 where validation_every_steps is 0")?;
        let context = &self.synthetic_context;
        for (field, share, below_one) in [
            ("weight_decay", self.weight_decay, true),
            ("encoder_dropout", self.encoder_dropout, true),
            ("context_dropout", self.context_dropout, true),
            ("interest_drop", context.interest_drop, true),
            ("log_q_positives", self.log_q_positives, false),
            ("log_q_negatives", self.log_q_negatives, false),
            ("context_drop", self.context_drop, false),
            ("id_drop", self.id_drop, false),
            ("history_drop", self.history_drop, false),
            ("demographics_drop", self.demographics_drop, false),
            ("query_share", context.query_share, false),
            ("label_share", context.label_share, false),
            ("confidence_noise", context.confidence_noise, false),
            ("interest_add", context.interest_add, false),
        ] {
            require((0.0..=1.0).contains(&share), field, "is not in 0..=1")?;
            require(!below_one || share < 1.0, field, "must be below 1")?;
        }
        let dense_by_day = self.objective == Objective::DenseAllAction && self.history_gap == HistoryGap::Day;
        require(!dense_by_day, "history_gap", "must be none where every position predicts")?;
        let next_by_day = self.objective == Objective::NextAction && self.history_gap == HistoryGap::Day;
        require(!next_by_day, "history_gap", "must be none where only the next event is predicted")
    }
}

impl EventWeights {
    /// The weight of events of this type.
    pub(crate) fn of(self, kind: EventType) -> f32 {
        match kind {
            EventType::View => self.view,
            EventType::AddToCart => self.add_to_cart,
            EventType::Checkout => self.checkout,
            EventType::Signup => self.signup,
        }
    }

    fn check(self) -> Result<(), SettingsError> {
        let all = [self.view, self.add_to_cart, self.checkout, self.signup];
        require(all.iter().all(|weight| weight.is_finite() && *weight >= 0.0), "event_weights", "must be 0 or more")?;
        require(all.iter().any(|weight| *weight > 0.0), "event_weights", "must not all be 0")
    }
}
