//! docs/results/index.json: rows of several measurements, each put in place of its own last ones.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::results;

/// A row as `turret report` reads it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    group: String,
    run: String,
    settings: BTreeMap<String, Value>,
    mean: BTreeMap<String, f64>,
    seeds: Vec<BTreeMap<String, f64>>,
}

impl Row {
    pub(crate) fn new(name: &str, group: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            run: String::new(),
            settings: BTreeMap::new(),
            mean: BTreeMap::new(),
            seeds: Vec::new(),
        }
    }

    /// The line that it is a point of.
    pub(crate) fn run(self, run: &str) -> Self {
        Self { run: run.to_owned(), ..self }
    }

    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.settings.insert(key.to_owned(), value);
        self
    }

    /// The figures of each round.
    pub(crate) fn seeds(self, seeds: Vec<BTreeMap<String, f64>>) -> Self {
        Self { seeds, ..self }
    }

    /// The figures; of the one round, where no others are told.
    pub(crate) fn means<K: Into<String>>(mut self, mean: impl IntoIterator<Item = (K, f64)>) -> Self {
        self.mean = mean.into_iter().map(|(key, figure)| (key.into(), figure)).collect();
        if self.seeds.is_empty() {
            self.seeds = vec![self.mean.clone()];
        }
        self
    }

    fn json(&self, commit: &Value) -> Value {
        let Self { name, group, run, settings, mean, seeds } = self;
        let mut settings = settings.clone();
        settings.insert("commit".to_owned(), commit.clone());
        json!({ "name": name, "group": group, "run": run, "settings": settings, "mean": mean, "seeds": seeds })
    }
}

/// Replaces the rows whose group begins with `part`.
pub(crate) fn put(command: &str, part: &str, rows: Vec<Row>) {
    let path = results::repository().join("docs/results/index.json");
    let old: Value =
        std::fs::read_to_string(&path).map_or(Value::Null, |text| serde_json::from_str(&text).expect("JSON"));
    let is_other = |row: &&Value| !row["group"].as_str().unwrap_or_default().starts_with(part);
    let mut all: Vec<Value> = old["rows"].as_array().into_iter().flatten().filter(is_other).cloned().collect();
    let mut whole = results::head(command);
    all.extend(rows.iter().map(|row| row.json(&whole["commit"])));
    let plot = |title: &str, x: &str, y: &str, runs: &[&str]| json!({ "title": title, "x": x, "y": y, "runs": runs });
    whole["title"] = json!("A shard's index beside hnswlib, faiss and usearch, and how its cost grows");
    whole["seeds"] = json!([1]);
    whole["plots"] = json!([
        plot("CPU µs a query against recall, one pass each", "recall", "cpu_us", &[]),
        plot("CPU µs a query against ads in one shard", "ads", "cost_us", &[]),
        plot("CPU µs a query against shards, 200,000 ads in all", "shards", "total_us", &[]),
    ]);
    whole["rows"] = all.into();
    results::write("index.json", &whole);
}
