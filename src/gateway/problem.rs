//! Errors as `application/problem+json` (RFC 9457), and the one table from refusal to status.

use std::num::NonZeroU32;

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use turret_actors::retrieve::Rejection;
use turret_actors::users::Unavailable;
use turret_retrieval::filter::FilterError;

/// One clear error: a stable code, and where it applies the field and the rule it broke.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    status: u16,
    code: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Where in a filter that is a text: the character, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<NonZeroU32>,
    /// Fields of an answer that was refused for its coverage.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    answer: Option<Box<serde_json::Value>>,
    #[serde(skip)]
    retry_after_s: Option<u32>,
}

/// A problem with what follows from its code and status.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(flatten)]
    problem: &'a Problem,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: String) -> Self {
        let (field, rule, column, answer, retry_after_s) = (None, None, None, None, None);
        Self { status: status.as_u16(), code, detail, field, rule, column, answer, retry_after_s }
    }

    /// A request that breaks a rule.
    pub(super) fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Self {
        let (field, rule) = (field.into(), rule.into());
        let detail = if field.is_empty() { rule.clone() } else { format!("{field}: {rule}") };
        let problem = Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail);
        Self { field: Some(field).filter(|field| !field.is_empty()), rule: Some(rule), ..problem }
    }

    /// A filter that breaks a rule; of one that is a text the rule and a member of its own say the column.
    pub(super) fn filter(error: &FilterError) -> Self {
        let column = error.column();
        let rule = column.map_or_else(|| error.rule.to_string(), |column| format!("column {column}: {}", error.rule));
        let column = column.and_then(|column| u32::try_from(column).ok()).and_then(NonZeroU32::new);
        Self { column, ..Self::invalid(error.field(), rule) }
    }

    /// A partition answered what it was not asked.
    pub(super) fn confused() -> Self {
        let detail = "the partition answered another question".to_owned();
        Self::new(StatusCode::BAD_GATEWAY, "partition_confused", detail)
    }

    /// Carries the fields of the answer that was not complete enough.
    pub(super) fn with_answer(self, answer: serde_json::Value) -> Self {
        Self { answer: Some(Box::new(answer)), ..self }
    }

    pub(super) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Body {
            kind: format!("urn:turret:problem:{}", self.code),
            title: status.canonical_reason().unwrap_or("Error"),
            problem: &self,
        };
        let mut response = (status, axum::Json(body)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let detail = rejection.to_string();
        match rejection {
            Rejection::Overloaded => Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail).retry_after(1),
            Rejection::DeadlineExceeded { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", detail),
            Rejection::NoInference { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_inference", detail).retry_after(1)
            }
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "partition_unavailable", unavailable.to_string()).retry_after(1)
    }
}

/// What was wrong with reading a body.
pub(super) fn body_rejected(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let rule = format!("is larger than {} bytes", super::BODY_BYTES_MAX);
        return Problem {
            field: Some("body".to_owned()),
            rule: Some(rule.clone()),
            ..Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("body: {rule}"))
        };
    }
    Problem::invalid("body", "could not be read")
}

pub(super) async fn not_found(uri: axum::http::Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {}", uri.path()))
}

pub(super) async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
