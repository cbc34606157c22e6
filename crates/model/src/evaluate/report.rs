//! What an evaluation found, as it is printed and written: this is the schema of `turret evaluate --json` and `--out`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::settings::Part;

/// The cut-offs of recall.
pub const CUT_OFFS: [usize; 6] = [10, 20, 50, 100, 200, 1_000];

/// How every arm did.
///
/// Metrics are called `recall@K` and `advertiser_recall@K` for each of [`CUT_OFFS`], `ndcg@10`, `diversity` and
/// `relevance@10`; `docs/evaluation.md` says what each is. One that has no meaning on the data is absent, and `left_out`
/// says why. Keys may be added; none changes its meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// What the cases are.
    pub part: Part,
    /// How many there are.
    pub cases: usize,
    /// Items ranked for each.
    pub catalogue: usize,
    /// The share of the targets whose item occurs in training: what knows only ids cannot recall more.
    pub ceiling: f64,
    /// Models first, then baselines, then oracles; each name is there once.
    pub arms: Vec<ArmReport>,
    /// Each arm but the oracles against the history-only model, over the same cases; empty where there is none.
    pub comparisons: Vec<Comparison>,
    /// The same arms on parts of the cases.
    pub slices: Vec<SliceReport>,
    /// What was not measured, and why.
    pub left_out: Vec<LeftOut>,
}

/// What an arm is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A trained model that is given what it would be given in service.
    Model,
    /// A trained model from which something is withheld, or which is given something wrong.
    Control,
    /// Something that was not trained.
    Baseline,
    /// Knows the answer; compared with nothing.
    Oracle,
}

/// How one arm did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmReport {
    /// Which one.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// By the metric's key.
    pub metrics: BTreeMap<String, f64>,
    /// The 95 % bootstrap interval of each metric that is a mean over cases; empty where none was asked for.
    pub intervals: BTreeMap<String, [f64; 2]>,
}

/// Two arms over the same cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The one.
    pub arm: String,
    /// The other.
    pub to: String,
    /// The one less the other, by the metric's key.
    pub difference: BTreeMap<String, Estimate>,
    /// The one divided by the other, by the metric's key; without those whose divisor is 0.
    pub ratio: BTreeMap<String, Estimate>,
}

/// A number with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Over all cases.
    pub value: f64,
    /// The 95 % interval of a paired bootstrap; none where none was asked for.
    pub interval: Option<[f64; 2]>,
}

/// How the arms did on a part of the cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceReport {
    /// What the cases are parted by: `country`, `history`, `target`, `state_age_days` or `surface`.
    pub by: String,
    /// Which of the parts.
    pub value: String,
    /// How many cases it has.
    pub cases: usize,
    /// The arms that were measured on it.
    pub arms: Vec<ArmReport>,
}

/// Something that was not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// An arm, a metric or a slice.
    pub what: String,
    /// One sentence.
    pub why: String,
}

impl EvaluationReport {
    /// The arm called `name`.
    pub fn arm(&self, name: &str) -> Option<&ArmReport> {
        self.arms.iter().find(|arm| arm.name == name)
    }
}

impl ArmReport {
    /// A metric by its key.
    pub fn metric(&self, key: &str) -> Option<f64> {
        self.metrics.get(key).copied()
    }

    /// The share of the cases whose target was among the first `k`, for one of [`CUT_OFFS`].
    pub fn recall_at(&self, k: usize) -> Option<f64> {
        self.metric(&recall_key(k))
    }

    /// The 95 % interval of that.
    pub fn interval_at(&self, k: usize) -> Option<[f64; 2]> {
        self.intervals.get(&recall_key(k)).copied()
    }
}

pub(super) fn recall_key(k: usize) -> String {
    format!("recall@{k}")
}
