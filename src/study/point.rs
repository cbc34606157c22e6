//! A point: one configuration of a plan, with the overrides of its run applied and checked.

use std::collections::BTreeMap;
use std::path::Path;

use turret_model::ModelKind;

use super::plan::{Plan, PlanError, Run, slug};
use crate::config::{Config, ConfigError};

/// One configuration, measured once for each seed.
#[derive(Clone, Debug)]
pub struct Point {
    /// That of its run, then the last word of each key of the grid with its value. Once in the plan.
    pub name: String,
    /// Its run.
    pub run: String,
    /// What it belongs to.
    pub group: String,
    /// What differs from the configuration's file, by dotted key.
    pub settings: BTreeMap<String, toml::Value>,
    /// The checked configuration, for seed `training.seed`.
    pub config: Config,
    /// Which models are trained.
    pub models: Vec<ModelKind>,
    /// Which arms become rows; empty: all.
    pub arms: Vec<String>,
    /// The point with whose history-only model it is compared.
    pub against: Option<String>,
}

impl Point {
    /// Its name as a file is called.
    pub fn slug(&self) -> String {
        slug(&self.name)
    }
}

/// The points of a run.
pub(super) fn expand(plan: &Plan, run: &Run) -> Result<Vec<Point>, PlanError> {
    let path = run.config.as_ref().unwrap_or(&plan.config);
    let refuse = |name: &str, source| PlanError::Config { run: name.to_owned(), source };
    let base = read(path).map_err(|source| refuse(&run.name, source))?;
    let mut points = Vec::new();
    for choice in combinations(&run.grid) {
        let words = choice.iter().map(|(key, value)| format!(", {} {}", last_word(key), plain(value)));
        let name = words.fold(run.name.clone(), |name, word| name + &word);
        let mut settings: BTreeMap<String, toml::Value> = BTreeMap::new();
        let set = plan.set.iter().chain(&run.set).map(|(key, value)| (key.clone(), value.clone()));
        settings.extend(set.chain(choice));
        let mut table = base.clone();
        for (key, value) in &settings {
            place(&mut table, key, value.clone()).map_err(|rule| {
                let faults = vec![format!("{key}: {rule}")];
                refuse(&name, ConfigError::Faults { path: path.clone(), faults })
            })?;
        }
        let mut config = Config::of_table(&table, path).map_err(|source| refuse(&name, source))?;
        config.hold_out(plan.part).map_err(|error| {
            let faults = vec![format!("split.{error}")];
            refuse(&name, ConfigError::Faults { path: path.clone(), faults })
        })?;
        points.push(Point {
            name,
            run: run.name.clone(),
            group: run.group.clone(),
            settings,
            config,
            models: run.models.clone(),
            arms: run.arms.clone(),
            against: run.against.clone(),
        });
    }
    Ok(points)
}

fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
}

/// Every way to choose one value for each key.
fn combinations(grid: &BTreeMap<String, Vec<toml::Value>>) -> Vec<Vec<(String, toml::Value)>> {
    grid.iter().fold(vec![Vec::new()], |chosen, (key, values)| {
        let with = |chosen: &Vec<(String, toml::Value)>, value: &toml::Value| {
            let mut longer = chosen.clone();
            longer.push((key.clone(), value.clone()));
            longer
        };
        chosen.iter().flat_map(|chosen| values.iter().map(move |value| with(chosen, value))).collect()
    })
}

/// Sets a dotted key, making the tables on its way.
fn place(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), &'static str> {
    let Some((first, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    let below = table.entry(first).or_insert_with(|| toml::Table::new().into());
    place(below.as_table_mut().ok_or("leads through a key that is no table")?, rest, value)
}

fn last_word(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// A value as it is said in a name.
fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
