//! One generation takes the place of another, and goes back, while it is asked.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use turret_actors::generation::{CURRENT, Generation, MODEL_DIR, shard_file};
use turret_actors::metrics::Metrics;
use turret_actors::node::{Node, NodeSettings};
use turret_actors::protocol::{Refusal, RolloutStatus};
use turret_actors::rollout::plan::{Outcome, Phase};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{GenerationId, ItemId, ShardId};
use turret_retrieval::tier::History;

use crate::world::published::{ADS, AFTER_MS, MODEL, NEXT_MODEL, USERS, publish};
use crate::world::{World, ask, depot, retrieve, until, with_node, with_node_set};

/// Longer than any test takes.
const FOR_EVER: Duration = Duration::from_secs(1_000);

fn watched_for_ever(settings: &mut NodeSettings) {
    settings.rollout.watch = FOR_EVER;
}

fn id(name: &str) -> GenerationId {
    GenerationId::new(name).unwrap()
}

/// A generation beside the world's, of another model.
fn next(world: &World, name: &str) -> Generation {
    publish(world.generation.dir.parent().unwrap(), name, &NEXT_MODEL)
}

async fn status(node: &Node) -> RolloutStatus {
    node.status_of(node.name()).await.and_then(|status| status.rollout).unwrap_or_default()
}

async fn phase(node: &Node) -> Option<Phase> {
    status(node).await.plan.map(|plan| plan.phase)
}

async fn until_ended(node: &Node) -> Outcome {
    let mut ended = None;
    until("the publication ends", async || {
        if let Some(Phase::Ended { outcome }) = phase(node).await {
            ended = Some(outcome);
        }
        ended.is_some()
    })
    .await;
    ended.unwrap()
}

async fn until_watched(node: &Node) {
    // Told only once the plan says so on the disk.
    let is_watched = async || {
        let status = status(node).await;
        status.watch.is_some() && status.plan.is_some_and(|plan| plan.phase == Phase::Watching)
    };
    until("the new generation is watched", is_watched).await;
}

fn current(world: &World) -> String {
    fs::read_to_string(world.generation.dir.with_file_name(CURRENT)).unwrap()
}

/// The actors of a generation that are registered.
fn actors_of(name: &str) -> usize {
    ractor::registry::registered().into_iter().filter(|actor| actor.contains(&format!("/{name}@"))).count()
}

/// Asks for all users in turn while `work` goes on, and returns how many answers each generation gave. Every one of them is
/// whole, and of the generation whose encoder made the state that it was made of.
async fn asked_meanwhile(world: &World, work: impl AsyncFnOnce()) -> (u64, u64) {
    let (done, of_first, of_next) = (Arc::<AtomicBool>::default(), AtomicU64::new(0), AtomicU64::new(0));
    let asking = async {
        let mut user = 0;
        while !done.load(Ordering::SeqCst) {
            user = (user + 1) % USERS;
            let answer = retrieve(&world.node.retriever, ask(Some(user), 20)).await.expect("no request is lost");
            assert!(answer.coverage.is_full(), "{:?}", answer.coverage.reasons);
            let manifest = &answer.manifest;
            let (model, count) = if manifest.id == world.generation.manifest.id {
                (&*MODEL, &of_first)
            } else {
                (&*NEXT_MODEL, &of_next)
            };
            assert_eq!(manifest.versions.encoder, *model.encoder_version());
            if user < USERS - 1 {
                assert_eq!(answer.user_state.encoder.as_ref(), Some(model.encoder_version()), "of user {user}");
            }
            count.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let working = async {
        work().await;
        done.store(true, Ordering::SeqCst);
    };
    futures_util::future::join(asking, working).await;
    (of_first.into_inner(), of_next.into_inner())
}

#[test]
fn a_sound_generation_takes_the_place_of_the_first_and_no_request_is_lost() {
    with_node(async |world| {
        next(world, "g-next");
        let (of_first, of_next) = asked_meanwhile(world, async || {
            // So that there are requests to rehearse and users to make states for.
            until("there was traffic", async || world.node.retriever.recent().users().len() > 20).await;
            let plan = world.node.publish(id("g-next")).await.unwrap();
            assert_eq!((plan.run, plan.phase), (1, Phase::Preparing));
            assert_eq!(until_ended(&world.node).await, Outcome::Published);
        })
        .await;
        assert!(of_first > 0 && of_next > 0, "{of_first} and {of_next}");
        assert_eq!(current(world), "g-next");
        assert_eq!((actors_of("g-test"), actors_of("g-next")), (0, 5), "worker, two shards, and their supervisors");
        let status = status(&world.node).await;
        let gates: Vec<&str> = status.gates.iter().map(|gate| &*gate.name).collect();
        assert_eq!(gates, ["counts", "digests", "memory", "live_ads", "probes", "states", "shadow"]);
        assert!(status.gates.iter().all(|gate| gate.passed), "{:?}", status.gates);
        assert!(status.watch.unwrap().now.requests > 0);
        assert!(world.node.is_ready());
        assert_eq!(world.metrics.restarts(), 0);
        assert_eq!(world.metrics.rollouts.with_label_values(&["published"]).get(), 1);

        // It serves; the one before serves again only after it was judged like any other.
        assert!(
            matches!(world.node.publish(id("g-next")).await, Err(Refusal::Conflict(why)) if why.contains("serves already"))
        );
        let plan = world.node.roll_back().await.unwrap();
        assert_eq!((plan.run, plan.from, plan.to), (2, id("g-next"), id("g-test")));
        assert_eq!(until_ended(&world.node).await, Outcome::Published);
        assert_eq!(current(world), "g-test");
        assert_eq!(world.answer(ask(Some(1), 5)).await.user_state.history, History::Fresh);
    });
}

#[test]
fn an_operator_takes_a_generation_back_and_no_request_is_lost() {
    with_node_set(watched_for_ever, async |world| {
        next(world, "g-next");
        let (of_first, of_next) = asked_meanwhile(world, async || {
            world.node.publish(id("g-next")).await.unwrap();
            until_watched(&world.node).await;
            assert_eq!(current(world), "g-next");
            let seen = async || status(&world.node).await.watch.is_some_and(|watch| watch.now.requests > 10);
            until("it answers", seen).await;
            world.node.roll_back().await.unwrap();
            assert!(matches!(until_ended(&world.node).await, Outcome::RolledBack { .. }));
        })
        .await;
        assert!(of_first > 0 && of_next > 0, "{of_first} and {of_next}");
        assert_eq!((current(world).as_str(), actors_of("g-next"), actors_of("g-test")), ("g-test", 0, 5));
        assert!(matches!(world.node.roll_back().await, Err(Refusal::Conflict(_))), "there is nothing to take back");
    });
}

#[test]
fn what_is_told_of_the_shards_of_two_generations_is_told_apart_and_goes_with_them() {
    with_node_set(watched_for_ever, async |world| {
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(world.told_of(ShardId(1)), of(&["g-test"]));
        next(world, "g-next");
        world.node.publish(id("g-next")).await.unwrap();
        until_watched(&world.node).await;
        assert_eq!(world.told_of(ShardId(1)), of(&["g-next", "g-test"]));
        for name in ["g-next", "g-test"] {
            let live = |shard| world.metrics.index_ads.with_label_values(&[shard, name, "live"]).get();
            assert_eq!(live("0") + live("1"), ADS as i64, "{name}");
        }
        world.node.roll_back().await.unwrap();
        until_ended(&world.node).await;
        until("what is gone is told of no more", async || world.told_of(ShardId(1)) == of(&["g-test"])).await;
    });
}

#[test]
fn what_users_do_while_it_is_watched_is_in_the_states_of_both() {
    with_node_set(watched_for_ever, async |world| {
        next(world, "g-next");
        world.node.publish(id("g-next")).await.unwrap();
        until_watched(&world.node).await;
        let done = async |world: &World| {
            let refresh = world.status().await.refresh.unwrap();
            assert_eq!(refresh.partitions_failed, 0);
            !refresh.running
        };
        // That of the activation, for users who had no state of the next encoder.
        until("the first refresh ends", async || done(world).await).await;
        let event =
            Event { item_id: ItemId::from(7), event_type: EventType::View, timestamp_ms: AFTER_MS + 1, event_id: None };
        assert_eq!(world.append(4, vec![event]).await.added, 1);
        assert_eq!(world.answer(ask(Some(4), 5)).await.user_state.history, History::Stale);
        assert!(world.node.refresh().await.unwrap().started);
        until("the refresh ends", async || done(world).await).await;
        assert_eq!(world.status().await.refresh.unwrap().users_refreshed, 2, "one user, two encoders");
        let answer = world.answer(ask(Some(4), 5)).await;
        assert_eq!((&answer.manifest.id, answer.user_state.history), (&id("g-next"), History::Fresh));

        world.node.roll_back().await.unwrap();
        until_ended(&world.node).await;
        let answer = world.answer(ask(Some(4), 5)).await;
        assert_eq!((&answer.manifest.id, answer.user_state.history), (&id("g-test"), History::Fresh));
    });
}

#[test]
fn a_generation_that_is_not_sound_is_refused_and_leaves_nothing_behind() {
    with_node(async |world| {
        type Damage<'a> = &'a dyn Fn(&Generation);
        let damage: [(&str, Damage<'_>); 4] = [
            ("digests", &|next| fs::write(next.dir.join(shard_file(ShardId(1))), b"no shard").unwrap()),
            ("digests", &|next| fs::remove_file(next.dir.join("probes.json")).unwrap()),
            ("digests", &|next| fs::write(next.dir.join(MODEL_DIR).join("tensors.safetensors"), b"").unwrap()),
            ("counts", &|next| {
                let mut manifest = (*next.manifest).clone();
                manifest.shard_ads = vec![400, 1];
                crate::world::published::write_manifest(&next.dir, &manifest);
            }),
        ];
        for (run, (gate, damage)) in (1..).zip(damage) {
            let name = format!("g-{run}");
            damage(&next(world, &name));
            world.node.publish(id(&name)).await.unwrap();
            let Outcome::Refused { why } = until_ended(&world.node).await else { panic!("{name} is published") };
            assert!(why.starts_with(gate), "{why}");
            let last = status(&world.node).await.gates.pop().unwrap();
            assert_eq!((&*last.name, last.passed), (gate, false));
            assert_eq!((actors_of(&name), current(world).as_str()), (0, "g-test"));
            assert_eq!(&world.answer(ask(Some(1), 5)).await.manifest.id, &id("g-test"));
        }
        let absent = world.node.publish(id("g-absent")).await;
        assert!(matches!(&absent, Err(Refusal::Conflict(why)) if why.contains("g-absent")), "{absent:?}");
        let outside = world.node.publish(id("../g-1")).await;
        assert!(matches!(&outside, Err(Refusal::Conflict(why)) if why.contains("no generation's id")), "{outside:?}");
        assert_eq!(world.metrics.restarts(), 0);
    });
}

#[test]
fn an_index_that_finds_other_ads_than_it_was_built_with_is_refused() {
    with_node(async |world| {
        let mixed = next(world, "g-mixed");
        // The ads of the first model with the head of the next: every file is what it says it is.
        let elsewhere = tempfile::tempdir().unwrap();
        let first = publish(elsewhere.path(), "g-mixed", &MODEL);
        let mut manifest = (*mixed.manifest).clone();
        for file in manifest.files.iter_mut().filter(|file| file.path.starts_with("shards/")) {
            fs::copy(first.dir.join(&file.path), mixed.dir.join(&file.path)).unwrap();
            *file = first.manifest.files.iter().find(|other| other.path == file.path).unwrap().clone();
        }
        crate::world::published::write_manifest(&mixed.dir, &manifest);
        world.node.publish(id("g-mixed")).await.unwrap();
        let Outcome::Refused { why } = until_ended(&world.node).await else { panic!("it is published") };
        assert!(why.starts_with("probes: recall@10 0."), "{why}");
        assert_eq!(actors_of("g-mixed"), 0);
    });
}

#[test]
fn a_generation_that_loses_its_shards_while_it_is_watched_goes_back_by_itself() {
    with_node_set(watched_for_ever, async |world| {
        next(world, "g-next");
        world.node.publish(id("g-next")).await.unwrap();
        until_watched(&world.node).await;
        let ended = AtomicBool::new(false);
        let kill = async {
            while !ended.load(Ordering::SeqCst) {
                for member in ractor::pg::get_members(&"index/0/g-next".to_owned()) {
                    member.kill();
                }
                tokio::task::yield_now().await;
            }
        };
        let judged = async {
            let gone = async || {
                let _ = retrieve(&world.node.retriever, ask(Some(1), 5)).await;
                matches!(phase(&world.node).await, Some(Phase::Ended { .. }))
            };
            until("it goes back", gone).await;
            ended.store(true, Ordering::SeqCst);
        };
        futures_util::future::join(kill, judged).await;
        let Outcome::RolledBack { why } = until_ended(&world.node).await else { panic!("it stays") };
        assert!(why.contains("of requests failed"), "{why}");
        let answer = world.answer(ask(Some(1), 5)).await;
        assert_eq!((&answer.manifest.id, answer.coverage.is_full()), (&id("g-test"), true));
        assert_eq!(world.metrics.rollouts.with_label_values(&["rolled_back"]).get(), 1);
    });
}

#[test]
fn a_killed_rollout_goes_on_where_it_was_and_a_second_publication_waits() {
    with_node_set(watched_for_ever, async |world| {
        next(world, "g-next");
        world.node.publish(id("g-next")).await.unwrap();
        let second = world.node.publish(id("g-test")).await;
        assert!(matches!(&second, Err(Refusal::Conflict(why)) if why.contains("is going on")), "{second:?}");
        until_watched(&world.node).await;
        let name = turret_actors::groups::actor("rollout", world.node.name());
        let killed = ractor::registry::where_is(name.clone()).unwrap();
        killed.kill_and_wait(None).await.unwrap();
        let is_new = async || {
            let is_new = ractor::registry::where_is(name.clone()).is_some_and(|cell| cell.get_id() != killed.get_id());
            is_new && phase(&world.node).await == Some(Phase::Watching)
        };
        until("another watches", is_new).await;
        assert_eq!(&world.answer(ask(Some(1), 5)).await.manifest.id, &id("g-next"), "nobody noticed");
        world.node.roll_back().await.unwrap();
        assert!(matches!(until_ended(&world.node).await, Outcome::RolledBack { .. }));
        assert_eq!(&world.answer(ask(Some(1), 5)).await.manifest.id, &id("g-test"));
    });
}

#[test]
fn a_node_started_again_in_the_watch_goes_on_watching_and_the_second_time_goes_back() {
    with_node_set(watched_for_ever, async |world| {
        next(world, "g-next");
        world.answer(ask(Some(1), 5)).await;
        world.node.publish(id("g-next")).await.unwrap();
        until_watched(&world.node).await;
        let judged_by = async |node: &Node| status(node).await.plan.and_then(|plan| plan.before);
        let before = judged_by(&world.node).await.unwrap();
        assert!(before.requests > 0 && before.p99_us.is_some(), "{before:?}");
        world.node.stop().await;
        let start = async || {
            let generations = world.generation.dir.parent().unwrap();
            let current = Generation::current(generations).unwrap();
            let node =
                Node::start(world.settings.clone(), depot(&current), current, Metrics::new(&Registry::new()).unwrap())
                    .await
                    .unwrap();
            node.ready().await;
            node
        };
        let node = start().await;
        until_watched(&node).await;
        let answer = retrieve(&node.retriever, ask(Some(1), 5)).await.unwrap();
        assert_eq!((&answer.manifest.id, answer.user_state.history), (&id("g-next"), History::Fresh));
        assert_eq!(judged_by(&node).await, Some(before), "what is gone is not what it is judged by");
        until("the old one is ready beside it", async || actors_of("g-test") == 5).await;
        node.stop().await;

        let node = start().await;
        let answer = retrieve(&node.retriever, ask(Some(1), 5)).await.unwrap();
        assert_eq!((&answer.manifest.id, answer.user_state.history), (&id("g-test"), History::Fresh));
        assert!(matches!(phase(&node).await, Some(Phase::Ended { outcome: Outcome::RolledBack { .. } })));
        assert_eq!(current(world), "g-test");
        node.stop().await;
    });
}
