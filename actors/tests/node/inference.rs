//! An inference worker that is killed, on the only node that has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;
use turret_actors::groups;
use turret_actors::retrieve::Rejection;

use crate::world::{ask, retrieve, until_grown, with_node};

const TASKS: u64 = 8;

#[test]
fn a_killed_worker_costs_refusals_at_once_and_comes_back() {
    with_node(async |world| {
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut before = Vec::new();
        for user in 0..TASKS {
            before.push(world.answer(ask(Some(user), 20)).await.candidates);
        }
        let mut tasks = JoinSet::new();
        for user in 0..TASKS {
            let (retriever, stop) = (world.node.retriever.clone(), stop.clone());
            let (answered, refused) = (answered.clone(), refused.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match retrieve(&retriever, ask(Some(user), 20)).await {
                        Ok(answer) => {
                            assert!(answer.coverage.is_full(), "{:?}", answer.coverage);
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        // Not the deadline: nobody waits for a worker that is known to be dead.
                        Err(Rejection::NoInference { .. }) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            tokio::task::yield_now().await;
                        }
                        Err(other) => panic!("a retrieval came to {other}"),
                    }
                }
            });
        }
        let group = groups::inference(&world.generation.manifest.id);
        until_grown("there is load", &answered, 10 * TASKS).await;
        let kills = world.kill_until_felt(&group, &refused).await;
        until_grown("there are answers again", &answered, 10 * TASKS).await;
        stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;

        assert_eq!(world.restarts("inference_worker"), kills);
        assert_eq!(world.metrics.restarts(), kills, "something else was restarted too");
        for (user, before) in (0..TASKS).zip(before) {
            assert_eq!(world.answer(ask(Some(user), 20)).await.candidates, before);
        }
    });
}
