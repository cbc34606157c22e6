//! What benchmarks print, and what they write below docs/results.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

pub(crate) fn say(line: &str) {
    // Whoever closed the output wants the file.
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// What a file of figures begins with, as `turret report` reads it: how to measure them again, and where they were measured.
pub(crate) fn head(command: &str) -> Value {
    json!({ "command": command, "commit": commit(), "machine": machine(), "seeds": [] })
}

/// Writes a file of docs/results.
pub(crate) fn write(file: &str, figures: &Value) {
    let text = serde_json::to_string_pretty(figures).expect("figures are JSON") + "\n";
    std::fs::write(repository().join("docs/results").join(file), text).expect("docs/results is there");
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two directories up").to_owned()
}

/// What is measured: where something else was changed than the figures, which a benchmark writes as it goes on, `-dirty`.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let git = Command::new("git").args(arguments).output();
        git.map_or_else(|_| String::new(), |done| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs/results"]);
    git(&["describe", "--always", "--abbrev=12"]) + if changed.is_empty() { "" } else { "-dirty" }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    format!("{cores} cores of {}, {}", model.map_or("?", |(_, name)| name.trim()), std::env::consts::ARCH)
}
