//! The operators' listener: `POST /admin/refresh`, `GET /admin/status`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use turret_actors::protocol::{NodeStatus, RefreshStarted};

use super::Gateway;
use super::problem::Problem;

/// The cluster as one node sees it.
#[derive(Serialize)]
pub(super) struct ClusterStatus {
    /// The node that answers.
    node: String,
    /// Every configured node, in the order of the file.
    nodes: Vec<MemberStatus>,
}

#[derive(Serialize)]
struct MemberStatus {
    name: String,
    reachable: bool,
    #[serde(flatten)]
    status: Option<NodeStatus>,
}

pub(super) async fn status(State(gateway): State<Arc<Gateway>>) -> Json<ClusterStatus> {
    let member = async |name: &turret_retrieval::ids::NodeName| {
        let status = gateway.node.status_of(name).await;
        MemberStatus { name: name.to_string(), reachable: status.is_some(), status }
    };
    let nodes = futures_util::future::join_all(gateway.members.iter().map(member)).await;
    Json(ClusterStatus { node: gateway.node.name().to_string(), nodes })
}

/// Recomputes the states of users with new events; the run goes on after the answer, see the status.
pub(super) async fn refresh(
    State(gateway): State<Arc<Gateway>>,
) -> Result<(StatusCode, Json<RefreshStarted>), Problem> {
    match gateway.node.refresh().await {
        Ok(started) => Ok((StatusCode::ACCEPTED, Json(started))),
        Err(refusal) => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "control_unavailable", refusal.to_string());
            Err(problem.retry_after(1))
        }
    }
}
