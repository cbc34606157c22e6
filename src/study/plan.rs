//! A plan: what is trained, with which settings, and where the figures go. The keys are described in `studies/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use turret_model::{ModelKind, Part};

use super::figures::Plot;
use super::point::{Point, expand};
use crate::config::ConfigError;

/// The most points of one plan.
const POINTS_MAX: usize = 1_000;
/// The most seeds of one plan.
const SEEDS_MAX: usize = 100;

/// A checked plan; its file is TOML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its file's name without the ending.
    #[serde(skip)]
    pub name: String,
    /// The question that it answers, in one sentence.
    pub title: String,
    /// The configuration of the runs that name none.
    pub config: PathBuf,
    /// What models are judged by.
    #[serde(default = "test")]
    pub part: Part,
    /// Each is a training of its own: `training.seed`.
    #[serde(default = "three_seeds")]
    pub seeds: Vec<u64>,
    /// The file of figures.
    pub out: PathBuf,
    /// Overrides for every run, before its own.
    #[serde(default)]
    pub set: toml::Table,
    /// What is trained.
    #[serde(rename = "run")]
    pub runs: Vec<Run>,
    /// What a report draws of the figures.
    #[serde(default, rename = "plot")]
    pub plots: Vec<Plot>,
}

/// One entry of a plan; with a grid it is many points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Once in the plan.
    pub name: String,
    /// What it belongs to, for tables and plots; the data set, where there are several.
    #[serde(default)]
    pub group: String,
    /// Its configuration, in place of the plan's.
    pub config: Option<PathBuf>,
    /// Which models are trained; both by default.
    #[serde(default = "both")]
    pub models: Vec<ModelKind>,
    /// Which arms become rows; all by default.
    #[serde(default)]
    pub arms: Vec<String>,
    /// The run with whose history-only model this one is compared, where it trains none itself.
    pub against: Option<String>,
    /// Overrides: a dotted key of the configuration, and its value.
    #[serde(default)]
    pub set: toml::Table,
    /// Dotted keys and the values that each takes; every combination is a point.
    #[serde(default)]
    pub grid: BTreeMap<String, Vec<toml::Value>>,
}

fn test() -> Part {
    Part::Test
}

fn three_seeds() -> Vec<u64> {
    vec![1, 2, 3]
}

fn both() -> Vec<ModelKind> {
    vec![ModelKind::HistoryOnly, ModelKind::Contextual]
}

/// Why a plan is refused.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a wrong key.
    #[error("{path}: {rule}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        rule: String,
    },
    /// Values are wrong: all of them.
    #[error("{path}: {}", faults.join("\n  "))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Each with its key or run.
        faults: Vec<String>,
    },
    /// A run's configuration is wrong.
    #[error("run `{run}`: {source}")]
    Config {
        /// The point.
        run: String,
        /// Every fault.
        source: ConfigError,
    },
}

impl Plan {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no plan, or says something that cannot be meant.
    pub fn load(path: &Path) -> Result<Self, PlanError> {
        let text = std::fs::read_to_string(path).map_err(|source| PlanError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks `text`; `path` names the plan, here and in errors.
    ///
    /// # Errors
    /// When it is no plan, or says something that cannot be meant.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PlanError> {
        let syntax = |rule: String| PlanError::Syntax { path: path.to_owned(), rule: rule.trim_end().to_owned() };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| syntax(error.to_string()))?;
        let mut plan: Self = serde_path_to_error::deserialize(toml::Value::Table(table))
            .map_err(|error| syntax(format!("{}: {}", error.path(), error.inner().message())))?;
        plan.name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let faults = plan.faults();
        if faults.is_empty() { Ok(plan) } else { Err(PlanError::Faults { path: path.to_owned(), faults }) }
    }

    /// Every point of every run, in their order; the last key of a grid changes fastest.
    ///
    /// # Errors
    /// With the name of the first point whose configuration cannot be read or is wrong, and all that is wrong with it.
    pub fn points(&self) -> Result<Vec<Point>, PlanError> {
        let points: Result<Vec<Vec<Point>>, _> = self.runs.iter().map(|run| expand(self, run)).collect();
        points.map(|points| points.concat())
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let unique: BTreeSet<u64> = self.seeds.iter().copied().collect();
        if unique.len() != self.seeds.len() || !(1..=SEEDS_MAX).contains(&self.seeds.len()) {
            faults.push(format!("seeds: must be 1 to {SEEDS_MAX} different numbers"));
        }
        if self.runs.is_empty() {
            faults.push("run: at least one is needed".to_owned());
        }
        let points: usize = self.runs.iter().map(Run::points).fold(0, usize::saturating_add);
        if points > POINTS_MAX {
            faults.push(format!("run: {points} points are more than {POINTS_MAX}"));
        }
        let mut names = BTreeSet::new();
        for run in &self.runs {
            let mut fault = |rule: &str| faults.push(format!("run `{}`: {rule}", run.name));
            if !names.insert(slug(&run.name)) || slug(&run.name).is_empty() {
                fault("name: must have letters or digits, others than those of any other run");
            }
            if run.models.is_empty()
                || run.models.iter().any(|kind| run.models.iter().filter(|k| *k == kind).count() > 1)
            {
                fault("models: must be history_only, contextual, or both");
            }
            if run.grid.values().any(Vec::is_empty) {
                fault("grid: a key has no value");
            }
            if self.set.keys().chain(run.set.keys()).chain(run.grid.keys()).any(|key| key == "training.seed") {
                fault("training.seed: is set by `seeds`");
            }
            if let Some(key) = self.set.keys().chain(run.set.keys()).find(|key| run.grid.contains_key(*key)) {
                fault(&format!("grid: {key} is set already"));
            }
            let known = |name: &String| self.runs.iter().any(|other| other.name == *name && other.is_reference());
            if run.against.as_ref().is_some_and(|name| !known(name)) {
                fault("against: must name a run that trains the history_only model and has no grid");
            }
        }
        faults
    }
}

impl Run {
    /// How many points it is.
    fn points(&self) -> usize {
        self.grid.values().map(Vec::len).fold(1, usize::saturating_mul)
    }

    /// Whether other runs can be compared with it.
    fn is_reference(&self) -> bool {
        self.models.contains(&ModelKind::HistoryOnly) && self.grid.is_empty()
    }
}

/// A name as a file is called: lower case letters, digits, dots, and dashes for all else.
pub(super) fn slug(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let dashed: String = name.chars().map(kept).collect();
    dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests;
