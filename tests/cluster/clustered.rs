//! Shards that are clusters: a request goes to the nearest few, says so, and loses no ad that changes or that a filter leaves.

use std::collections::HashSet;
use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{post, put, send};
use crate::harness::Cluster;
use crate::process::{text, turret};
use crate::world::world;

const SHARDS: u64 = 6;

/// A node that serves a generation of clusters, and what its publication told.
fn clustered() -> (Cluster, Value) {
    let cluster = Cluster::of_its_own("a", "\n[publish]\nwatch_s = 0\nprobe_recall_min = 0.8\n");
    let config = fs::read_to_string(cluster.config()).unwrap();
    let settings = format!("[index]\nshards = {SHARDS}\n");
    assert!(config.contains(&settings));
    let clustered = format!("{settings}partitioning = \"clustered\"\npartition_recall = 0.9\n");
    fs::write(cluster.config(), config.replace(&settings, &clustered)).unwrap();
    turret(&["train", "--config", text(cluster.config()), "--only", "contextual", "--steps", "25"]).expect(0);
    let told = published(&cluster);
    (cluster, told)
}

fn published(cluster: &Cluster) -> Value {
    let published = turret(&["publish", "--config", text(cluster.config()), "--json"]).expect(0);
    serde_json::from_str(&published.output).unwrap()
}

fn ask(cluster: &Cluster, user: &str, k: u64, filter: &Value) -> Value {
    let body = json!({
        "user_id": user, "surface": "home", "k": k, "deadline_ms": 5_000, "filter": filter, "explain": ["filter_plan"],
    });
    cluster.nodes[0].retrieve(&body)
}

fn ads(answer: &Value) -> Vec<String> {
    let ads = answer["candidates"].as_array().unwrap().iter();
    ads.map(|candidate| candidate["ad_id"].as_str().unwrap().to_owned()).collect()
}

/// All ads there are, each once.
fn shown(cluster: &Cluster) -> HashSet<String> {
    let answer = ask(cluster, "u1", 2_000, &json!(null));
    assert_eq!((&answer["exhausted"], &answer["coverage"]["shards"]["asked"]), (&json!(true), &json!(SHARDS)));
    let ads = ads(&answer);
    let each: HashSet<String> = ads.iter().cloned().collect();
    assert_eq!(each.len(), ads.len());
    each
}

fn upsert(cluster: &Cluster, ad: &str, interest: &str) {
    let item =
        json!({ "id": format!("item-of-{ad}"), "interests": [{ "id": interest, "confidence": 1.0 }], "price": 9.5 });
    let body = json!({ "item": item, "attributes": { "status": "active", "campaign_id": ad } });
    let changed = put(&format!("{}/v1/ads/{ad}", cluster.nodes[0].http), &body).expect(200).json();
    assert_eq!(changed["visible"], true, "{changed:#}");
}

/// The shards that hold the ad of a campaign, by what all of them say of the filter.
fn shards_with(cluster: &Cluster, campaign: &str) -> Vec<u64> {
    let answer = ask(cluster, "u1", 5, &json!({ "eq": { "campaign_id": campaign } }));
    // None of the nearest may have it: then all others are asked too.
    assert_eq!((&answer["exhausted"], &answer["status"]), (&json!(true), &json!("full")), "{answer:#}");
    let plans = answer["filter_plan"].as_array().unwrap();
    assert_eq!(plans.len() as u64, SHARDS, "{answer:#}");
    let holders = plans.iter().filter(|plan| plan["selectivity"].as_f64() > Some(0.0));
    holders.map(|plan| plan["shard"].as_u64().unwrap()).collect()
}

#[test]
fn a_request_goes_to_the_nearest_shards_and_says_what_that_is_expected_to_find() {
    let (cluster, told) = clustered();
    let manifest = &told["manifest"];
    let partitioning = &manifest["partitioning"];
    assert_eq!(partitioning["kind"], "clustered");
    assert_eq!(partitioning["centroids"].as_array().unwrap().len() as u64, SHARDS);
    let sizes: Vec<u64> = manifest["shard_ads"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    let (total, most) = (sizes.iter().sum::<u64>(), *sizes.iter().max().unwrap());
    assert!(most as f64 <= (1.05 * total as f64 / SHARDS as f64).ceil(), "{sizes:?}");

    let (mut kept, mut wanted, mut asked, mut compared) = (0, 0, 0, 0);
    let users = world().user_of_each_partition();
    for user in &users {
        let all = ads(&ask(&cluster, user, 2_000, &json!(null)));
        let answer = ask(&cluster, user, 10, &json!(null));
        let coverage = &answer["coverage"];
        assert_eq!((&answer["status"], &answer["exhausted"]), (&json!("full"), &json!(false)), "{answer:#}");
        assert_eq!(coverage["shards"]["asked"], coverage["shards"]["answered"], "{answer:#}");
        assert!(coverage["estimated_recall"].as_f64() >= Some(0.9), "{answer:#}");
        let few = coverage["shards"]["asked"].as_u64().unwrap();
        assert_eq!(coverage["documents"].as_f64() < Some(1.0), few < SHARDS, "{answer:#}");
        assert_eq!(answer["filter_plan"].as_array().unwrap().len() as u64, few);
        let best: HashSet<String> = ads(&answer).into_iter().collect();
        kept += all[..10].iter().filter(|ad| best.contains(*ad)).count();
        (wanted, asked) = (wanted + 10, asked + few);
        let distances =
            answer["filter_plan"].as_array().unwrap().iter().map(|plan| plan["distances"].as_u64().unwrap());
        compared += distances.sum::<u64>();
    }
    assert!(kept as f64 >= 0.8 * f64::from(wanted), "{kept} of {wanted} found");
    assert!(asked < SHARDS * users.len() as u64, "some shard was not asked");
    assert!(compared < total * users.len() as u64, "and its ads were compared with nothing");
    // What is expected is what a caller may ask for at least.
    let mut strict =
        json!({ "user_id": users[0], "surface": "home", "k": 10, "deadline_ms": 5_000, "min_coverage": 0.5 });
    cluster.nodes[0].ask(&strict).expect(200);
    strict["min_coverage"] = json!(1.0);
    let answer = cluster.nodes[0].ask(&strict);
    let expected = answer.json()["coverage"]["estimated_recall"].as_f64();
    assert_eq!(answer.status == 200, expected == Some(1.0), "{answer:?}");
    cluster.assert_no_panic();
}

#[test]
fn an_ad_that_changes_or_moves_or_is_hidden_is_in_one_shard_or_none_whatever_dies() {
    let (mut cluster, _) = clustered();
    let before = shown(&cluster);
    // One that comes, and goes to wherever its interest lies.
    let mut seen = HashSet::new();
    for interest in &world().interests {
        upsert(&cluster, "mover", interest);
        let holders = shards_with(&cluster, "mover");
        assert_eq!(holders.len(), 1, "{holders:?}");
        seen.extend(holders);
        assert_eq!(shown(&cluster).len(), before.len() + 1);
    }
    assert!(seen.len() > 1, "it moved");
    let mut names: Vec<&String> = before.iter().collect();
    names.sort();
    let [paused, deleted, changed, ..] = names[..] else { panic!("there are ads") };
    let url = |ad: &str| format!("{}/v1/ads/{ad}", cluster.nodes[0].http);
    post(&format!("{}/pause", url(paused)), &json!({})).expect(200);
    post(&format!("{}/pause", url("mover")), &json!({})).expect(200);
    send(Method::DELETE, &url(deleted), None).expect(200);
    // An ad that was built in moves away from where the publisher put it.
    for interest in world().interests.iter().take(3) {
        upsert(&cluster, changed, interest);
        assert_eq!(shards_with(&cluster, changed).len(), 1);
    }
    let expected: HashSet<String> = before.iter().filter(|ad| *ad != paused && *ad != deleted).cloned().collect();
    assert_eq!(shown(&cluster), expected);
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_joined();
    assert_eq!(shown(&cluster), expected);
    assert_eq!(shards_with(&cluster, changed).len(), 1);
    // The next generation has it all built in, wherever the clusters are then.
    published(&cluster);
    assert_eq!(shown(&cluster), expected);
    let url = |ad: &str| format!("{}/v1/ads/{ad}", cluster.nodes[0].http);
    post(&format!("{}/resume", url(paused)), &json!({})).expect(200);
    post(&format!("{}/resume", url("mover")), &json!({})).expect(200);
    assert_eq!(shown(&cluster).len(), expected.len() + 2);
    send(Method::DELETE, &url("mover"), None).expect(200);
    assert!(shards_with(&cluster, "mover").is_empty());
    cluster.assert_no_panic();
}
