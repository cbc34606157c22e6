//! Studies and their report, by the program itself, on a small marketplace.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
    steps = 8
    warmup_steps = 2
    batch_size = 32
    negatives = 16
    [evaluation]
    cases_max = 200
    bootstrap_samples = 10
    state_age_days = []
"#;

const PLAN: &str = r#"
    title = "does dropout matter?"
    config = "small.toml"
    out = "figures/dropout.json"
    seeds = [1, 2]
    [[run]]
    name = "none"
    group = "marketplace"
    models = ["history_only"]
    arms = ["history only", "random"]
    [[run]]
    name = "dropout"
    group = "marketplace"
    models = ["contextual"]
    arms = ["contextual"]
    against = "none"
    grid = { "training.context_dropout" = [0, 0.5] }
    [[plot]]
    title = "Recall by dropout"
    x = "training.context_dropout"
    y = "recall@10"
"#;

#[test]
fn a_study_keeps_what_it_measured_and_its_figures_make_a_page() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path();
    succeed(dir, &["synth", "marketplace", "--users", "400", "--ads", "200", "--advertisers", "20", "--days", "7"]);
    std::fs::write(dir.join("small.toml"), CONFIG).expect("a file");
    std::fs::write(dir.join("dropout.toml"), PLAN).expect("a file");

    let (preview, _) = succeed(dir, &["study", "dropout.toml", "--dry-run"]);
    assert_eq!(preview.matches("to do").count(), 6, "{preview}");
    let (_, told) = succeed(dir, &["study", "dropout.toml", "--seeds", "1", "--only", "none"]);
    assert!(told.contains("[1/1] none, seed 1"), "{told}");
    let (table, told) = succeed(dir, &["study", "dropout.toml"]);
    assert!(told.contains("1 of 6 are kept") && told.contains("[5/5] dropout, context_dropout 0.5, seed 2"), "{told}");
    assert!(table.contains("none: history only") && table.contains("4 rows in figures/dropout.json"), "{table}");

    let text = std::fs::read_to_string(dir.join("figures/dropout.json")).expect("the figures");
    let figures: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(figures["command"], "turret study dropout.toml");
    let rows = figures["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["seeds"].as_array().map(Vec::len), Some(2), "{row}");
        let recall = row["mean"]["recall@100"].as_f64().expect("a recall");
        assert!((0.0..=1.0).contains(&recall));
    }

    let (_, told) = succeed(dir, &["study", "dropout.toml"]);
    assert!(told.contains("6 of 6 are kept") && !told.contains("[1/"), "{told}");
    let (_, told) = succeed(dir, &["study", "dropout.toml", "--steps", "2"]);
    assert!(told.contains("[6/6]"), "a trial is kept apart: {told}");
    let after = std::fs::read_to_string(dir.join("figures/dropout.json")).expect("the figures");
    assert_eq!(text, after, "neither kept measurements nor a trial change the figures");

    succeed(dir, &["report", "page", "figures/dropout.json"]);
    let page = std::fs::read_to_string(dir.join("page/index.html")).expect("a page");
    assert!(page.contains("does dropout matter?") && page.contains("Recall by dropout") && page.contains("<svg"));
}

#[test]
fn a_run_that_fails_is_told_and_keeps_the_others_from_nothing() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path();
    succeed(dir, &["synth", "marketplace", "--users", "400", "--ads", "200", "--advertisers", "20", "--days", "7"]);
    std::fs::write(dir.join("small.toml"), CONFIG).expect("a file");
    let plan = r#"
        title = "t"
        config = "small.toml"
        out = "figures.json"
        seeds = [1]
        [[run]]
        name = "elsewhere"
        set = { "data.dir" = "nowhere" }
        [[run]]
        name = "unknown arm"
        models = ["history_only"]
        arms = ["clairvoyance"]
        [[run]]
        name = "sound"
        models = ["history_only"]
        arms = ["history only"]
    "#;
    std::fs::write(dir.join("plan.toml"), plan).expect("a file");
    let done = turret(dir, &["study", "plan.toml"]);
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("2 of 3 were not measured") && told.contains("elsewhere, seed 1: "), "{told}");
    assert!(told.contains("no arm is called `clairvoyance`"), "{told}");
    let figures = std::fs::read_to_string(dir.join("figures.json")).expect("the figures of the run that is sound");
    assert!(figures.contains("sound: history only"));
}

#[test]
fn a_study_that_is_interrupted_says_so_and_keeps_what_was_measured() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path();
    succeed(dir, &["synth", "marketplace", "--users", "400", "--ads", "200", "--advertisers", "20", "--days", "7"]);
    std::fs::write(dir.join("small.toml"), CONFIG).expect("a file");
    let plan = r#"
        title = "t"
        config = "small.toml"
        out = "figures.json"
        seeds = [1]
        [[run]]
        name = "short"
        models = ["history_only"]
        arms = ["history only"]
        [[run]]
        name = "endless"
        models = ["history_only"]
        set = { "training.steps" = 10_000_000 }
    "#;
    std::fs::write(dir.join("plan.toml"), plan).expect("a file");
    let mut study = Command::new(env!("CARGO_BIN_EXE_turret"));
    let study = study.args(["study", "plan.toml"]).current_dir(dir).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut study = study.spawn().expect("turret runs");
    let mut told = String::new();
    for line in BufReader::new(study.stderr.take().expect("piped")).lines() {
        let line = line.expect("text");
        if line.contains("[2/2] endless") {
            let interrupt = Command::new("kill").args(["-INT", &study.id().to_string()]).status();
            assert!(interrupt.expect("kill runs").success());
        }
        told.push_str(&line);
    }
    assert_eq!(study.wait().expect("an end").code(), Some(130), "{told}");
    assert!(told.contains("interrupted; the same command goes on from here"), "{told}");
    let (preview, _) = succeed(dir, &["study", "plan.toml", "--dry-run"]);
    assert_eq!((preview.matches("kept").count(), preview.matches("to do").count()), (1, 1), "{preview}");
}

#[test]
fn what_cannot_be_meant_ends_with_2_before_anything_is_done() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path();
    std::fs::write(dir.join("small.toml"), CONFIG).expect("a file");
    std::fs::write(dir.join("plan.toml"), PLAN).expect("a file");
    std::fs::write(dir.join("wrong.toml"), PLAN.replace("context_dropout\"", "context_dorpout\"")).expect("a file");
    let refused = |arguments: &[&str], expected: &str| {
        let done = turret(dir, arguments);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{told}");
        assert!(told.contains(expected), "{told}");
    };
    refused(&["study", "wrong.toml"], "run `dropout, context_dorpout 0`: small.toml: 1 fault");
    refused(&["study", "plan.toml", "--only", "nobody"], "--only: no run is called `nobody`");
    refused(&["study", "plan.toml", "--seeds", "7"], "--seeds: 7 is not one of the plan's");
    refused(&["study", "plan.toml", "--steps", "0"], "--steps: is not in");
    refused(&["report", "page", "plan.toml"], "plan.toml: is no JSON");
    assert!(!dir.join(".turret").exists() && !dir.join("page").exists());
}
