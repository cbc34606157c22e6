//! The Parquet file of a user partition: a row for each user, with everything that is kept of one.
//!
//! The schema is in `docs/data.md`. It is ours, not a data set's: a file has it exactly, whatever wrote it, so that what is put
//! back is what was there. Rows are in the order of the bytes of the ids, by which a user who is there twice is known.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::file::metadata::KeyValue;
use turret_retrieval::ids::{GenerationId, PartitionId, UserId};
use turret_retrieval::kept::KeptError;

mod reader;
mod rows;
mod writer;

pub use reader::PartitionReader;
pub use writer::PartitionWriter;

/// Users that are held in memory at once, by a reader or a writer: at most 170 KiB of a store, each.
pub const USERS_PER_BATCH: usize = 128;

/// The version of the schema and of the metadata.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "turret.users.format";
const PARTITION_KEY: &str = "turret.users.partition";
const PARTITIONS_KEY: &str = "turret.users.partitions";
const GENERATIONS_KEY: &str = "turret.users.generations";

/// What a file says of its partition, as metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionHeader {
    /// Which.
    pub partition: PartitionId,
    /// Of how many.
    pub partitions: u32,
    /// The generations whose snapshots it has imported.
    pub generations: Vec<GenerationId>,
}

/// Why a file of a partition is not written.
#[derive(Debug, thiserror::Error)]
pub enum PartitionWriteError {
    /// The disk refused. Retryable when it no longer does.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The Parquet writer refused; mostly for the disk, which it does not tell apart.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A user whom no reader would take.
    #[error("user {user}: {}: {source}", source.field())]
    Unsound {
        /// Whose.
        user: UserId,
        /// What is wrong.
        source: KeptError,
    },
    /// A user of another partition, whom no reader would take.
    #[error("user {user} belongs to partition {belongs} of {partitions}, and is in {partition}")]
    Elsewhere {
        /// Whose.
        user: UserId,
        /// Where it stands.
        partition: PartitionId,
        /// Where it belongs.
        belongs: PartitionId,
        /// How many partitions there are.
        partitions: u32,
    },
}

impl PartitionHeader {
    fn metadata(&self) -> Vec<KeyValue> {
        let ids: Vec<&str> = self.generations.iter().map(GenerationId::as_str).collect();
        let pair = |key: &str, value: String| KeyValue { key: key.to_owned(), value: Some(value) };
        vec![
            pair(FORMAT_KEY, FORMAT.to_string()),
            pair(PARTITION_KEY, self.partition.to_string()),
            pair(PARTITIONS_KEY, self.partitions.to_string()),
            pair(GENERATIONS_KEY, serde_json::json!(ids).to_string()),
        ]
    }

    /// Reads what [`metadata`](Self::metadata) wrote; an error says what is wrong with which key.
    fn of_metadata(metadata: &[KeyValue]) -> Result<Self, String> {
        let text = |key: &str| metadata.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
        let number = |key: &str| match text(key) {
            None => Err(format!("is no file of a user partition: its metadata has no {key}")),
            Some(text) => text.parse::<u32>().map_err(|_| format!("{key} is `{text}`, must be a number")),
        };
        let format = number(FORMAT_KEY)?;
        if format != FORMAT {
            return Err(format!("is of format {format} where {FORMAT} is read"));
        }
        let (partition, partitions) = (number(PARTITION_KEY)?, number(PARTITIONS_KEY)?);
        if partition >= partitions {
            return Err(format!("{PARTITION_KEY} is {partition}, must be below {PARTITIONS_KEY}, {partitions}"));
        }
        let listed = text(GENERATIONS_KEY).unwrap_or_default();
        let generations = serde_json::from_str(listed)
            .map_err(|error| format!("{GENERATIONS_KEY} is `{listed}`, must be a JSON list of ids: {error}"))?;
        Ok(Self { partition: PartitionId(partition), partitions, generations })
    }
}

/// The columns.
fn schema() -> SchemaRef {
    let list = |fields: Fields| DataType::List(Arc::new(element(fields)));
    Arc::new(Schema::new(vec![
        Field::new("user_id", DataType::Utf8, false),
        Field::new("age", DataType::UInt8, true),
        Field::new("country", DataType::Utf8, true),
        Field::new("gender", DataType::Utf8, true),
        Field::new("demographics_revision", DataType::UInt64, false),
        Field::new("log_revision", DataType::UInt64, false),
        Field::new("erasure_revision", DataType::UInt64, true),
        Field::new("erasure_watermark_ms", DataType::Int64, true),
        Field::new("events", list(event_fields()), false),
        Field::new("states", list(state_fields()), false),
    ]))
}

/// What a list is of: by the name that Parquet prescribes and other programs write.
fn element(fields: Fields) -> Field {
    Field::new("element", DataType::Struct(fields), false)
}

fn event_fields() -> Fields {
    Fields::from(vec![
        Field::new("item_id", DataType::Utf8, false),
        Field::new("event_type", DataType::Utf8, false),
        Field::new("timestamp_ms", DataType::Int64, false),
        Field::new("event_id", DataType::Utf8, true),
    ])
}

fn state_fields() -> Fields {
    Fields::from(vec![
        Field::new("encoder", DataType::Utf8, false),
        Field::new("made_at_ms", DataType::Int64, false),
        Field::new("covers_until_ms", DataType::Int64, false),
        Field::new("covers", DataType::UInt64, false),
        Field::new("dimension", DataType::UInt32, false),
        Field::new("precision", DataType::Utf8, false),
        Field::new("bytes", DataType::Binary, false),
    ])
}

#[cfg(test)]
mod tests;
