//! The operators' listener: `POST /admin/refresh`, `/admin/publish`, `/admin/rollback`, and `GET /admin/status`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use turret_actors::protocol::{NodeStatus, Refusal};
use turret_retrieval::ids::GenerationId;

use super::Gateway;
use super::body::read;
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

/// How to refresh.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshQuery {
    /// Only counts.
    #[serde(default)]
    dry_run: bool,
}

/// For counting, which looks at every user.
const COUNT_TIMEOUT: Duration = Duration::from_secs(60);

/// Recomputes the states of users with new events; the run goes on after the answer, see the status. With `?dry_run=true`
/// only counts them: `{"users_dirty": 3}`.
pub(super) async fn refresh(
    State(gateway): State<Arc<Gateway>>,
    query: Result<Query<RefreshQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::invalid("query", rejection.body_text()))?;
    if query.dry_run {
        let mut users_dirty = 0;
        for by in gateway.node.retriever.table().encoders() {
            users_dirty += gateway.node.users.count_dirty(&by.encoder, COUNT_TIMEOUT).await?;
        }
        return Ok(Json(serde_json::json!({ "users_dirty": users_dirty })).into_response());
    }
    accepted(gateway.node.refresh().await)
}

/// What to publish.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishBody {
    /// A generation that lies where the node's own does.
    generation: GenerationId,
}

/// Has a generation take the place of the one that serves; what becomes of it is in the status.
pub(super) async fn publish(
    State(gateway): State<Arc<Gateway>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let PublishBody { generation } = read(body)?;
    accepted(gateway.node.publish(generation).await)
}

/// Has the generation before serve again.
pub(super) async fn roll_back(State(gateway): State<Arc<Gateway>>) -> Result<Response, Problem> {
    accepted(gateway.node.roll_back().await)
}

/// The answer to a command that goes on after it.
fn accepted<T: Serialize>(started: Result<T, Refusal>) -> Result<Response, Problem> {
    match started {
        Ok(started) => Ok((StatusCode::ACCEPTED, Json(started)).into_response()),
        Err(refusal @ Refusal::Conflict(_)) => Err(Problem::new(StatusCode::CONFLICT, "conflict", refusal.to_string())),
        Err(refusal) => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "control_unavailable", refusal.to_string());
            Err(problem.retry_after(1))
        }
    }
}
