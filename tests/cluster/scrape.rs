//! What Prometheus finds at a live node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::client::{get, put, send};
use crate::harness::{Cluster, Node, READY_TIME, request_of};
use crate::process::wait_until;

/// One metric a line: `name{label,…} type`. A test of the actors renders it from the code.
const CATALOGUE: &str = include_str!("../../actors/tests/metrics_catalogue.txt");

/// Metrics that show themselves only once something went wrong or was published; nothing does or is here.
const UNMOVED: [&str; 11] = [
    "turret_actor_restarts_total",
    "turret_index_calibrated_list_entries",
    "turret_index_calibrated_recall",
    "turret_index_snapshot_bytes",
    "turret_index_snapshot_duration_seconds",
    "turret_index_snapshot_timestamp_seconds",
    "turret_search_early_stopped_total",
    "turret_inference_fallback_total",
    "turret_inference_refused_total",
    "turret_rollouts_total",
    "turret_wire_rejected_total",
];

/// One family of a scrape.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads the text format: every sample belongs to the family whose `# TYPE` line is above it.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            let family = families.entry(current.clone()).or_default();
            assert!(family.kind.is_empty(), "two families called {name}");
            kind.clone_into(&mut family.kind);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("unclosed labels: {line}"));
            let pair = |pair: &str| {
                let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
                (label.to_owned(), value.trim_end_matches('"').to_owned())
            };
            let sample = Sample {
                name: name.to_owned(),
                labels: labels.split(',').filter(|pair| !pair.is_empty()).map(pair).collect(),
                value: value.parse().unwrap_or_else(|_| panic!("no number: {line}")),
            };
            assert!(name.starts_with(&current), "{line} stands below # TYPE {current}");
            families.get_mut(&current).expect("a family comes first").samples.push(sample);
        }
    }
    families
}

fn scrape(node: &Node) -> BTreeMap<String, Family> {
    let reply = get(&format!("{}/metrics", node.http)).expect(200);
    assert!(reply.content_type.starts_with("text/plain; version=0.0.4"), "{}", reply.content_type);
    parse(&reply.text)
}

/// The catalogue: by name, the labels and the type.
fn catalogue() -> BTreeMap<&'static str, (BTreeSet<&'static str>, &'static str)> {
    let read = |line: &'static str| {
        let (series, kind) = line.rsplit_once(' ').expect("a type at the end");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        (name, (labels.collect(), kind))
    };
    CATALOGUE.lines().map(read).collect()
}

/// The value of the one sample with these labels; 0 where there is none yet.
fn value(families: &BTreeMap<String, Family>, sample: &str, labels: &[(&str, &str)]) -> f64 {
    let is_it = |found: &&Sample| {
        found.name == sample
            && labels.iter().all(|(label, value)| found.labels.get(*label).map(String::as_str) == Some(value))
    };
    let found: Vec<&Sample> = families.values().flat_map(|family| &family.samples).filter(is_it).collect();
    assert!(found.len() <= 1, "{sample} with {labels:?} is there {} times", found.len());
    found.first().map_or(0.0, |sample| sample.value)
}

/// Something of everything: answers, refusals, an event and a refresh.
fn exercise(node: &Node) {
    for user in ["u1", "u2", "u3"] {
        node.retrieve(&request_of(user));
    }
    node.retrieve(&json!({ "surface": "home", "k": 5, "deadline_ms": 5_000 }));
    node.ask(&json!({ "surface": "home", "k": 0 })).expect(400);
    node.ask(&json!({ "surface": "home", "k": 5, "deadline_ms": 0 })).expect(400);
    let event =
        json!({ "events": [{ "item_id": "item1", "event_type": "view", "timestamp_ms": 1_768_300_000_000_i64 }] });
    put(&format!("{}/v1/users/u1/events", node.http), &event).expect(200);
    send(Method::POST, &format!("{}/admin/refresh", node.admin), None).expect(202);
    wait_until("the refresh ends", Duration::from_secs(60), || {
        let refresh = node.status()["nodes"][0]["refresh"].clone();
        (refresh["running"] == false && refresh["users_refreshed"] == 1).then_some(())
    });
}

#[test]
fn a_node_exposes_the_catalogue_and_nothing_else() {
    let cluster = Cluster::start(&["a", "b"]);
    cluster.nodes.iter().for_each(|node| drop(node.retrieve(&request_of("u1"))));
    exercise(&cluster.nodes[0]);
    let catalogue = catalogue();
    let families = scrape(&cluster.nodes[0]);
    for (name, family) in &families {
        let Some((labels, kind)) = catalogue.get(name.as_str()) else { panic!("{name} is not in the catalogue") };
        assert_eq!(family.kind, *kind, "{name}");
        assert!(family.help.len() > 10, "{name} is described as `{}`", family.help);
        for sample in &family.samples {
            // `le` is the bound of a histogram's bucket.
            let own: BTreeSet<&str> = sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            assert_eq!(own, *labels, "{}", sample.name);
            assert!(sample.value.is_finite() && sample.value >= 0.0, "{} is {}", sample.name, sample.value);
        }
    }
    let missing: Vec<&str> = catalogue.keys().copied().filter(|name| !families.contains_key(*name)).collect();
    assert!(missing.iter().all(|name| UNMOVED.contains(name)), "not exposed: {missing:?}");
    // Believed from the first health call on, which is some time after the peer could be reached.
    wait_until("the peer is counted", READY_TIME, || {
        let families = scrape(&cluster.nodes[0]);
        let peers = |state| value(&families, "turret_cluster_peers", &[("state", state)]);
        (["up", "suspect", "down"].map(peers) == [1.0, 0.0, 0.0]).then_some(())
    });
    cluster.assert_no_panic();
}

#[test]
fn counters_move_by_what_was_asked() {
    let cluster = Cluster::start(&["a"]);
    let node = &cluster.nodes[0];
    let before = scrape(node);
    exercise(node);
    let after = scrape(node);
    let moved = |sample: &str, labels: &[(&str, &str)]| value(&after, sample, labels) - value(&before, sample, labels);
    let requests = |outcome: &str| moved("turret_gateway_requests_total", &[("outcome", outcome)]);
    // One of the four names no user and tells nothing of one.
    assert_eq!((requests("full"), requests("cold")), (3.0, 1.0));
    assert_eq!((requests("rejected"), requests("failed"), requests("partial")), (2.0, 0.0, 0.0));
    assert_eq!(moved("turret_gateway_request_duration_seconds_count", &[("outcome", "full")]), 3.0);
    for stage in ["user", "embed", "scatter", "merge"] {
        assert_eq!(moved("turret_retrieve_stage_duration_seconds_count", &[("stage", stage)]), 4.0, "{stage}");
    }
    assert_eq!(moved("turret_retrieve_coverage_ratio_count", &[]), 4.0);
    assert_eq!(moved("turret_retrieve_coverage_ratio_sum", &[]), 4.0, "every answer was full");
    let lookups = |result: &str| moved("turret_user_lookups_total", &[("result", result)]);
    let of_result: f64 = ["fresh", "stale", "missing", "unavailable"].map(lookups).iter().sum();
    assert_eq!((of_result, lookups("unavailable")), (3.0, 0.0));
    assert_eq!(moved("turret_search_plans_total", &[("plan", "exact")]), 24.0, "four requests to six shards");
    assert!(moved("turret_search_distances_total", &[("plan", "exact")]) > 24.0);
    for shard in ["0", "1", "2", "3", "4", "5"] {
        assert_eq!(moved("turret_index_search_duration_seconds_count", &[("shard", shard)]), 4.0, "shard {shard}");
        assert_eq!(value(&after, "turret_index_searches_in_flight", &[("shard", shard)]), 0.0, "shard {shard}");
    }
    assert_eq!(moved("turret_user_refresh_users_total", &[("result", "refreshed")]), 1.0);
    assert!(value(&after, "turret_refresh_last_success_timestamp_seconds", &[]) > 1.7e9);
    assert_eq!(value(&after, "turret_node_ready", &[]), 1.0);
    cluster.assert_no_panic();
}
