//! `POST /v1/candidates:retrieve`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use turret_actors::retrieve::{Answer, RetrieveRequest};
use turret_retrieval::budget::{Budget, DEADLINE_MAX};
use turret_retrieval::coverage::Coverage;
use turret_retrieval::filter::Filter;
use turret_retrieval::generation::Manifest;
use turret_retrieval::item::check_interests;
use turret_retrieval::topk::K_MAX;

use super::Gateway;
use super::body::read;
use super::problem::Problem;

mod shape;

use shape::{AnswerBody, Explain, RetrieveBody};

/// The longest deadline accepted, in milliseconds.
const DEADLINE_MS_MAX: u64 = DEADLINE_MAX.as_millis() as u64;
/// The longest search query accepted, in bytes.
const QUERY_BYTES_MAX: usize = 1_024;

pub(super) async fn retrieve(State(gateway): State<Arc<Gateway>>, body: Result<Bytes, BytesRejection>) -> Response {
    let arrival = Instant::now();
    let (outcome, response) = match answer(&gateway, arrival, body).await {
        Ok((outcome, answer)) => (outcome, Json(answer).into_response()),
        Err(problem) => {
            let response = problem.into_response();
            let is_callers = response.status().is_client_error();
            (if is_callers { "rejected" } else { "failed" }, response)
        }
    };
    gateway.metrics.requests.with_label_values(&[outcome]).inc();
    gateway.metrics.request_duration.with_label_values(&[outcome]).observe(arrival.elapsed().as_secs_f64());
    response
}

async fn answer(
    gateway: &Gateway,
    arrival: Instant,
    body: Result<Bytes, BytesRejection>,
) -> Result<(&'static str, AnswerBody), Problem> {
    let body: RetrieveBody = read(body)?;
    // From here on one generation, whatever is published meanwhile.
    let pinned = gateway.node.retriever.pin();
    let request = validate(&body, pinned.manifest(), arrival, gateway.deadline_ms)?;
    let answer = gateway.node.retriever.retrieve(pinned, request).await?;
    let outcome = outcome(&answer);
    let coverage = answer.coverage.clone();
    let answer = AnswerBody::new(&body, answer, arrival.elapsed());
    check_coverage(body.min_coverage, &coverage, &answer)?;
    Ok((outcome, answer))
}

fn outcome(answer: &Answer) -> &'static str {
    use turret_retrieval::tier::Tier;
    match (answer.coverage.is_full() && answer.user_state.reason.is_none(), answer.user_state.tier) {
        (false, _) => "partial",
        (true, Tier::Cold) => "cold",
        (true, Tier::Fresh | Tier::Stale | Tier::ContextOnly | Tier::Demographic) => "full",
    }
}

fn check_coverage(min: Option<f64>, coverage: &Coverage, answer: &AnswerBody) -> Result<(), Problem> {
    let Some(min) = min.filter(|min| coverage.estimated_recall < *min) else { return Ok(()) };
    let detail = format!("coverage {:.3} is below the asked minimum {min}", coverage.estimated_recall);
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "coverage_too_low", detail).retry_after(1);
    let mut fields = serde_json::to_value(answer).unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        // `status` of a problem is the HTTP status.
        fields.remove("status");
    }
    Err(problem.with_answer(fields))
}

/// Checks everything that the types could not.
fn validate(
    body: &RetrieveBody,
    manifest: &Manifest,
    arrival: Instant,
    deadline_ms: u64,
) -> Result<RetrieveRequest, Problem> {
    if !(1..=K_MAX as u64).contains(&body.k) {
        return Err(Problem::invalid("k", format!("{} is not in 1..={K_MAX}", body.k)));
    }
    let deadline_ms = body.deadline_ms.unwrap_or(deadline_ms);
    if !(1..=DEADLINE_MS_MAX).contains(&deadline_ms) {
        return Err(Problem::invalid("deadline_ms", format!("{deadline_ms} is not in 1..={DEADLINE_MS_MAX}")));
    }
    if let Some(min) = body.min_coverage.filter(|min| !(0.0..=1.0).contains(min)) {
        return Err(Problem::invalid("min_coverage", format!("{min} is not in 0..=1")));
    }
    if let Some(context) = &body.context {
        if let Some(subject) = &context.subject {
            check_interests(&subject.interests)
                .map_err(|error| Problem::invalid("context.subject.interests", error.to_string()))?;
        }
        if context.query.as_ref().is_some_and(|query| query.len() > QUERY_BYTES_MAX) {
            return Err(Problem::invalid("context.query", format!("is longer than {QUERY_BYTES_MAX} bytes")));
        }
    }
    body.demographics
        .check()
        .map_err(|error| Problem::invalid(format!("demographics.{}", error.field()), error.to_string()))?;
    let filter = body
        .filter
        .as_ref()
        .map(|json| Filter::from_json(json, &manifest.attributes))
        .transpose()
        .map_err(|error| Problem::filter(&error))?;
    if let Some(crowding) = &body.crowding {
        crowding.check(&manifest.attributes).map_err(|error| Problem::invalid(error.field(), error.to_string()))?;
    }
    let max_state_age_ms =
        body.max_state_age_s.map(|seconds| i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX));
    Ok(RetrieveRequest {
        user: body.user_id.clone(),
        context: body.context.clone(),
        demographics: body.demographics.clone(),
        filter,
        crowding: body.crowding.clone(),
        k: body.k as usize,
        budget: Budget::new(arrival, Duration::from_millis(deadline_ms)),
        max_state_age_ms,
        compares_without_context: body.explain.contains(&Explain::Scores),
        min_coverage: body.min_coverage,
    })
}
