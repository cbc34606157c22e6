//! Where figures come from: what they were measured with, from which sources, and on what.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// What is needed to measure figures again; the head of every file of `docs/results/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The command.
    pub command: String,
    /// The commit of the sources in the working directory, 12 digits; `-dirty` is added where a tracked file is changed.
    /// Empty where there is no repository.
    pub commit: String,
    /// Cores, processor and architecture.
    pub machine: String,
}

impl Provenance {
    /// That of figures which `command` measures here and now.
    pub fn of(command: impl Into<String>) -> Self {
        Self { command: command.into(), commit: commit(), machine: machine() }
    }
}

fn commit() -> String {
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return String::new() };
    // Figures are written beside the sources that made them, one file after the other: they make nothing dirty.
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs/results"]);
    if changed.is_none_or(|changed| changed.is_empty()) { commit } else { format!("{commit}-dirty") }
}

fn git(arguments: &[&str]) -> Option<String> {
    let done = Command::new("git").args(arguments).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let model = model.map_or_else(String::new, |(_, name)| format!(" of {}", name.trim()));
    format!("{cores} cores{model}, {}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_say_what_they_were_measured_with() {
        let provenance = Provenance::of("turret evaluate");
        assert_eq!(provenance.command, "turret evaluate");
        assert!(provenance.machine.ends_with(std::env::consts::ARCH), "{}", provenance.machine);
        let digits = provenance.commit.strip_suffix("-dirty").unwrap_or(&provenance.commit);
        assert!(digits.is_empty() || (digits.len() >= 12 && digits.chars().all(|c| c.is_ascii_hexdigit())), "{digits}");
    }
}
