//! The rules about names, sources, texts and links.

use std::collections::BTreeSet;

use crate::rust_source::RustSource;
use crate::tree::Tree;

/// The most lines of a source file.
const LINES_MAX: usize = 400;

/// Names that say where code was put, not what it is.
const NO_NAMES: [&str; 8] = ["common", "helper", "helpers", "manager", "misc", "util", "utilities", "utils"];

/// Policy that stands beside its actor and is tried without a runtime. The file says so in its first line.
const PURE: [&str; 14] = [
    "actors/src/inference_worker/batcher.rs",
    "actors/src/user_partition/jobs.rs",
    "actors/src/user_partition/pace.rs",
    "actors/src/live_ads/homes.rs",
    "actors/src/membership/view.rs",
    "actors/src/placement.rs",
    "actors/src/refresh/cursor.rs",
    "actors/src/refresh/schedule.rs",
    "actors/src/restart.rs",
    "actors/src/retrieve/gather.rs",
    "actors/src/retrieve/route.rs",
    "actors/src/rollout/plan.rs",
    "actors/src/rollout/tally.rs",
    "actors/src/rollout/verdict.rs",
];

/// Where the metrics of a node are listed; a test of the actors renders it.
const CATALOGUE: &str = "actors/tests/metrics_catalogue.txt";

/// No `mod.rs`, and nothing called utils, common, helpers or misc.
pub(crate) fn names(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, _) in tree.files() {
        if path.ends_with("/mod.rs") {
            faults.push(format!("{path}: a module is `foo.rs` beside `foo/`, never `mod.rs`"));
        }
        for part in path.split('/') {
            let stem = part.split('.').next().unwrap_or_default().to_lowercase();
            if NO_NAMES.contains(&stem.as_str()) {
                faults.push(format!("{path}: `{part}` names no idea; code goes where its noun lives"));
            }
        }
    }
    faults
}

/// At most 400 lines a source file.
pub(crate) fn length(tree: &Tree) -> Vec<String> {
    let long = |(path, text): (&str, &str)| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{path}: {lines} lines, the limit is {LINES_MAX}; a room is missing"))
    };
    tree.ending(".rs").filter_map(long).collect()
}

/// The domain crates and the policies name neither ractor nor tokio.
pub(crate) fn purity(tree: &Tree) -> Vec<String> {
    let says_so = |text: &str| text.starts_with("//! Pure:");
    let mut faults = Vec::new();
    for path in PURE {
        match tree.text(path) {
            None => faults.push(format!("{path}: listed as pure in tests/tidy/rules.rs, and not there")),
            Some(text) if !says_so(text) => faults.push(format!("{path}: must begin with `//! Pure:`")),
            Some(_) => {}
        }
    }
    for (path, text) in tree.ending(".rs") {
        let domain = path.starts_with("crates/") && path.contains("/src/");
        if !domain && !says_so(text) {
            continue;
        }
        if !domain && !PURE.contains(&path) {
            faults.push(format!("{path}: says it is pure, and is not listed in tests/tidy/rules.rs"));
        }
        let source = RustSource::new(text);
        let words: BTreeSet<&str> = source.code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for runtime in ["ractor", "ractor_cluster", "tokio"].into_iter().filter(|name| words.contains(name)) {
            faults.push(format!("{path}: is pure, and names {runtime}"));
        }
    }
    faults
}

/// Error and log texts begin in lower case and end without a dot.
pub(crate) fn texts(tree: &Tree) -> Vec<String> {
    const CALLS: [&str; 9] = [
        "#[error(",
        "bail!(",
        "anyhow!(",
        ".context(",
        "tracing::error!(",
        "tracing::warn!(",
        "tracing::info!(",
        "tracing::debug!(",
        "tracing::trace!(",
    ];
    let mut faults = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let source = RustSource::new(text);
        for argument in CALLS.into_iter().flat_map(|call| source.first_texts(call)) {
            let (text, line) = (argument.text, argument.line);
            let mut start = text.chars();
            // An abbreviation or a constant, such as TOML or K_MAX, keeps its capitals.
            let is_sentence =
                start.next().is_some_and(char::is_uppercase) && start.next().is_some_and(char::is_lowercase);
            if is_sentence {
                faults.push(format!("{path}:{line}: `{text}` must begin in lower case"));
            }
            if text.ends_with(['.', '!']) {
                faults.push(format!("{path}:{line}: `{text}` must end without a dot"));
            }
        }
    }
    faults
}

/// Every metric that `deploy/` names is one that a node has.
pub(crate) fn metrics(tree: &Tree) -> Vec<String> {
    let Some(catalogue) = tree.text(CATALOGUE) else {
        return vec![format!("{CATALOGUE}: is not there; a test of the actors renders it")];
    };
    let known: BTreeSet<&str> = metric_names(catalogue).collect();
    if known.is_empty() {
        return vec![format!("{CATALOGUE}: names no metric")];
    }
    let is_known = |name: &str| {
        let histogram = ["_bucket", "_count", "_sum"].into_iter().find_map(|ending| name.strip_suffix(ending));
        known.contains(name) || histogram.is_some_and(|whole| known.contains(whole))
    };
    let mut faults = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.starts_with("deploy/")) {
        let unknown = metric_names(text).filter(|name| !is_known(name));
        faults.extend(unknown.map(|name| format!("{path}: {name} is not in {CATALOGUE}")));
    }
    faults
}

fn metric_names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.strip_prefix("turret_").is_some_and(|rest| !rest.is_empty()))
}

/// Relative links of Markdown files lead somewhere.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.ending(".md") {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let mut in_code = false;
        for (number, line) in (1..).zip(text.lines()) {
            in_code ^= line.trim_start().starts_with("```");
            if in_code {
                continue;
            }
            for target in link_targets(line) {
                let file = target.split(['#', '?']).next().unwrap_or_default();
                let is_elsewhere = target.contains("://") || target.starts_with("mailto:") || file.is_empty();
                if !is_elsewhere && !resolve(dir, file).is_some_and(|file| tree.has(&file)) {
                    faults.push(format!("{path}:{number}: link to {target} leads nowhere"));
                }
            }
        }
    }
    faults
}

/// What `[text](target)` and `[name]: target` lead to.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let reference = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target.trim());
    inline.chain(reference)
}

/// `file` as seen from `dir`; none where it leaves the repository.
fn resolve(dir: &str, file: &str) -> Option<String> {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// No test that is left out or expects a panic, and no known fault without its issue.
pub(crate) fn excuses(tree: &Tree) -> Vec<String> {
    // Put together, so that this file passes its own rule.
    let attributes = [concat!("#[", "ignore"), concat!("#[should", "_panic")];
    let known_fault = concat!("FIX", "ME");
    let mut faults = Vec::new();
    for (path, text) in tree.ending(".rs") {
        for (number, line) in (1..).zip(text.lines()) {
            for attribute in attributes.into_iter().filter(|attribute| line.contains(attribute)) {
                faults.push(format!("{path}:{number}: `{attribute}]` is an excuse; a test runs and asserts"));
            }
            let has_issue = || line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if line.contains(known_fault) && !has_issue() {
                faults.push(format!("{path}:{number}: {known_fault} without the number of its issue, such as #7"));
            }
        }
    }
    faults
}
