//! The tree of actors of one node. One process is one node: ractor's registry and groups are process-global.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorRef, BytesConvertable, RpcReplyPort, SpawnErr};
use ractor_cluster::node::NodeConnectionMode;
use ractor_cluster::{NodeServer, NodeServerMessage};
use turret_model::{DeviceError, ModelError};
use turret_retrieval::ids::{GenerationId, NodeName};
use turret_retrieval::state::StateError;

use crate::admin::{self, Admin};
use crate::asked::Asked;
use crate::depot::{Depot, DepotError};
use crate::generation::{Generation, GenerationError};
use crate::groups;
use crate::live_ads::{Ads, LiveAds};
use crate::local_head::LocalHeads;
use crate::membership::Membership;
use crate::metrics::Metrics;
use crate::offload::{Offload, OffloadError};
use crate::placement::Placement;
use crate::protocol::{AdminRequest, NodeStatus, RefreshStarted, Refusal};
use crate::refresh::{self, Refresh};
use crate::restart::RestartPolicy;
use crate::retrieve::Retriever;
use crate::rollout::plan::RolloutPlan;
use crate::rollout::{self, Rollout};
use crate::routing::{self, Routing, RoutingReader};
use crate::serving::{Root, Serving, ServingSettings, stop_all};
use crate::supervisor::{Child, Supervisor};
use crate::users::Users;
use crate::wire::{FRAME_BYTES_MAX, Inbox, Wire};

mod partitions;
mod settings;

pub use settings::{Member, NodeSettings, Role};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The generation is not sound.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The model's sequence states are larger than any that is kept.
    #[error("the model's states: {0}")]
    State(#[from] StateError),
    /// The model gives no answer to its own question.
    #[error("the model: {0}")]
    Model(#[from] ModelError),
    /// The inference worker has nothing to compute on.
    #[error("inference.device: {0}")]
    Device(#[from] DeviceError),
    /// Users are kept in another number of partitions than the generation has.
    #[error(
        "{path}: users are kept in {kept} partitions here, and generation {generation} has {published}: set users.partitions back and publish again, or begin with another data_dir"
    )]
    Partitions {
        /// What says so.
        path: PathBuf,
        /// In how many they are kept.
        kept: u32,
        /// The generation.
        generation: GenerationId,
        /// How many it has.
        published: u32,
    },
    /// In how many partitions users are kept cannot be read, or not be written.
    #[error("{path}: {source}")]
    Kept {
        /// What says so.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No threads.
    #[error(transparent)]
    Threads(#[from] OffloadError),
    /// Which generation is the current one could not be written.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// Starting a generation panicked.
    #[error("starting a generation panicked")]
    Panicked,
    /// The node is being stopped.
    #[error("the node is being stopped")]
    Stopping,
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
    /// Reads and changes ads.
    pub ads: Ads,
    name: NodeName,
    control: Option<NodeName>,
    placement: Placement,
    serving: Serving,
    routing: RoutingReader,
    roots: tokio::sync::Mutex<Vec<Root>>,
}

/// Shards and partitions that may wait to be loaded, of two generations.
const LOADS_QUEUE: usize = 4_096;
/// Changes of ads that may wait to be written, and to be made.
const ADS_QUEUE: usize = 256;
/// Changes that may wait to be made in a shard.
const CHANGES_QUEUE: usize = 256;
/// Plans and manifests that may wait to be read or written.
const FILES_QUEUE: usize = 64;
/// Queries that may wait for this node's own head, which takes microseconds for each.
const HEAD_QUEUE: usize = 255;
/// How long a call from HTTP to an admin actor may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a command, before which an object store may be asked.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

impl Node {
    /// Starts the tree over the generation that is `current`, or where a publication was cut off, over the one that its plan
    /// names. Returns when the actors run; they load and join by themselves, see [`Node::is_ready`].
    ///
    /// # Errors
    /// When the generation is not sound, or the cluster port is taken.
    pub async fn start(
        settings: NodeSettings,
        depot: Depot,
        current: Generation,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let resumed = rollout::resume(&settings.data_dir, &depot, current).await?;
        let generation = resumed.generation;
        let standby = resumed.standby.as_ref().map(|standby| standby.manifest.clone());
        let kept: Vec<_> = standby.iter().chain([&generation.manifest]).map(|manifest| &manifest.id).collect();
        settings.snapshots().forget_all_but(&kept);
        let placement = settings.placement();
        if !placement.of(&generation.manifest).partitions.is_empty() {
            partitions::check(&settings.data_dir, &generation)?;
        }
        let (table, routing) = routing::channel(generation.manifest.clone(), standby);
        let (searches, loads) = (
            Offload::new("search", settings.search_threads, settings.search_queue)?,
            Offload::new("load", 1, LOADS_QUEUE)?,
        );
        let heads = LocalHeads::new(HEAD_QUEUE)?;
        let serving = Serving::new(ServingSettings {
            name: settings.name.clone(),
            placement: placement.clone(),
            index: settings.index.clone(),
            snapshots: settings.snapshots(),
            inference: settings.inference,
            device: settings.inference_device,
            heads: heads.clone(),
            state_precision: settings.state_precision,
            searches,
            loads: loads.clone(),
            changes: Offload::new("changes", 1, CHANGES_QUEUE)?,
            asked: Asked::default(),
            metrics: metrics.clone(),
        });
        // First, so that a model that is refused leaves no actor behind.
        serving.start(&generation).await?;
        let (in_flight_max, shadow_every) = (settings.in_flight_max, settings.shadow_every);
        let mut node = Self {
            retriever: Retriever::new(routing.clone(), in_flight_max, shadow_every, heads, metrics.clone()),
            users: Users::new(routing.clone()),
            ads: Ads,
            name: settings.name.clone(),
            control: settings.with(Role::Control).into_iter().next(),
            placement,
            serving,
            routing,
            roots: tokio::sync::Mutex::default(),
        };
        match node.start_roots(&settings, (depot, generation), table, loads, &metrics).await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }

    /// Starts what is not of one generation.
    async fn start_roots(
        &mut self,
        settings: &NodeSettings,
        (depot, generation): (Depot, Generation),
        table: tokio::sync::watch::Sender<Arc<routing::RoutingTable>>,
        loads: Offload,
        metrics: &Metrics,
    ) -> Result<(), StartError> {
        let name = |kind: &str| groups::actor(kind, &settings.name);
        let roots = self.roots.get_mut();
        let is_elsewhere = depot.is_elsewhere();
        let routing_actor = Routing { table, metrics: metrics.clone() };
        let mut services = vec![Child::new(name("routing"), move || (routing_actor.clone(), ()))];
        let is_control = self.control.as_ref() == Some(&settings.name);
        if is_control {
            let files = Offload::new("files", 1, FILES_QUEUE)?;
            let refresh = Refresh {
                schedule: settings.refresh,
                journal: refresh::Journal::of(&settings.data_dir),
                files: files.clone(),
                routing: self.routing.clone(),
                metrics: metrics.clone(),
            };
            services.push(Child::new(name("refresh"), move || (refresh.clone(), ())));
            let rollout = Rollout {
                settings: settings.rollout.clone(),
                node: settings.name.clone(),
                nodes: settings.members.len(),
                journal: rollout::Journal::of(&settings.data_dir),
                depot: depot.clone(),
                first: generation.clone(),
                placement: self.placement.clone(),
                serving: self.serving.clone(),
                retriever: self.retriever.clone(),
                routing: self.routing.clone(),
                loads: loads.clone(),
                files,
                metrics: metrics.clone(),
            };
            services.push(Child::new(name("rollout"), move || (rollout.clone(), ())));
            let live_ads = LiveAds {
                dir: settings.data_dir.join("ads"),
                depot: depot.clone(),
                routing: self.routing.clone(),
                thread: Offload::new("ads", 1, ADS_QUEUE)?,
                metrics: metrics.clone(),
            };
            services.push(Child::new(name("live_ads"), move || (live_ads.clone(), ())));
        }
        let admin = Admin {
            name: settings.name.clone(),
            placement: self.placement.clone(),
            routing: self.routing.clone(),
            refresh: is_control.then(|| name("refresh")),
            rollout: is_control.then(|| name("rollout")),
            depot,
            metrics: metrics.clone(),
        };
        services.push(Child::new(name("admin"), move || (admin.clone(), ())));
        if let Some(membership) = join(settings, metrics, roots).await? {
            services.push(Child::new(name("membership"), move || (membership.clone(), ())));
        }
        let supervise = async |kind: &'static str, children: Vec<Child>| -> Result<Root, SpawnErr> {
            let supervisor = Supervisor { kind, policy: RestartPolicy::STANDARD, metrics: metrics.clone() };
            let (actor, ended) = Actor::spawn(Some(name(&format!("{kind}_supervisor"))), supervisor, children).await?;
            Ok((actor.get_cell(), ended))
        };
        roots.push(supervise("service", services).await?);
        let of = (&generation, is_elsewhere);
        let partitions = partitions::of(settings, &self.placement, of, &loads, &self.routing, metrics)?;
        roots.push(supervise("user_partition", partitions).await?);
        Ok(())
    }

    /// Whether everything placed on this node serves.
    pub fn is_ready(&self) -> bool {
        is_ready(&self.placement, &self.routing.table())
    }

    /// Waits until everything placed on this node serves.
    pub async fn ready(&self) {
        self.routing.clone().wait_for(|table| is_ready(&self.placement, table)).await;
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
        self.ask_control(|reply| AdminRequest::Refresh(Wire::new(()), reply)).await
    }

    async fn ask_control<T>(
        &self,
        request: impl FnOnce(RpcReplyPort<Wire<Result<T, Refusal>>>) -> AdminRequest,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
        Wire<Result<T, Refusal>>: BytesConvertable,
    {
        let unreachable = || Refusal::Unreachable("the control node cannot be reached".to_owned());
        let control = self.control.as_ref().ok_or_else(unreachable)?;
        let message = |reply| -> admin::Msg { Inbox::Request(request(reply)) };
        match admin_actor(control).ok_or_else(unreachable)?.call(message, Some(COMMAND_TIMEOUT)).await {
            Ok(CallResult::Success(answer)) => {
                answer.open().map_err(|error| Refusal::Unreadable(error.to_string())).flatten()
            }
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(unreachable()),
        }
    }

    /// Has `generation` take the place of the one that serves.
    ///
    /// # Errors
    /// When it cannot be published now, or the control node cannot be reached.
    pub async fn publish(&self, generation: GenerationId) -> Result<RolloutPlan, Refusal> {
        self.ask_control(|reply| AdminRequest::Publish(Wire::new(generation), reply)).await
    }

    /// Has the generation before serve again.
    ///
    /// # Errors
    /// When there is none, or the control node cannot be reached.
    pub async fn roll_back(&self) -> Result<RolloutPlan, Refusal> {
        self.ask_control(|reply| AdminRequest::RollBack(Wire::new(()), reply)).await
    }

    /// Stops every actor and waits until they have ended. A second call finds nothing left to stop.
    pub async fn stop(&self) {
        stop_all(std::mem::take(&mut *self.roots.lock().await)).await;
        self.serving.close().await;
    }
}

fn admin_actor(node: &NodeName) -> Option<ActorRef<admin::Msg>> {
    ractor::pg::get_members(&groups::admin(node)).into_iter().next().map(ActorRef::from)
}

fn is_ready(placement: &Placement, table: &routing::RoutingTable) -> bool {
    placement.of(&table.manifest).is_ready(table)
}

/// Starts the transport, where there are peers.
async fn join(
    settings: &NodeSettings,
    metrics: &Metrics,
    roots: &mut Vec<Root>,
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
