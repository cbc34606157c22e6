//! Ads that change over HTTP: seen by the next request, kept by a killed node, and built into the next generation.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Reply, get, post, put, send};
use crate::harness::Cluster;
use crate::process::{text, turret};

/// Everybody's best, of all ads.
fn shown(cluster: &Cluster) -> Vec<String> {
    shown_of(cluster, Value::Null)
}

/// Everybody's best, of all ads that pass.
fn shown_of(cluster: &Cluster, filter: Value) -> Vec<String> {
    let ask = json!({ "surface": "home", "k": 2_000, "deadline_ms": 5_000, "filter": filter });
    let answer = cluster.nodes[0].retrieve(&ask);
    assert_eq!(answer["exhausted"], true, "{answer:#}");
    let ads = answer["candidates"].as_array().unwrap().iter();
    ads.map(|candidate| candidate["ad_id"].as_str().unwrap().to_owned()).collect()
}

fn url(cluster: &Cluster, path: &str) -> String {
    format!("{}/v1/ads/{path}", cluster.nodes[0].http)
}

fn upsert(cluster: &Cluster, ad: &str) -> Reply {
    let interest = json!({ "id": "home", "confidence": 0.9 });
    let item = json!({ "id": "item-new", "interests": [interest], "price": 12.5, "title": "a chair" });
    put(&url(cluster, ad), &json!({ "item": item, "attributes": { "status": "active" } }))
}

fn patch(cluster: &Cluster, ad: &str, body: &Value) -> Reply {
    send(Method::PATCH, &url(cluster, ad), Some(body.to_string().into_bytes()))
}

#[test]
fn a_change_is_seen_at_once_outlives_a_kill_and_is_built_into_the_next_generation() {
    let mut cluster = Cluster::of_its_own("a", "\n[publish]\nwatch_s = 0\n");
    let before = shown(&cluster);
    let (paused, deleted) = (before[0].clone(), before[1].clone());
    let changed = upsert(&cluster, "fresh").expect(200).json();
    assert_eq!((&changed["ad_id"], &changed["visible"]), (&json!("fresh"), &json!(true)), "{changed:#}");
    post(&url(&cluster, &format!("{paused}/pause")), &json!({})).expect(200);
    send(Method::DELETE, &url(&cluster, &deleted), None).expect(200);
    // One as it was built, and one that is new; the bid of both is told by a filter.
    let (priced, bid) = (before[2].clone(), json!({ "attributes": { "bid": 7_001.5, "countries": ["ZZ"] } }));
    for ad in [&priced, "fresh"] {
        assert_eq!(patch(&cluster, ad, &bid).expect(200).json()["visible"], true);
    }
    patch(&cluster, "fresh", &json!({ "attributes": { "countries": null, "bid": 7_002 } })).expect(200);
    let check = |cluster: &Cluster| {
        let of = |filter: &str| shown_of(cluster, json!(filter));
        assert_eq!(of("bid > 7001"), of("bid = 7001.5 or bid = 7002"));
        assert_eq!((of("bid = 7001.5"), of("countries has ZZ")), (vec![priced.clone()], vec![priced.clone()]));
        assert_eq!(of("bid = 7002 and status = active"), ["fresh"]);
        let shown = shown(cluster);
        let has = |ad: &str| shown.iter().any(|shown| shown == ad);
        assert_eq!((has("fresh"), has(&paused), has(&deleted)), (true, false, false));
        assert_eq!(shown.len(), before.len() - 1);
    };
    check(&cluster);
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_joined();
    check(&cluster);
    let known = get(&url(&cluster, &paused)).expect(200).json();
    assert_eq!((&known["content"], &known["paused"]), (&json!("as_built"), &json!(true)), "{known:#}");
    assert_eq!(get(&url(&cluster, &deleted)).expect(200).json()["content"], "deleted");
    let known = get(&url(&cluster, &priced)).expect(200).json();
    assert_eq!((&known["content"], &known["attributes"]), (&json!("patched"), &bid["attributes"]), "{known:#}");
    let refused = patch(&cluster, &deleted, &bid).expect(409).json();
    assert!(refused["detail"].as_str().unwrap().contains("is deleted"), "{refused:#}");

    // The data set knows nothing of the changes; every generation that is built from it has them all the same.
    let config = text(cluster.config()).to_owned();
    turret(&["train", "--config", &config, "--only", "contextual", "--steps", "25"]).expect(0);
    for run in 1..=3 {
        let published = turret(&["publish", "--config", &config, "--json"]).expect(0);
        let told: Value = serde_json::from_str(&published.output).unwrap();
        assert!(told["manifest"]["ads_until"].as_u64() > Some(0), "{told:#}");
        let ads: u64 = told["manifest"]["shard_ads"].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
        // The paused one is built in too, and hidden.
        assert_eq!(ads as usize, before.len(), "of publication {run}");
        check(&cluster);
    }
    post(&url(&cluster, &format!("{paused}/resume")), &json!({})).expect(200);
    assert!(shown(&cluster).contains(&paused));
    cluster.assert_no_panic();
}

#[test]
fn an_ad_that_breaks_a_rule_is_refused_with_the_field_and_nothing_changes() {
    let cluster = Cluster::of_its_own("a", "");
    let before = shown(&cluster);
    let item = json!({ "id": "i" });
    let long = "x".repeat(1_025);
    let cases = [
        (json!({}), "item"),
        (json!({ "item": item, "bid": 1 }), "bid"),
        (json!({ "item": { "id": "" } }), "item.id"),
        (json!({ "item": { "id": "i", "price": -1.0 } }), "item.price"),
        (json!({ "item": { "id": "i", "title": long } }), "item.title"),
        (json!({ "item": { "id": "i", "interests": [{ "id": "a", "confidence": 0.0 }] } }), "item.interests"),
        (json!({ "item": item, "attributes": { "colour": "red" } }), "attributes.colour"),
        (json!({ "item": item, "attributes": { "status": 7 } }), "attributes.status"),
        (json!({ "item": item, "attributes": { "status": ["active"] } }), "attributes.status"),
        (json!({ "item": item, "attributes": { "bid": -1 } }), "attributes.bid: -1 is negative"),
        (
            json!({ "item": item, "attributes": { "countries": "US" } }),
            "countries: must hold several words, holds one word",
        ),
        (json!({ "item": item, "attributes": { "starts_at": 3, "ends_at": 2 } }), "attributes.starts_at: 3 is above"),
        (json!({ "item": item, "attributes": { "status": null } }), "attributes.status: must be a word, a list"),
        (json!({ "item": item, "attributes": [] }), "attributes"),
    ];
    for (body, field) in cases {
        let problem = put(&url(&cluster, "fresh"), &body).expect(400).json();
        assert!(problem["detail"].as_str().unwrap().contains(field), "{body}: {problem:#}");
    }
    let cases = [
        (json!({}), "attributes"),
        (json!({ "attributes": {} }), "attributes: must name one at least"),
        (json!({ "item": item, "attributes": { "bid": 1 } }), "item"),
        (json!({ "attributes": { "colour": null } }), "attributes.colour: is not an attribute of this index"),
        (json!({ "attributes": { "bid": "much" } }), "attributes.bid: must hold a number"),
        (json!({ "attributes": { "bid": -1 } }), "attributes.bid: -1 is negative"),
        (json!({ "attributes": { "status": "ended" } }), "attributes.status: is no attribute to patch"),
        (json!({ "attributes": { "max_age": 20 } }), "attributes.max_age: is patched together with `min_age`"),
        (json!({ "attributes": { "min_age": 30, "max_age": 20 } }), "attributes.min_age: 30 is above"),
    ];
    for (body, field) in cases {
        let problem = patch(&cluster, &before[0], &body).expect(400).json();
        assert!(problem["detail"].as_str().unwrap().contains(field), "{body}: {problem:#}");
    }
    let large = json!({ "item": item, "attributes": { "status": "x".repeat(16 << 10) } });
    let problem = put(&url(&cluster, "fresh"), &large).expect(400).json();
    assert_eq!(problem["rule"], "is larger than 16384 bytes");
    send(Method::PUT, &url(&cluster, "fresh"), Some(b"{".to_vec())).expect(400);
    let long = "y".repeat(129);
    send(Method::DELETE, &url(&cluster, &long), None).expect(400);
    send(Method::POST, &url(&cluster, "fresh"), None).expect(405);
    get(&format!("{}/admin/ads?after=x", cluster.nodes[0].admin)).expect(400);
    assert_eq!(shown(&cluster), before);
    assert_eq!(get(&format!("{}/admin/ads", cluster.nodes[0].admin)).expect(200).json(), json!({ "ads": [] }));
    cluster.assert_no_panic();
}
