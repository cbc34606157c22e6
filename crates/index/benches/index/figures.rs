//! docs/results/index.json: rows of several measurements, each put in place of its own last ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

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

    fn json(&self, commit: &str) -> Value {
        let Self { name, group, run, settings, mean, seeds } = self;
        let mut settings = settings.clone();
        settings.insert("commit".to_owned(), json!(commit));
        json!({ "name": name, "group": group, "run": run, "settings": settings, "mean": mean, "seeds": seeds })
    }
}

/// Replaces the rows whose group begins with `part`.
pub(crate) fn put(command: &str, part: &str, rows: Vec<Row>) {
    let path = repository().join("docs/results/index.json");
    let old: Value =
        std::fs::read_to_string(&path).map_or(Value::Null, |text| serde_json::from_str(&text).expect("JSON"));
    let is_other = |row: &&Value| !row["group"].as_str().unwrap_or_default().starts_with(part);
    let mut all: Vec<Value> = old["rows"].as_array().into_iter().flatten().filter(is_other).cloned().collect();
    let commit = commit();
    all.extend(rows.iter().map(|row| row.json(&commit)));
    let plot = |title: &str, x: &str, y: &str, runs: &[&str]| json!({ "title": title, "x": x, "y": y, "runs": runs });
    let whole = json!({
        "command": command,
        "commit": commit,
        "machine": machine(),
        "title": "A shard's index beside hnswlib, faiss and usearch, and how its cost grows",
        "seeds": [1],
        "plots": [
            plot("CPU µs a query against recall, one pass each", "recall", "cpu_us", &[]),
            plot("CPU µs a query against ads in one shard", "ads", "cost_us", &[]),
            plot("CPU µs a query against shards, 200,000 ads in all", "shards", "total_us", &[]),
        ],
        "rows": all,
    });
    let text = serde_json::to_string_pretty(&whole).expect("figures are JSON") + "\n";
    std::fs::write(path, text).expect("docs/results is there");
}

pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two directories up").to_owned()
}

fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    git.map_or_else(|_| String::new(), |done| String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    format!("{cores} cores of {}, {}", model.map_or("?", |(_, name)| name.trim()), std::env::consts::ARCH)
}
