//! Writing users to the file of their partition.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, Int64Builder, ListBuilder, RecordBatch, StringBuilder, StructBuilder,
    UInt8Builder, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::Fields;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use turret_retrieval::event::Event;
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::{EventId, UserId};
use turret_retrieval::kept::{KeptUser, StoredState};

use super::{PartitionHeader, PartitionWriteError, USERS_PER_BATCH, element, event_fields, schema, state_fields};

/// Bytes of a row group, which the writer holds in memory, as they will be in the file.
const GROUP_BYTES: usize = 32 << 20;
/// What the files say wrote them; without a version, so that a release does not change every byte.
const CREATED_BY: &str = "turret users";

/// A file of a partition that users are added to.
pub struct PartitionWriter {
    path: PathBuf,
    header: PartitionHeader,
    columns: Columns,
    last: Option<UserId>,
    writer: ArrowWriter<BufWriter<File>>,
}

impl PartitionWriter {
    /// Begins the file at `path`, in the place of what is there. The same users give the same bytes.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path, header: PartitionHeader) -> Result<Self, PartitionWriteError> {
        // Values that are hardly ever the same twice are not worth a dictionary.
        let values = ["states", "list", "element", "bytes"].map(str::to_owned).to_vec();
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_column_dictionary_enabled(ColumnPath::new(values), false)
            .set_key_value_metadata(Some(header.metadata()))
            .build();
        let file = File::create(path).map_err(|source| PartitionWriteError::Io { path: path.to_owned(), source })?;
        let writer = ArrowWriter::try_new(BufWriter::new(file), schema(), Some(properties))
            .map_err(|source| PartitionWriteError::Parquet { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), header, columns: Columns::new(), last: None, writer })
    }

    /// Adds a user.
    ///
    /// # Errors
    /// When the file cannot be written, or when no reader would take the user.
    ///
    /// # Panics
    /// When the id does not follow the one before, in the order of their bytes.
    pub fn append(&mut self, user: &KeptUser) -> Result<(), PartitionWriteError> {
        assert!(self.last.as_ref().is_none_or(|last| *last < user.user), "users come in the order of their ids");
        user.check().map_err(|source| PartitionWriteError::Unsound { user: user.user.clone(), source })?;
        let PartitionHeader { partition, partitions, .. } = self.header;
        let belongs = partition_of(&user.user, partitions);
        if belongs != partition {
            let user = user.user.clone();
            return Err(PartitionWriteError::Elsewhere { user, partition, belongs, partitions });
        }
        self.columns.add(user);
        self.last = Some(user.user.clone());
        if self.columns.user_id.len() >= USERS_PER_BATCH { self.write_batch() } else { Ok(()) }
    }

    /// Writes what is left, ends the file and flushes it to the disk. Returns how long it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<u64, PartitionWriteError> {
        self.write_batch()?;
        let Self { path, writer, .. } = self;
        let file = writer.into_inner().map_err(|source| PartitionWriteError::Parquet { path: path.clone(), source })?;
        let flushed = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| {
            file.sync_all()?;
            Ok(file.metadata()?.len())
        });
        flushed.map_err(|source| PartitionWriteError::Io { path, source })
    }

    fn write_batch(&mut self) -> Result<(), PartitionWriteError> {
        let batch = RecordBatch::try_new(schema(), self.columns.finish())
            .expect("the builders were made of the types of the schema, and required cells are never null");
        self.writer.write(&batch).map_err(|source| PartitionWriteError::Parquet { path: self.path.clone(), source })
    }
}

/// The columns of the rows that are not written yet, in the order of the schema.
pub(super) struct Columns {
    user_id: StringBuilder,
    age: UInt8Builder,
    country: StringBuilder,
    gender: StringBuilder,
    demographics_revision: UInt64Builder,
    log_revision: UInt64Builder,
    erasure_revision: UInt64Builder,
    erasure_watermark_ms: Int64Builder,
    events: ListBuilder<StructBuilder>,
    states: ListBuilder<StructBuilder>,
}

impl Columns {
    pub(super) fn new() -> Self {
        let list = |fields: Fields| {
            ListBuilder::new(StructBuilder::from_fields(fields.clone(), 0)).with_field(element(fields))
        };
        Self {
            user_id: StringBuilder::new(),
            age: UInt8Builder::new(),
            country: StringBuilder::new(),
            gender: StringBuilder::new(),
            demographics_revision: UInt64Builder::new(),
            log_revision: UInt64Builder::new(),
            erasure_revision: UInt64Builder::new(),
            erasure_watermark_ms: Int64Builder::new(),
            events: list(event_fields()),
            states: list(state_fields()),
        }
    }

    pub(super) fn add(&mut self, user: &KeptUser) {
        self.user_id.append_value(user.user.as_str());
        self.age.append_option(user.demographics.age);
        self.country.append_option(user.demographics.country.as_deref());
        self.gender.append_option(user.demographics.gender.as_deref());
        self.demographics_revision.append_value(user.demographics_at.bits());
        self.log_revision.append_value(user.log_at.bits());
        self.erasure_revision.append_option(user.erased.map(|erased| erased.at.bits()));
        self.erasure_watermark_ms.append_option(user.erased.map(|erased| erased.watermark_ms));
        user.events.iter().for_each(|event| add_event(self.events.values(), event));
        self.events.append(true);
        user.states.iter().for_each(|state| add_state(self.states.values(), state));
        self.states.append(true);
    }

    pub(super) fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.user_id.finish()),
            Arc::new(self.age.finish()),
            Arc::new(self.country.finish()),
            Arc::new(self.gender.finish()),
            Arc::new(self.demographics_revision.finish()),
            Arc::new(self.log_revision.finish()),
            Arc::new(self.erasure_revision.finish()),
            Arc::new(self.erasure_watermark_ms.finish()),
            Arc::new(self.events.finish()),
            Arc::new(self.states.finish()),
        ]
    }
}

fn add_event(events: &mut StructBuilder, event: &Event) {
    field::<StringBuilder>(events, 0).append_value(event.item_id.as_str());
    field::<StringBuilder>(events, 1).append_value(event.event_type.name());
    field::<Int64Builder>(events, 2).append_value(event.timestamp_ms);
    field::<StringBuilder>(events, 3).append_option(event.event_id.as_ref().map(EventId::as_str));
    events.append(true);
}

fn add_state(states: &mut StructBuilder, state: &StoredState) {
    field::<StringBuilder>(states, 0).append_value(state.encoder.as_str());
    field::<Int64Builder>(states, 1).append_value(state.made_at_ms);
    field::<Int64Builder>(states, 2).append_value(state.covers_until_ms);
    field::<UInt64Builder>(states, 3).append_value(state.covers.bits());
    field::<UInt32Builder>(states, 4).append_value(state.sequence.dimension() as u32);
    field::<StringBuilder>(states, 5).append_value(state.sequence.precision().name());
    field::<BinaryBuilder>(states, 6).append_value(state.sequence.bytes());
    states.append(true);
}

fn field<B: ArrayBuilder>(of: &mut StructBuilder, position: usize) -> &mut B {
    of.field_builder(position).expect("the fields are those of the schema")
}
