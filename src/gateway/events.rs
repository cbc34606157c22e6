//! `PUT /v1/users/{id}/events`: new events of one user. `POST /v1/events:ingest`: of many, a line each.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde::{Deserialize, Serialize};
use turret_actors::clock::now_ms;
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EventId, ItemId, UserId};
use turret_store::{Appended, Change, Write, Written};

use super::Gateway;
use super::body::{bytes, read, read_line};
use super::problem::Problem;
use super::users::{UserPath, WRITE_TIMEOUT};

/// The most events of one user in one request.
const EVENTS_MAX: usize = 1_000;
/// The most lines of one ingestion.
const LINES_MAX: usize = 10_000;
/// How far ahead the sender's clock may be. An event of the far future would stay a user's latest for good.
const AHEAD_MS_MAX: i64 = 86_400_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsBody {
    events: Vec<Event>,
}

/// Answers when the events are on disk: `{"added": 2, "known": 0, "dropped": 0, "erased": 0}`.
pub(super) async fn put(
    State(gateway): State<Arc<Gateway>>,
    UserPath(user): UserPath,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Appended>, Problem> {
    let EventsBody { events } = read(body)?;
    if events.is_empty() || events.len() > EVENTS_MAX {
        return Err(Problem::invalid("events", format!("must hold 1 to {EVENTS_MAX} events, holds {}", events.len())));
    }
    let times = times();
    if let Some(i) = events.iter().position(|event| !times.contains(&event.timestamp_ms)) {
        return Err(Problem::invalid(format!("events[{i}].timestamp_ms"), TIME_RULE));
    }
    let written = gateway.node.users.write(user, Change::Append(events), WRITE_TIMEOUT).await?;
    Ok(Json(total([&written])))
}

/// An event with its user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user_id: UserId,
    item_id: ItemId,
    event_type: EventType,
    timestamp_ms: i64,
    #[serde(default)]
    event_id: Option<EventId>,
}

/// What became of an ingestion.
#[derive(Serialize)]
pub(super) struct Ingested {
    lines: usize,
    users: usize,
    #[serde(flatten)]
    events: Appended,
    /// Users whose records cannot be read; nothing of theirs was written, and sending it again does not help.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    user_id: UserId,
    why: String,
}

/// Newline-delimited JSON, an event a line; empty lines are passed over. Nothing is written where a line breaks a rule.
/// Answers when all events are on disk; a repeated ingestion changes nothing.
pub(super) async fn ingest(
    State(gateway): State<Arc<Gateway>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Ingested>, Problem> {
    let body = bytes(body)?;
    let times = times();
    let mut lines = 0;
    let mut by_user: BTreeMap<UserId, Vec<Event>> = BTreeMap::new();
    for (number, text) in body.split(|byte| *byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        lines += 1;
        if lines > LINES_MAX {
            return Err(Problem::invalid("body", format!("holds more than {LINES_MAX} lines")));
        }
        let Line { user_id, item_id, event_type, timestamp_ms, event_id } = read_line(text, number)?;
        if !times.contains(&timestamp_ms) {
            return Err(Problem::invalid(format!("lines[{number}].timestamp_ms"), TIME_RULE));
        }
        by_user.entry(user_id).or_default().push(Event { item_id, event_type, timestamp_ms, event_id });
    }
    if lines == 0 {
        return Err(Problem::invalid("body", "is empty; send an event a line"));
    }
    let users = by_user.len();
    let write = |(user, events)| Write { user, change: Change::Append(events) };
    let outcomes = gateway.node.users.write_all(by_user.into_iter().map(write).collect(), WRITE_TIMEOUT).await?;
    let events = total(outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()));
    let failed = outcomes.into_iter().filter_map(|(user_id, outcome)| {
        let why = outcome.err()?.to_string();
        Some(Failed { user_id, why })
    });
    Ok(Json(Ingested { lines, users, events, failed: failed.collect() }))
}

const TIME_RULE: &str = "is not in milliseconds since 1970, or more than a day ahead";

fn times() -> RangeInclusive<i64> {
    0..=now_ms().saturating_add(AHEAD_MS_MAX)
}

fn total<'a>(written: impl IntoIterator<Item = &'a Written>) -> Appended {
    let mut total = Appended::default();
    for written in written {
        if let Written::Appended(appended) = written {
            total.added += appended.added;
            total.known += appended.known;
            total.dropped += appended.dropped;
            total.erased += appended.erased;
        }
    }
    total
}
