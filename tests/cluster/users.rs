//! What is known of users: written by any node, read by any node, and erased.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Reply, get, put, send};
use crate::harness::{Cluster, Node, request_of};
use crate::process::wait_until;
use crate::world::world;

/// After every event of the world.
const AFTER_MS: i64 = 1_768_300_000_000;

fn url(node: &Node, user: &str) -> String {
    format!("{}/v1/users/{user}", node.http)
}

fn known(node: &Node, user: &str) -> Value {
    get(&url(node, user)).expect(200).json()
}

fn event(user: &str, item: &str, at: i64) -> Value {
    json!({ "user_id": user, "item_id": item, "event_type": "view", "timestamp_ms": at })
}

fn ingest(node: &Node, lines: &[Value]) -> Reply {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    send(Method::POST, &format!("{}/v1/events:ingest", node.http), Some(body.into_bytes()))
}

#[test]
fn many_users_are_written_at_once_and_once_more_changes_nothing() {
    let cluster = Cluster::start(&["a", "b", "c"]);
    let users = world().user_of_each_partition();
    let lines: Vec<Value> =
        users.iter().flat_map(|user| (0..3).map(move |at| event(user, "item3", AFTER_MS + at))).collect();
    let (lines_sent, users_sent) = (lines.len(), users.len());
    let counts = |added: usize, known: usize| json!({ "lines": lines_sent, "users": users_sent, "added": added, "known": known, "dropped": 0, "erased": 0 });
    assert_eq!(ingest(&cluster.nodes[0], &lines).expect(200).json(), counts(lines_sent, 0));
    assert_eq!(ingest(&cluster.nodes[1], &lines).expect(200).json(), counts(0, lines_sent));
    for user in &users {
        let found = known(&cluster.nodes[2], user);
        assert_eq!(found["events"]["latest_ms"], AFTER_MS + 2, "{found:#}");
        let has_state = !found["state"].is_null();
        assert_eq!(found["history"], if has_state { "stale" } else { "none" }, "{found:#}");
        let answered = cluster.nodes[0].retrieve(&request_of(user));
        assert_eq!(answered["user_state"]["history"], found["history"]);
    }
    cluster.assert_no_panic();
}

#[test]
fn demographics_set_at_one_node_make_a_tier_at_every_other() {
    let cluster = Cluster::start(&["a", "b", "c"]);
    let user = "nobody-so-far";
    let tiers = || -> Vec<Value> {
        let tier = |node: &Node| node.retrieve(&request_of(user))["user_state"]["tier"].clone();
        cluster.nodes.iter().map(tier).collect()
    };
    assert_eq!(tiers(), ["cold", "cold", "cold"]);
    assert_eq!(
        (&known(&cluster.nodes[0], user)["known"], &known(&cluster.nodes[0], user)["tier"]),
        (&json!(false), &json!("cold"))
    );
    let set = |node: usize, body: Value| {
        put(&format!("{}/demographics", url(&cluster.nodes[node], user)), &body).expect(200).json()["revision"]
            .as_u64()
            .unwrap()
    };
    let first = set(0, json!({ "age": 29, "country": "US" }));
    assert_eq!(tiers(), ["demographic", "demographic", "demographic"]);
    // What is left out is unknown from now on.
    assert!(set(1, json!({ "country": "DE" })) > first);
    for node in &cluster.nodes {
        let found = known(node, user);
        assert_eq!(found["demographics"], json!({ "age": null, "country": "DE", "gender": null }), "{found:#}");
        assert_eq!((&found["known"], &found["tier"]), (&json!(true), &json!("demographic")));
    }
    set(2, json!({}));
    assert_eq!(tiers(), ["cold", "cold", "cold"]);
    cluster.assert_no_panic();
}

#[test]
fn an_erased_user_does_not_come_back() {
    let mut cluster = Cluster::start(&["a", "b", "c"]);
    let user = {
        let has_state = |user: &String| known(&cluster.nodes[0], user)["history"] == "fresh";
        world().user_of_each_partition().into_iter().find(has_state).expect("somebody has a history")
    };
    ingest(&cluster.nodes[0], &[event(&user, "item3", AFTER_MS)]).expect(200);
    let before = known(&cluster.nodes[1], &user);
    let receipt = send(Method::DELETE, &url(&cluster.nodes[1], &user), None).expect(200).json();
    assert_eq!(receipt["removed"]["events"], before["events"]["kept"], "{receipt:#}");
    assert_eq!(receipt["removed"]["states"], json!([before["state"]["encoder"]]), "{receipt:#}");
    let traces = receipt["traces"].as_array().unwrap();
    assert_eq!(traces.len(), 1, "the snapshot that was published holds the user: {receipt:#}");
    assert!(traces[0]["published_at_ms"].as_i64().unwrap() > 0 && receipt.get("traces_unknown").is_none());
    let is_gone = |cluster: &Cluster| {
        for node in &cluster.nodes {
            let found = known(node, &user);
            assert_eq!(
                (&found["known"], &found["events"]["kept"], &found["state"]),
                (&json!(false), &json!(0), &json!(null))
            );
            assert_eq!(found["erased"]["watermark_ms"], receipt["watermark_ms"], "{found:#}");
            let state = node.retrieve(&request_of(&user))["user_state"].clone();
            assert_eq!((&state["history"], &state["tier"]), (&json!("none"), &json!("cold")), "{state}");
        }
    };
    is_gone(&cluster);
    // The same event once more, as from a queue that repeats itself.
    let again = ingest(&cluster.nodes[2], &[event(&user, "item3", AFTER_MS)]).expect(200).json();
    assert_eq!((&again["added"], &again["erased"]), (&json!(0), &json!(1)), "{again}");
    let control = &cluster.nodes[0];
    send(Method::POST, &format!("{}/admin/refresh", control.admin), None).expect(202);
    wait_until("the refresh ends", std::time::Duration::from_secs(60), || {
        (control.status()["nodes"][0]["refresh"]["running"] == false).then_some(())
    });
    is_gone(&cluster);
    // Nor after a start.
    for node in 0..3 {
        cluster.kill(node);
        cluster.restart(node);
    }
    cluster.wait_joined();
    is_gone(&cluster);
    // What the user does from now on is new.
    let now = receipt["watermark_ms"].as_i64().unwrap() + 1;
    assert_eq!(ingest(&cluster.nodes[0], &[event(&user, "item3", now)]).expect(200).json()["added"], 1);
    assert_eq!(known(&cluster.nodes[0], &user)["known"], true);
    cluster.assert_no_panic();
}
