//! A node that is killed or paused: what is missing is said, nothing hangs, and it comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use reqwest::Method;
use serde_json::{Value, json};
use turret_retrieval::ids::ShardId;

use crate::client::{put, send};
use crate::harness::{Cluster, Node, READY_TIME, found, request_of, retrieve_at, share_of};
use crate::process::wait_until;
use crate::world::world;

/// The node that suffers; it has no control role.
const LOST: usize = 1;
/// Short, so that a paused node costs little time, and long enough for a busy machine.
const DEADLINE_MS: u64 = 600;

/// A request for every partition's first user.
fn requests() -> Vec<Value> {
    let short = |user: String| {
        let mut request = request_of(&user);
        request["deadline_ms"] = json!(DEADLINE_MS);
        request
    };
    world().user_of_each_partition().into_iter().map(short).collect()
}

/// Three nodes, what they answer while all is well, and what `LOST` holds.
struct Scene {
    cluster: Cluster,
    before: Vec<Value>,
    lost: BTreeSet<ShardId>,
}

impl Scene {
    fn set() -> Self {
        let cluster = Cluster::start(&["a", "b", "c"]);
        let users = world().user_of_each_partition();
        let before = users.iter().map(|user| cluster.nodes[0].retrieve(&request_of(user)));
        let (before, lost) = (before.collect(), cluster.shards_of(LOST).into_iter().collect());
        let scene = Self { cluster, before, lost };
        assert!(!scene.lost.is_empty() && scene.lost.len() < 6, "the loss is of a part: {:?}", scene.lost);
        scene
    }

    fn survivors(&self) -> impl Iterator<Item = &Node> {
        self.cluster.nodes.iter().enumerate().filter(|(node, _)| *node != LOST).map(|(_, node)| node)
    }

    /// Asks the survivors: every answer is partial and says truthfully of what.
    fn check_partial(&self) {
        for (request, before) in requests().iter().zip(&self.before) {
            for node in self.survivors() {
                let answer = node.retrieve(request);
                self.check_coverage(&answer);
                assert_eq!(answer["status"], "degraded", "{answer:#}");
                let user = request["user_id"].as_str().expect("the request names a user");
                let partition = world().partition(user);
                let is_lost = self.cluster.partitions_of(LOST).iter().any(|lost| lost.0 == partition);
                let reason = answer["user_state"]["reason"].as_str().unwrap_or_default();
                assert_eq!(reason.starts_with("partition_"), is_lost, "{answer:#}");
                if is_lost {
                    assert_eq!(answer["user_state"]["history"], "none", "{answer:#}");
                } else {
                    // The ads that are there are those of before, less those of the lost shards.
                    let there = |ad: &&Value| !self.lost.iter().any(|shard| ad["shard"] == shard.0);
                    let kept = before["candidates"].as_array().into_iter().flatten().filter(there);
                    let now = answer["candidates"].as_array().into_iter().flatten();
                    assert!(kept.eq(now.take(before_kept(before, &self.lost))), "{before:#}\n{answer:#}");
                }
            }
        }
    }

    fn check_coverage(&self, answer: &Value) {
        assert_eq!(check_truthful(answer), self.lost, "{answer:#}");
    }

    /// Waits until the survivors know that the node is gone: they no longer wait for it.
    fn wait_noticed(&self) {
        for node in self.survivors() {
            wait_until(&format!("node {} knows", node.name), READY_TIME, || {
                let reasons = node.retrieve(&requests()[0])["coverage"]["reasons"].to_string();
                (!reasons.contains("shard_timeout") && !reasons.contains("shard_failed")).then_some(())
            });
        }
    }

    /// What the survivors refuse meanwhile, as documented.
    fn check_refusals(&self) {
        let node = &self.cluster.nodes[0];
        let mut demanding = requests()[0].clone();
        demanding["min_coverage"] = json!(1.0);
        let problem = node.ask(&demanding).expect(503).json();
        assert_eq!(problem["code"], "coverage_too_low", "{problem:#}");
        self.check_coverage(&problem);
        let user = &world().users_of(&self.cluster.partitions_of(LOST), 1)[0];
        let event = json!({ "events": [{ "item_id": "item1", "event_type": "view", "timestamp_ms": 1 }] });
        let problem = put(&format!("{}/v1/users/{user}/events", node.http), &event).expect(503).json();
        assert_eq!(problem["code"], "partition_unavailable", "{problem:#}");
    }

    /// Waits until all is as it was before.
    fn check_recovered(&self) {
        self.cluster.wait_joined();
        for (user, before) in world().user_of_each_partition().iter().zip(&self.before) {
            for node in &self.cluster.nodes {
                let answer = node.retrieve(&request_of(user));
                assert_eq!(answer["coverage"], before["coverage"], "{answer:#}");
                assert_eq!(found(&answer), found(before), "node {} for {user}", node.name);
                assert_eq!(answer["user_state"]["history"], before["user_state"]["history"], "{answer:#}");
            }
        }
        self.cluster.assert_no_panic();
    }
}

/// Checks that what an answer says of its coverage adds up; returns the shards that it says are missing.
#[track_caller]
fn check_truthful(answer: &Value) -> BTreeSet<ShardId> {
    let coverage = &answer["coverage"];
    let reasons: Vec<&str> = coverage["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let named = reasons.iter().map(|reason| {
        let (why, shard) = reason.split_once(':').expect("a reason names its shard");
        assert!(["shard_absent", "shard_timeout", "shard_failed"].contains(&why), "{reason}");
        ShardId(shard.parse().expect("by number"))
    });
    let missing: BTreeSet<ShardId> = named.collect();
    assert_eq!(missing.len(), reasons.len(), "a shard is missing once: {coverage}");
    let asked = world().manifest.shards();
    assert_eq!(coverage["shards"]["asked"], asked, "{coverage}");
    assert_eq!(coverage["shards"]["answered"], asked as usize - missing.len(), "{coverage}");
    let documents = coverage["documents"].as_f64().expect("a share");
    assert!((documents - (1.0 - share_of(world(), &missing))).abs() < 1e-9, "{coverage}");
    let is_missing = |ad: &Value| missing.iter().any(|shard| ad["shard"] == shard.0);
    assert!(!answer["candidates"].as_array().into_iter().flatten().any(is_missing), "{answer:#}");
    missing
}

/// Does `work` while callers ask each of the nodes at `https` without a pause; returns what they were answered, always
/// in time.
fn under_load(https: &[String], work: impl FnOnce()) -> Vec<Value> {
    /// Ends the asking, also when `work` fails.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_done = &AtomicBool::new(false);
    let ask = |http| {
        let mut answers = Vec::new();
        while !is_done.load(Ordering::Relaxed) {
            answers.extend(requests().iter().map(|request| retrieve_at(http, request)));
        }
        answers
    };
    std::thread::scope(|scope| {
        let askers: Vec<_> = https.iter().map(|http| scope.spawn(move || ask(http))).collect();
        let done = Done(is_done);
        work();
        drop(done);
        askers.into_iter().flat_map(|asker| asker.join().expect("every answer came")).collect()
    })
}

/// How many of the best ads of before are in shards that are still there.
fn before_kept(before: &Value, lost: &BTreeSet<ShardId>) -> usize {
    let ads = before["candidates"].as_array().into_iter().flatten();
    ads.filter(|ad| !lost.iter().any(|shard| ad["shard"] == shard.0)).count()
}

#[test]
fn a_killed_node_is_missed_truthfully_and_rejoins() {
    let mut scene = Scene::set();
    scene.cluster.kill(LOST);
    scene.check_partial();
    scene.wait_noticed();
    scene.check_partial();
    scene.check_refusals();
    scene.cluster.restart(LOST);
    scene.check_recovered();
}

#[test]
fn callers_see_no_error_while_a_node_dies_and_comes_back() {
    let mut scene = Scene::set();
    let https: Vec<String> = scene.survivors().map(|node| node.http.clone()).collect();
    let answers = under_load(&https, || {
        scene.cluster.kill(LOST);
        scene.wait_noticed();
        scene.cluster.restart(LOST);
        scene.cluster.wait_joined();
    });
    let missing: Vec<BTreeSet<ShardId>> = answers.iter().map(check_truthful).collect();
    assert!(missing.contains(&scene.lost), "the loss was seen in one of {} answers", answers.len());
    scene.check_recovered();
}

#[test]
fn acknowledged_events_survive_a_kill_in_the_middle_of_writes() {
    let mut cluster = Cluster::start(&["a", "b"]);
    let user = world().users_of(&cluster.partitions_of(LOST), 1).remove(0);
    let url = format!("{}/v1/users/{user}/events", cluster.nodes[0].http);
    let event = |number: i64| {
        let at = 1_768_300_000_000 + number;
        json!({ "events": [{ "item_id": "item1", "event_type": "view", "timestamp_ms": at }] }).to_string().into_bytes()
    };
    let (report, acknowledged) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Until the node is gone, and no longer than a log keeps.
            for number in 0..150 {
                let reply = send(Method::PUT, &url, Some(event(number)));
                if reply.status != 200 {
                    assert_eq!(reply.expect(503).json()["code"], "partition_unavailable");
                    break;
                }
                report.send(number).expect("the test listens");
            }
        });
        // In the middle: some are acknowledged, and the next is on its way.
        for _ in 0..20 {
            acknowledged.recv_timeout(READY_TIME).expect("events are acknowledged");
        }
        cluster.kill(LOST);
    });
    drop(report);
    let count = 20 + acknowledged.iter().count() as i64;
    cluster.restart(LOST);
    cluster.wait_joined();
    for number in 0..count {
        let reply = send(Method::PUT, &url, Some(event(number))).expect(200).json();
        assert_eq!(reply["known"], 1, "event {number} of {count}: {reply}");
    }
    cluster.assert_no_panic();
}

#[test]
fn a_paused_node_costs_part_of_the_answer_and_not_the_deadline() {
    let mut scene = Scene::set();
    scene.cluster.pause(LOST);
    scene.check_partial();
    scene.wait_noticed();
    scene.check_partial();
    scene.cluster.resume(LOST);
    scene.check_recovered();
}

#[test]
fn without_the_control_node_reads_go_on_and_a_refresh_says_why_not() {
    let mut cluster = Cluster::start(&["a", "b", "c"]);
    cluster.kill(0);
    for node in &cluster.nodes[1..] {
        assert_eq!(node.retrieve(&requests()[0])["status"], "degraded");
        let problem = send(Method::POST, &format!("{}/admin/refresh", node.admin), None).expect(503).json();
        assert_eq!(problem["code"], "control_unavailable", "{problem:#}");
    }
    cluster.restart(0);
    cluster.wait_joined();
    let started = send(Method::POST, &format!("{}/admin/refresh", cluster.nodes[1].admin), None).expect(202).json();
    assert_eq!(started["started"], true, "{started}");
}
