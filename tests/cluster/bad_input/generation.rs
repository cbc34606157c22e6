//! Generations that are not what was published: a node says which file and why, and does not start.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use turret_retrieval::digest::Digest;

use crate::client::get;
use crate::harness::{Cluster, READY_TIME, request_of};
use crate::process::{text, turret, wait_until};
use crate::world::world;

/// A copy of the world's generation that may be spoiled.
struct Copy {
    dir: TempDir,
}

impl Copy {
    fn of_world() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copy = Self { dir };
        let from = world().generation();
        for part in ["model", "shards", "users"] {
            fs::create_dir_all(copy.file(part)).unwrap();
            for entry in fs::read_dir(from.join(part)).unwrap().flatten() {
                fs::copy(entry.path(), copy.file(part).join(entry.file_name())).unwrap();
            }
        }
        fs::copy(from.join("manifest.json"), copy.file("manifest.json")).unwrap();
        fs::copy(world().generations().join("CURRENT"), copy.dir.path().join("CURRENT")).unwrap();
        copy
    }

    /// A file of the generation.
    fn file(&self, path: &str) -> PathBuf {
        self.dir.path().join(world().manifest.id.as_str()).join(path)
    }

    fn cut(&self, path: &str) {
        let whole = fs::read(self.file(path)).unwrap();
        fs::write(self.file(path), &whole[..whole.len() / 2]).unwrap();
    }

    fn flip(&self, path: &str) {
        let mut bytes = fs::read(self.file(path)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(self.file(path), bytes).unwrap();
    }

    fn change_manifest(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = serde_json::from_slice(&fs::read(self.file("manifest.json")).unwrap()).unwrap();
        change(&mut manifest);
        fs::write(self.file("manifest.json"), manifest.to_string()).unwrap();
    }

    /// Makes the manifest say that a file is as it is now: as if it had been published so.
    fn accept(&self, path: &str) {
        let bytes = fs::read(self.file(path)).unwrap();
        let (sha256, length) = Digest::of_reader(&bytes[..]).unwrap();
        self.change_manifest(|manifest| {
            let files = manifest["files"].as_array_mut().unwrap();
            let file = files.iter_mut().find(|file| file["path"] == path).unwrap();
            file["sha256"] = sha256.to_string().into();
            file["bytes"] = length.into();
        });
    }
}

/// Starts a node over a spoiled generation, which must end at once and say `parts`.
#[track_caller]
fn check(spoil: impl FnOnce(&Copy), parts: &[&str]) {
    let copy = Copy::of_world();
    spoil(&copy);
    let cluster = Cluster::configured(&["a"], copy.dir.path());
    turret(&["serve", "--config", text(cluster.config())]).expect(1).says(parts);
}

#[test]
fn a_damaged_model_is_named_and_not_served() {
    for file in ["model/tensors.safetensors", "model/model.json", "model/catalogue.postcard"] {
        let rule = "is not the file that was published";
        check(|copy| copy.cut(file), &[file, rule]);
        check(|copy| copy.flip(file), &[file, rule]);
        check(|copy| fs::remove_file(copy.file(file)).unwrap(), &[file, "No such file"]);
    }
}

#[test]
fn a_damaged_manifest_is_named() {
    let manifest = "manifest.json";
    check(|copy| copy.cut(manifest), &[manifest, "EOF"]);
    check(|copy| fs::write(copy.file(manifest), "").unwrap(), &[manifest, "EOF"]);
    check(|copy| fs::write(copy.file(manifest), [0xff; 64]).unwrap(), &[manifest, "line 1"]);
    check(|copy| fs::write(copy.file(manifest), vec![b' '; 5 << 20]).unwrap(), &[manifest, "is larger than"]);
    check(|copy| copy.change_manifest(|m| m["format"] = 1.into()), &[manifest, "format: is not one"]);
    check(|copy| copy.change_manifest(|m| m["colour"] = 2.into()), &[manifest, "unknown field `colour`"]);
    check(|copy| copy.change_manifest(|m| m["dimension"] = 0.into()), &[manifest, "dimension: is not in 1..=4096"]);
    check(|copy| copy.change_manifest(|m| m["shard_ads"] = Value::Array(vec![])), &[manifest, "shard_ads: must have"]);
    check(
        |copy| copy.change_manifest(|m| m["files"][0]["path"] = "../x".into()),
        &[manifest, "files.path: must stay inside"],
    );
}

#[test]
fn a_generation_that_is_not_there_is_named() {
    let current = |copy: &Copy| copy.dir.path().join("CURRENT");
    check(|copy| fs::remove_file(current(copy)).unwrap(), &["no generation is published here", "turret publish"]);
    check(
        |copy| fs::write(current(copy), "g-of-another-day").unwrap(),
        &["no generation `g-of-another-day` lies here"],
    );
    check(|copy| fs::write(current(copy), "../elsewhere").unwrap(), &["CURRENT", "names no generation"]);
    check(|copy| fs::write(current(copy), "").unwrap(), &["CURRENT", "names no generation"]);
}

#[test]
fn a_model_that_was_published_broken_is_refused_by_its_own_rules() {
    for file in ["model/tensors.safetensors", "model/model.json", "model/catalogue.postcard"] {
        let spoil = |copy: &Copy| {
            copy.cut(file);
            copy.accept(file);
        };
        check(spoil, &[file.strip_prefix("model/").unwrap()]);
    }
}

#[test]
fn a_node_of_another_partitioning_is_refused() {
    let cluster = Cluster::configured(&["a"], &world().generations());
    let config = fs::read_to_string(cluster.config()).unwrap().replace("partitions = 6", "partitions = 5");
    fs::write(cluster.config(), config).unwrap();
    turret(&["serve", "--config", text(cluster.config())]).expect(1).says(&["users.partitions: 5", "published for 6"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let running = Cluster::start(&["a"]);
    turret(&["serve", "--config", text(running.config())]).expect(1).says(&["http listener 127.0.0.1:", "in use"]);
    running.assert_no_panic();
}

/// A shard is read after the node has started: where it cannot be, the node serves the rest, and says so.
fn check_missing_shard(spoil: impl FnOnce(&Copy)) {
    let copy = Copy::of_world();
    spoil(&copy);
    let mut cluster = Cluster::configured(&["a"], copy.dir.path());
    cluster.restart(0);
    let node = &cluster.nodes[0];
    let user = &world().user_of_each_partition()[0];
    let serves_the_rest = || {
        let url = format!("{}/v1/candidates:retrieve", node.http);
        let body = request_of(user).to_string().into_bytes();
        let answer = crate::client::try_send(reqwest::Method::POST, &url, Some(body)).ok()?;
        (answer.status == 200 && answer.json()["coverage"]["shards"]["answered"] == 5).then(|| answer.json())
    };
    let answer = wait_until("five shards answer", READY_TIME, serves_the_rest);
    assert_eq!(answer["coverage"]["reasons"], serde_json::json!(["shard_absent:3"]), "{answer:#}");
    let problem = get(&format!("{}/readyz", node.http)).expect(503).json();
    assert_eq!(problem["code"], "not_ready", "{problem:#}");
    let status = node.status();
    assert_eq!(status["nodes"][0]["ready"], false, "{status:#}");
    assert_eq!(status["nodes"][0]["shards"], serde_json::json!([0, 1, 2, 4, 5]), "{status:#}");
    let log = cluster.process(0).log();
    assert!(log.contains("0003.shard"), "the log names the file:\n{log}");
    cluster.assert_no_panic();
    // It goes on trying, and does not make a noise of it.
    let lines = log.lines().filter(|line| line.contains("0003.shard")).count();
    assert!(lines < 20, "{lines} lines in a moment:\n{log}");
    let ended = cluster.process(0);
    ended.signal(crate::process::Signal::Interrupt);
    assert_eq!(ended.wait(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_shard_that_was_published_broken_is_missing_and_the_node_not_ready() {
    check_missing_shard(|copy| {
        copy.cut("shards/0003.shard");
        copy.accept("shards/0003.shard");
    });
}

#[test]
fn a_shard_that_is_not_the_published_one_is_missing_and_the_node_not_ready() {
    check_missing_shard(|copy| copy.flip("shards/0003.shard"));
}

#[test]
fn a_shard_that_is_not_there_is_missing_and_the_node_not_ready() {
    check_missing_shard(|copy| fs::remove_file(copy.file("shards/0003.shard")).unwrap());
}

/// Without its users' snapshot a partition does not serve: their answers are less personal, and say so.
#[test]
fn a_snapshot_that_is_damaged_costs_its_users_their_state_and_nobody_else() {
    let copy = Copy::of_world();
    copy.cut("users/0002.users");
    let mut cluster = Cluster::configured(&["a"], copy.dir.path());
    cluster.restart(0);
    let node = &cluster.nodes[0];
    let ask = |partition: usize| {
        let url = format!("{}/v1/candidates:retrieve", node.http);
        let body = request_of(&world().user_of_each_partition()[partition]).to_string().into_bytes();
        let answer = crate::client::try_send(reqwest::Method::POST, &url, Some(body)).ok()?;
        (answer.status == 200).then(|| answer.json())
    };
    let others_are_whole = || ask(1).filter(|answer| answer["status"] == "full");
    wait_until("another partition serves", READY_TIME, others_are_whole);
    let answer = ask(2).expect("an answer");
    assert_eq!(answer["status"], "degraded", "{answer:#}");
    assert_eq!(answer["user_state"]["history"], "none", "{answer:#}");
    assert!(answer["user_state"]["reason"].is_string(), "{answer:#}");
    assert_eq!(answer["coverage"]["documents"], 1.0, "{answer:#}");
    assert_eq!(get(&format!("{}/readyz", node.http)).expect(503).json()["code"], "not_ready");
    // It may not have been its turn yet.
    let process = cluster.process(0);
    let is_named = || process.log().contains("0002.users").then_some(());
    wait_until("the log names the file", READY_TIME, is_named);
    cluster.assert_no_panic();
}
