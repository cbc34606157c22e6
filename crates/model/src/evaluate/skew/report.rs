//! What a sweep over pairs of versions found; part of the schema of `turret skew sweep --json` and `--out`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::Contender;
use super::super::report::{Estimate, recall_key};
use crate::settings::{Part, Split};

/// What every pair of versions recalls, over the same cases.
///
/// Metrics are those of [`EvaluationReport`](crate::EvaluationReport), under the same keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkewReport {
    /// What the cases are.
    pub part: Part,
    /// How many there are.
    pub cases: usize,
    /// Items ranked for each.
    pub catalogue: usize,
    /// What an order drawn at random recalls on average, by the metric's key: the scale of what nothing was learnt for.
    pub chance: BTreeMap<String, f64>,
    /// The versions, in the order that they were given in.
    pub versions: Vec<VersionReport>,
    /// Every head with every index, and with every version's states.
    pub pairs: Vec<PairReport>,
}

/// One version of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionReport {
    /// What it is called here.
    pub name: String,
    /// Its encoder, as states carry it.
    pub encoder: String,
    /// Its head.
    pub head: String,
    /// Its ad tower.
    pub ad_tower: String,
    /// What it was trained on.
    pub trained: Split,
}

/// What was put together, by the versions' names, and how it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairReport {
    /// Whose states the head reads; the head's own, unless the states are what is mixed.
    pub encoder: String,
    /// Whose head makes the query.
    pub head: String,
    /// Whose ad embeddings it is compared with; the head's own, unless the index is what is mixed.
    pub index: String,
    /// By the metric's key.
    pub metrics: BTreeMap<String, f64>,
    /// The 95 % bootstrap interval of each metric that is a mean over cases; empty where none was asked for.
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// The metric divided by that of the head with its own states and index, over the same resamples; without those whose
    /// divisor is 0. Empty for that pair itself.
    pub kept: BTreeMap<String, Estimate>,
}

impl VersionReport {
    pub(super) fn of(version: &Contender<'_>) -> Self {
        Self {
            name: version.name.clone(),
            encoder: version.model.encoder_version().to_string(),
            head: version.model.head_version().to_owned(),
            ad_tower: version.model.ad_tower_version().to_owned(),
            trained: *version.model.split(),
        }
    }
}

impl SkewReport {
    /// The head of one version, with its own states, on the index of another.
    pub fn on_index(&self, head: &str, index: &str) -> Option<&PairReport> {
        self.pairs.iter().find(|pair| pair.head == head && pair.encoder == head && pair.index == index)
    }

    /// The head of one version, on its own index, reading the states of another's encoder.
    pub fn reading(&self, head: &str, encoder: &str) -> Option<&PairReport> {
        self.pairs.iter().find(|pair| pair.head == head && pair.index == head && pair.encoder == encoder)
    }

    /// What an order drawn at random recalls at `k`, one of [`CUT_OFFS`](crate::CUT_OFFS).
    pub fn chance_at(&self, k: usize) -> Option<f64> {
        self.chance.get(&recall_key(k)).copied()
    }
}

impl PairReport {
    /// Whether nothing is mixed.
    pub fn is_own(&self) -> bool {
        self.encoder == self.head && self.index == self.head
    }

    /// The share of the cases whose target was among the first `k`, for one of [`CUT_OFFS`](crate::CUT_OFFS).
    pub fn recall_at(&self, k: usize) -> Option<f64> {
        self.metrics.get(&recall_key(k)).copied()
    }

    /// The 95 % interval of that.
    pub fn interval_at(&self, k: usize) -> Option<[f64; 2]> {
        self.intervals.get(&recall_key(k)).copied()
    }
}
