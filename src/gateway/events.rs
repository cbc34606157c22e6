//! `PUT /v1/users/{id}/events`: new events of one user.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use serde::Deserialize;
use turret_actors::protocol::{AppendAsk, Appended};
use turret_retrieval::event::Event;
use turret_retrieval::ids::UserId;

use super::Gateway;
use super::body::read;
use super::problem::Problem;

/// The most events in one request.
const EVENTS_MAX: usize = 1_000;
/// How far ahead the sender's clock may be. An event of the far future would stay a user's latest for good.
const AHEAD_MS_MAX: i64 = 86_400_000;
/// For the flush, on whichever node holds the user.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsBody {
    events: Vec<Event>,
}

/// Answers when the events are on disk: `{"added": 2, "known": 0, "dropped": 0}`.
pub(super) async fn put(
    State(gateway): State<Arc<Gateway>>,
    user: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Appended>, Problem> {
    let Path(user) = user.map_err(|_| Problem::invalid("user_id", "must be UTF-8"))?;
    let user = UserId::new(&user).map_err(|error| Problem::invalid("user_id", error.to_string()))?;
    let EventsBody { events } = read(body)?;
    if events.is_empty() || events.len() > EVENTS_MAX {
        return Err(Problem::invalid("events", format!("must hold 1 to {EVENTS_MAX} events, holds {}", events.len())));
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(i64::MAX, |since| since.as_millis() as i64);
    let times = 0..=now_ms.saturating_add(AHEAD_MS_MAX);
    if let Some(i) = events.iter().position(|event| !times.contains(&event.timestamp_ms)) {
        let rule = "is not in milliseconds since 1970, or more than a day ahead";
        return Err(Problem::invalid(format!("events[{i}].timestamp_ms"), rule));
    }
    Ok(Json(gateway.node.retriever.append(AppendAsk { user, events }, WRITE_TIMEOUT).await?))
}
