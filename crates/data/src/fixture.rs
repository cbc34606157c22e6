//! A small sound data set for tests, to be spoiled one column at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Builder, Float64Builder, Int64Array, LargeStringArray, ListBuilder, RecordBatch, StringArray,
    StringBuilder, StructBuilder,
};
use arrow::datatypes::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use turret_retrieval::dataset::Dataset;

use crate::{DataSource, Progress, ReadError, Report};

/// The columns of one file, in order.
pub(crate) type Columns = Vec<(&'static str, ArrayRef)>;

/// The files of a data set by name, and what replaces some of them byte by byte.
pub(crate) struct Fixture {
    pub(crate) files: BTreeMap<&'static str, Columns>,
}

impl Fixture {
    /// Three items, three ads, two users and five events, of the canonical names.
    pub(crate) fn sound() -> Self {
        let interests = interests(&[&[("a/x", 0.9), ("b/y", 0.4)], &[], &[("a/x", 1.0)]]);
        let items: Columns = vec![
            ("item_id", texts(&["i0", "i1", "i2"])),
            ("advertiser_id", optional_texts(&[Some("adv0"), None, Some("adv1")])),
            ("interests", interests),
            ("price", numbers(&[9.5, 0.0, 120.0])),
            ("title", optional_texts(&[Some("A chair"), None, Some("")])),
            ("embedding", vectors(&[&[1.0, 0.0], &[0.5, 0.5], &[0.0, -1.0]])),
        ];
        let ads: Columns = vec![
            ("ad_id", texts(&["ad0", "ad1", "ad2"])),
            ("item_id", texts(&["i0", "i2", "i2"])),
            ("advertiser_id", texts(&["adv0", "adv1", "adv1"])),
            ("status", texts(&["active", "paused", "active"])),
            ("countries", words(&[&["US", "DE"], &[], &["BR"]])),
            ("min_age", integers(&[0, 18, 21])),
        ];
        let users: Columns = vec![
            ("user_id", texts(&["u0", "u1"])),
            ("age", Arc::new(Int64Array::from(vec![Some(29), None])) as ArrayRef),
            ("country", optional_texts(&[Some("US"), None])),
            ("gender", optional_texts(&[None, Some("female")])),
        ];
        let events: Columns = vec![
            ("user_id", texts(&["u1", "u0", "u1", "u9", "u1"])),
            ("item_id", texts(&["i0", "i1", "i2", "i0", "i1"])),
            ("event_type", texts(&["view", "view", "add_to_cart", "checkout", "signup"])),
            ("timestamp_ms", integers(&[3_000, 5_000, 2_000, 1_000, 9_000])),
            ("session_id", optional_texts(&[Some("s0"), Some("s0"), Some("s0"), None, Some("s1")])),
            ("event_id", optional_texts(&[Some("e0"), Some("e1"), None, None, Some("e4")])),
        ];
        let files =
            [("items.parquet", items), ("ads.parquet", ads), ("users.parquet", users), ("events.parquet", events)];
        Self { files: files.into() }
    }

    /// Replaces a column, or adds it.
    pub(crate) fn with(mut self, file: &str, column: &'static str, values: ArrayRef) -> Self {
        let columns = self.files.get_mut(file).unwrap();
        match columns.iter_mut().find(|(name, _)| *name == column) {
            Some((_, old)) => *old = values,
            None => columns.push((column, values)),
        }
        self
    }

    /// Takes a column away.
    pub(crate) fn without(mut self, file: &str, column: &str) -> Self {
        self.files.get_mut(file).unwrap().retain(|(name, _)| *name != column);
        self
    }

    /// Takes a file away.
    pub(crate) fn without_file(mut self, file: &str) -> Self {
        self.files.remove(file).unwrap();
        self
    }

    /// Writes all files into a new directory.
    pub(crate) fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        self.files.iter().for_each(|(file, columns)| write(&dir.path().join(file), columns));
        dir
    }
}

/// Writes one Parquet file.
pub(crate) fn write(path: &Path, columns: &Columns) {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.iter().map(|(name, values)| (*name, Arc::clone(values), true)),
    )
    .unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Never asks to stop.
pub(crate) fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(crate) fn read(source: &DataSource) -> Result<Dataset, ReadError> {
    crate::read(source, &mut go_on)
}

pub(crate) fn check(source: &DataSource) -> Report {
    crate::check(source, &mut go_on).unwrap()
}

pub(crate) fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

pub(crate) fn optional_texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(LargeStringArray::from(values.to_vec()))
}

pub(crate) fn integers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

pub(crate) fn numbers(values: &[f64]) -> ArrayRef {
    let mut builder = Float64Builder::new();
    builder.append_slice(values);
    Arc::new(builder.finish())
}

pub(crate) fn vectors(values: &[&[f32]]) -> ArrayRef {
    let mut builder = ListBuilder::new(Float32Builder::new());
    for row in values {
        builder.values().append_slice(row);
        builder.append(true);
    }
    Arc::new(builder.finish())
}

pub(crate) fn words(values: &[&[&str]]) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in values {
        row.iter().for_each(|word| builder.values().append_value(word));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

/// Interests as lists of structs of an id and a confidence.
pub(crate) fn interests(values: &[&[(&str, f32)]]) -> ArrayRef {
    let fields =
        Fields::from(vec![Field::new("id", DataType::Utf8, true), Field::new("confidence", DataType::Float32, true)]);
    let mut builder = ListBuilder::new(StructBuilder::from_fields(fields, 0));
    for row in values {
        for (id, confidence) in *row {
            let interest = builder.values();
            interest.field_builder::<StringBuilder>(0).unwrap().append_value(id);
            interest.field_builder::<Float32Builder>(1).unwrap().append_value(*confidence);
            interest.append(true);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}
