//! An inference worker that is killed, on the only node that has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;
use turret_actors::groups;
use turret_actors::retrieve::Rejection;

use crate::world::{ask, retrieve, with_node};

const TASKS: u64 = 8;
const KILLS: u64 = 3;

#[test]
fn a_killed_worker_costs_refusals_at_once_and_comes_back() {
    with_node(async |world| {
        let stop = Arc::new(AtomicBool::new(false));
        let mut before = Vec::new();
        for user in 0..TASKS {
            before.push(world.answer(ask(Some(user), 20)).await.candidates);
        }
        let mut tasks = JoinSet::new();
        for user in 0..TASKS {
            let (retriever, stop) = (world.node.retriever.clone(), stop.clone());
            tasks.spawn(async move {
                let (mut answered, mut refused) = (0u64, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    match retrieve(&retriever, ask(Some(user), 20)).await {
                        Ok(answer) => {
                            assert!(answer.coverage.is_full(), "{:?}", answer.coverage);
                            answered += 1;
                        }
                        // Not the deadline: nobody waits for a worker that is known to be dead.
                        Err(Rejection::NoInference { .. }) => {
                            refused += 1;
                            tokio::task::yield_now().await;
                        }
                        Err(other) => panic!("a retrieval came to {other}"),
                    }
                }
                (answered, refused)
            });
        }
        let group = groups::inference(&world.generation.manifest.id);
        for _ in 0..KILLS {
            let killed = world.kill(&group).await;
            world.back(&group, killed).await;
        }
        stop.store(true, Ordering::Relaxed);
        for (answered, refused) in tasks.join_all().await {
            assert!(answered > 0 && refused > 0, "{answered} answered and {refused} refused");
        }

        assert_eq!(world.restarts("inference_worker"), KILLS);
        assert_eq!(world.metrics.restarts(), KILLS, "something else was restarted too");
        for (user, before) in (0..TASKS).zip(before) {
            assert_eq!(world.answer(ask(Some(user), 20)).await.candidates, before);
        }
    });
}
