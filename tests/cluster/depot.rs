//! Generations in object stores: published to one, served from copies of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Cluster, READY_TIME, found, request_of};
use crate::process::{Environment, Finished, Signal, text, turret, turret_in, wait_until};
use crate::world::{config_of, world};

mod s3;

/// A publisher on a machine of its own, with the world's model and marketplace.
struct Publisher {
    dir: TempDir,
    config: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Publisher {
    fn to(url: &str, environment: &Environment) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("publish.toml");
        let own = format!("data_dir = \"{}\"\ngenerations = \"{url}\"", text(&dir.path().join("data")));
        let of_world = config_of(&world().dir);
        let (_, rest) = of_world.split_once("models =").expect("the world has models");
        fs::write(&config, format!("{own}\nmodels ={rest}")).unwrap();
        Self { dir, config, environment: environment.to_vec() }
    }

    fn try_publish(&self) -> Finished {
        turret_in(&["publish", "--config", text(&self.config), "--json"], &self.environment)
    }

    /// Publishes, and gives the generation's id.
    fn publish(&self) -> String {
        let finished = self.try_publish().expect(0);
        let manifest: Value = serde_json::from_str(&finished.output).unwrap();
        assert!(!self.staging().exists(), "what users did is not left lying about");
        manifest["id"].as_str().expect("a generation has an id").to_owned()
    }

    fn staging(&self) -> PathBuf {
        self.dir.path().join("data/.publishing")
    }
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Publishes to `url`, serves from there with two nodes, and asks for ads of every partition: the answers are those of a
/// node that reads the world's directory.
fn check_served(url: &str, environment: &Environment) -> (Cluster, String) {
    let id = Publisher::to(url, environment).publish();
    let cluster = Cluster::over(&["a", "b"], Path::new(url), environment);
    let in_place = Cluster::start(&["a"]);
    for user in world().user_of_each_partition() {
        let answer = cluster.nodes[1].retrieve(&request_of(&user));
        assert_eq!(answer["generation"]["id"], id.as_str(), "{answer:#}");
        assert_eq!(answer["status"], "full", "{answer:#}");
        assert_eq!(found(&answer), found(&in_place.nodes[0].retrieve(&request_of(&user))), "{user}");
    }
    for node in 0..2 {
        let copy = cluster.data_of(node).join("generations").join(&id);
        let shards: Vec<String> = cluster.shards_of(node).iter().map(|shard| format!("{:04}.shard", shard.0)).collect();
        assert_eq!(names(&copy.join("shards")), shards, "a node copies what is placed on it");
    }
    (cluster, id)
}

#[test]
fn a_generation_in_a_store_is_served_from_copies_of_which_two_are_kept() {
    let bucket = tempfile::tempdir().unwrap();
    let url = format!("file://{}", text(&bucket.path().join("ads")));
    let (mut cluster, first) = check_served(&url, &[]);
    let publisher = Publisher::to(&url, &[]);
    let (second, third) = (publisher.publish(), publisher.publish());
    assert_eq!(names(&bucket.path().join("ads")), ["CURRENT", &first, &second, &third]);
    let copies = cluster.data_of(0).join("generations");
    assert_eq!(names(&copies), [first.as_str()], "a node copies when it starts");
    // One after the other became the current one, and the node was started again each time.
    for (current, kept) in [(&second, [&first, &second]), (&third, [&second, &third])] {
        fs::write(bucket.path().join("ads/CURRENT"), current).unwrap();
        cluster.kill(0);
        cluster.restart(0);
        let serves = || cluster.process(0).log().contains(&format!("generation={current}")).then_some(());
        wait_until("the node copies what is current", READY_TIME, serves);
        let is_kept = || (names(&copies) == kept.map(String::as_str)).then_some(());
        wait_until("two copies are kept", READY_TIME, is_kept);
    }
    cluster.process(0).signal(Signal::Terminate);
    cluster.assert_no_panic();
}

#[test]
fn a_damaged_store_is_named_and_not_served() {
    let bucket = tempfile::tempdir().unwrap();
    let ads = bucket.path().join("ads");
    let url = format!("file://{}", text(&ads));
    let serve = |says: &[&str]| {
        let cluster = Cluster::configured(&["a"], Path::new(&url));
        turret(&["serve", "--config", text(cluster.config())]).expect(1).says(says);
        let copies = cluster.data_of(0).join("generations");
        assert!(!copies.exists() || names(&copies).iter().all(|name| name.ends_with(".tmp")), "no copy of it is kept");
    };
    serve(&["ads/CURRENT: no generation is published here", "turret publish"]);
    let id = Publisher::to(&url, &[]).publish();
    let shard = ads.join(&id).join("shards/0003.shard");
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, &whole[1..]).unwrap();
    serve(&["shards/0003.shard", "is not the file that was published", "bytes where"]);
    fs::remove_file(&shard).unwrap();
    serve(&["shards/0003.shard", "not found"]);
    fs::write(ads.join(&id).join("manifest.json"), "{").unwrap();
    serve(&["manifest.json", "EOF"]);
    fs::write(ads.join("CURRENT"), "g-of-another-day").unwrap();
    serve(&["g-of-another-day/manifest.json", "is not published here"]);
}

/// Reaches a port that nobody listens on.
#[test]
fn a_store_that_cannot_be_reached_is_told_before_anything_is_made() {
    let url = "s3://ads/generations";
    let environment = s3::environment("http://127.0.0.1:9");
    let publisher = Publisher::to(url, &environment);
    publisher.try_publish().expect(1).says(&["s3://ads/generations"]);
    assert_eq!(names(&publisher.staging()), ["LOCK"], "nothing was written");
    let cluster = Cluster::configured(&["a"], Path::new(url));
    turret_in(&["serve", "--config", text(cluster.config())], &environment)
        .expect(1)
        .says(&["s3://ads/generations/CURRENT"]);
}

#[test]
fn a_generation_in_s3_is_served_from_copies() {
    let Some(server) = s3::Server::find() else { return };
    if let Some(environment) = server.with_another_secret() {
        Publisher::to(&server.url(), &environment).try_publish().expect(1).says(&["SignatureDoesNotMatch"]);
    }
    let (cluster, _) = check_served(&server.url(), server.environment());
    cluster.assert_no_panic();
    let publisher = Publisher::to(&server.url(), server.environment());
    let second = publisher.publish();
    let mut late = Cluster::configured(&["a"], Path::new(&server.url()));
    late.set_environment(server.environment());
    late.restart(0);
    let node = &late.nodes[0];
    let serves = || {
        let url = format!("{}/v1/candidates:retrieve", node.http);
        let body = request_of("u1").to_string().into_bytes();
        let answer = crate::client::try_send(reqwest::Method::POST, &url, Some(body)).ok()?;
        (answer.status == 200).then(|| answer.json())
    };
    let answer = wait_until("a node serves what was published last", READY_TIME, serves);
    assert_eq!(answer["generation"]["id"], second.as_str(), "{answer:#}");
}
