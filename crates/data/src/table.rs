//! One Parquet file: opening it, finding its columns, walking its rows.

use std::error::Error;
use std::fs::File;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use crate::columns::{IdArray, Kind, NumberArray, WholeArray};
use crate::fault::{At, Faults, ReadError};
use crate::interests::InterestArray;
use crate::lists::Lists;
use crate::progress::Counter;
use crate::source::Columns;

/// The most rows in one file, so that ids of two files are numbered within `u32`.
pub(crate) const ROWS_MAX: u64 = (1 << 31) - 1;

/// Rows decoded at once; wide enough to amortise the decoding, narrow enough for embeddings.
const BATCH_ROWS: usize = 16_384;

/// Whether a file must have a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Required,
    /// May be absent, except where the mapping names it.
    Optional,
}

/// A file that has been opened and whose columns are being chosen.
pub(crate) struct Table<'s> {
    pub(crate) file: &'s str,
    mapping: &'s Columns,
    handle: File,
    metadata: ArrowReaderMetadata,
    chosen: Vec<usize>,
}

/// A column of a file, by its name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    position: usize,
}

impl<'s> Table<'s> {
    /// Opens `dir`/`file`; `None` where it cannot be read at all, which is a fault.
    pub(crate) fn open(
        dir: &Path,
        file: &'s str,
        mapping: &'s Columns,
        faults: &mut Faults,
    ) -> Result<Option<Self>, ReadError> {
        match open(&dir.join(file)) {
            Ok((handle, metadata)) => Ok(Some(Self { file, mapping, handle, metadata, chosen: Vec::new() })),
            Err(rule) => {
                faults.add(At::file(file), rule)?;
                Ok(None)
            }
        }
    }

    /// How many rows the file says it has; at most [`ROWS_MAX`].
    pub(crate) fn rows(&self) -> u64 {
        self.metadata.metadata().file_metadata().num_rows().unsigned_abs()
    }

    /// The names and types of all columns.
    pub(crate) fn schema(&self) -> impl Iterator<Item = (&str, &DataType)> {
        self.metadata.schema().fields().iter().map(|field| (field.name().as_str(), field.data_type()))
    }

    /// The canonical names that are mapped.
    pub(crate) fn mapped_canonicals(&self) -> impl Iterator<Item = &str> {
        self.mapping.keys().map(String::as_str)
    }

    /// The names in the file that something is mapped to.
    pub(crate) fn mapped_names(&self) -> impl Iterator<Item = &str> {
        self.mapping.values().map(String::as_str)
    }

    /// The file's name for the column that the schema calls `canonical`.
    pub(crate) fn name_of<'a>(&'a self, canonical: &'a str) -> &'a str {
        self.mapping.get(canonical).map_or(canonical, String::as_str)
    }

    /// Chooses the column that the schema calls `canonical`; `None` where it is absent or of a wrong type.
    pub(crate) fn choose(
        &mut self,
        canonical: &str,
        kind: Kind,
        need: Need,
        faults: &mut Faults,
    ) -> Result<Option<Column>, ReadError> {
        let name = self.name_of(canonical).to_owned();
        let at = At::column(self.file, &name);
        let fields = self.metadata.schema().fields();
        let mut positions = (0..fields.len()).filter(|position| *fields[*position].name() == name);
        let Some(position) = positions.next() else {
            if let Some(mapped) = self.mapping.get(canonical) {
                faults.add(at, format_args!("is missing, though `{canonical}` is mapped to `{mapped}`"))?;
            } else if need == Need::Required {
                faults.add(at, "is missing, and required")?;
            }
            return Ok(None);
        };
        if positions.next().is_some() {
            faults.add(at, "is there twice")?;
            return Ok(None);
        }
        let found = fields[position].data_type();
        if !kind.accepts(found) {
            faults.add(at, format_args!("is {found}, must be {}", kind.expected()))?;
            return Ok(None);
        }
        self.chosen.push(position);
        Ok(Some(Column { name, position }))
    }

    /// Whether `column` holds Arrow timestamps, which know their unit.
    pub(crate) fn is_timestamp(&self, column: &Column) -> bool {
        matches!(self.metadata.schema().field(column.position).data_type(), DataType::Timestamp(_, _))
    }

    /// Whether any row of `column` is not null. Reads as far as the first such row.
    pub(crate) fn has_values(&self, column: &Column, faults: &mut Faults) -> Result<bool, ReadError> {
        let mut batches = match self.reader(&[column.position]) {
            Ok(batches) => batches,
            Err(rule) => return faults.add(At::file(self.file), rule).map(|()| true),
        };
        while let Some(batch) = next(&mut batches) {
            match batch {
                Ok(batch) if batch.column(0).null_count() == batch.num_rows() => {}
                // What cannot be decoded is reported when the rows are walked.
                Ok(_) | Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Walks all rows, some thousands at a time, with the chosen columns.
    ///
    /// # Errors
    /// Those of `each`, and the caller's wish to stop.
    pub(crate) fn for_each_batch(
        self,
        faults: &mut Faults,
        counter: &mut Counter<'_, '_>,
        mut each: impl FnMut(&Batch<'_>, &mut Faults) -> Result<(), ReadError>,
    ) -> Result<Walked, ReadError> {
        let mut batches = match self.reader(&self.chosen) {
            Ok(batches) => batches,
            Err(rule) => return faults.add(At::file(self.file), rule).map(|()| Walked::InPart),
        };
        let mut first_row = 0;
        while let Some(record) = next(&mut batches) {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    faults
                        .add(At::file(self.file), format_args!("cannot be decoded from row {first_row} on: {error}"))?;
                    return Ok(Walked::InPart);
                }
            };
            let rows = record.num_rows() as u64;
            each(&Batch { file: self.file, record, first_row }, faults)?;
            first_row += rows;
            if counter.add(rows, self.file) == ControlFlow::Break(()) {
                return Err(ReadError::Interrupted);
            }
        }
        Ok(Walked::ToTheEnd)
    }

    fn reader(&self, positions: &[usize]) -> Result<ParquetRecordBatchReader, String> {
        let handle = self.handle.try_clone().map_err(|error| format!("cannot be read: {error}"))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(handle, self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), positions.iter().copied());
        decode(|| Ok(builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?))
            .map_err(|error| format!("cannot be decoded: {error}"))
    }
}

/// Runs the Parquet decoder on bytes from outside, where it may not only fail but, on damaged ones, panic.
///
/// A reader that panicked is dropped without another use, so no broken state is seen.
pub(crate) fn decode<T>(
    work: impl FnOnce() -> Result<T, Box<dyn Error + Send + Sync>>,
) -> Result<T, Box<dyn Error + Send + Sync>> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("the bytes are damaged".into()))
}

/// The next rows; none at the end.
pub(crate) fn next(
    batches: &mut ParquetRecordBatchReader,
) -> Option<Result<RecordBatch, Box<dyn Error + Send + Sync>>> {
    decode(|| Ok(batches.next().transpose()?)).transpose()
}

/// Opens a Parquet file of at most [`ROWS_MAX`] rows, and reads its footer; an error says what is wrong.
pub(crate) fn open(path: &Path) -> Result<(File, ArrowReaderMetadata), String> {
    let handle = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let about = handle.metadata().map_err(|error| format!("cannot be opened: {error}"))?;
    if !about.is_file() {
        return Err("is not a file".to_owned());
    }
    if about.len() == 0 {
        return Err("is empty: 0 bytes".to_owned());
    }
    let metadata = decode(|| Ok(ArrowReaderMetadata::load(&handle, ArrowReaderOptions::new())?))
        .map_err(|error| format!("is not Parquet, or not all of it: {error}"))?;
    match u64::try_from(metadata.metadata().file_metadata().num_rows()) {
        Ok(rows) if rows <= ROWS_MAX => Ok((handle, metadata)),
        Ok(rows) => Err(format!("holds {rows} rows, the limit is {ROWS_MAX}")),
        Err(_) => Err("is not Parquet: its number of rows is negative".to_owned()),
    }
}

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    ToTheEnd,
    /// The rest cannot be decoded, which is a fault.
    InPart,
}

/// Some consecutive rows of a file.
pub(crate) struct Batch<'a> {
    file: &'a str,
    record: RecordBatch,
    first_row: u64,
}

/// The rows of one column in a batch, which know their place in the file.
pub(crate) struct Cells<'a, A> {
    file: &'a str,
    column: &'a str,
    first_row: u64,
    pub(crate) array: A,
}

impl<A> Cells<'_, A> {
    /// The place of `row`, counted from the batch's first.
    pub(crate) fn at(&self, row: usize) -> At<'_> {
        At { file: self.file, column: Some(self.column), row: Some(self.first_row + row as u64) }
    }
}

impl Batch<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.record.num_rows()
    }

    /// The place of `row` in the file, from 0.
    pub(crate) fn row_in_file(&self, row: usize) -> u64 {
        self.first_row + row as u64
    }

    /// The place of `row`, counted from the batch's first.
    pub(crate) fn at_row(&self, row: usize) -> At<'_> {
        At { file: self.file, column: None, row: Some(self.row_in_file(row)) }
    }

    pub(crate) fn ids<'a>(&'a self, column: &'a Column) -> Cells<'a, IdArray> {
        self.cells(column, IdArray::new)
    }

    pub(crate) fn numbers<'a>(&'a self, column: &'a Column) -> Cells<'a, NumberArray> {
        self.cells(column, NumberArray::new)
    }

    pub(crate) fn whole_numbers<'a>(&'a self, column: &'a Column) -> Cells<'a, WholeArray> {
        self.cells(column, WholeArray::new)
    }

    pub(crate) fn lists<'a>(&'a self, column: &'a Column) -> Cells<'a, Lists> {
        self.cells(column, Lists::new)
    }

    pub(crate) fn interests<'a>(&'a self, column: &'a Column) -> Cells<'a, InterestArray> {
        self.cells(column, InterestArray::new)
    }

    fn cells<'a, A>(&'a self, column: &'a Column, wrap: fn(&dyn arrow::array::Array) -> A) -> Cells<'a, A> {
        let array = self.record.column_by_name(&column.name).expect("a column is asked for only after it was chosen");
        Cells { file: self.file, column: &column.name, first_row: self.first_row, array: wrap(array) }
    }
}
