//! One node with every role, over a generation of its own, and what tests ask of it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::Registry;
use prometheus::core::Collector;
use prometheus::proto::Metric;
use ractor::{ActorCell, ActorId};
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use turret_actors::depot::{Depot, Place};
use turret_actors::generation::Generation;
use turret_actors::index_shard::SnapshotSettings;
use turret_actors::inference_worker::batcher::BatcherSettings;
use turret_actors::metrics::Metrics;
use turret_actors::node::{Member, Node, NodeSettings, Role};
use turret_actors::protocol::NodeStatus;
use turret_actors::refresh::schedule::Schedule;
use turret_actors::retrieve::{Answer, Rejection, RetrieveRequest, Retriever};
use turret_actors::rollout::RolloutSettings;
use turret_actors::rollout::verdict::WatchBounds;
use turret_actors::users::{Unavailable, Users};
use turret_index::{Backend, IndexSettings};
use turret_model::{DeviceName, Model};
use turret_retrieval::budget::Budget;
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::event::Event;
use turret_retrieval::ids::{ItemId, NodeName, ShardId, UserId};
use turret_retrieval::state::Precision;
use turret_retrieval::user::Demographics;
use turret_store::{Appended, Change, Retention, StoreSettings, Written};

pub(crate) mod planted;
pub(crate) mod published;

/// For a whole test, and for every wait in it: far more than is needed, so that what ends by it hangs.
const TEST_MAX: Duration = Duration::from_secs(100);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The deadline of every retrieval. None may come near it.
const DEADLINE: Duration = Duration::from_secs(8);

/// A node and what it stands on.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) metrics: Metrics,
    pub(crate) generation: Generation,
    pub(crate) settings: NodeSettings,
    // Removed when dropped.
    _dir: TempDir,
}

/// Runs `test` with a node that is ready, and stops the node whatever becomes of the test.
pub(crate) fn with_node(test: impl AsyncFnOnce(&World)) {
    with_node_set(|_| {}, test);
}

/// The same with other settings.
pub(crate) fn with_node_set(set: impl FnOnce(&mut NodeSettings), test: impl AsyncFnOnce(&World)) {
    with_node_of(&published::MODEL, set, test);
}

/// The same with another model.
pub(crate) fn with_node_of(model: &Model, set: impl FnOnce(&mut NodeSettings), test: impl AsyncFnOnce(&World)) {
    alone(async || {
        let dir = TempDir::new().unwrap();
        let generation = published::publish(dir.path(), "g-test", model);
        let mut settings = settings(&dir);
        set(&mut settings);
        let world = World::start(dir, settings, generation).await;
        let ready = async || timeout(WAIT_MAX, world.node.ready()).await.expect("the node is not ready");
        let ran = AssertUnwindSafe(async {
            ready().await;
            test(&world).await;
        });
        let ran = ran.catch_unwind().await;
        world.node.stop().await;
        ran.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Runs `test` on a runtime of its own while no other test runs in this process: one process is one node, and
/// `cargo test` runs the tests of a binary as threads.
pub(crate) fn alone(test: impl AsyncFnOnce()) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { timeout(TEST_MAX, test()).await }).expect("the test does not end");
}

/// The directory that a generation is published in.
pub(crate) fn depot(generation: &Generation) -> Depot {
    let dir = generation.dir.parent().unwrap().to_owned();
    Depot::open(&Place::Directory(dir.clone()), &dir).unwrap()
}

/// Every shard is scanned.
pub(crate) fn index_settings() -> IndexSettings {
    IndexSettings { backend: Backend::Exact, degree: 16, build_list: 32, ..IndexSettings::default() }
}

/// A node called `solo` with every role, its data in `dir`.
pub(crate) fn settings(dir: impl AsRef<Path>) -> NodeSettings {
    let name = NodeName::new("solo").unwrap();
    let roles = vec![Role::Gateway, Role::Index, Role::Users, Role::Inference, Role::Control];
    NodeSettings {
        name: name.clone(),
        members: vec![Member { name, roles, cluster: None }],
        cookie: "of a test".to_owned(),
        data_dir: dir.as_ref().join("data"),
        index: index_settings(),
        snapshots: SnapshotSettings { after_changes: 1_000, interval: Duration::from_secs(600) },
        store: StoreSettings { events_per_user_max: 1_000, cache_bytes: 1 << 20 },
        retention: Retention::default(),
        refresh: Schedule::OnCommand,
        state_precision: Precision::F16,
        inference_device: DeviceName::Cpu,
        inference: BatcherSettings { batch_rows_max: 8, online_queue_rows_max: 64, refresh_queue_jobs_max: 4 },
        search_threads: 2,
        search_queue: 64,
        in_flight_max: 32,
        shadow_every: 0,
        rollout: RolloutSettings {
            ads_change_max: 0.5,
            probe_recall_min: 0.99,
            states_share_min: 1.0,
            shadow_requests: 16,
            watch: Duration::from_millis(300),
            bounds: WatchBounds { failed_rise_max: 0.02, empty_rise_max: 0.05, p99_ratio_max: 100.0 },
        },
    }
}

/// What `user` would see, without a context and with no demographics but those stored.
pub(crate) fn ask(user: Option<u64>, k: usize) -> RetrieveRequest {
    RetrieveRequest {
        user: user.map(UserId::from),
        context: None,
        demographics: Demographics::default(),
        filter: None,
        crowding: None,
        k,
        budget: Budget::new(Instant::now().into_std(), DEADLINE),
        max_state_age_ms: None,
        compares_without_context: false,
        min_coverage: None,
    }
}

/// Looking at a pin of the catalogue.
pub(crate) fn looking_at(item: u64) -> Context {
    let subject = Subject { item_id: Some(ItemId::from(item)), interests: vec![] };
    Context { subject: Some(subject), query: None }
}

/// What `retriever` answers; a retrieval that outlives its deadline hangs.
pub(crate) async fn retrieve(retriever: &Retriever, request: RetrieveRequest) -> Result<Answer, Rejection> {
    timeout(DEADLINE + Duration::from_secs(2), retriever.retrieve(retriever.pin(), request))
        .await
        .expect("a retrieval hangs")
}

/// Waits until `counter` has grown by `more`.
pub(crate) async fn until_grown(what: &str, counter: &AtomicU64, more: u64) {
    let before = counter.load(Ordering::Relaxed);
    until(what, async || counter.load(Ordering::Relaxed) >= before + more).await;
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut looks = interval(Duration::from_millis(2));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waited = async {
        while !holds().await {
            looks.tick().await;
        }
    };
    timeout(WAIT_MAX, waited).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Acknowledged by the user's partition.
pub(crate) async fn append(users: &Users, user: u64, events: Vec<Event>) -> Result<Appended, Unavailable> {
    match users.write(UserId::from(user), Change::Append(events), WAIT_MAX).await? {
        Written::Appended(appended) => Ok(appended),
        other @ (Written::Described(_) | Written::Erased(_)) => panic!("an append came to {other:?}"),
    }
}

impl World {
    async fn start(dir: TempDir, settings: NodeSettings, generation: Generation) -> Self {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let node =
            Node::start(settings.clone(), depot(&generation), generation.clone(), metrics.clone()).await.unwrap();
        Self { node, metrics, generation, settings, _dir: dir }
    }

    /// The node's answer, which must not be a rejection.
    pub(crate) async fn answer(&self, request: RetrieveRequest) -> Answer {
        retrieve(&self.node.retriever, request).await.expect("a retrieval is answered")
    }

    /// Acknowledged by the user's partition.
    pub(crate) async fn append(&self, user: u64, events: Vec<Event>) -> Appended {
        append(&self.node.users, user, events).await.expect("events are taken")
    }

    /// What the node says of itself.
    pub(crate) async fn status(&self) -> NodeStatus {
        self.node.status_of(self.node.name()).await.expect("the node answers for itself")
    }

    /// Restarts of one kind of actor so far.
    pub(crate) fn restarts(&self, kind: &str) -> u64 {
        self.metrics.actor_restarts.with_label_values(&[kind]).get()
    }

    /// Kills the one member of `group`, and waits until it has ended.
    pub(crate) async fn kill(&self, group: &str) -> ActorId {
        let members: Vec<ActorCell> = ractor::pg::get_members(&group.to_owned());
        let [member] = &members[..] else { panic!("{group} has {} members", members.len()) };
        member.kill_and_wait(Some(WAIT_MAX)).await.unwrap();
        member.get_id()
    }

    /// Waits until another than `killed` is the one member of `group`, and is routed to.
    pub(crate) async fn back(&self, group: &str, killed: ActorId) {
        let served = async || {
            let members = ractor::pg::get_members(&group.to_owned());
            let routed = self.routed();
            members.iter().any(|member| member.get_id() != killed && routed.contains(&member.get_id()))
        };
        until(&format!("{group} is served again"), served).await;
    }

    /// Kills the one member of `group` again and again, each time until it is back: three times, and on until `felt`
    /// has counted a retrieval that felt it. Returns how often.
    ///
    /// The wait before a restart doubles, so that even on a slow machine some retrieval falls into one.
    pub(crate) async fn kill_until_felt(&self, group: &str, felt: &AtomicU64) -> u64 {
        let mut kills = 0;
        while kills < 3 || felt.load(Ordering::Relaxed) == 0 {
            assert!(kills < 8, "nobody felt {kills} deaths of {group}");
            let killed = self.kill(group).await;
            self.back(group, killed).await;
            kills += 1;
        }
        kills
    }

    /// The generations of which anything is told of a shard as it is.
    pub(crate) fn told_of(&self, shard: ShardId) -> BTreeSet<String> {
        let metrics = &self.metrics;
        let gauges: [&dyn Collector; 8] = [
            &metrics.index_ads,
            &metrics.index_bytes,
            &metrics.index_bytes_per_ad,
            &metrics.calibrated_list,
            &metrics.calibrated_recall,
            &metrics.searches_in_flight,
            &metrics.snapshot_bytes,
            &metrics.snapshot_last,
        ];
        let families = gauges.iter().flat_map(|gauge| gauge.collect());
        let series = families.flat_map(|family| family.get_metric().to_vec());
        let label = |series: &Metric, name: &str| {
            let pair = series.get_label().iter().find(|pair| pair.name() == name);
            pair.map(|pair| pair.value().to_owned()).unwrap()
        };
        let of_shard = series.filter(|series| label(series, "shard") == shard.to_string());
        of_shard.map(|series| label(&series, "generation")).collect()
    }

    /// Whom the routing table names.
    fn routed(&self) -> Vec<ActorId> {
        let table = self.node.retriever.table();
        let shards = table.shards.iter().flatten().map(|actor| actor.get_id());
        let partitions = table.partitions.iter().flatten().map(|actor| actor.get_id());
        shards.chain(partitions).chain(table.inference.iter().map(|actor| actor.get_id())).collect()
    }
}
