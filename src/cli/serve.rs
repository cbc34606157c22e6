//! `turret serve`.

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::FutureExt;
use turret_actors::metrics::Metrics;
use turret_actors::node::Node;
use turret_retrieval::ids::NodeName;

use super::{ConfigArgument, UsageError, block_on, depot};
use crate::config::{Config, NodeConfig};
use crate::gateway::{Gateway, Listeners};

/// Runs one node of the cluster until Ctrl-C
///
/// The node loads the active generation, opens its user partitions, joins its peers from the configuration and answers
/// over HTTP. `GET /readyz` answers 200 once everything placed on it serves.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Which of the configured nodes this process is; may be left out where there is only one
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config.path).map_err(UsageError::Config)?;
    let own = choose(&config, arguments.node.as_deref())?;
    block_on(serve(&config, &own.name))?
}

/// The node that `asked` names, or the only one.
pub(super) fn choose<'a>(config: &'a Config, asked: Option<&str>) -> anyhow::Result<&'a NodeConfig> {
    let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
    let usage = |text: String| Err(UsageError::Argument(text).into());
    match (asked, &config.nodes[..]) {
        (None, [only]) => Ok(only),
        (None, _) => usage(format!("--node is needed: the file has nodes {}", names.join(", "))),
        (Some(asked), nodes) => match nodes.iter().find(|node| node.name.as_str() == asked) {
            Some(node) => Ok(node),
            None => usage(format!("--node: `{asked}` is not one of {}", names.join(", "))),
        },
    }
}

/// Starts a node and serves until Ctrl-C or SIGTERM.
async fn serve(config: &Config, name: &NodeName) -> anyhow::Result<()> {
    let stop = async { stop_signal().await }.boxed().shared();
    let running = start(config, name).await?;
    tracing::info!(
        node = %name, http = %running.http, admin = %running.admin, generation = %running.generation,
        "node starts"
    );
    let gateway = running.gateway.clone();
    tokio::spawn(async move {
        gateway.node.ready().await;
        tracing::info!("node ready");
    });
    running.serve(stop).await;
    tracing::info!("node stopped");
    Ok(())
}

/// A node whose listeners are open.
pub(super) struct Running {
    /// What its handlers use.
    pub(super) gateway: Arc<Gateway>,
    /// Where it answers.
    pub(super) http: std::net::SocketAddr,
    /// Where operators reach it.
    pub(super) admin: std::net::SocketAddr,
    generation: String,
    listeners: Listeners,
}

/// Opens the listeners and starts the actors of `name`.
pub(super) async fn start(config: &Config, name: &NodeName) -> anyhow::Result<Running> {
    let own = config.nodes.iter().find(|node| node.name == *name).context("the node is configured")?;
    let listeners = Listeners::bind(own.http, own.admin).await?;
    let settings = config.node_settings(own);
    let (depot, generation) = depot::current(config, &settings).await?;
    let id = generation.manifest.id.to_string();
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry)?;
    let node = Node::start(settings, depot, generation, metrics.clone()).await?;
    let members = config.nodes.iter().map(|node| node.name.clone()).collect();
    let (roles, deadline_ms) = (own.roles.clone(), config.gateway.deadline_ms);
    let gateway = Gateway { node, members, metrics, registry, roles, deadline_ms };
    let (http, admin) = (listeners.http_address(), listeners.admin_address());
    Ok(Running { gateway: Arc::new(gateway), http, admin, generation: id, listeners })
}

impl Running {
    /// Answers until `stop` resolves, then ends the actors.
    pub(super) async fn serve(self, stop: impl Future<Output = ()> + Clone + Send + 'static) {
        self.listeners.serve(self.gateway.clone(), stop).await;
        // Handlers have ended, so this is the last user of the gateway but for the one that waits for readiness.
        self.gateway.node.stop().await;
    }
}

async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        // Without a handler for Ctrl-C the default one ends the process.
        _ = interrupt => {}
        () = terminate => {}
    }
}
