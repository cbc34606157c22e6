//! Figures: the means over the seeds, as they are written to `docs/results/` and read by the report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use turret_model::{ArmReport, Part, Role};

use super::ledger::{LedgerError, Measurement, write};
use super::plan::Plan;
use super::point::Point;
use crate::provenance::Provenance;

/// The arm that the others are compared with.
pub const REFERENCE: &str = "history only";
/// The cut-offs at which they are.
const COMPARED: [usize; 3] = [10, 50, 100];

/// A file of figures: that of a study, or of any other measurement that is written as rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// What is needed to measure them again.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// The question, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The seeds that were asked for, where it is a study; each row lists those that it has.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// What models were judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// The plan's file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan: String,
    /// What a report draws.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plots: Vec<Plot>,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// A plot of rows: one panel a group, one line a run and arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// A dotted key of the configuration, or a metric. A row without it is drawn as a level line.
    pub x: String,
    /// A metric.
    pub y: String,
    /// The runs that are drawn; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<String>,
    /// The arms that are drawn; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arms: Vec<String>,
}

/// One thing that was measured with several seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The point and the arm; once in the file.
    pub name: String,
    /// What it belongs to; the data set, where there are several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plan's run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// The arm of the evaluation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arm: String,
    /// What the arm is there for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What differs from the configuration's file, by dotted key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Value>,
    /// Test or validation cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cases: Option<usize>,
    /// Items ranked for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<usize>,
    /// The share of the targets whose item occurs in training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<f64>,
    /// The mean over the seeds, by the metric's key; `ratio_vs_history_only@K` is the mean of each seed's ratio of recall@K
    /// to that of the history-only model.
    pub mean: BTreeMap<String, f64>,
    /// The smallest and the largest of the seeds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spread: BTreeMap<String, [f64; 2]>,
    /// The same on parts of the cases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceRow>,
    /// One object a seed: `seed`, every metric, `intervals` (95 %, bootstrapped), `train_seconds`, and the
    /// `commits` that trained and evaluated it.
    pub seeds: Vec<BTreeMap<String, Value>>,
}

/// A part of the cases of a [`Row`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceRow {
    /// What the cases are parted by.
    pub by: String,
    /// Which of the parts.
    pub value: String,
    /// How many cases it has.
    pub cases: usize,
    /// The mean over the seeds, by the metric's key.
    pub mean: BTreeMap<String, f64>,
    /// The smallest and the largest of the seeds.
    pub spread: BTreeMap<String, [f64; 2]>,
}

impl Figures {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LedgerError> {
        write(path, self)
    }
}

/// The figures of `plan` over what `find` knows of each point and seed; a point without any has no rows.
pub fn gather(
    plan: &Plan,
    points: &[Point],
    provenance: Provenance,
    find: &dyn Fn(&Point, u64) -> Option<Measurement>,
) -> Figures {
    let measured =
        |point: &Point| -> Vec<Measurement> { plan.seeds.iter().filter_map(|seed| find(point, *seed)).collect() };
    let mut rows = Vec::new();
    for point in points {
        let own = measured(point);
        let other = point.against.as_ref().and_then(|name| points.iter().find(|point| point.name == *name));
        let other = other.map(measured);
        rows.extend(rows_of(point, &own, other.as_ref().unwrap_or(&own)));
    }
    Figures {
        provenance,
        title: plan.title.clone(),
        seeds: plan.seeds.clone(),
        part: Some(plan.part),
        plan: format!("studies/{}.toml", plan.name),
        plots: plan.plots.clone(),
        rows,
    }
}

/// The rows of one point: one for each arm that is wanted.
fn rows_of(point: &Point, measured: &[Measurement], references: &[Measurement]) -> Vec<Row> {
    let Some(first) = measured.first() else { return Vec::new() };
    let wanted = |arm: &&ArmReport| point.arms.is_empty() || point.arms.contains(&arm.name);
    let row = |arm: &ArmReport| {
        let seeds: Vec<(&Measurement, BTreeMap<String, f64>)> = measured
            .iter()
            .filter_map(|measurement| {
                let own = measurement.report.arm(&arm.name)?;
                let mut metrics = own.metrics.clone();
                let reference = references.iter().find(|reference| reference.seed == measurement.seed);
                let reference = reference.and_then(|reference| reference.report.arm(REFERENCE));
                metrics.extend(reference.map(|reference| ratios(own, reference)).unwrap_or_default());
                Some((measurement, metrics))
            })
            .collect();
        let metrics: Vec<&BTreeMap<String, f64>> = seeds.iter().map(|(_, metrics)| metrics).collect();
        Row {
            name: format!("{}: {}", point.name, arm.name),
            group: point.group.clone(),
            run: point.run.clone(),
            arm: arm.name.clone(),
            role: Some(arm.role),
            settings: point.settings.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
            cases: Some(first.report.cases),
            catalogue: Some(first.report.catalogue),
            ceiling: Some(first.report.ceiling),
            mean: means(&metrics),
            spread: spreads(&metrics),
            slices: slices_of(&arm.name, measured),
            seeds: seeds.iter().map(|(measurement, metrics)| seed_of(measurement, &arm.name, metrics)).collect(),
        }
    };
    first.report.arms.iter().filter(wanted).map(row).collect()
}

/// The ratios of an arm's recalls to those of the reference; without those whose divisor is 0. None of an oracle's.
fn ratios(arm: &ArmReport, reference: &ArmReport) -> BTreeMap<String, f64> {
    let ratio = |k: usize| {
        let divisor = reference.recall_at(k).filter(|recall| *recall > 0.0)?;
        Some((format!("ratio_vs_history_only@{k}"), arm.recall_at(k)? / divisor))
    };
    let is_compared = arm.name != REFERENCE && arm.role != Role::Oracle;
    if is_compared { COMPARED.into_iter().filter_map(ratio).collect() } else { BTreeMap::new() }
}

fn slices_of(arm: &str, measured: &[Measurement]) -> Vec<SliceRow> {
    let Some(first) = measured.first() else { return Vec::new() };
    let slice = |slice: &turret_model::SliceReport| {
        let same = measured.iter().flat_map(|measurement| &measurement.report.slices);
        let same = same.filter(|other| (&other.by, &other.value) == (&slice.by, &slice.value));
        let metrics: Vec<&BTreeMap<String, f64>> = same
            .filter_map(|other| other.arms.iter().find(|other| other.name == arm))
            .map(|arm| &arm.metrics)
            .collect();
        let row = SliceRow {
            by: slice.by.clone(),
            value: slice.value.clone(),
            cases: slice.cases,
            mean: means(&metrics),
            spread: spreads(&metrics),
        };
        (!metrics.is_empty()).then_some(row)
    };
    first.report.slices.iter().filter_map(slice).collect()
}

fn seed_of(measurement: &Measurement, arm: &str, metrics: &BTreeMap<String, f64>) -> BTreeMap<String, Value> {
    let mut seed: BTreeMap<String, Value> =
        metrics.iter().map(|(key, value)| (key.clone(), Value::from(*value))).collect();
    seed.insert("seed".to_owned(), measurement.seed.into());
    let trainings = measurement.trainings.values();
    let seconds: f64 = trainings.clone().map(|training| training.seconds).sum();
    seed.insert("train_seconds".to_owned(), seconds.round().into());
    let commits: BTreeSet<&String> = trainings.map(|training| &training.commit).chain([&measurement.commit]).collect();
    seed.insert("commits".to_owned(), commits.into_iter().map(String::as_str).collect());
    let shown = ["recall@10", "recall@50", "recall@100", "ndcg@10"];
    let intervals = measurement.report.arm(arm).map(|arm| &arm.intervals).into_iter().flatten();
    let intervals: BTreeMap<&String, &[f64; 2]> = intervals.filter(|(key, _)| shown.contains(&key.as_str())).collect();
    if !intervals.is_empty() {
        seed.insert("intervals".to_owned(), serde_json::json!(intervals));
    }
    seed
}

/// Of every metric that each of `seeds` has.
fn over<T>(seeds: &[&BTreeMap<String, f64>], value: impl Fn(&[f64]) -> T) -> BTreeMap<String, T> {
    let keys = seeds.first().map(|first| first.keys()).into_iter().flatten();
    keys.filter_map(|key| {
        let values: Option<Vec<f64>> = seeds.iter().map(|metrics| metrics.get(key).copied()).collect();
        Some((key.clone(), value(&values?)))
    })
    .collect()
}

fn means(seeds: &[&BTreeMap<String, f64>]) -> BTreeMap<String, f64> {
    over(seeds, |values| values.iter().sum::<f64>() / values.len() as f64)
}

fn spreads(seeds: &[&BTreeMap<String, f64>]) -> BTreeMap<String, [f64; 2]> {
    over(seeds, |values| {
        values.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| [low.min(*value), high.max(*value)])
    })
}

fn json(value: &toml::Value) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests;
