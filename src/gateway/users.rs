//! `/v1/users/{id}`: what is known of a user, and its end. `/v1/users/{id}/demographics`: age, country and gender.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde::Serialize;
use turret_actors::clock::now_ms;
use turret_actors::protocol::{Trace, Traces};
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::tier::{History, Tier};
use turret_retrieval::user::Demographics;
use turret_store::{Change, Erasure, ErasureMark, Profile, StateProfile, Written};

use super::Gateway;
use super::body::read;
use super::problem::Problem;

/// For the flush, on whichever node holds the user.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// For reading snapshots that may be gigabytes.
const TRACES_TIMEOUT: Duration = Duration::from_secs(30);

/// The user that a path names.
pub(super) struct UserPath(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for UserPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(user) = path.map_err(|_| Problem::invalid("user_id", "must be UTF-8"))?;
        UserId::new(&user).map(Self).map_err(|error| Problem::invalid("user_id", error.to_string()))
    }
}

/// What is known of a user.
#[derive(Serialize)]
pub(super) struct Known {
    user_id: UserId,
    /// Whether there are events or demographics.
    known: bool,
    /// What a retrieval without a context would be.
    tier: Tier,
    history: History,
    /// That of the encoder that serves.
    state: Option<OfEncoder>,
    /// Those of other encoders, which no retrieval reads.
    other_states: Vec<OfEncoder>,
    demographics: Demographics,
    events: Events,
    erased: Option<ErasureMark>,
}

#[derive(Serialize)]
struct OfEncoder {
    age_s: i64,
    #[serde(flatten)]
    state: StateProfile,
}

#[derive(Serialize)]
struct Events {
    kept: u32,
    oldest_ms: Option<i64>,
    latest_ms: Option<i64>,
}

/// Somebody of whom nothing is known is no error: that is a tier as well.
pub(super) async fn get(State(gateway): State<Arc<Gateway>>, UserPath(user): UserPath) -> Result<Json<Known>, Problem> {
    let profile = gateway.node.users.profile(&user, READ_TIMEOUT).await?;
    let serving = gateway.node.retriever.table().manifest.versions.encoder.clone();
    Ok(Json(known(user, profile, &serving, now_ms())))
}

fn known(user_id: UserId, profile: Option<Profile>, serving: &EncoderVersion, now_ms: i64) -> Known {
    let profile = profile.unwrap_or_default();
    let described = !profile.demographics.is_unknown();
    let with_age = |state: StateProfile| OfEncoder { age_s: (now_ms - state.made_at_ms).max(0) / 1_000, state };
    let (own, others): (Vec<_>, Vec<_>) = profile.states.into_iter().partition(|state| state.encoder == *serving);
    let history = own.first().map_or(History::None, |state| match state.is_current {
        true => History::Fresh,
        false => History::Stale,
    });
    Known {
        user_id,
        known: described || profile.events > 0,
        tier: Tier::of(history, false, described),
        history,
        state: own.into_iter().next().map(with_age),
        other_states: others.into_iter().map(with_age).collect(),
        demographics: profile.demographics,
        events: Events { kept: profile.events, oldest_ms: profile.oldest_ms, latest_ms: profile.latest_ms },
        erased: profile.erased,
    }
}

/// When demographics were set.
#[derive(Serialize)]
pub(super) struct Described {
    revision: u64,
}

/// Replaces what was known; a field that is left out is unknown from now on.
pub(super) async fn put_demographics(
    State(gateway): State<Arc<Gateway>>,
    UserPath(user): UserPath,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Described>, Problem> {
    let demographics: Demographics = read(body)?;
    demographics.check().map_err(|error| Problem::invalid(error.field(), error.to_string()))?;
    match gateway.node.users.write(user, Change::Describe(demographics), WRITE_TIMEOUT).await? {
        Written::Described(revision) => Ok(Json(Described { revision: revision.bits() })),
        Written::Appended(_) | Written::Erased(_) => Err(Problem::confused()),
    }
}

/// What an erasure removed, and what it could not.
#[derive(Serialize)]
pub(super) struct Receipt {
    user_id: UserId,
    revision: u64,
    erased_at_ms: i64,
    /// Events of this time and before are ignored from now on.
    watermark_ms: i64,
    removed: Removed,
    /// Snapshots of generations that still hold the user, on the node that held the user's state.
    traces: Vec<Trace>,
    /// Where traces could not be looked for, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    traces_unknown: Option<String>,
}

#[derive(Serialize)]
struct Removed {
    events: u32,
    states: Vec<EncoderVersion>,
    demographics: bool,
}

/// Erases a user: acknowledged when it is on disk, with a receipt. Somebody unknown leaves the same mark.
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    UserPath(user): UserPath,
) -> Result<Json<Receipt>, Problem> {
    let users = &gateway.node.users;
    let Written::Erased(erasure) = users.write(user.clone(), Change::Erase, WRITE_TIMEOUT).await? else {
        return Err(Problem::confused());
    };
    let Erasure { revision, watermark_ms, events, states, demographics } = erasure;
    let (traces, traces_unknown) = match users.traces(&user, TRACES_TIMEOUT).await {
        Ok(Traces { found, unknown }) => (found, unknown),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Ok(Json(Receipt {
        user_id: user,
        revision: revision.bits(),
        erased_at_ms: revision.at_ms(),
        watermark_ms,
        removed: Removed { events, states, demographics },
        traces,
        traces_unknown,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(encoder: u64, is_current: bool) -> Profile {
        let state = StateProfile { encoder: EncoderVersion::from(encoder), made_at_ms: 5_000, is_current, bytes: 128 };
        Profile {
            demographics: Demographics::default(),
            events: 3,
            oldest_ms: Some(1),
            latest_ms: Some(3),
            states: vec![state],
            erased: None,
        }
    }

    fn judged(profile: Option<Profile>) -> (bool, History, Tier) {
        let known = known(UserId::from(1), profile, &EncoderVersion::from(1), 8_500);
        (known.known, known.history, known.tier)
    }

    #[test]
    fn a_user_is_as_personal_as_the_state_that_serves() {
        assert_eq!(judged(Some(profile(1, true))), (true, History::Fresh, Tier::Fresh));
        assert_eq!(judged(Some(profile(1, false))), (true, History::Stale, Tier::Stale));
        assert_eq!(judged(Some(profile(2, true))), (true, History::None, Tier::Cold));
        assert_eq!(judged(None), (false, History::None, Tier::Cold));
        let described = Profile {
            demographics: Demographics { age: Some(30), ..Demographics::default() },
            events: 0,
            ..profile(2, true)
        };
        assert_eq!(judged(Some(described)), (true, History::None, Tier::Demographic));
        let age_s =
            known(UserId::from(1), Some(profile(1, true)), &EncoderVersion::from(1), 8_500).state.unwrap().age_s;
        assert_eq!(age_s, 3);
    }
}
