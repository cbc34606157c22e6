//! A node that is killed again and again while ads change: what was acknowledged is there when it is back, and nothing else.
//!
//! Shards are written every few changes, so that nodes die before, in and after a snapshot. `TURRET_KILL_RUNS` says how often.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{get, try_send};
use crate::harness::Cluster;

const RUNS: u64 = 5;
/// Ads that come and go beside those of the world.
const ADS: u64 = 60;
/// Longest time between a start and the next kill.
const LIFE_MS: u64 = 900;

/// What is known of an ad: the version of its content, absent where it was deleted, and whether it is paused.
type Known = (Option<u64>, bool);

#[derive(Clone, Copy, Debug)]
enum Change {
    Put(u64),
    Delete,
    Pause(bool),
    /// Of an ad that is there.
    Patch(u64),
}

impl Change {
    fn of(self, (content, paused): Known) -> Known {
        match self {
            Self::Put(version) => (Some(version), paused),
            Self::Delete => (None, paused),
            Self::Pause(paused) => (content, paused),
            Self::Patch(version) => (content.map(|_| version), paused),
        }
    }

    fn send(self, http: &str, ad: &str) -> Result<u16, reqwest::Error> {
        let url = format!("{http}/v1/ads/{ad}");
        let sent = match self {
            Self::Put(version) => {
                let item = json!({ "id": format!("item-{ad}"), "price": version as f64 });
                let attributes = json!({ "status": "active", "campaign_id": format!("v{version}") });
                try_send(Method::PUT, &url, Some(json!({ "item": item, "attributes": attributes }).to_string().into()))
            }
            Self::Delete => try_send(Method::DELETE, &url, None),
            Self::Pause(true) => try_send(Method::POST, &format!("{url}/pause"), Some(b"{}".to_vec())),
            Self::Pause(false) => try_send(Method::POST, &format!("{url}/resume"), Some(b"{}".to_vec())),
            Self::Patch(version) => {
                let attributes = json!({ "campaign_id": format!("v{version}") });
                try_send(Method::PATCH, &url, Some(json!({ "attributes": attributes }).to_string().into()))
            }
        };
        sent.map(|reply| reply.status)
    }
}

/// Changes ads until the node is gone; what was acknowledged goes to `known`, and what may have been made is returned.
fn write(
    http: &str,
    random: &mut ChaCha8Rng,
    known: &mut BTreeMap<String, Known>,
    versions: &mut u64,
) -> (String, Change) {
    loop {
        let ad = format!("k{}", random.random_range(0..ADS));
        let change = match random.random_range(0..10) {
            0..5 => {
                *versions += 1;
                Change::Put(*versions)
            }
            5..7 => Change::Delete,
            9 if known.get(&ad).is_some_and(|(content, _)| content.is_some()) => {
                *versions += 1;
                Change::Patch(*versions)
            }
            at => Change::Pause(at == 7),
        };
        match change.send(http, &ad) {
            // 202 where searches do not see it yet: it is acknowledged all the same.
            Ok(200 | 202) => {
                let before = known.get(&ad).copied().unwrap_or_default();
                known.insert(ad, change.of(before));
            }
            // On its way out it may refuse, after it has written.
            Ok(503) | Err(_) => return (ad, change),
            Ok(status) => panic!("{ad} {change:?}: {status}"),
        }
    }
}

fn ids(answer: &Value) -> BTreeSet<String> {
    assert_eq!((&answer["exhausted"], &answer["status"]), (&json!(true), &json!("full")), "{answer:#}");
    answer["candidates"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ad| ad["ad_id"].as_str())
        .map(str::to_owned)
        .collect()
}

/// All ads that are shown, and those of them that are of one of these versions.
fn shown(cluster: &Cluster, versions: &[u64]) -> (BTreeSet<String>, BTreeSet<String>) {
    let ask = |more: Value| {
        let mut request = json!({ "surface": "home", "k": 2_000, "deadline_ms": 5_000 });
        request.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        ids(&cluster.nodes[0].retrieve(&request))
    };
    let versions: Vec<String> = versions.iter().map(|version| format!("v{version}")).collect();
    (ask(json!({})), ask(json!({ "filter": { "in": { "campaign_id": versions } } })))
}

/// Checks that the ads of the world and those of `known` are shown, and no other.
fn check(cluster: &Cluster, world: &BTreeSet<String>, known: &BTreeMap<String, Known>) {
    let visible =
        known.iter().filter_map(|(ad, (content, paused))| Some((ad.clone(), (*content)?)).filter(|_| !paused));
    let (ads, versions): (BTreeSet<String>, Vec<u64>) = visible.unzip();
    let (all, of_versions) = shown(cluster, &versions);
    assert_eq!(all.difference(world).cloned().collect::<BTreeSet<_>>(), ads, "{known:?}");
    assert!(world.is_subset(&all));
    // Of the content that was acknowledged, not of one before.
    assert_eq!(of_versions, ads, "{known:?}");
}

fn opened_from(cluster: &Cluster, from: &str) -> u64 {
    let text = get(&format!("{}/metrics", cluster.nodes[0].http)).expect(200).text;
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("turret_index_opens_total{{from=\"{from}\"}} ")));
    line.map_or(0, |number| number.parse().unwrap())
}

#[test]
fn what_was_acknowledged_is_there_after_kills_at_any_moment_and_nothing_else() {
    let runs =
        std::env::var("TURRET_KILL_RUNS").map_or(RUNS, |runs| runs.parse().expect("TURRET_KILL_RUNS is a number"));
    let mut cluster = Cluster::of_its_own("a", "");
    let (world, _) = shown(&cluster, &[0]);
    let config = fs::read_to_string(cluster.config()).unwrap();
    let often = "[index]\nbackend = \"diskann\"\nsnapshot_after_changes = 3\nsnapshot_interval_s = 1\n";
    fs::write(cluster.config(), config.replacen("[index]\n", often, 1)).unwrap();
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_joined();
    let mut random = ChaCha8Rng::seed_from_u64(runs);
    let (mut known, mut versions, mut snapshots) = (BTreeMap::new(), 0, 0);
    for run in 0..runs {
        let (http, life) = (cluster.nodes[0].http.clone(), random.random_range(0..LIFE_MS));
        let seed = random.random();
        let (acknowledged, count) = (&mut known, &mut versions);
        let (ad, change) = thread::scope(|scope| {
            let writer = scope.spawn(move || write(&http, &mut ChaCha8Rng::seed_from_u64(seed), acknowledged, count));
            thread::sleep(Duration::from_millis(life));
            cluster.kill(0);
            writer.join().expect("the writer ends when the node does")
        });
        cluster.restart(0);
        cluster.wait_joined();
        // Nobody was told what became of the last change; the node says which it is, and is held to it.
        let told = get(&format!("{}/v1/ads/{ad}", cluster.nodes[0].http));
        let before: Known = known.get(&ad).copied().unwrap_or_default();
        if is_made(told.status, &told.text, change) {
            known.insert(ad, change.of(before));
        }
        check(&cluster, &world, &known);
        snapshots += opened_from(&cluster, "snapshot");
        assert_eq!(opened_from(&cluster, "published_instead"), 0, "run {run}");
    }
    println!("{runs} kills, {versions} puts, {snapshots} shards opened from snapshots");
    assert!(snapshots > 0, "no snapshot was opened in {runs} runs");
    cluster.assert_no_panic();
}

/// Whether the node knows of a change, by what it says of the ad.
fn is_made(status: u16, text: &str, change: Change) -> bool {
    assert_eq!(status, 200, "{text}");
    let told: Value = serde_json::from_str(text).unwrap();
    match change {
        Change::Put(version) | Change::Patch(version) => told.to_string().contains(&format!("\"v{version}\"")),
        Change::Delete => told["content"] == "deleted",
        Change::Pause(paused) => told["paused"] == paused,
    }
}
