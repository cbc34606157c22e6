//! A shard actor that is killed, and one whose file is damaged.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus::core::Collector;
use tokio::task::JoinSet;
use turret_actors::generation::shard_file;
use turret_actors::groups;
use turret_actors::retrieve::Answer;
use turret_actors::retrieve::gather::Candidate;
use turret_retrieval::ids::ShardId;

use crate::world::published::{ADS, SHARDS};
use crate::world::{World, ask, retrieve, until, until_grown, with_node};

const VICTIM: ShardId = ShardId(1);
/// Retrievals at once.
const TASKS: u64 = 8;
const K: usize = 20;
/// The model's rows are computed in batches, whose sizes differ from one run to the next.
const TOLERANCE: f32 = 1e-4;

/// Every ad for `user`, best first, from all shards.
async fn whole(world: &World, user: u64) -> Vec<Candidate> {
    let answer = world.answer(ask(Some(user), ADS as usize)).await;
    assert_eq!(answer.candidates.len() as u64, ADS);
    answer.candidates
}

/// Whether `answer` is complete. Panics unless it holds the best of what answered, and says what did not.
fn is_full(answer: &Answer, whole: &[Candidate], shard_ads: &[u64]) -> bool {
    let full = answer.coverage.is_full();
    assert_eq!(answer.coverage.shards.asked, SHARDS);
    if full {
        assert_eq!(answer.coverage.reasons, [] as [&str; 0]);
        assert_eq!(answer.coverage.documents, 1.0);
    } else {
        let reason = &answer.coverage.reasons[..];
        let known = [format!("shard_absent:{VICTIM}"), format!("shard_failed:{VICTIM}")];
        assert!(reason.len() == 1 && known.contains(&reason[0]), "{reason:?}");
        assert_eq!(answer.coverage.shards.answered, SHARDS - 1);
        let missing = shard_ads[VICTIM.0 as usize] as f64 / ADS as f64;
        assert!((answer.coverage.documents - (1.0 - missing)).abs() < 1e-12, "{}", answer.coverage.documents);
    }
    let expected = whole.iter().filter(|candidate| full || candidate.shard != VICTIM).take(K);
    assert_eq!(answer.candidates.len(), K);
    for (candidate, expected) in answer.candidates.iter().zip(expected) {
        assert!(full || candidate.shard != VICTIM, "{candidate:?} is of the shard that did not answer");
        let off = (candidate.hit.score - expected.hit.score).abs();
        assert!(off < TOLERANCE, "{candidate:?} where {expected:?} is expected");
    }
    assert!(!answer.exhausted);
    full
}

#[test]
fn a_shard_killed_under_load_costs_partial_answers_that_say_so() {
    with_node(async |world| {
        let stop = Arc::new(AtomicBool::new(false));
        let (full, partial) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut before = Vec::new();
        let mut tasks = JoinSet::new();
        for user in 0..TASKS {
            before.push(whole(world, user).await);
        }
        for (user, whole) in (0..TASKS).zip(before.clone()) {
            let (retriever, shard_ads) = (world.node.retriever.clone(), world.generation.manifest.shard_ads.clone());
            let (stop, full, partial) = (stop.clone(), full.clone(), partial.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = retrieve(&retriever, ask(Some(user), K)).await.expect("no retrieval fails");
                    let counted = if is_full(&answer, &whole, &shard_ads) { &full } else { &partial };
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let group = groups::index(VICTIM, &world.generation.manifest.id);
        until_grown("there is load", &full, 10 * TASKS).await;
        let kills = world.kill_until_felt(&group, &partial).await;
        until_grown("there are full answers again", &full, 10 * TASKS).await;
        stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;

        assert_eq!(world.restarts("index_shard"), kills);
        assert_eq!(world.metrics.restarts(), kills, "something else was restarted too");
        for (user, before) in (0..TASKS).zip(before) {
            assert_eq!(whole(world, user).await, before);
        }
        for shard in 0..SHARDS {
            let labels = [&*shard.to_string(), world.generation.manifest.id.as_str()];
            let in_flight = world.metrics.searches_in_flight.with_label_values(&labels);
            until("no search is in flight", async || in_flight.get() == 0).await;
        }
    });
}

#[test]
fn a_node_with_a_damaged_shard_is_not_ready_and_serves_the_rest() {
    with_node(async |world| {
        let (path, manifest) = (world.generation.dir.join(shard_file(VICTIM)), &world.generation.manifest);
        let group = groups::index(VICTIM, &manifest.id);
        let before = whole(world, 5).await;
        let sound = fs::read(&path).unwrap();
        let mut damaged = sound.clone();
        damaged[sound.len() / 2] ^= 1;
        fs::write(&path, &damaged).unwrap();
        world.kill(&group).await;
        // The death itself, and the first load that found the damage.
        until("the shard is tried again", async || world.restarts("index_shard") >= 2).await;

        let status = world.status().await;
        assert!(!status.ready && !world.node.is_ready());
        assert_eq!(
            (world.told_of(VICTIM).len(), world.told_of(ShardId(0)).len()),
            (0, 1),
            "one is gone, the other serves"
        );
        let routed = world.metrics.index_generation.collect();
        assert_eq!(routed[0].get_metric().len(), 1, "{routed:?}");
        assert_eq!(status.shards, [0]);
        assert_eq!(status.partitions, [0, 1, 2, 3]);
        assert!(status.restarts >= 2);
        let answer = world.answer(ask(Some(5), K)).await;
        assert!(!is_full(&answer, &before, &manifest.shard_ads));
        assert_eq!(answer.coverage.reasons, [format!("shard_absent:{VICTIM}")]);

        fs::write(&path, &sound).unwrap();
        until("the node is ready again", async || world.node.is_ready()).await;
        assert_eq!(whole(world, 5).await, before);
        let status = world.status().await;
        assert_eq!((status.ready, &status.shards[..]), (true, &[0, 1][..]));
    });
}
