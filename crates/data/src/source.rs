//! Where a data set lies, and how its files name what the schema names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use turret_retrieval::event::EventType;

/// Canonical column name -> the file's own.
pub(crate) type Columns = BTreeMap<String, String>;

/// A directory of Parquet files, and the mapping of their names to those of the schema.
///
/// A file that has no section is not read; without a mapping a section means a file and columns of the canonical names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// The directory that the files' names are relative to.
    pub dir: PathBuf,
    /// What users did.
    #[serde(default)]
    pub events: EventsFile,
    /// The catalogue; where absent, the items are those that events and ads name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemsFile>,
    /// The ads; where absent, every item is one under its own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ads: Option<AdsFile>,
    /// Demographics; where absent, all are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UsersFile>,
}

impl DataSource {
    /// The data set of canonical file and column names in `dir`: its events, and whichever other files are there.
    pub fn canonical(dir: &Path) -> Self {
        // A file that cannot even be looked for is left to the reader, which says why.
        let is_there = |file: &str| dir.join(file).try_exists().unwrap_or(true);
        let (items, ads, users) = (ItemsFile::default(), AdsFile::default(), UsersFile::default());
        Self {
            dir: dir.to_owned(),
            events: EventsFile::default(),
            items: is_there(&items.file).then_some(items),
            ads: is_there(&ads.file).then_some(ads),
            users: is_there(&users.file).then_some(users),
        }
    }
}

/// The events file, or directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsFile {
    /// Its name, `events.parquet` by default. Where it is a directory, the files in it whose names end in `.parquet`
    /// are read in the order of their names.
    pub file: String,
    /// Canonical column name -> the file's own.
    #[serde(deserialize_with = "event_columns")]
    pub columns: BTreeMap<String, String>,
    /// The file's word for an event type -> ours. Our own words need no entry.
    pub event_types: BTreeMap<String, EventType>,
    /// What numbers in `timestamp_ms` count; milliseconds where absent. Not for Arrow timestamps, which know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_unit: Option<TimeUnit>,
    /// Events before this are left out; in ms since 1970-01-01 UTC, written as `2017-11-24T16:00:00Z`. Needs times.
    #[serde(rename = "from", with = "instant", skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    /// Events from this on are left out; as `from_ms`.
    #[serde(rename = "until", with = "instant", skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

/// What a number counts that is a time since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds; what is below a millisecond is dropped.
    #[serde(rename = "us")]
    Microseconds,
}

/// What becomes of an item that has several rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepeatedIds {
    /// Each row after the first is a fault.
    #[default]
    Refuse,
    /// They are one item: it has the interests of all, and of anything else what the first row has that knows it.
    Join,
}

/// The items file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ItemsFile {
    /// Its name, `items.parquet` by default.
    pub file: String,
    /// Canonical column name -> the file's own.
    #[serde(deserialize_with = "item_columns")]
    pub columns: BTreeMap<String, String>,
    /// What becomes of an item that has several rows; refused by default.
    pub repeated_ids: RepeatedIds,
}

/// The ads file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdsFile {
    /// Its name, `ads.parquet` by default.
    pub file: String,
    /// Canonical column name -> the file's own; a name outside the schema is an attribute's.
    pub columns: BTreeMap<String, String>,
}

/// The users file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UsersFile {
    /// Its name, `users.parquet` by default.
    pub file: String,
    /// Canonical column name -> the file's own.
    #[serde(deserialize_with = "user_columns")]
    pub columns: BTreeMap<String, String>,
}

impl Default for EventsFile {
    fn default() -> Self {
        Self {
            file: "events.parquet".to_owned(),
            columns: Columns::new(),
            event_types: BTreeMap::new(),
            timestamp_unit: None,
            from_ms: None,
            until_ms: None,
        }
    }
}

impl Default for ItemsFile {
    fn default() -> Self {
        Self { file: "items.parquet".to_owned(), columns: Columns::new(), repeated_ids: RepeatedIds::Refuse }
    }
}

impl Default for AdsFile {
    fn default() -> Self {
        Self { file: "ads.parquet".to_owned(), columns: Columns::new() }
    }
}

impl Default for UsersFile {
    fn default() -> Self {
        Self { file: "users.parquet".to_owned(), columns: Columns::new() }
    }
}

/// The columns of the events file.
pub(crate) const EVENT_COLUMNS: &[&str] =
    &["user_id", "item_id", "event_type", "timestamp_ms", "position", "session_id", "event_id"];
/// The columns of the items file.
pub(crate) const ITEM_COLUMNS: &[&str] = &["item_id", "advertiser_id", "interests", "price", "title", "embedding"];
/// The columns of the users file.
pub(crate) const USER_COLUMNS: &[&str] = &["user_id", "age", "country", "gender"];

/// The first canonical name of `columns` that is none of `known`, in words.
pub(crate) fn unknown_column(columns: &Columns, known: &[&str]) -> Option<String> {
    let stray = columns.keys().find(|name| !known.contains(&name.as_str()))?;
    Some(format!("`{stray}` is not a column of the schema, which has {}", known.join(", ")))
}

fn known_columns<'de, D: Deserializer<'de>>(deserializer: D, known: &[&str]) -> Result<Columns, D::Error> {
    let columns = Columns::deserialize(deserializer)?;
    match unknown_column(&columns, known) {
        Some(rule) => Err(D::Error::custom(rule)),
        None => Ok(columns),
    }
}

fn event_columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Columns, D::Error> {
    known_columns(deserializer, EVENT_COLUMNS)
}

fn item_columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Columns, D::Error> {
    known_columns(deserializer, ITEM_COLUMNS)
}

fn user_columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Columns, D::Error> {
    known_columns(deserializer, USER_COLUMNS)
}

/// Times as text, such as `2017-11-24T16:00:00Z`.
mod instant {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};
    use serde::de::Error as _;
    use serde::ser::Error as _;

    pub(super) fn serialize<S: Serializer>(ms: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        match ms.map(Timestamp::from_millisecond).transpose() {
            Ok(Some(time)) => serializer.serialize_str(&time.to_string()),
            Ok(None) => serializer.serialize_none(),
            Err(error) => Err(S::Error::custom(error)),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse::<Timestamp>() {
            Ok(time) => Ok(Some(time.as_millisecond())),
            Err(_) => Err(D::Error::custom(format_args!("`{text}` is not a time such as 2017-11-24T16:00:00Z"))),
        }
    }
}

#[cfg(test)]
mod tests;
