//! Sweeps over pairs of versions, by the program itself, on a small marketplace.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `turret` in `dir`.
fn turret(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_turret")).args(arguments).current_dir(dir).output().expect("turret runs")
}

fn succeed(dir: &Path, arguments: &[&str]) -> (String, String) {
    let done = turret(dir, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "turret {}: {out}{err}", arguments.join(" "));
    (out, err)
}

const CONFIG: &str = r#"
    models = "models"
    [data]
    dir = "marketplace"
    [split]
    kind = "temporal"
    cut = 2026-01-11T00:00:00Z
    until = 2026-01-12T00:00:00Z
    [model]
    dimension = 8
    layers = 1
    feed_forward = 8
    head_hidden = 8
    history_length_max = 10
    id_buckets = 1024
    [training]
    steps = 60
    warmup_steps = 2
    batch_size = 32
    negatives = 16
    [evaluation]
    cases_max = 200
    bootstrap_samples = 10
    state_age_days = []
"#;

/// A directory with a marketplace and `small.toml`.
fn bench() -> tempfile::TempDir {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path();
    succeed(dir, &["synth", "marketplace", "--users", "400", "--ads", "200", "--advertisers", "20", "--days", "7"]);
    std::fs::write(dir.join("small.toml"), CONFIG).expect("a file");
    temporary
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// The pair of these versions.
fn pair<'a>(sweep: &'a Value, [encoder, head, index]: [&str; 3]) -> &'a Value {
    let mut pairs = sweep["pairs"].as_array().expect("pairs").iter();
    let is_it = |pair: &&Value| pair["encoder"] == encoder && pair["head"] == head && pair["index"] == index;
    pairs.find(is_it).unwrap_or_else(|| panic!("no pair {encoder}, {head}, {index}"))
}

#[test]
fn a_sweep_pairs_every_version_and_its_own_pairs_are_what_an_evaluation_finds() {
    let temporary = bench();
    let dir = temporary.path();
    let sweep = ["skew", "sweep", "--config", "small.toml", "--versions", "2"];
    let (table, told) = succeed(dir, &[&sweep[..], &["--out", "skew.json", "--report", "page"]].concat());
    for expected in [
        "retrained: versions trained from scratch on the same data, each with another seed",
        "72 test cases, 220 items ranked; an order drawn at random recalls 0.0142 at 10",
        "user tower of",
        "index of seed 2",
        "states of 2026-01-10",
        "R@10: mixed pairs 0.",
    ] {
        assert!(table.contains(expected), "`{expected}` is not in {table}");
    }
    // The version of the configuration is the latest of two lineages, and the day before that of two.
    assert_eq!(told.matches(": trained in ").count(), 4, "{told}");
    assert_eq!(told.matches(": kept from before in ").count(), 2, "{told}");

    let found = json(&dir.join("skew.json"));
    let command = found["command"].as_str().expect("a command");
    assert!(command.starts_with("turret skew sweep --config small.toml") && found["machine"].is_string(), "{command}");
    let sweeps = found["sweeps"].as_array().expect("sweeps");
    let lineages: Vec<&Value> = sweeps.iter().map(|sweep| &sweep["lineage"]).collect();
    assert_eq!(lineages, ["retrained", "daily", "continued"]);
    for sweep in sweeps {
        assert_eq!(sweep["pairs"].as_array().map(Vec::len), Some(6));
        assert_eq!(sweep["trainings"].as_array().map(Vec::len), Some(2));
        assert_eq!(sweep["trainings"][0]["steps"], 60);
    }
    let versions = |number: usize| [&sweeps[number]["versions"][0], &sweeps[number]["versions"][1]];
    assert_eq!(versions(0)[0]["head"], versions(1)[0]["head"]);
    assert_eq!(versions(1)[1]["head"], versions(2)[1]["head"]);
    assert_ne!(versions(1)[0]["head"], versions(2)[0]["head"], "one began anew, the other went on");

    succeed(dir, &["train", "--config", "small.toml", "--only", "contextual"]);
    succeed(dir, &["evaluate", "--config", "small.toml", "--out", "evaluated.json"]);
    let evaluated = json(&dir.join("evaluated.json"));
    let mut arms = evaluated["arms"].as_array().expect("arms").iter();
    let contextual = arms.find(|arm| arm["name"] == "contextual").expect("the arm");
    let own = pair(&sweeps[0], ["seed 1"; 3]);
    assert_eq!((&own["metrics"], &own["intervals"]), (&contextual["metrics"], &contextual["intervals"]));

    let page = std::fs::read_to_string(dir.join("page/index.html")).expect("a page");
    assert!(page.contains("Version skew: small") && page.contains("class=\"shade8\""));
    assert!(!page.contains("Version skew: no sweep"));
    succeed(dir, &["report", "again", "skew.json"]);
    let again = std::fs::read_to_string(dir.join("again/index.html")).expect("a page");
    assert!(again.contains("Version skew: skew") && again.contains("user tower of the row, index of the column"));

    // The models of the sweep stand apart from the one that is served, and are used again.
    let (printed, told) = succeed(dir, &[&sweep[..], &["--json", "--by", "retrained"]].concat());
    assert_eq!((told.matches(": kept from").count(), told.matches(": trained").count()), (2, 0), "{told}");
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(printed["sweeps"][0]["pairs"], sweeps[0]["pairs"]);
    let (_, told) = succeed(dir, &[&sweep[..], &["--by", "retrained", "--fresh"]].concat());
    assert_eq!(told.matches(": trained in ").count(), 2, "{told}");
    assert!(dir.join("models/contextual/model.json").is_file());
}

#[test]
fn what_cannot_be_swept_is_refused_before_anything_is_trained() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path();
    std::fs::write(dir.join("small.toml"), CONFIG).expect("a file");
    let left_out = CONFIG.replace("kind = \"temporal\"", "kind = \"leave_one_out\"");
    let left_out = left_out.replace("cut = 2026-01-11T00:00:00Z", "").replace("until = 2026-01-12T00:00:00Z", "");
    std::fs::write(dir.join("out.toml"), left_out).expect("a file");
    let refused = |config: &str, arguments: &[&str], expected: &str| {
        let done = turret(dir, &[&["skew", "sweep", "--config", config], arguments].concat());
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{told}");
        assert!(told.contains(expected), "{told} where {expected} is expected");
    };
    refused("small.toml", &["--versions", "1"], "--versions: 1 is not in 2..=8");
    refused("small.toml", &["--versions", "9"], "--versions: 9 is not in 2..=8");
    refused("small.toml", &["--steps", "0"], "--steps: is not in");
    refused("small.toml", &["--further-steps", "61"], "--further-steps: 61 is not in 1..=60, the steps from scratch");
    refused("small.toml", &["--by", "hourly"], "possible values: retrained, daily, continued");
    refused("small.toml", &["--part", "validation"], "split.validation_cut: is needed");
    refused("out.toml", &["--by", "daily"], "--by: daily versions need a temporal split");
    refused("none.toml", &[], "none.toml");
    assert!(!dir.join("models").exists());
}

#[test]
fn a_lineage_that_the_data_do_not_have_is_left_out_and_told() {
    let temporary = bench();
    let dir = temporary.path();
    let left_out = CONFIG.replace("kind = \"temporal\"", "kind = \"leave_one_out\"");
    let left_out = left_out.replace("cut = 2026-01-11T00:00:00Z", "").replace("until = 2026-01-12T00:00:00Z", "");
    std::fs::write(dir.join("out.toml"), left_out).expect("a file");
    let sweep = ["skew", "sweep", "--config", "out.toml", "--versions", "2", "--steps", "2"];
    let (table, _) = succeed(dir, &sweep);
    assert!(table.contains("retrained: ") && table.contains("Left out: daily: daily versions need"), "{table}");

    // No event is older than the days that the data span: the oldest version of eight has nothing to learn from.
    let done = turret(dir, &["skew", "sweep", "--config", "small.toml", "--versions", "8", "--by", "daily"]);
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("daily version 2026-01-04: the training part of the data holds no event"), "{told}");
}
