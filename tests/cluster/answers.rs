//! Three nodes answer as one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{put, send};
use crate::harness::{Cluster, Node, found, request_of};
use crate::process::wait_until;
use crate::world::{World, world};

/// For a refresh of the few users that have new events.
const REFRESH_TIME: Duration = Duration::from_secs(60);

#[test]
fn three_nodes_answer_what_one_node_answers() {
    let world = world();
    let one = Cluster::start(&["a"]);
    let three = Cluster::start(&["a", "b", "c"]);
    for node in 0..3 {
        assert!(
            !three.shards_of(node).is_empty() && !three.partitions_of(node).is_empty(),
            "node {node} holds nothing"
        );
    }
    let mut different = BTreeSet::new();
    for request in requests(world) {
        let expected = one.nodes[0].retrieve(&request);
        different.insert(found(&expected).0.to_string());
        assert_eq!(expected["inference"], json!({ "by": "worker" }), "{request}");
        for node in &three.nodes {
            let answer = node.retrieve(&request);
            assert_eq!(found(&answer), found(&expected), "node {}: {request}", node.name);
            for field in ["status", "generation", "coverage", "inference", "request_id"] {
                assert_eq!(answer[field], expected[field], "{field} of node {}: {request}", node.name);
            }
            for field in ["history", "context", "tier", "encoder"] {
                let (got, wanted) = (&answer["user_state"][field], &expected["user_state"][field]);
                assert_eq!(got, wanted, "{field} of node {}: {request}", node.name);
            }
        }
    }
    // Else the comparison would have been of nothing.
    assert!(different.len() >= 40, "only {} different answers", different.len());
    one.assert_no_panic();
    three.assert_no_panic();
}

#[test]
fn no_advertiser_crowds_an_answer_of_three_nodes() {
    let cluster = Cluster::start(&["a", "b", "c"]);
    let node = &cluster.nodes[1];
    let mut request = request_of(&world().user_of_each_partition()[0]);
    request["k"] = json!(2_000);
    let all = node.retrieve(&request)["candidates"].as_array().unwrap().clone();
    let mut of_each: BTreeMap<String, usize> = BTreeMap::new();
    let mut admits = |ad: &&Value| {
        let count = of_each.entry(ad["advertiser_id"].to_string()).or_default();
        *count += 1;
        *count <= 2
    };
    let expected: Vec<&Value> = all.iter().filter(&mut admits).take(20).collect();
    let plain: Vec<&Value> = all.iter().take(20).collect();
    assert_ne!(expected, plain, "somebody would have more than two of the best twenty");
    request["k"] = json!(20);
    request["crowding"] = json!({ "field": "advertiser_id", "max": 2 });
    let answer = node.retrieve(&request);
    assert!(answer["candidates"].as_array().unwrap().iter().eq(expected), "{answer:#}");
    assert_eq!((&answer["status"], &answer["exhausted"]), (&json!("full"), &json!(false)));
    cluster.assert_no_panic();
}

#[test]
fn a_score_without_context_is_the_score_of_a_request_without_one() {
    let cluster = Cluster::start(&["a"]);
    let node = &cluster.nodes[0];
    let mut request = request_of(&world().user_of_each_partition()[0]);
    request["k"] = json!(2_000);
    let scores = |answer: &Value, key: &str| -> BTreeMap<String, f64> {
        let candidates = answer["candidates"].as_array().unwrap().iter();
        candidates.filter_map(|ad| Some((ad["ad_id"].to_string(), ad.get(key)?.as_f64()?))).collect()
    };
    let bare = scores(&node.retrieve(&request), "score");
    request["context"] = json!({ "subject": { "interests": [{ "id": world().interests[0], "confidence": 0.9 }] } });
    let plain = node.retrieve(&request);
    assert_eq!(plain["user_state"]["context"], "used", "{plain}");
    assert!(scores(&plain, "score_without_context").is_empty(), "nobody asked");
    request["explain"] = json!(["scores", "filter_plan"]);
    let explained = node.retrieve(&request);
    assert_eq!(scores(&explained, "score"), scores(&plain, "score"));
    assert_eq!(plain["filter_plan"], json!(null), "nobody asked");
    let plans = explained["filter_plan"].as_array().unwrap();
    let compared: u64 = plans.iter().map(|plan| plan["distances"].as_u64().unwrap()).sum();
    assert!(compared >= scores(&plain, "score").len() as u64, "{plans:?}");
    let without = scores(&explained, "score_without_context");
    assert_eq!(without.len(), bare.len());
    for (ad, score) in &without {
        assert!((score - bare[ad]).abs() < 1e-5, "{ad}: {score} where {} is expected", bare[ad]);
    }
    cluster.assert_no_panic();
}

#[test]
fn a_search_is_answered_by_what_the_model_knows_of_its_words() {
    let cluster = Cluster::start(&["a"]);
    let node = &cluster.nodes[0];
    // Titles end with the words of the item's first interest.
    let word = world().interests[0].rsplit('/').next().unwrap().replace('_', " ");
    let search = |user: &str, query: &str| {
        let mut request = request_of(user);
        request["surface"] = json!("search");
        request["context"] = json!({ "query": query });
        node.retrieve(&request)
    };
    let known = world().user_of_each_partition().remove(0);
    for (user, tier) in [(&known[..], "fresh"), ("nobody-knows-me", "context_only")] {
        let (answer, other) = (search(user, &word), search(user, "\u{1f9e6} !?"));
        assert_eq!((&answer["user_state"]["context"], &answer["user_state"]["tier"]), (&json!("used"), &json!(tier)));
        assert_eq!(other["user_state"]["context"], "none", "{other}");
        assert_eq!(
            found(&other).0,
            found(&node.retrieve(&request_of(user))).0,
            "words that say nothing change nothing"
        );
        assert_ne!(found(&answer).0, found(&other).0);
    }
    // The longest that is accepted.
    assert_eq!(search(&known, &"a".repeat(1_024))["status"], "full");
    cluster.assert_no_panic();
}

/// Who asks × what for × how: every combination.
fn requests(world: &World) -> Vec<Value> {
    let mut users: Vec<Value> = world.user_of_each_partition().into_iter().map(Value::from).collect();
    users.truncate(4);
    users.extend([json!("nobody-knows-me"), json!(null)]);
    let [first, second, ..] = &world.interests[..] else { panic!("the world has interests") };
    let contexts = [
        json!(null),
        json!({ "subject": { "interests": [{ "id": first, "confidence": 0.9 }, { "id": second, "confidence": 0.4 }] } }),
        json!({ "subject": { "item_id": "item7", "interests": [] } }),
        json!({ "query": "an armchair for the garden" }),
    ];
    let kinds = [
        (10, json!(null)),
        (1, json!({ "has": { "countries": "US" } })),
        (50, json!({ "and": [{ "has": { "countries": "BR" } }, { "lte": { "min_age": 18 } }] })),
        (2_000, json!({ "not": { "in": { "countries": ["US", "DE"] } } })),
    ];
    let mut requests = Vec::new();
    for user in &users {
        for context in &contexts {
            for (k, filter) in &kinds {
                requests.push(json!({
                    "request_id": format!("r{}", requests.len()),
                    "user_id": user, "surface": "related_pins", "context": context, "filter": filter,
                    "demographics": { "country": "US" }, "k": k, "deadline_ms": 10_000,
                }));
            }
        }
    }
    requests
}

#[test]
fn events_taken_by_any_node_make_a_state_stale_and_a_refresh_makes_it_fresh() {
    let cluster = Cluster::start(&["a", "b", "c"]);
    let history = |node: &Node, user: &str| node.retrieve(&request_of(user))["user_state"]["history"].clone();
    // For each node a user whom another node holds.
    let written: Vec<(usize, String)> = (0..3).map(|node| (node, user_held_by(&cluster, (node + 1) % 3))).collect();
    for (node, user) in &written {
        let url = format!("{}/v1/users/{user}/events", cluster.nodes[*node].http);
        let event = json!({ "events": [{ "item_id": "item3", "event_type": "checkout", "timestamp_ms": 1_768_300_000_000_i64 }] });
        assert_eq!(put(&url, &event).expect(200).json(), json!({ "added": 1, "known": 0, "dropped": 0, "erased": 0 }));
        // Sent once more, as after a lost answer, it is known.
        assert_eq!(put(&url, &event).expect(200).json(), json!({ "added": 0, "known": 1, "dropped": 0, "erased": 0 }));
        for asked in &cluster.nodes {
            assert_eq!(history(asked, user), "stale", "{user} at node {}", asked.name);
        }
    }
    let control = &cluster.nodes[0];
    let started = send(Method::POST, &format!("{}/admin/refresh", control.admin), None).expect(202).json();
    assert_eq!(started["started"], true, "{started}");
    for (_, user) in &written {
        for asked in &cluster.nodes {
            let what = format!("the state of {user} is fresh at node {}", asked.name);
            wait_until(&what, REFRESH_TIME, || (history(asked, user) == "fresh").then_some(()));
        }
    }
    wait_until("the refresh ends", REFRESH_TIME, || {
        let refresh = control.status()["nodes"][0]["refresh"].clone();
        (refresh["running"] == false).then(|| {
            assert_eq!(refresh["users_refreshed"], 3, "only users with new events: {refresh}");
            assert_eq!(refresh["partitions_failed"], 0, "{refresh}");
        })
    });
    cluster.assert_no_panic();
}

/// A user with a state, whose partition `node` holds.
fn user_held_by(cluster: &Cluster, node: usize) -> String {
    let users = world().users_of(&cluster.partitions_of(node), 10);
    let has_state = |user: &String| cluster.nodes[node].retrieve(&request_of(user))["user_state"]["history"] == "fresh";
    users.into_iter().find(has_state).expect("one of ten users has a history")
}
