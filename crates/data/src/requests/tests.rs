use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};

use super::*;
use crate::fixture::{self, Columns as FileColumns, go_on, integers, interests, optional_texts, texts, words};

fn sound() -> FileColumns {
    vec![
        ("request_id", texts(&["r0", "r1"])),
        ("user_id", integers(&[7, 8])),
        ("timestamp_ms", integers(&[1_000, 2_000])),
        ("surface", texts(&["related_pins", "search"])),
        ("subject_interests", interests(&[&[("a/x", 0.5)], &[]])),
        ("query", optional_texts(&[None, Some("red chair")])),
        ("delivered", words(&[&["ad1", "ad2"], &[]])),
        ("clicked", words(&[&["ad2"], &[]])),
    ]
}

fn read(columns: &FileColumns) -> Result<Vec<LoggedRequest>, ReadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("requests.parquet");
    fixture::write(&path, columns);
    read_requests(&path, &mut go_on)
}

#[test]
fn a_log_is_read_in_the_order_of_the_file() {
    let requests = read(&sound()).unwrap();
    assert_eq!(requests.len(), 2);
    let first = &requests[0];
    assert_eq!((first.request_id.as_str(), first.user_id.as_str(), first.timestamp_ms), ("r0", "7", 1_000));
    assert_eq!((first.surface, first.query.as_deref()), (Surface::RelatedPins, None));
    assert_eq!(first.subject_interests[0].id.as_str(), "a/x");
    assert_eq!(first.delivered.iter().map(AdId::as_str).collect::<Vec<_>>(), ["ad1", "ad2"]);
    assert_eq!(first.clicked.iter().map(AdId::as_str).collect::<Vec<_>>(), ["ad2"]);
    assert!(first.converted.is_empty(), "the log does not tell");
    assert_eq!((requests[1].surface, requests[1].query.as_deref()), (Surface::Search, Some("red chair")));
}

#[test]
fn a_faulty_log_is_refused_by_column_row_and_rule() {
    let check = |column: &str, values: ArrayRef, expected: &str| {
        let mut columns = sound();
        columns.iter_mut().filter(|(name, _)| *name == column).for_each(|(_, old)| *old = Arc::clone(&values));
        let Err(ReadError::Invalid { fault, .. }) = read(&columns) else { panic!("{column} was accepted") };
        assert_eq!(fault.to_string(), format!("requests.parquet, column {column}{expected}"));
    };
    check("request_id", texts(&["r0", ""]), ", row 1: must not be empty");
    check("user_id", optional_texts(&[None, Some("u")]), ", row 0: must not be null");
    check("timestamp_ms", integers(&[1, -1]), ", row 1: -1 is not in 0..=253402300799999");
    check("surface", texts(&["home", "feed"]), ", row 1: surface `feed` is none of related_pins, search, home");
    check(
        "subject_interests",
        interests(&[&[("a", 2.0)], &[]]),
        ", row 0: confidence 2 of interest 0 is not in (0, 1]",
    );
    check("query", texts(&["a", &"x".repeat(1_025)]), ", row 1: is 1025 bytes long, the limit is 1024");
    check("delivered", words(&[&["ad1"], &["ad1", ""]]), ", row 1: ad 1 must not be empty");
    check("clicked", words(&[&["ad1"], &[""]]), ", row 1: ad 0 must not be empty");
    check("delivered", Arc::new(StringArray::from(vec!["a", "b"])), ": is Utf8, must be a list of strings or integers");
}

#[test]
fn a_log_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = read_requests(&dir.path().join("requests.parquet"), &mut go_on).unwrap_err().to_string();
    assert!(error.contains("requests.parquet: cannot be opened: "), "{error}");
}
