//! The front door: HTTP for callers, another listener for operators, and the table of refusals.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use turret_actors::metrics::Metrics;
use turret_actors::node::{Node, Role};
use turret_retrieval::budget::DEADLINE_MAX;
use turret_retrieval::ids::NodeName;

mod admin;
mod ads;
mod body;
mod events;
mod health;
mod listener;
mod problem;
mod retrieve;
mod users;

/// What every handler needs.
pub struct Gateway {
    /// The running node.
    pub node: Node,
    /// Every configured node, for the status.
    pub members: Vec<NodeName>,
    /// The node's metrics.
    pub metrics: Metrics,
    /// Where they are registered.
    pub registry: prometheus::Registry,
    /// What the node does: without the gateway role it answers no callers.
    pub roles: Vec<Role>,
    /// The deadline of a request that names none, in milliseconds.
    pub deadline_ms: u64,
}

/// The largest body read, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Connections held at once by callers, and by operators: together below the usual limit of 1,024 open files.
const CONNECTIONS_MAX: (usize, usize) = (768, 32);

/// How long running requests may take after the node was asked to stop: as long as the longest deadline.
const DRAIN: Duration = DEADLINE_MAX;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{listener} listener {address}: {source}")]
pub struct BindError {
    listener: &'static str,
    address: SocketAddr,
    source: std::io::Error,
}

/// The two listeners, open but not yet answering.
pub struct Listeners {
    http: TcpListener,
    admin: TcpListener,
    addresses: (SocketAddr, SocketAddr),
}

impl Listeners {
    /// Opens both, before anything else is started: a taken port is the commonest mistake.
    ///
    /// # Errors
    /// When an address is taken or not this machine's.
    pub async fn bind(http: SocketAddr, admin: SocketAddr) -> Result<Self, BindError> {
        let bind = async |listener, address| {
            TcpListener::bind(address).await.map_err(|source| BindError { listener, address, source })
        };
        let (http_listener, admin_listener) = (bind("http", http).await?, bind("admin", admin).await?);
        let own = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
        let addresses = (own(&http_listener, http), own(&admin_listener, admin));
        Ok(Self { http: http_listener, admin: admin_listener, addresses })
    }

    /// Where callers reach the node; the port is the one that was chosen, where 0 was configured.
    pub fn http_address(&self) -> SocketAddr {
        self.addresses.0
    }

    /// Where operators reach the node.
    pub fn admin_address(&self) -> SocketAddr {
        self.addresses.1
    }

    /// Answers until `stop` resolves, then lets running requests end.
    pub async fn serve(self, gateway: Arc<Gateway>, stop: impl Future<Output = ()> + Clone + Send + 'static) {
        use axum::routing::{get, post, put};
        let mut http = axum::Router::new()
            .route("/livez", get(health::livez))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(health::metrics));
        if gateway.roles.contains(&Role::Gateway) {
            http = http
                .route("/v1/candidates:retrieve", post(retrieve::retrieve))
                .route("/v1/events:ingest", post(events::ingest))
                .route("/v1/ads/{id}", get(ads::get).put(ads::put).patch(ads::patch).delete(ads::delete))
                .route("/v1/ads/{id}/pause", post(ads::pause))
                .route("/v1/ads/{id}/resume", post(ads::resume))
                .route("/v1/users/{id}", get(users::get).delete(users::delete))
                .route("/v1/users/{id}/events", put(events::put))
                .route("/v1/users/{id}/demographics", put(users::put_demographics));
        }
        let admin = axum::Router::new()
            .route("/admin/refresh", post(admin::refresh))
            .route("/admin/ads", get(ads::page))
            .route("/admin/publish", post(admin::publish))
            .route("/admin/rollback", post(admin::roll_back))
            .route("/admin/status", get(admin::status));
        let finish = |router: axum::Router<Arc<Gateway>>| {
            router
                .fallback(problem::not_found)
                .method_not_allowed_fallback(problem::method_not_allowed)
                .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
                .with_state(gateway.clone())
        };
        let (http, admin) = (finish(http), finish(admin));
        let http_listener = listener::Limited::new(self.http, CONNECTIONS_MAX.0);
        let admin_listener = listener::Limited::new(self.admin, CONNECTIONS_MAX.1);
        let (stop_http, stop_admin) = (stop.clone(), stop);
        let drained = stop_http.clone();
        let serving = async {
            tokio::join!(
                axum::serve(http_listener, http).with_graceful_shutdown(stop_http).into_future(),
                axum::serve(admin_listener, admin).with_graceful_shutdown(stop_admin).into_future(),
            )
        };
        tokio::select! {
            // axum's serve never returns an error today; its signature allows one.
            ended = serving => {
                for error in [ended.0.err(), ended.1.err()].into_iter().flatten() {
                    tracing::error!(%error, "listener ended");
                }
            }
            // A caller that never finishes its request must not keep the node.
            () = async { drained.await; tokio::time::sleep(DRAIN).await } => {
                tracing::warn!("connections were cut off");
            }
        }
    }
}
