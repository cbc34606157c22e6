//! Publishing to a node that is asked 200 times a second: nothing is lost, and nothing is mixed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Reply, post};
use crate::harness::{Cluster, READY_TIME, request_of};
use crate::process::{text, turret, wait_until};

/// Threads that ask.
const THREADS: u32 = 8;
/// Between two requests of all of them.
const INTERVAL: Duration = Duration::from_millis(5);

/// Asks at a fixed rate while `work` goes on, and returns what was answered.
fn asked_meanwhile(http: &str, work: impl FnOnce()) -> Vec<Value> {
    let (done, start) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let asking: Vec<_> = (0..THREADS)
            .map(|thread| {
                let done = &done;
                scope.spawn(move || {
                    let mut answers = Vec::new();
                    for number in (thread..).step_by(THREADS as usize) {
                        if done.load(Ordering::SeqCst) {
                            break;
                        }
                        thread::sleep((start + INTERVAL * number).saturating_duration_since(Instant::now()));
                        let request = request_of(&format!("u{}", number % 300));
                        answers.push(post(&format!("{http}/v1/candidates:retrieve"), &request).expect(200).json());
                    }
                    answers
                })
            })
            .collect();
        // Whatever fails in there, the threads must end.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        let answers = asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        answers
    })
}

/// The versions that the answers name, by generation. One generation has one of each, and every answer is whole.
fn versions(answers: &[Value]) -> BTreeMap<String, Value> {
    let mut versions: BTreeMap<String, Value> = BTreeMap::new();
    for answer in answers {
        assert_eq!(answer["status"], "full", "{answer:#}");
        assert_eq!(answer["candidates"].as_array().map(Vec::len), Some(20), "{answer:#}");
        let generation = &answer["generation"];
        let id = generation["id"].as_str().unwrap().to_owned();
        assert_eq!(versions.entry(id).or_insert_with(|| generation.clone()), generation, "{answer:#}");
        let state = &answer["user_state"];
        if state["history"] != "none" {
            assert_eq!(state["encoder"], generation["encoder"], "an old state in a new head: {answer:#}");
        }
    }
    versions
}

fn status(cluster: &Cluster) -> Value {
    cluster.nodes[0].status()["nodes"][0]["rollout"].clone()
}

#[test]
fn a_publication_and_a_roll_back_lose_no_request_and_mix_no_generation() {
    let mut cluster = Cluster::of_its_own("a", "\n[publish]\nwatch_s = 5\n");
    let config = text(cluster.config()).to_owned();
    let http = cluster.nodes[0].http.clone();
    turret(&["train", "--config", &config, "--only", "contextual", "--steps", "25"]).expect(0);
    let first = fs::read_to_string(cluster.dir().join("generations/CURRENT")).unwrap();

    let mut next = String::new();
    let answers = asked_meanwhile(&http, || {
        let published = turret(&["publish", "--config", &config, "--json"]).expect(0);
        let told: Value = serde_json::from_str(&published.output).unwrap();
        next = told["manifest"]["id"].as_str().unwrap().to_owned();
        let gates = told["rollout"]["gates"].as_array().unwrap().clone();
        assert!(gates.len() == 7 && gates.iter().all(|gate| gate["passed"] == true), "{told:#}");
        assert!(told["rollout"]["watch"]["now"]["requests"].as_u64() > Some(100), "{told:#}");
        assert_eq!(told["rollout"]["plan"]["phase"]["ended"]["outcome"], "published", "{told:#}");
    });
    let seen = versions(&answers);
    assert_eq!(seen.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&first, &next]));
    assert!(
        seen.values()
            .map(|versions| &versions["encoder"])
            .collect::<Vec<_>>()
            .windows(2)
            .all(|pair| pair[0] != pair[1])
    );
    assert_eq!(fs::read_to_string(cluster.dir().join("generations/CURRENT")).unwrap(), next);

    // Back to the first one, which passes the gates as every other does; while it is watched, that is taken back.
    let answers = asked_meanwhile(&http, || {
        let started = turret(&["publish", "--config", &config, "--generation", &first, "--detach"]).expect(0);
        assert!(started.output.contains(&format!("{next} → {first}")), "{started:?}");
        let is_watched = || (status(&cluster)["watch"]["now"]["requests"].as_u64() > Some(50)).then_some(());
        wait_until("the first one is watched", READY_TIME, is_watched);
        let back = turret(&["publish", "--config", &config, "--rollback"]).expect(0);
        assert_eq!(back.output, format!("{next} serves\n"));
    });
    assert_eq!(versions(&answers).keys().collect::<BTreeSet<_>>(), BTreeSet::from([&first, &next]));
    let last = cluster.nodes[0].retrieve(&request_of("u1"));
    assert_eq!(last["generation"]["id"], next.as_str());

    // Nothing is left of it for a second time, and a restart serves what served.
    let again = turret(&["publish", "--config", &config, "--rollback"]).expect(1);
    assert!(again.errors.contains("no publication is going on"), "{again:?}");
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_joined();
    assert_eq!(cluster.nodes[0].retrieve(&request_of("u1"))["generation"]["id"], next.as_str());
    cluster.assert_no_panic();
}

#[test]
fn a_node_killed_in_any_phase_serves_one_of_the_two_and_says_what_became_of_it() {
    let mut cluster = Cluster::of_its_own("a", "\n[publish]\nwatch_s = 600\n");
    let config = text(cluster.config()).to_owned();
    turret(&["train", "--config", &config, "--only", "contextual", "--steps", "25"]).expect(0);
    let first = fs::read_to_string(cluster.dir().join("generations/CURRENT")).unwrap();
    // Made while nobody was asked, then published to the node that is killed at another moment each time.
    turret(&["publish", "--config", &config, "--detach", "--json"]).expect(0);
    let next = status(&cluster)["plan"]["to"].as_str().unwrap().to_owned();
    for wait_ms in [0, 20, 60, 120, 200, 350] {
        thread::sleep(Duration::from_millis(wait_ms));
        cluster.kill(0);
        cluster.restart(0);
        cluster.wait_joined();
        let serves = cluster.nodes[0].retrieve(&request_of("u1"))["generation"]["id"].as_str().unwrap().to_owned();
        let plan = status(&cluster)["plan"].clone();
        let current = fs::read_to_string(cluster.dir().join("generations/CURRENT")).unwrap();
        assert_eq!(serves, current, "{plan:#}");
        let expected = if plan["phase"] == "watching" { &next } else { &first };
        assert_eq!(&serves, expected, "{plan:#}");
        if plan["phase"] == "watching" {
            // The second kill in the watch has it go back; then it can be published once more.
            cluster.kill(0);
            cluster.restart(0);
            cluster.wait_joined();
            assert!(status(&cluster)["plan"]["phase"]["ended"]["outcome"]["rolled_back"].is_object());
        }
        let url = format!("{}/admin/publish", cluster.nodes[0].admin);
        let started: Reply = post(&url, &json!({ "generation": next })).expect(202);
        assert_eq!(started.json()["phase"], "preparing");
    }
    cluster.assert_no_panic();
}

#[test]
fn what_cannot_be_published_is_refused_with_one_clear_error() {
    let cluster = Cluster::of_its_own("a", "");
    let config = text(cluster.config()).to_owned();
    let url = format!("{}/admin/publish", cluster.nodes[0].admin);
    let refused = |body: Value, status: u16, rule: &str| {
        let reply = post(&url, &body).expect(status);
        assert!(reply.text.contains(rule), "`{rule}` is not in {}", reply.text);
    };
    refused(json!({ "generation": "g-absent" }), 409, "g-absent");
    refused(json!({ "generation": "../g" }), 409, "is no generation's id");
    refused(json!({ "generation": "" }), 400, "must not be empty");
    refused(json!({}), 400, "generation");
    refused(json!({ "generation": "g", "force": true }), 400, "force");
    let current = fs::read_to_string(cluster.dir().join("generations/CURRENT")).unwrap();
    refused(json!({ "generation": current }), 409, "serves already");
    let absent = turret(&["publish", "--config", &config, "--generation", "g-absent"]).expect(1);
    assert!(absent.errors.contains("g-absent"), "{absent:?}");
    let both = turret(&["publish", "--config", &config, "--generation", "g", "--rollback"]).expect(2);
    assert!(both.errors.contains("--rollback"), "{both:?}");
    let untrained = turret(&["publish", "--config", &config]).expect(1);
    assert!(untrained.errors.contains("run `turret train` first"), "{untrained:?}");
    assert!(status(&cluster)["plan"].is_null());
}
