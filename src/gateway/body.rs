//! Reading JSON bodies: every error names the field and the rule.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use serde::de::DeserializeOwned;

use super::problem::{Problem, body_rejected};

/// The bytes of a body.
///
/// # Errors
/// When it is too large, or could not be received.
pub(super) fn bytes(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|rejection| body_rejected(&rejection))
}

/// Reads `T` from a body.
///
/// # Errors
/// A problem that names the field, such as `context.subject.interests[0].confidence`.
pub(super) fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = bytes(body)?;
    if body.is_empty() {
        return Err(Problem::invalid("body", "is empty; send a JSON object"));
    }
    parse(&body, "body", "")
}

/// Reads `T` from the line `number` of a body, counted from 0.
///
/// # Errors
/// A problem that names the line and the field, such as `lines[2].item_id`.
pub(super) fn read_line<T: DeserializeOwned>(line: &[u8], number: usize) -> Result<T, Problem> {
    let whole = format!("lines[{number}]");
    parse(line, &whole, &format!("{whole}."))
}

fn parse<T: DeserializeOwned>(text: &[u8], whole: &str, prefix: &str) -> Result<T, Problem> {
    // serde would take a list for the fields in their order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid(whole, "must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let rule = error.into_inner().to_string();
        // Of the root, serde's path is a lone dot; of a place that it had not yet read the name of, a question mark.
        let known = path.trim_end_matches(['.', '?']);
        Problem::invalid(if known.is_empty() { whole.to_owned() } else { format!("{prefix}{known}") }, rule)
    })?;
    json.end().map_err(|error| Problem::invalid(whole, error.to_string()))?;
    Ok(value)
}
