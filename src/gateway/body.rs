//! Reading JSON bodies: every error names the field and the rule.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use serde::de::DeserializeOwned;

use super::problem::{Problem, body_rejected};

/// Reads `T` from a body.
///
/// # Errors
/// A problem that names the field, such as `context.subject.interests[0].confidence`.
pub(super) fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|rejection| body_rejected(&rejection))?;
    if body.is_empty() {
        return Err(Problem::invalid("body", "is empty; send a JSON object"));
    }
    // serde would take a list for the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid("body", "must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(&body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let rule = error.into_inner().to_string();
        // Of the root, serde's path is a lone dot; of a place that it had not yet read the name of, a question mark.
        let known = path.trim_end_matches(['.', '?']);
        Problem::invalid(if known.is_empty() { "body" } else { known }, rule)
    })?;
    json.end().map_err(|error| Problem::invalid("body", error.to_string()))?;
    Ok(value)
}
