//! The tree of actors of one node. One process is one node: ractor's registry and groups are process-global.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorCell, ActorRef, SpawnErr};
use ractor_cluster::node::NodeConnectionMode;
use ractor_cluster::{NodeServer, NodeServerMessage};
use tokio::task::JoinHandle;
use turret_index::IndexSettings;
use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::NodeName;
use turret_retrieval::state::{Precision, StateError};
use turret_store::{Retention, StoreSettings};

use crate::admin::{self, Admin, Placed};
use crate::generation::{Generation, GenerationError, MODEL_DIR};
use crate::groups;
use crate::index_shard::IndexShard;
use crate::inference_worker::InferenceWorker;
use crate::inference_worker::batcher::BatcherSettings;
use crate::membership::Membership;
use crate::metrics::Metrics;
use crate::offload::{Offload, OffloadError};
use crate::placement::{partitions_of, shards_of};
use crate::protocol::{AdminRequest, NodeStatus, RefreshStarted, Refusal};
use crate::refresh::Refresh;
use crate::refresh::schedule::Schedule;
use crate::restart::RestartPolicy;
use crate::retrieve::Retriever;
use crate::routing::{self, Routing, RoutingReader};
use crate::supervisor::{Child, Supervisor};
use crate::user_partition::UserPartition;
use crate::users::Users;
use crate::wire::{FRAME_BYTES_MAX, Inbox, Wire};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Answers requests over HTTP.
    Gateway,
    /// Holds shards.
    Index,
    /// Holds user partitions.
    Users,
    /// Runs the model.
    Inference,
    /// Owns the refresh; exactly one node.
    Control,
}

/// One configured node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// What it does.
    pub roles: Vec<Role>,
    /// Where its cluster port listens; absent in a cluster of one.
    pub cluster: Option<SocketAddr>,
}

/// What a node needs to know to start.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// This node; one of `members`.
    pub name: NodeName,
    /// Every configured node.
    pub members: Vec<Member>,
    /// The cluster's shared secret.
    pub cookie: String,
    /// This node's own directory.
    pub data_dir: PathBuf,
    /// How to index shards.
    pub index: IndexSettings,
    /// How to open user partitions.
    pub store: StoreSettings,
    /// How long they keep things.
    pub retention: Retention,
    /// How exactly they keep the states of a refresh.
    pub state_precision: Precision,
    /// When users with new events are encoded; of the control node.
    pub refresh: Schedule,
    /// The bounds of the inference queue.
    pub inference: BatcherSettings,
    /// Threads for searches, and how many searches may wait.
    pub search_threads: usize,
    /// How many searches may wait.
    pub search_queue: usize,
    /// Retrievals that may run at once on this gateway.
    pub in_flight_max: usize,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The generation is not sound.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The model's sequence states are larger than any that is kept.
    #[error("the model's states: {0}")]
    State(#[from] StateError),
    /// No threads.
    #[error(transparent)]
    Threads(#[from] OffloadError),
    /// An actor did not start; the cluster port is taken, as a rule.
    #[error("actor did not start: {0}")]
    Spawn(#[from] SpawnErr),
}

/// A running node.
pub struct Node {
    /// Answers requests.
    pub retriever: Retriever,
    /// Reads and writes users.
    pub users: Users,
    name: NodeName,
    control: Option<NodeName>,
    placed: Placed,
    routing: RoutingReader,
    roots: tokio::sync::Mutex<Vec<(ActorCell, JoinHandle<()>)>>,
}

/// Threads that write users and refresh states; they mostly wait for the disk.
const STORE_THREADS: usize = 2;
/// Jobs that may wait for them.
const STORE_QUEUE: usize = 256;
/// Walks over all users of a partition that may wait for their thread; a refresh has one for each partition.
const SCAN_QUEUE: usize = 1_024;
/// Erasures whose traces may be looked for at once; the receipts of those beyond say that theirs are not known.
const TRACES_QUEUE: usize = 16;
/// How long a call from HTTP to an admin actor may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);

impl Node {
    /// Starts the tree. Returns when the actors run; they load and join by themselves, see [`Node::is_ready`].
    ///
    /// # Errors
    /// When the generation is not sound, or the cluster port is taken.
    pub async fn start(settings: NodeSettings, generation: Generation, metrics: Metrics) -> Result<Self, StartError> {
        let placed = place(&settings, &generation.manifest);
        // Without its model a node is of no use. A damaged shard or snapshot costs that alone; its actor finds out.
        if placed.inference {
            generation.verify(MODEL_DIR)?;
        }
        let manifest = generation.manifest.clone();
        let (table, routing) = routing::channel(manifest.clone());
        let searches = Offload::new("search", settings.search_threads, settings.search_queue)?;
        let reads = Offload::new("users", settings.search_threads, settings.search_queue)?;
        let writes = Offload::new("store", STORE_THREADS, STORE_QUEUE)?;
        let loads = Offload::new("load", 1, 4_096)?;
        let scans = Offload::new("scan", 1, SCAN_QUEUE)?;
        let traces = Offload::new("traces", 1, TRACES_QUEUE)?;
        // Before the first actor starts, so that a model that is refused leaves none behind.
        let worker = placed.inference.then(|| inference_worker(&settings, &generation, &metrics)).transpose()?;
        let policy = RestartPolicy::STANDARD;
        let mut roots = Vec::new();

        let routing_actor = Routing { manifest: manifest.clone(), table };
        let mut services =
            vec![Child::new(groups::actor("routing", &settings.name), move || (routing_actor.clone(), ()))];
        let control = member_with(&settings, Role::Control).map(|member| member.name.clone());
        let refresh_name = (control.as_ref() == Some(&settings.name)).then(|| groups::actor("refresh", &settings.name));
        if let Some(name) = refresh_name.clone() {
            let refresh = Refresh { schedule: settings.refresh, routing: routing.clone(), metrics: metrics.clone() };
            services.push(Child::new(name, move || (refresh.clone(), ())));
        }
        let admin = Admin {
            name: settings.name.clone(),
            placed: placed.clone(),
            routing: routing.clone(),
            refresh: refresh_name,
            metrics: metrics.clone(),
        };
        services.push(Child::new(groups::actor("admin", &settings.name), move || (admin.clone(), ())));
        if let Some(membership) = join(&settings, &metrics, &mut roots).await? {
            let name = groups::actor("membership", &settings.name);
            services.push(Child::new(name, move || (membership.clone(), ())));
        }
        let supervise = async |kind: &'static str, children: Vec<Child>| -> Result<_, SpawnErr> {
            let name = groups::actor(&format!("{kind}_supervisor"), &settings.name);
            let supervisor = Supervisor { kind, policy, metrics: metrics.clone() };
            let (actor, ended) = Actor::spawn(Some(name), supervisor, children).await?;
            Ok((actor.get_cell(), ended))
        };
        roots.push(supervise("service", services).await?);

        if let Some(worker) = worker {
            let child = Child::new(groups::actor("inference-0", &settings.name), move || (worker.clone(), ()));
            roots.push(supervise("inference_worker", vec![child]).await?);
        }
        let partitions = placed.partitions.iter().map(|partition| {
            let actor = UserPartition {
                partition: *partition,
                dir: settings.data_dir.join(format!("users/{:04}", partition.0)),
                settings: settings.store.clone(),
                retention: settings.retention,
                state_precision: settings.state_precision,
                generation: generation.clone(),
                reads: reads.clone(),
                writes: writes.clone(),
                loads: loads.clone(),
                scans: scans.clone(),
                traces: traces.clone(),
                routing: routing.clone(),
                metrics: metrics.clone(),
            };
            Child::new(groups::actor(&format!("users-{partition}"), &settings.name), move || (actor.clone(), ()))
        });
        roots.push(supervise("user_partition", partitions.collect()).await?);
        let shards = placed.shards.iter().map(|shard| {
            let actor = IndexShard {
                shard: *shard,
                generation: generation.clone(),
                settings: settings.index.clone(),
                searches: searches.clone(),
                loads: loads.clone(),
                metrics: metrics.clone(),
            };
            Child::new(groups::actor(&format!("index-{shard}"), &settings.name), move || (actor.clone(), ()))
        });
        roots.push(supervise("index_shard", shards.collect()).await?);

        let retriever = Retriever::new(routing.clone(), settings.in_flight_max, metrics);
        let roots = tokio::sync::Mutex::new(roots);
        let users = Users::new(routing.clone());
        Ok(Self { retriever, users, name: settings.name.clone(), control, placed, routing, roots })
    }

    /// Whether everything placed on this node serves.
    pub fn is_ready(&self) -> bool {
        self.placed.is_ready(&self.routing.table())
    }

    /// Waits until everything placed on this node serves.
    pub async fn ready(&self) {
        self.routing.clone().wait_for(|table| self.placed.is_ready(table)).await;
    }

    /// This node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// What `node` says it is doing; nothing when it cannot be reached.
    pub async fn status_of(&self, node: &NodeName) -> Option<NodeStatus> {
        let status = |reply| -> admin::Msg { Inbox::Request(AdminRequest::Status(Wire::new(()), reply)) };
        match admin_actor(node)?.call(status, Some(ADMIN_TIMEOUT)).await {
            Ok(CallResult::Success(answer)) => answer.open().ok(),
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => None,
        }
    }

    /// Starts a refresh on the control node, wherever that is.
    ///
    /// # Errors
    /// Retryable, when the control node cannot be reached.
    pub async fn refresh(&self) -> Result<RefreshStarted, Refusal> {
        let unreachable = || Refusal::Failed("the control node cannot be reached".to_owned());
        let control = self.control.as_ref().ok_or_else(unreachable)?;
        let refresh = |reply| -> admin::Msg { Inbox::Request(AdminRequest::Refresh(Wire::new(()), reply)) };
        let asked = admin_actor(control).ok_or_else(unreachable)?.call(refresh, Some(ADMIN_TIMEOUT)).await;
        match asked {
            Ok(CallResult::Success(answer)) => {
                answer.open().map_err(|error| Refusal::Unreadable(error.to_string())).flatten()
            }
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(unreachable()),
        }
    }

    /// Stops every actor and waits until they have ended. A second call finds nothing left to stop.
    pub async fn stop(&self) {
        let roots = std::mem::take(&mut *self.roots.lock().await);
        for (root, ended) in roots.into_iter().rev() {
            root.stop(Some("shutdown".to_owned()));
            // A root that panicked has ended too.
            drop(ended.await);
        }
    }
}

fn admin_actor(node: &NodeName) -> Option<ActorRef<admin::Msg>> {
    ractor::pg::get_members(&groups::admin(node)).into_iter().next().map(ActorRef::from)
}

fn member_with(settings: &NodeSettings, role: Role) -> Option<&Member> {
    settings.members.iter().find(|member| member.roles.contains(&role))
}

/// What is placed on the node of these settings.
pub fn place(settings: &NodeSettings, manifest: &Manifest) -> Placed {
    let names = |role| -> Vec<NodeName> {
        let with = settings.members.iter().filter(|member| member.roles.contains(&role));
        with.map(|member| member.name.clone()).collect()
    };
    Placed {
        shards: shards_of(&settings.name, &names(Role::Index), manifest.shards()),
        partitions: partitions_of(&settings.name, &names(Role::Users), manifest.partitions()),
        inference: names(Role::Inference).contains(&settings.name),
    }
}

/// The worker of this node, with its model and its thread.
fn inference_worker(
    settings: &NodeSettings,
    generation: &Generation,
    metrics: &Metrics,
) -> Result<InferenceWorker, StartError> {
    let model = generation.load_model()?;
    settings.state_precision.check_fits(model.state_rows_max(), model.dimension())?;
    Ok(InferenceWorker {
        generation: generation.manifest.id.clone(),
        model: Arc::new(model),
        settings: settings.inference,
        thread: Offload::new("inference", 1, 1)?,
        metrics: metrics.clone(),
    })
}

/// Starts the transport, where there are peers.
async fn join(
    settings: &NodeSettings,
    metrics: &Metrics,
    roots: &mut Vec<(ActorCell, JoinHandle<()>)>,
) -> Result<Option<Membership>, StartError> {
    let own = settings.members.iter().find(|member| member.name == settings.name);
    let Some(address) = own.and_then(|member| member.cluster).filter(|_| settings.members.len() > 1) else {
        return Ok(None);
    };
    let server = NodeServer::new(
        address.port(),
        settings.cookie.clone(),
        settings.name.to_string(),
        address.ip().to_string(),
        None,
        Some(NodeConnectionMode::Isolated),
    )
    .with_listen_addr(address.ip())
    .with_max_inbound_frame_size(FRAME_BYTES_MAX);
    let (transport, ended): (ActorRef<NodeServerMessage>, _) =
        Actor::spawn(Some(groups::actor("node_server", &settings.name)), server, ()).await?;
    roots.push((transport.get_cell(), ended));
    let others = settings.members.iter().filter(|member| member.name != settings.name);
    let peers: BTreeMap<NodeName, SocketAddr> =
        others.filter_map(|member| Some((member.name.clone(), member.cluster?))).collect();
    Ok(Some(Membership { name: settings.name.clone(), peers, transport, metrics: metrics.clone() }))
}
