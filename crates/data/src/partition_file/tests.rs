use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt8Array, UInt32Array, UInt64Array,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EncoderVersion, EventId, ItemId};
use turret_retrieval::kept::{Erased, KeptUser, StoredState};
use turret_retrieval::revision::Revision;
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::user::Demographics;

use super::rows::Rows;
use super::*;
use crate::ReadError;

fn event(item: u64, at: i64, id: Option<u64>) -> Event {
    let event_type = EventType::ALL[item as usize % EventType::ALL.len()];
    Event { item_id: ItemId::from(item), event_type, timestamp_ms: at, event_id: id.map(EventId::from) }
}

fn state(encoder: u64, rows: usize, precision: Precision) -> StoredState {
    let values: Vec<f32> = (0..rows * 64).map(|x| x as f32 / 7.0 - 3.0).collect();
    StoredState {
        encoder: EncoderVersion::from(encoder),
        made_at_ms: -5,
        covers_until_ms: i64::MAX,
        covers: Revision::from_bits(u64::MAX - encoder),
        sequence: SequenceState::new(&values, 64, precision).unwrap(),
    }
}

/// A user of one of four kinds: nothing but a mark, demographics alone, an order without times and large states, everything.
fn user(number: u64) -> KeptUser {
    let erased = Some(Erased { at: Revision::from_bits(9), watermark_ms: -1 });
    let nothing = KeptUser {
        user: UserId::new(&format!("u{number:04}")).unwrap(),
        demographics: Demographics::default(),
        demographics_at: Revision::NONE,
        log_at: Revision::NONE,
        erased: None,
        events: Vec::new(),
        states: Vec::new(),
    };
    let demographics = Demographics { age: Some(0), country: Some("US".into()), gender: Some("é".into()) };
    let (demographics_at, log_at) = (Revision::from_bits(number), Revision::from_bits(u64::MAX));
    match number % 4 {
        0 => KeptUser { erased, ..nothing },
        1 => KeptUser { demographics, demographics_at, ..nothing },
        2 => KeptUser {
            log_at,
            events: (0..9).map(|at| event(number + at, at as i64, None)).collect(),
            states: vec![state(2, 100, Precision::Int8), state(1, 1, Precision::F16)],
            ..nothing
        },
        _ => KeptUser {
            demographics,
            demographics_at,
            log_at,
            erased,
            events: vec![event(1, 0, None), event(1, 0, Some(7)), event(2, i64::MAX, None)],
            states: vec![state(7, 3, Precision::F32)],
            ..nothing
        },
    }
}

fn header() -> PartitionHeader {
    let generations = vec![GenerationId::from(1), GenerationId::new("g-\"2\"").unwrap()];
    PartitionHeader { partition: PartitionId(0), partitions: 1, generations }
}

fn write(path: &Path, header: PartitionHeader, users: &[KeptUser]) -> Result<u64, PartitionWriteError> {
    let mut writer = PartitionWriter::create(path, header)?;
    users.iter().try_for_each(|user| writer.append(user))?;
    writer.finish()
}

fn read(path: &Path) -> Result<(PartitionHeader, Vec<KeptUser>), ReadError> {
    let mut reader = PartitionReader::open(path)?;
    let mut users = Vec::new();
    while let Some(some) = reader.next_users()? {
        assert!((1..=USERS_PER_BATCH).contains(&some.len()));
        users.extend(some);
    }
    assert_eq!(users.len() as u64, reader.users());
    Ok((reader.header().clone(), users))
}

#[test]
fn a_partition_reads_as_it_was_written_and_has_the_same_bytes_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    for count in [0, 1, 4, 128, 300] {
        let users: Vec<KeptUser> = (0..count).map(user).collect();
        let bytes = write(&first, header(), &users).unwrap();
        assert_eq!(bytes, std::fs::metadata(&first).unwrap().len());
        let (found, read) = read(&first).unwrap();
        assert_eq!((&found, read.len()), (&header(), users.len()));
        assert!(read == users, "of {count} users");
        write(&second, found, &read).unwrap();
        assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "of {count} users");
    }
}

#[test]
fn what_no_reader_would_take_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let check = |header: PartitionHeader, user: KeptUser, rule: &str| {
        let error = write(&dir.path().join("file"), header, &[user]).unwrap_err().to_string();
        assert_eq!(error, rule);
    };
    let log_at = Revision::NONE;
    check(header(), KeptUser { log_at, ..user(3) }, "user u0003: log_revision: is 0, and there are events");
    let other = PartitionHeader { partition: PartitionId(3), partitions: 4, ..header() };
    check(other, user(1), "user u0001 belongs to partition 1 of 4, and is in 3");
    let nowhere = write(&dir.path().join("no/file"), header(), &[]).unwrap_err();
    assert!(matches!(nowhere, PartitionWriteError::Io { .. }), "{nowhere}");
}

/// A file of four users, to be spoiled.
struct Spoiled {
    dir: TempDir,
    batch: RecordBatch,
}

impl Spoiled {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut columns = writer::Columns::new();
        (0..4).for_each(|number| columns.add(&user(number)));
        Self { dir, batch: RecordBatch::try_new(schema(), columns.finish()).unwrap() }
    }

    /// The error of a file whose column, such as `age` or `events.item_id`, is `values`.
    fn with(&self, column: &str, values: ArrayRef) -> String {
        let (name, inner) = column.split_once('.').unwrap_or((column, ""));
        let values = if inner.is_empty() { values } else { self.nested(name, inner, values) };
        let columns = self.batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let replaced = columns
            .iter()
            .zip(self.batch.columns())
            .map(|(this, old)| (this.as_str(), if this == name { Arc::clone(&values) } else { Arc::clone(old) }));
        let nullable: Vec<bool> = self.batch.schema().fields().iter().map(|field| field.is_nullable()).collect();
        let replaced = replaced.zip(nullable).map(|((name, values), nullable)| (name, values, nullable));
        self.error(&RecordBatch::try_from_iter_with_nullable(replaced).unwrap(), header().metadata())
    }

    fn nested(&self, list: &str, inner: &str, values: ArrayRef) -> ArrayRef {
        let old: &ListArray = self.batch.column_by_name(list).unwrap().as_list();
        let (fields, mut children, nulls) = old.values().as_struct().clone().into_parts();
        children[fields.iter().position(|field| field.name() == inner).unwrap()] = values;
        let item = Arc::new(element(fields.clone()));
        let structs = StructArray::new(fields, children, nulls);
        Arc::new(ListArray::new(item, old.offsets().clone(), Arc::new(structs), None))
    }

    fn error(&self, batch: &RecordBatch, metadata: Vec<KeyValue>) -> String {
        let path = self.dir.path().join("users-0000.parquet");
        let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        self.told(&path)
    }

    /// The error without the directory.
    fn told(&self, path: &Path) -> String {
        let told = read(path).unwrap_err().to_string();
        told.strip_prefix(&format!("{}/", self.dir.path().display())).unwrap_or(&told).to_owned()
    }
}

#[test]
fn a_bad_cell_is_one_error_that_names_file_column_and_row() {
    let spoiled = Spoiled::new();
    let check = |column: &str, values: ArrayRef, place: &str, rule: &str| {
        assert_eq!(spoiled.with(column, values), format!("users-0000.parquet, column {place}: {rule}"));
    };
    let texts = |values: &[&str]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let revisions = |values: &[u64]| -> ArrayRef { Arc::new(UInt64Array::from(values.to_vec())) };
    let big = u64::MAX;

    check("user_id", texts(&["a", "b", "b", "c"]), "user_id, row 2", "`b` is there twice");
    check("user_id", texts(&["a", "c", "b", "d"]), "user_id, row 2", "`b` must stand before `c`");
    check("user_id", texts(&["a", "", "b", "d"]), "user_id, row 1", "must not be empty");
    check(
        "age",
        Arc::new(UInt8Array::from(vec![None, Some(121), None, Some(1)])),
        "age, row 1",
        "121 is not in 0..=120",
    );
    check("gender", texts(&["", "x", "x", "x"]), "gender, row 0", "must be 1 to 16 bytes");
    check("log_revision", revisions(&[0, 0, big, 0]), "log_revision, row 3", "is 0, and there are events");
    let marks = UInt64Array::from(vec![Some(9), Some(9), None, Some(9)]);
    check("erasure_revision", Arc::new(marks), "erasure_watermark_ms, row 1", "is null, and erasure_revision is not");
    let marks = Int64Array::from(vec![Some(9), None, Some(9), Some(-1)]);
    check(
        "erasure_watermark_ms",
        Arc::new(marks),
        "erasure_revision, row 2",
        "is null, and erasure_watermark_ms is not",
    );
    let marks = Int64Array::from(vec![Some(9), None, None, Some(0)]);
    let rule = "an event is of 0, and what was until 0 is erased";
    check("erasure_watermark_ms", Arc::new(marks), "events, row 3", rule);

    let of_events = |last: &str| texts(&[&["view"; 11][..], &[last]].concat());
    let rule = "`buy\\n` is not one of view, add_to_cart, checkout, signup";
    check("events.event_type", of_events("buy\n"), "events.event_type, row 3", rule);
    check("events.item_id", of_events(""), "events.item_id, row 3", "must not be empty");
    check("events.event_id", of_events("a\0"), "events.event_id, row 3", "must not contain control characters");
    let times = Int64Array::from_iter_values([0, 1, 3, 2, 4, 5, 6, 7, 8, 9, 9, 9]);
    let rule = "event 3 is of 2, and the one before it of 3";
    check("events.timestamp_ms", Arc::new(times), "events, row 2", rule);

    let precisions = texts(&["int8", "f8", "f32"]);
    check("states.precision", precisions, "states.precision, row 2", "`f8` is not one of f32, f16, int8");
    let dimensions = |values: &[u32]| -> ArrayRef { Arc::new(UInt32Array::from(values.to_vec())) };
    let rule = "128 bytes are not one or more rows of 126";
    check("states.dimension", dimensions(&[64, 63, 64]), "states.bytes, row 2", rule);
    let rule = "dimension 0 is not in 1..=4096";
    check("states.dimension", dimensions(&[64, 0, 64]), "states.dimension, row 2", rule);
    let states = |third: &[u8]| -> ArrayRef { Arc::new(BinaryArray::from(vec![&[0; 68][..], &[0; 128], third])) };
    check("states.bytes", states(&[]), "states.bytes, row 3", "0 bytes are not one or more rows of 256");
    let rule = "241 rows of 64 values at f32 are 61696 bytes, the limit is 61440";
    check("states.bytes", states(&[0; 61_696]), "states.bytes, row 3", rule);
    check("states.encoder", texts(&["1", "1", "7"]), "states, row 2", "two states are by 1");
    let rule = format!("the state by 7 covers 8, which is not in 9..={big}");
    check("states.covers", revisions(&[big, big, 8]), "states, row 3", &rule);
}

#[test]
fn a_file_of_another_schema_is_refused_by_its_column() {
    let spoiled = Spoiled::new();
    let check = |batch: &RecordBatch, rule: &str| {
        assert_eq!(spoiled.error(batch, header().metadata()), format!("users-0000.parquet, column {rule}"));
    };
    let without: Vec<usize> = (0..9).collect();
    check(&spoiled.batch.project(&without).unwrap(), "states: is missing");
    let ages: ArrayRef = Arc::new(Int32Array::from(vec![1; 4]));
    assert_eq!(spoiled.with("age", ages), "users-0000.parquet, column age: is Int32, must be UInt8");
    let columns = spoiled.batch.schema();
    let columns = columns.fields().iter().zip(spoiled.batch.columns());
    let nullable = columns.map(|(field, values)| (field.name(), Arc::clone(values), true));
    let nullable = RecordBatch::try_from_iter_with_nullable(nullable).unwrap();
    check(&nullable, "user_id: may be null, and must not");
}

fn metadata_with(key: &str, value: Option<&str>) -> Vec<KeyValue> {
    let mut metadata = header().metadata();
    let pair = metadata.iter_mut().find(|pair| pair.key == key).unwrap();
    pair.value = value.map(str::to_owned);
    metadata
}

#[test]
fn a_file_that_is_no_partition_is_refused() {
    let spoiled = Spoiled::new();
    let check = |key: &str, value: Option<&str>, rule: &str| {
        let metadata = metadata_with(key, value);
        assert_eq!(spoiled.error(&spoiled.batch, metadata), format!("users-0000.parquet: {rule}"));
    };
    let rule = "is no file of a user partition: its metadata has no turret.users.format";
    check(FORMAT_KEY, None, rule);
    assert_eq!(spoiled.error(&spoiled.batch, Vec::new()), format!("users-0000.parquet: {rule}"));
    let listed = spoiled.error(&spoiled.batch, metadata_with(GENERATIONS_KEY, Some("g")));
    let rule = "users-0000.parquet: turret.users.generations is `g`, must be a JSON list of ids: ";
    assert!(listed.starts_with(rule), "{listed}");
    check(FORMAT_KEY, Some("2"), "is of format 2 where 1 is read");
    check(PARTITION_KEY, Some("-1"), "turret.users.partition is `-1`, must be a number");
    check(PARTITION_KEY, Some("1"), "turret.users.partition is 1, must be below turret.users.partitions, 1");
    check(PARTITIONS_KEY, None, "is no file of a user partition: its metadata has no turret.users.partitions");
    let metadata = PartitionHeader { partitions: 4, ..header() }.metadata();
    let rule = "column user_id, row 1: `u0001` belongs to partition 1 of 4, not 0";
    assert_eq!(spoiled.error(&spoiled.batch, metadata), format!("users-0000.parquet, {rule}"));
    let path = spoiled.dir.path().join("users-0000.parquet");
    std::fs::write(&path, "PAR1 and so on").unwrap();
    assert!(spoiled.told(&path).starts_with("users-0000.parquet: is not Parquet"), "{}", spoiled.told(&path));
    std::fs::remove_file(&path).unwrap();
    assert!(spoiled.told(&path).contains("cannot be opened"), "{}", spoiled.told(&path));
}

#[test]
fn a_file_cut_short_or_damaged_never_reads_as_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let users: Vec<KeptUser> = (0..200).map(user).collect();
    write(&path, header(), &users).unwrap();
    let good = std::fs::read(&path).unwrap();
    for length in (0..good.len()).step_by(good.len() / 50) {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(read(&path).is_err(), "{length} of {} bytes", good.len());
    }
    for at in (0..good.len()).step_by(good.len() / 50) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        // Parquet has no digest of everything, so that a value may be another; the reader never panics.
        drop(read(&path));
    }
}

#[test]
fn rows_of_a_sliced_batch_are_its_own() {
    let spoiled = Spoiled::new();
    let slice = spoiled.batch.slice(2, 2);
    let rows = Rows::new(&slice);
    assert_eq!([rows.user(0).unwrap(), rows.user(1).unwrap()], [user(2), user(3)]);
}
