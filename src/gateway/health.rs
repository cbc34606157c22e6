//! `GET /livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder, TextEncoder};

use super::Gateway;
use super::problem::Problem;

/// The process answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Everything placed on this node serves.
pub(super) async fn readyz(State(gateway): State<Arc<Gateway>>) -> Result<&'static str, Problem> {
    let is_ready = gateway.node.is_ready();
    if is_ready {
        return Ok("ready\n");
    }
    let detail = format!("node {} is loading, or has lost an actor that is being restarted", gateway.node.name());
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail))
}

/// The text format of Prometheus.
pub(super) async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    gateway.metrics.ready.set(i64::from(gateway.node.is_ready()));
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&gateway.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics_failed", error.to_string()).into_response()
        }
    }
}
