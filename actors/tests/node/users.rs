//! User partitions: events, refresh, and a partition that is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use turret_actors::clock::now_ms;
use turret_actors::groups;
use turret_actors::inference_worker;
use turret_actors::metrics::Metrics;
use turret_actors::node::{Node, NodeSettings};
use turret_actors::protocol::RefreshStatus;
use turret_actors::refresh::schedule::Schedule;
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::{EventId, ItemId, PartitionId, UserId};
use turret_retrieval::tier::{History, Tier};
use turret_store::{Appended, Change, Retention};

use crate::answers::view;
use crate::world::published::{ADS, AFTER_MS, MODEL, PARTITIONS, USERS, history};
use crate::world::{World, append, ask, depot, retrieve, until, until_grown, with_node};

const USER: u64 = 11;
/// Events offered one by one while the partition is killed.
const EVENTS_MAX: u64 = 400;
/// States are kept as `f16`.
const STATE_TOLERANCE: f32 = 5e-3;

fn partition() -> PartitionId {
    partition_of(&UserId::from(USER), PARTITIONS)
}

/// The `number`th event after what was published.
fn event(number: u64) -> Event {
    Event {
        item_id: ItemId::from(number * 13 % ADS),
        event_type: EventType::View,
        timestamp_ms: AFTER_MS + number as i64 * 1_000,
        event_id: Some(EventId::from(number)),
    }
}

/// Runs a refresh to its end.
async fn refresh(world: &World, run: u64) -> RefreshStatus {
    let started = world.node.refresh().await.unwrap();
    assert_eq!((started.run, started.started), (run, true));
    let status = async || world.status().await.refresh.expect("this is the control node");
    until("the refresh ends", async || !status().await.running).await;
    status().await
}

#[test]
fn a_killed_partition_lowers_the_tier_and_loses_nothing_acknowledged() {
    with_node(async |world| {
        let stop = Arc::new(AtomicBool::new(false));
        let (known, unknown) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (retriever, stopped) = (world.node.retriever.clone(), stop.clone());
        let counted = (known.clone(), unknown.clone());
        let asks = tokio::spawn(async move {
            let (known, unknown) = counted;
            while !stopped.load(Ordering::Relaxed) {
                let answer = retrieve(&retriever, ask(Some(USER), 10)).await.expect("no retrieval fails");
                let state = &answer.user_state;
                assert!(answer.coverage.is_full(), "{:?}", answer.coverage);
                if state.reason.is_none() {
                    assert_ne!(state.history, History::None);
                    known.fetch_add(1, Ordering::Relaxed);
                } else {
                    assert!(matches!(state.reason, Some("partition_absent" | "partition_failed")), "{state:?}");
                    assert_eq!((state.history, state.tier), (History::None, Tier::Cold));
                    unknown.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let (users, stopped) = (world.node.users.clone(), stop.clone());
        let writes = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in (0..EVENTS_MAX).take_while(|_| !stopped.load(Ordering::Relaxed)) {
                match append(&users, USER, vec![event(number)]).await {
                    Ok(appended) => {
                        assert_eq!(appended.added, 1);
                        acknowledged.push(event(number));
                    }
                    Err(refused) => {
                        assert_eq!(refused.partition, partition());
                        // Nothing of this node waits meanwhile, and a refusal is quick.
                        tokio::task::yield_now().await;
                    }
                }
            }
            acknowledged
        });
        assert!(world.append(USER, vec![event(EVENTS_MAX)]).await.added == 1);
        let group = groups::users(partition());
        until_grown("there is load", &known, 10).await;
        let kills = world.kill_until_felt(&group, &unknown).await;
        until_grown("the user is known again", &known, 10).await;
        stop.store(true, Ordering::Relaxed);
        asks.await.unwrap();
        let mut acknowledged = writes.await.unwrap();
        acknowledged.push(event(EVENTS_MAX));

        assert!(world.restarts("user_partition") >= kills);
        assert_eq!(
            world.metrics.user_lookups.with_label_values(&["unavailable"]).get(),
            unknown.load(Ordering::Relaxed)
        );
        let known = acknowledged.len() as u32;
        assert_eq!(world.append(USER, acknowledged).await, Appended { known, ..Appended::default() });
        let state = world.answer(ask(Some(USER), 10)).await.user_state;
        assert_eq!((state.history, state.reason), (History::Stale, None));
    });
}

#[test]
fn a_refresh_covers_new_events_and_a_second_one_does_nothing() {
    with_node(async |world| {
        let history_of = async |user| world.answer(ask(Some(user), 10)).await.user_state.history;
        let newcomer = USERS - 1;
        let before = view(world, USER).await.unwrap().state.unwrap();
        assert!(before.is_current);
        assert_eq!((history_of(USER).await, history_of(newcomer).await), (History::Fresh, History::None));
        let done = refresh(world, 1).await;
        assert_eq!((done.users_refreshed, done.partitions_done), (0, PARTITIONS), "what was published is current");

        let events: Vec<Event> = (0..3).map(event).collect();
        assert_eq!(world.append(USER, events.clone()).await, Appended { added: 3, ..Appended::default() });
        assert_eq!(world.append(USER, events.clone()).await, Appended { known: 3, ..Appended::default() });
        assert_eq!(world.append(newcomer, events.clone()).await.added, 3);
        assert_eq!((history_of(USER).await, history_of(newcomer).await), (History::Stale, History::None));
        assert_eq!(view(world, USER).await.unwrap().state.unwrap().history, before.history);

        let done = refresh(world, 2).await;
        assert_eq!((done.users_refreshed, done.partitions_done, done.partitions_failed), (2, PARTITIONS, 0));
        assert_eq!((history_of(USER).await, history_of(newcomer).await), (History::Fresh, History::Fresh));
        for (user, published) in [(USER, history(USER)), (newcomer, vec![])] {
            let state = view(world, user).await.unwrap().state.unwrap();
            let all = [published, events.clone()].concat();
            let expected = MODEL.encode(&[&all]).unwrap().remove(0);
            assert!(state.is_current);
            let found = state.history.sequence_of(MODEL.encoder_version()).unwrap().values();
            assert_eq!(found.len(), expected.len());
            let off = |(a, b): (&f32, &f32)| (a - b).abs();
            assert!(found.iter().zip(&expected).map(off).all(|off| off < STATE_TOLERANCE), "user {user}");
        }
        assert_ne!(view(world, USER).await.unwrap().state.unwrap().history, before.history);

        let after = view(world, USER).await;
        assert_eq!(refresh(world, 3).await.users_refreshed, 0);
        assert_eq!(view(world, USER).await, after);
        assert_eq!(world.metrics.refresh_users.with_label_values(&["refreshed"]).get(), 2);
        assert!(world.metrics.refresh_last_success.get() > 0.0);
    });
}

#[test]
fn a_refresh_that_the_end_of_the_node_cut_off_goes_on_by_itself() {
    with_node(async |world| {
        let event =
            Event { item_id: ItemId::from(5), event_type: EventType::View, timestamp_ms: AFTER_MS + 1, event_id: None };
        for user in 0..USERS {
            world.append(user, vec![event.clone()]).await;
        }
        // As a node that ended in the middle of a run leaves it.
        let journal = world.settings.data_dir.join("refresh.json");
        world.node.stop().await;
        std::fs::write(&journal, r#"{"run":7,"started_at_ms":5,"goes_on":true}"#).unwrap();
        let (metrics, generation) = (Metrics::new(&Registry::new()).unwrap(), world.generation.clone());
        let node = Node::start(world.settings.clone(), depot(&generation), generation, metrics).await.unwrap();
        node.ready().await;
        let refresh = async || node.status_of(node.name()).await.unwrap().refresh.unwrap();
        until("the run ends", async || refresh().await.ended_at_ms.is_some()).await;
        let ended = refresh().await;
        assert_eq!((ended.run, ended.started_at_ms, ended.partitions_failed), (7, 5, 0));
        assert_eq!(ended.users_refreshed, USERS);
        until("that is written down", async || std::fs::read_to_string(&journal).unwrap().contains("false")).await;
        assert_eq!(node.refresh().await.unwrap().run, 8);
        node.stop().await;
    });
}

#[test]
fn a_daily_refresh_that_was_due_while_the_node_was_down_starts_with_it() {
    with_node(async |world| {
        world.append(USER, vec![event(0)]).await;
        world.node.stop().await;
        let two_days_ago_ms = now_ms() - 2 * 86_400_000;
        let last = format!(r#"{{"run":3,"started_at_ms":{two_days_ago_ms},"goes_on":false}}"#);
        std::fs::write(world.settings.data_dir.join("refresh.json"), last).unwrap();
        // Half a day from now.
        let minute = (now_ms().rem_euclid(86_400_000) / 60_000 + 720) as u32 % 1_440;
        let settings = NodeSettings { refresh: Schedule::Daily { minute }, ..world.settings.clone() };
        let (metrics, generation) = (Metrics::new(&Registry::new()).unwrap(), world.generation.clone());
        let node = Node::start(settings, depot(&generation), generation, metrics).await.unwrap();
        node.ready().await;
        let status = async || node.status_of(node.name()).await.unwrap().refresh.unwrap();
        until("the run ends", async || status().await.ended_at_ms.is_some()).await;
        let ended = status().await;
        node.stop().await;
        assert_eq!((ended.run, ended.users_refreshed), (4, 1));
    });
}

#[test]
fn a_run_is_not_taken_for_an_earlier_one_of_its_number() {
    with_node(async |world| {
        for user in 0..USERS {
            world.append(user, vec![event(user)]).await;
        }
        assert_eq!(refresh(world, 1).await.users_refreshed, USERS);
        world.node.stop().await;
        std::fs::remove_file(world.settings.data_dir.join("refresh.json")).unwrap();
        let (metrics, generation) = (Metrics::new(&Registry::new()).unwrap(), world.generation.clone());
        let node = Node::start(world.settings.clone(), depot(&generation), generation, metrics).await.unwrap();
        node.ready().await;
        for user in 0..USERS {
            append(&node.users, user, vec![event(USERS + user)]).await.unwrap();
        }
        assert_eq!(node.refresh().await.unwrap().run, 1);
        let status = async || node.status_of(node.name()).await.unwrap().refresh.unwrap();
        until("the run ends", async || !status().await.running).await;
        let refreshed = status().await.users_refreshed;
        node.stop().await;
        assert_eq!(refreshed, USERS, "partitions remember how far the first one came");
    });
}

#[test]
fn what_nobody_can_look_at_is_told_beside_the_traces_of_an_erased_user() {
    with_node(async |world| {
        let generations = world.generation.dir.parent().unwrap();
        let traces = async || world.node.users.traces(&UserId::from(USER), Duration::from_secs(10)).await.unwrap();
        let found = traces().await;
        assert_eq!((found.found.len(), found.unknown), (1, None));
        // Of a version that is not read, half-made, and none of users.
        for file in ["g-old/users/0000.users", "g-old/manifest.json", "g-half.tmp/users/0001.users", "other/file"] {
            let path = generations.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        let found = traces().await;
        let unknown = "the users' files of g-half.tmp, g-old cannot be read";
        assert_eq!((found.found.len(), found.unknown.as_deref()), (1, Some(unknown)));
    });
}

#[test]
fn a_refresh_goes_on_when_the_partition_or_the_worker_dies() {
    with_node(async |world| {
        let (workers, group) = (groups::inference(&world.generation.manifest.id), groups::users(partition()));
        assert_eq!(world.append(USER, vec![event(0)]).await.added, 1);
        for killed in [group, workers] {
            let dead = world.kill(&killed).await;
            world.node.refresh().await.unwrap();
            world.back(&killed, dead).await;
        }
        // The second may have been asked for while the first was going on; either ends by itself.
        let status = async || world.status().await.refresh.unwrap();
        until("the refresh ends", async || !status().await.running).await;
        assert_eq!((status().await.partitions_done, status().await.partitions_failed), (PARTITIONS, 0));
        assert!(view(world, USER).await.unwrap().state.unwrap().is_current);
    });
}

/// A worker that holds what it is asked and never answers.
struct Mute;

impl Actor for Mute {
    type Msg = inference_worker::Msg;
    type State = Vec<inference_worker::Msg>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(Vec::new())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        held: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        held.push(message);
        Ok(())
    }
}

#[test]
fn a_worker_that_never_answers_is_counted_and_holds_no_refresh() {
    with_node(async |world| {
        assert_eq!(world.append(USER, vec![event(0)]).await.added, 1);
        let (mute, ended) = Actor::spawn(None, Mute, ()).await.unwrap();
        // It has no name, and so comes before the node's own.
        ractor::pg::join(groups::inference(&world.generation.manifest.id), vec![mute.get_cell()]);
        world.node.refresh().await.unwrap();
        let counted = |result: &str| world.metrics.refresh_users.with_label_values(&[result]).get();
        until("the page gives up", async || counted("failed_page") == 1).await;
        assert_eq!((counted("unanswered"), counted("refreshed")), (1, 0));
        assert!(world.status().await.refresh.unwrap().running, "it is tried again");
        mute.stop(None);
        ended.await.unwrap();
        let status = async || world.status().await.refresh.unwrap();
        until("the refresh ends", async || !status().await.running).await;
        assert_eq!((status().await.partitions_done, status().await.partitions_failed), (PARTITIONS, 0));
        assert_eq!(counted("refreshed"), 1);
        assert!(view(world, USER).await.unwrap().state.unwrap().is_current);
    });
}

#[test]
fn writes_that_come_at_once_share_their_flushes() {
    with_node(async |world| {
        let groups =
            || (world.metrics.write_group_asks.get_sample_count(), world.metrics.write_group_asks.get_sample_sum());
        let before = groups();
        let writes = (0..64).map(|number| append(&world.node.users, USER, vec![event(number)]));
        let added: u32 = futures_util::future::join_all(writes).await.into_iter().map(|one| one.unwrap().added).sum();
        let after = groups();
        assert_eq!((added, after.1 - before.1), (64, 64.0));
        assert!(after.0 - before.0 < 64, "as many flushes as writes");
    });
}

#[test]
fn what_is_too_old_is_forgotten_and_counted() {
    with_node(async |world| {
        for change in [Change::Append(vec![event(0)]), Change::Erase] {
            world.node.users.write(UserId::from(USER), change, Duration::from_secs(10)).await.unwrap();
        }
        world.node.stop().await;
        let retention = Retention { erased_ms: Some(1), ..Retention::default() };
        let settings = NodeSettings { retention, ..world.settings.clone() };
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let node =
            Node::start(settings, depot(&world.generation), world.generation.clone(), metrics.clone()).await.unwrap();
        node.ready().await;
        let forgotten = |what: &str| metrics.retention.with_label_values(&[what]).get();
        until("the mark is forgotten", async || forgotten("erasures") == 1).await;
        let profile = node.users.profile(&UserId::from(USER), Duration::from_secs(10)).await;
        node.stop().await;
        assert_eq!((profile.unwrap(), forgotten("silent_users")), (None, 0));
    });
}

#[test]
fn a_refresh_that_is_due_starts_by_itself_and_again() {
    with_node(async |world| {
        world.node.stop().await;
        let refresh = Schedule::Every(Duration::from_millis(100));
        let settings = NodeSettings { refresh, ..world.settings.clone() };
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let node =
            Node::start(settings, depot(&world.generation), world.generation.clone(), metrics.clone()).await.unwrap();
        node.ready().await;
        let refreshed = || metrics.refresh_users.with_label_values(&["refreshed"]).get();
        for number in 0..2 {
            append(&node.users, USER, vec![event(number)]).await.unwrap();
            until("the refresh is due", async || refreshed() == number + 1).await;
        }
        let status = node.status_of(node.name()).await.unwrap().refresh.unwrap();
        node.stop().await;
        assert!(status.run >= 2 && status.started_at_ms > 0, "{status:?}");
    });
}
