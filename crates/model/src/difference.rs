//! The first difference between what was and what is, told to a person.

use serde_json::Value;

/// The first thing in which two values differ: its path, and what it is in each.
pub(crate) fn differ(path: &str, theirs: &Value, ours: &Value) -> Option<(String, String, String)> {
    let (Value::Object(theirs), Value::Object(ours)) = (theirs, ours) else {
        return (theirs != ours).then(|| (path.to_owned(), theirs.to_string(), ours.to_string()));
    };
    let absent = Value::String("absent".to_owned());
    let keys = ours.keys().chain(theirs.keys().filter(|key| !ours.contains_key(*key)));
    keys.into_iter().find_map(|key| {
        differ(&format!("{path}.{key}"), theirs.get(key).unwrap_or(&absent), ours.get(key).unwrap_or(&absent))
    })
}
