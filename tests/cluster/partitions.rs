//! The users of a node, moved to files and put back.

use std::fs;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{get, put, send};
use crate::commands::files;
use crate::harness::{Cluster, STOP_TIME};
use crate::process::{Finished, Signal, text, turret};
use crate::world::world;

/// After every event of the world.
const AFTER_MS: i64 = 1_768_300_000_000;

fn users(cluster: &Cluster, command: &str, flag: &str, dir: &Path) -> Finished {
    turret(&["users", command, "--config", text(cluster.config()), flag, text(dir), "--json"])
}

/// What is known of a user, but how old it is and when it was made.
fn known(cluster: &Cluster, user: &str) -> Value {
    let mut known = get(&format!("{}/v1/users/{user}", cluster.nodes[0].http)).expect(200).json();
    if let Some(state) = known["state"].as_object_mut() {
        state.remove("age_s");
        state.remove("made_at_ms");
    }
    known
}

fn stop(cluster: &mut Cluster) {
    let process = cluster.process(0);
    process.signal(Signal::Terminate);
    assert_eq!(process.wait(STOP_TIME).code(), Some(0), "{}", process.log());
    cluster.nodes[0].forget();
}

#[test]
fn the_users_of_a_stopped_node_are_moved_to_another_as_they_are() {
    let mut first = Cluster::start(&["a"]);
    let mut of_each = world().user_of_each_partition();
    let (http, erased, described) = (first.nodes[0].http.clone(), of_each.remove(0), "nobody-so-far");
    let is_fresh = |user: &String| known(&first, user)["history"] == "fresh";
    let stale = of_each.iter().find(|user| is_fresh(user)).expect("somebody has a history").clone();
    let line = json!({ "user_id": stale, "item_id": "item3", "event_type": "checkout", "timestamp_ms": AFTER_MS });
    let body = format!("{line}\n").into_bytes();
    send(Method::POST, &format!("{http}/v1/events:ingest"), Some(body)).expect(200);
    send(Method::DELETE, &format!("{http}/v1/users/{erased}"), None).expect(200);
    put(&format!("{http}/v1/users/{described}/demographics"), &json!({ "country": "DE" })).expect(200);
    of_each.extend([erased.clone(), described.to_owned()]);
    let before: Vec<Value> = of_each.iter().map(|user| known(&first, user)).collect();
    assert_eq!((&known(&first, &stale)["history"], &known(&first, &erased)["known"]), (&json!("stale"), &json!(false)));

    let dir = tempfile::tempdir().unwrap();
    let (out, again) = (dir.path().join("out"), dir.path().join("again"));
    users(&first, "export", "--out", &out).expect(1).says(&["is in use: stop node a first"]);
    users(&first, "import", "--from", dir.path()).expect(1).says(&["holds no file such as users-0000.parquet"]);
    assert!(!out.exists());
    stop(&mut first);

    let told: Value = serde_json::from_str(&users(&first, "export", "--out", &out).expect(0).output).unwrap();
    let partitions = told["partitions"].as_array().unwrap();
    let sum = |field: &str| partitions.iter().map(|partition| partition[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(partitions.len(), world().manifest.partitions() as usize, "{told:#}");
    assert_eq!(sum("users"), world().manifest.partition_users.iter().sum::<u64>() + 1, "{told:#}");
    assert_eq!((&told["node"], sum("erased")), (&json!("a"), 1), "{told:#}");
    assert!(sum("events") > 100 && sum("states") > 100, "{told:#}");
    users(&first, "export", "--out", &out).expect(1).says(&["users-0000.parquet is there already"]);
    users(&first, "import", "--from", &out).expect(1).says(&["is not empty: an import restores, it does not merge"]);

    let mut second = Cluster::configured(&["a"], &world().generations());
    let arguments = ["users", "import", "--config", text(second.config()), "--node", "b", "--from", text(&out)];
    turret(&arguments).expect(2).says(&["--node: `b` is not one of a"]);
    // A file that is not whole leaves everything as it was.
    let last = out.join(format!("users-{:04}.parquet", partitions.len() - 1));
    let whole = fs::read(&last).unwrap();
    fs::write(&last, &whole[..whole.len() / 2]).unwrap();
    users(&second, "import", "--from", &out).expect(1).says(&[text(&last), "is not Parquet"]);
    users(&second, "export", "--out", &again).expect(1).says(&["node a has no user partitions"]);
    fs::write(&last, &whole).unwrap();

    let imported: Value = serde_json::from_str(&users(&second, "import", "--from", &out).expect(0).output).unwrap();
    assert_eq!(imported["partitions"], told["partitions"]);
    assert_eq!((&imported["elsewhere"], &imported["missing"]), (&json!([]), &json!([])));
    users(&second, "export", "--out", &again).expect(0);
    assert!(files(&out) == files(&again), "an export of the import is the same");

    // A node starts over them, and knows the users as the first did; the erased one does not come back by the snapshot.
    second.restart(0);
    second.wait_joined();
    let after: Vec<Value> = of_each.iter().map(|user| known(&second, user)).collect();
    assert_eq!(after, before);
    second.assert_no_panic();
}

#[test]
fn the_summary_of_an_export_is_for_people_where_no_script_asks() {
    let mut cluster = Cluster::start(&["a"]);
    stop(&mut cluster);
    let dir = tempfile::tempdir().unwrap();
    let (config, out) = (text(cluster.config()), dir.path().join("out"));
    let told = turret(&["users", "export", "--config", config, "--node", "a", "--out", text(&out)]).expect(0).output;
    assert!(told.starts_with("node a: 300 users, ") && told.contains("states in 6 partitions → "), "{told}");
    let fewer = fs::read_to_string(cluster.config()).unwrap().replace("partitions = 6", "partitions = 5");
    let config = dir.path().join("fewer.toml");
    fs::write(&config, fewer).unwrap();
    let export = ["users", "export", "--config", text(&config), "--out", text(dir.path())];
    turret(&export).expect(1).says(&["0005 is there, and users.partitions is 5"]);
}

#[test]
fn what_is_encoded_offline_is_what_a_node_knows_of_its_users() {
    let published = Cluster::start(&["a"]);
    let of_each = world().user_of_each_partition();
    let before: Vec<Value> = of_each.iter().map(|user| known(&published, user)).collect();
    assert!(before.iter().any(|user| user["history"] == "fresh"), "{before:#?}");

    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let config = world().dir.join("world.toml");
    let encode = ["encode", "--config", text(&config), "--out", text(&out), "--json"];
    let told: Value = serde_json::from_str(&turret(&encode).expect(0).output).unwrap();
    assert_eq!(
        (&told["users"], &told["encoder"]),
        (&json!(300), &json!(world().manifest.versions.encoder)),
        "{told:#}"
    );
    assert!(told["states"].as_u64() > Some(100) && told["users_per_second"].as_f64() > Some(0.0), "{told:#}");
    turret(&encode).expect(1).says(&["users-0000.parquet is there already"]);

    let mut imported = Cluster::configured(&["a"], &world().generations());
    users(&imported, "import", "--from", &out).expect(0);
    let again = dir.path().join("again");
    users(&imported, "export", "--out", &again).expect(0);
    assert!(files(&out) == files(&again), "what was imported is what was encoded");
    let sum = |field: &str| {
        let partitions = told["partitions"].as_array().unwrap().iter();
        partitions.map(|partition| partition[field].as_u64().unwrap()).sum::<u64>()
    };
    assert!(sum("events") > 1_000 && sum("states") == told["states"].as_u64().unwrap(), "{told:#}");
    imported.restart(0);
    imported.wait_joined();
    let after: Vec<Value> = of_each.iter().map(|user| known(&imported, user)).collect();
    assert_eq!(after, before);
    imported.assert_no_panic();
}
