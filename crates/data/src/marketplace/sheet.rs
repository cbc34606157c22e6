//! Writing rows to a Parquet file, a row group at a time.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::GenerateError;
use super::taxonomy::Leaf;

/// Rows in a row group, and the most that are held in memory.
const GROUP_ROWS: usize = 65_536;
/// What the files say wrote them; without a version, so that a release does not change every byte.
const CREATED_BY: &str = "turret marketplace";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    OptionalText,
    Whole,
    OptionalWhole,
    Real,
    Reals,
    Words,
    /// Lists of structs of an id and a confidence.
    Interests,
}

/// One value of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    Text(&'a str),
    Whole(i64),
    Real(f32),
    Reals(&'a [f32]),
    Words(&'a [&'a str]),
    Interests(&'a [(Leaf, f32)]),
    Null,
}

enum Builder {
    Text(StringBuilder),
    Whole(Int64Builder),
    Real(Float32Builder),
    Reals(ListBuilder<Float32Builder>),
    Words(ListBuilder<StringBuilder>),
    Interests(ListBuilder<StructBuilder>),
}

/// A Parquet file that rows are added to.
pub(super) struct Sheet {
    path: PathBuf,
    schema: SchemaRef,
    columns: Vec<Builder>,
    rows: usize,
    writer: ArrowWriter<BufWriter<File>>,
}

impl Sheet {
    /// Begins a file that is not there yet.
    pub(super) fn create(path: &Path, columns: &[(&str, Type)]) -> Result<Self, GenerateError> {
        let fields: Vec<Field> = columns.iter().map(|(name, of)| of.field(name)).collect();
        let schema = Arc::new(Schema::new(fields));
        let file = File::create_new(path).map_err(|source| GenerateError::Io { path: path.to_owned(), source })?;
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let writer = ArrowWriter::try_new(BufWriter::new(file), Arc::clone(&schema), Some(properties))
            .map_err(|source| GenerateError::Parquet { path: path.to_owned(), source })?;
        let columns = columns.iter().map(|(_, of)| of.builder()).collect();
        Ok(Self { path: path.to_owned(), schema, columns, rows: 0, writer })
    }

    /// Adds a row, whose cells must be of the types of the columns.
    pub(super) fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), GenerateError> {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for every column");
        self.columns.iter_mut().zip(cells).for_each(|(column, cell)| column.add(cell));
        self.rows += 1;
        if self.rows == GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    /// Writes what is left and ends the file.
    pub(super) fn finish(mut self) -> Result<(), GenerateError> {
        if self.rows > 0 {
            self.write_group()?;
        }
        let Self { path, writer, .. } = self;
        let fault = |source| GenerateError::Parquet { path: path.clone(), source };
        let file = writer.into_inner().map_err(fault)?;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
        // The rename that follows makes the file visible for good, so its bytes must be on the disk.
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(|source| GenerateError::Io { path: path.clone(), source })
    }

    fn write_group(&mut self) -> Result<(), GenerateError> {
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Builder::finish).collect();
        self.rows = 0;
        let group = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .expect("the builders were made of the types of the schema, and required cells are never null");
        self.writer.write(&group).map_err(|source| GenerateError::Parquet { path: self.path.clone(), source })
    }
}

fn interest_fields() -> Fields {
    Fields::from(vec![Field::new("id", DataType::Utf8, false), Field::new("confidence", DataType::Float32, false)])
}

fn item_field(of: DataType) -> Field {
    Field::new("item", of, false)
}

impl Type {
    fn field(self, name: &str) -> Field {
        let list = |of| DataType::List(Arc::new(item_field(of)));
        match self {
            Self::Text => Field::new(name, DataType::Utf8, false),
            Self::OptionalText => Field::new(name, DataType::Utf8, true),
            Self::Whole => Field::new(name, DataType::Int64, false),
            Self::OptionalWhole => Field::new(name, DataType::Int64, true),
            Self::Real => Field::new(name, DataType::Float32, false),
            Self::Reals => Field::new(name, list(DataType::Float32), false),
            Self::Words => Field::new(name, list(DataType::Utf8), false),
            Self::Interests => Field::new(name, list(DataType::Struct(interest_fields())), false),
        }
    }

    fn builder(self) -> Builder {
        match self {
            Self::Text | Self::OptionalText => Builder::Text(StringBuilder::new()),
            Self::Whole | Self::OptionalWhole => Builder::Whole(Int64Builder::new()),
            Self::Real => Builder::Real(Float32Builder::new()),
            Self::Reals => {
                Builder::Reals(ListBuilder::new(Float32Builder::new()).with_field(item_field(DataType::Float32)))
            }
            Self::Words => {
                Builder::Words(ListBuilder::new(StringBuilder::new()).with_field(item_field(DataType::Utf8)))
            }
            Self::Interests => {
                let interests = StructBuilder::from_fields(interest_fields(), 0);
                Builder::Interests(
                    ListBuilder::new(interests).with_field(item_field(DataType::Struct(interest_fields()))),
                )
            }
        }
    }
}

impl Builder {
    fn add(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Text(column), Cell::Text(text)) => column.append_value(text),
            (Self::Text(column), Cell::Null) => column.append_null(),
            (Self::Whole(column), Cell::Whole(number)) => column.append_value(*number),
            (Self::Whole(column), Cell::Null) => column.append_null(),
            (Self::Real(column), Cell::Real(number)) => column.append_value(*number),
            (Self::Reals(column), Cell::Reals(numbers)) => {
                column.values().append_slice(numbers);
                column.append(true);
            }
            (Self::Words(column), Cell::Words(words)) => {
                words.iter().for_each(|word| column.values().append_value(word));
                column.append(true);
            }
            (Self::Interests(column), Cell::Interests(interests)) => {
                interests.iter().for_each(|(leaf, confidence)| add_interest(column.values(), *leaf, *confidence));
                column.append(true);
            }
            (_, cell) => unreachable!("{cell:?} is not of the type of its column"),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Whole(column) => Arc::new(column.finish()),
            Self::Real(column) => Arc::new(column.finish()),
            Self::Reals(column) => Arc::new(column.finish()),
            Self::Words(column) => Arc::new(column.finish()),
            Self::Interests(column) => Arc::new(column.finish()),
        }
    }
}

fn add_interest(interests: &mut StructBuilder, leaf: Leaf, confidence: f32) {
    const FIELDS: &str = "the fields are those of `interest_fields`";
    interests.field_builder::<StringBuilder>(0).expect(FIELDS).append_value(leaf.id());
    interests.field_builder::<Float32Builder>(1).expect(FIELDS).append_value(confidence);
    interests.append(true);
}
