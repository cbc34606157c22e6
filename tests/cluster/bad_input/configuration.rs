//! Configurations and arguments that cannot be meant: exit code 2, and every fault at once.

use std::fs;

use crate::process::{Finished, text, turret};
use crate::world::{config_of, world};

const FIVE_MISTAKES: &str = r#"
data_dir = 7
colour = "red"

[index]
shards = 0

[gateway]
deadline_ms = "soon"

[[nodes]]
name = "a"
http = "here"
admin = "127.0.0.1:7201"
"#;

/// What the program says of a configuration, by `config check` and by every command that reads one.
#[track_caller]
fn check(config: &str, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    fs::write(&file, config).unwrap();
    let file = text(&file);
    let commands: [&[&str]; 6] = [
        &["config", "check", file],
        &["data", "check", "--config", file],
        &["train", "--config", file],
        &["evaluate", "--config", file],
        &["publish", "--config", file],
        &["serve", "--config", file, "--node", "a"],
    ];
    for command in commands {
        let finished = turret(command).expect(2);
        finished.says(parts);
        finished.says(&["bad.toml"]);
        assert!(finished.output.is_empty(), "{command:?}: {finished:#?}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["bad.toml"], "nothing was written");
}

#[test]
fn five_mistakes_are_told_at_once_by_key_path() {
    check(
        FIVE_MISTAKES,
        &[
            "5 faults",
            "data_dir: must be a string, is an integer",
            "colour: unknown key",
            "index.shards: 0 is not in 1..=1024",
            "gateway.deadline_ms: must be an integer, is a string",
            "nodes[0].http: `here` is not an address",
        ],
    );
}

#[test]
fn what_one_key_alone_cannot_show_is_a_fault_too() {
    let node = |name: &str, port: u16| {
        let addresses = format!("http = \"127.0.0.1:{port}\"\nadmin = \"127.0.0.1:{}\"\n", port + 1);
        format!("[[nodes]]\nname = \"{name}\"\n{addresses}cluster = \"127.0.0.1:{}\"\n", port + 2)
    };
    let cookie = "[cluster]\ncookie = \"sixteen bytes ok\"\n";
    check(&format!("{}{}", node("a", 7101), node("b", 7111)), &["cluster.cookie: is required"]);
    check(
        &format!("{cookie}{}{}", node("a", 7101), node("b", 7102)),
        &["nodes[1].http: 127.0.0.1:7102 is already used"],
    );
    check(&format!("{cookie}{}{}", node("a", 7101), node("a", 7111)), &["nodes: the name a is used twice"]);
    check("[model]\nheads = 3\ndimension = 64\n", &["model.heads: 3 does not divide the dimension 64"]);
    check(
        "[model]\nfusion = \"cross_attention\"\nhistory_length_max = 200\ndimension = 256\n",
        &["model.history_length_max", "200 rows of 256 values at f16 are 102400 bytes, the limit is 61440"],
    );
    check("[users]\nstate_precision = \"f8\"\n", &["users.state_precision: `f8` is not one of f32, f16, int8"]);
    check("[refresh]\ndaily_at = \"25:00\"\n", &["refresh.daily_at: `25:00` is not a time of day such as \"03:00\""]);
    check(
        "[refresh]\ndaily_at = \"03:00\"\nevery_minutes = 5\n",
        &["refresh.every_minutes: cannot stand beside daily_at"],
    );
    check("[training]\nsteps = 3\nwarmup_steps = 4\n", &["training.warmup_steps: is more than steps, 3"]);
    check("[data]\ndir = \"$TURRET_NOT_SET_ANYWHERE/x\"\n", &["data.dir", "TURRET_NOT_SET_ANYWHERE is not set"]);
    check(
        "generations = \"https://ads.example/x\"\n",
        &["generations: `https://ads.example/x` is neither a directory nor"],
    );
    check("generations = \"s3://key:word@ads/x\"\n", &["generations: must hold no user", "from the environment"]);
    check("[inference]\ndevice = \"gpu\"\n", &["1 fault", "inference.device: `gpu` is neither `cpu` nor `cuda:`"]);
    check(
        "[index]\npartitioning = \"clustered\"\npartition_recall = 0.8\n",
        &["1 fault", "index.partition_recall: times index.target_recall is below publish.probe_recall_min"],
    );
    check("[index]\ntarget_recall = 0.8\n", &["1 fault", "index.target_recall: is below publish.probe_recall_min"]);
    check("[index]\nshards = 10_000\nalpha = nan\n", &["2 faults", "index.shards: 10000", "index.alpha: NaN"]);
}

#[test]
fn a_file_that_is_not_toml_is_refused_by_line() {
    check("data_dir = \"x\"\n[index\n", &["line 2"]);
    check("[index]\nshards = 2\nshards = 3\n", &["line 3", "duplicate key"]);
}

#[test]
fn a_configuration_that_is_not_there_is_named_once() {
    let finished = turret(&["config", "check", "not-there/cluster.toml"]).expect(2);
    finished.says(&["not-there/cluster.toml: No such file"]);
    assert_eq!(finished.errors.matches("No such file").count(), 1, "{finished:#?}");
}

#[test]
fn an_unknown_node_is_answered_with_those_that_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two.toml");
    let nodes = "[[nodes]]\nname = \"left\"\nhttp = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\ncluster = \"127.0.0.1:3\"\n\
                 [[nodes]]\nname = \"right\"\nhttp = \"127.0.0.1:4\"\nadmin = \"127.0.0.1:5\"\ncluster = \"127.0.0.1:6\"\n\
                 roles = [\"gateway\"]\n";
    fs::write(&file, format!("[cluster]\ncookie = \"sixteen bytes ok\"\n{nodes}")).unwrap();
    let serve = |node: &[&str]| turret(&[&["serve", "--config", text(&file)], node].concat()).expect(2);
    serve(&["--node", "middle"]).says(&["--node: `middle` is not one of left, right"]);
    serve(&[]).says(&["--node is needed", "left, right"]);
}

#[test]
fn arguments_out_of_range_are_named() {
    let refused = |arguments: &[&str]| -> Finished { turret(arguments).expect(2) };
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("marketplace");
    refused(&["synth", text(&target), "--users", "1000001"]).says(&["--users: 1000001 is not in 1..=1000000"]);
    refused(&["synth", text(&target), "--ads", "0"]).says(&["--ads: 0 is not in 1..=1000000"]);
    assert!(!target.exists());
    let config = dir.path().join("world.toml");
    fs::write(&config, config_of(&world().dir)).unwrap();
    refused(&["train", "--config", text(&config), "--steps", "0"]).says(&["--steps"]);
    refused(&["retrieve", "--interest", "x:7"]).says(&["--interest: `x:7`"]);
    refused(&["retrieve", "--filter", "{"]).says(&["--filter: not JSON"]);
    refused(&["load", "--requests", "x", "--rate", "0"]).says(&["--rate: must be in 0.001..=1000000"]);
    refused(&["load", "--requests", "x", "--events-rate", "1e9"])
        .says(&["--events-rate: must be 0 or in 1..=10000000"]);
    refused(&["load", "--requests", "x", "--rate", "NaN"]).says(&["--rate: must be in 0.001..=1000000"]);
    // Of clap, which tells of arguments that the command does not have.
    for arguments in [&["serve"][..], &["train", "--colour"], &["fly"], &["data", "check"]] {
        let finished = refused(arguments);
        assert!(finished.errors.starts_with("error: "), "{finished:#?}");
    }
}
