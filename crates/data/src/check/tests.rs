use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};

use super::*;
use crate::ReadError;
use crate::fixture::{self, Fixture, integers, interests, numbers, optional_texts, texts, vectors, words};

/// Both ways of reading must find exactly this fault: `file, column x, row 0: rule` or a part of it.
#[track_caller]
fn check_fault(dir: &Path, expected: &str) {
    let source = DataSource::canonical(dir);
    let report = fixture::check(&source);
    let found: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(report.faults_total, 1);
    assert!(found[0].starts_with(expected), "found    {}\nexpected {expected}", found[0]);
    match fixture::read(&source) {
        Err(ReadError::Invalid { fault, .. }) => assert_eq!(fault, report.faults[0]),
        other => panic!("expected the fault, got {other:?}"),
    }
}

#[track_caller]
fn check_spoiled(file: &str, column: &'static str, values: ArrayRef, expected: &str) {
    let dir = Fixture::sound().with(&format!("{file}.parquet"), column, values).write();
    check_fault(dir.path(), &format!("{file}.parquet, column {column}{expected}"));
}

#[test]
fn a_sound_data_set_has_no_faults() {
    let dir = Fixture::sound().write();
    let report = fixture::check(&DataSource::canonical(dir.path()));
    assert_eq!((report.faults, report.faults_total), (vec![], 0));
}

#[test]
fn a_faulty_id_is_named_by_row_and_rule() {
    let long = "x".repeat(129);
    check_spoiled(
        "items",
        "item_id",
        optional_texts(&[Some("i0"), Some("i1"), Some("i1")]),
        ", row 2: `i1` is there twice",
    );
    // The event that names `i2` is not blamed for the item that is missing.
    check_spoiled("items", "item_id", optional_texts(&[Some("i0"), Some("i1"), None]), ", row 2: must not be null");
    check_spoiled("items", "item_id", texts(&["i0", "i1", ""]), ", row 2: must not be empty");
    check_spoiled("items", "advertiser_id", texts(&["a", &long, "b"]), ", row 1: is 129 bytes long, the limit is 128");
    check_spoiled("users", "user_id", texts(&["u0", "u0"]), ", row 1: `u0` is there twice");
    check_spoiled("users", "user_id", optional_texts(&[None, Some("u1")]), ", row 0: must not be null");
    check_spoiled("users", "user_id", texts(&["u\n", "u1"]), ", row 0: must not contain control characters");
    check_spoiled("ads", "ad_id", texts(&["a", "a", "b"]), ", row 1: `a` is there twice");
    check_spoiled("ads", "ad_id", optional_texts(&[None, Some("a"), Some("b")]), ", row 0: must not be null");
    check_spoiled("ads", "item_id", texts(&["i0", "i7", "i2"]), ", row 1: `i7` is not in the items file");
    check_spoiled("ads", "item_id", optional_texts(&[Some("i0"), None, Some("i2")]), ", row 1: must not be null");
    let users = optional_texts(&[Some("u1"), None, Some("u1"), Some("u9"), Some("u1")]);
    check_spoiled("events", "user_id", users, ", row 1: must not be null");
    check_spoiled("events", "user_id", texts(&["u", "v", "", "w", "x"]), ", row 2: must not be empty");
    check_spoiled(
        "events",
        "item_id",
        texts(&["i0", "i1", "i2", "i3", "i0"]),
        ", row 3: `i3` is not in the items file",
    );
    check_spoiled("events", "session_id", texts(&["s", "s", "", "s", "s"]), ", row 2: must not be empty");
    check_spoiled("events", "event_id", texts(&["s", "t", "u", &long, "v"]), ", row 3: is 129 bytes long");
}

#[test]
fn a_faulty_value_is_named_by_row_and_rule() {
    let check_items = |column, values, expected: &str| check_spoiled("items", column, values, expected);
    check_items(
        "interests",
        interests(&[&[("a", 0.5)], &[("a", 0.5), ("b", 1.5)], &[]]),
        ", row 1: confidence 1.5 of interest 1 is not in (0, 1]",
    );
    check_items(
        "interests",
        interests(&[&[("a", 0.0)], &[], &[]]),
        ", row 0: confidence 0 of interest 0 is not in (0, 1]",
    );
    check_items(
        "interests",
        interests(&[&[], &[], &[("a", f32::NAN)]]),
        ", row 2: confidence NaN of interest 0 is not in (0, 1]",
    );
    check_items("interests", interests(&[&[], &[("", 0.5)], &[]]), ", row 1: the id of interest 0 must not be empty");
    let names: Vec<String> = (0..40).map(|name| name.to_string()).collect();
    let many: Vec<(&str, f32)> = names.iter().map(|name| (name.as_str(), 0.5)).collect();
    check_items("interests", interests(&[&many, &[], &[]]), ", row 0: 40 interests, the limit is 32");
    check_items("price", numbers(&[1.0, f64::NAN, 2.0]), ", row 1: NaN is not finite and at least 0");
    check_items("price", numbers(&[1.0, 1.0, -0.5]), ", row 2: -0.5 is not finite and at least 0");
    check_items("price", numbers(&[1e300, 1.0, 0.5]), ", row 0: 1000");
    check_items("title", texts(&["a", "b", &"x".repeat(1_025)]), ", row 2: is 1025 bytes long, the limit is 1024");
    check_items(
        "embedding",
        vectors(&[&[1.0, 2.0], &[1.0], &[1.0, 1.0]]),
        ", row 1: has 1 components where others have 2",
    );
    check_items(
        "embedding",
        vectors(&[&[1.0, 2.0], &[1.0, f32::INFINITY], &[1.0, 1.0]]),
        ", row 1: component 1 is not finite",
    );
    check_items("embedding", vectors(&[&[1.0, 2.0], &[1.0, 0.0], &[0.0, 0.0]]), ", row 2: must not be all zeros");
    check_items("embedding", vectors(&[&[1.0], &[], &[1.0]]), ", row 1: has 0 components, must have 1 to 4096");

    check_spoiled("users", "age", integers(&[30, 121]), ", row 1: 121 is not in 0..=120");
    check_spoiled("users", "age", integers(&[-1, 30]), ", row 0: -1 is not in 0..=120");
    check_spoiled("users", "age", numbers(&[1.5, 30.0]), ", row 0: 1.5 is not a whole number");
    check_spoiled("users", "country", texts(&["", "US"]), ", row 0: is 0 bytes long, must be 1 to 16");
    check_spoiled("users", "gender", texts(&["f", "seventeen bytes !"]), ", row 1: is 17 bytes long, must be 1 to 16");

    check_spoiled(
        "ads",
        "status",
        optional_texts(&[Some("active"), None, Some("active")]),
        ", row 1: must not be null",
    );
    check_spoiled("ads", "status", texts(&["active", "", "paused"]), ", row 1: must not be empty");
    check_spoiled("ads", "min_age", numbers(&[0.0, f64::INFINITY, 1.0]), ", row 1: inf is not finite");
    check_spoiled("ads", "countries", words(&[&["US"], &["US", ""], &[]]), ", row 1: word 1 must not be empty");
    check_spoiled("ads", "min_age", integers(&[0, 18, 151]), ", row 2: 151 is not in 0..=150");
    check_spoiled("ads", "bid", numbers(&[0.0, -0.5, 1.0]), ", row 1: -0.5 is negative");
    // Milliseconds.
    check_spoiled(
        "ads",
        "ends_at",
        integers(&[1, 2, 1_767_571_200_000]),
        ", row 2: 1767571200000 is not in 0..=253402300799",
    );

    let types = ["view", "clicked", "view", "view", "view"];
    check_spoiled(
        "events",
        "event_type",
        texts(&types),
        ", row 1: event type `clicked` is none of view, add_to_cart, checkout, signup",
    );
    let types = optional_texts(&[Some("view"), Some("view"), Some("view"), Some("view"), None]);
    check_spoiled("events", "event_type", types, ", row 4: must not be null");
    check_spoiled("events", "timestamp_ms", integers(&[1, 2, -3, 4, 5]), ", row 2: -3 is not in 0..=253402300799999");
    // Microseconds.
    let times = integers(&[1, 2, 3, 1_767_571_200_000_000, 5]);
    check_spoiled("events", "timestamp_ms", times, ", row 3: 1767571200000000 is not in 0..=253402300799999");
    let times: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4), Some(5)]));
    check_spoiled("events", "timestamp_ms", times, ", row 1: must not be null");
}

#[test]
fn a_column_of_a_wrong_type_is_named_with_what_it_must_be() {
    let flags = || Arc::new(BooleanArray::from(vec![true; 5])) as ArrayRef;
    check_spoiled("events", "user_id", flags(), ": is Boolean, must be a string or an integer");
    check_spoiled("events", "event_type", integers(&[1; 5]), ": is Int64, must be a string");
    check_spoiled("events", "timestamp_ms", texts(&["1"; 5]), ": is Utf8, must be a whole number or a timestamp");
    check_spoiled("events", "session_id", numbers(&[1.0; 5]), ": is Float64, must be a string or an integer");
    check_spoiled("items", "item_id", numbers(&[1.0, 2.0, 3.0]), ": is Float64, must be a string or an integer");
    check_spoiled(
        "items",
        "interests",
        numbers(&[1.0; 3]),
        ": is Float64, must be a list of structs of id and confidence",
    );
    check_spoiled("items", "price", texts(&["1", "2", "3"]), ": is Utf8, must be a number");
    check_spoiled("items", "embedding", numbers(&[1.0; 3]), ": is Float64, must be a list of numbers");
    check_spoiled("users", "age", texts(&["29", "30"]), ": is Utf8, must be a whole number");
    check_spoiled("ads", "status", integers(&[1; 3]), ": is Int64, must be a string or a boolean");
    let check = |name, values, rule: &str| check_spoiled("ads", name, values, &format!(": attribute `{name}` {rule}"));
    check("countries", texts(&["US"; 3]), "must hold several words, holds one word");
    check("placements", integers(&[1; 3]), "must hold several words, holds a number");
    check("campaign_id", words(&[&["c"], &[], &[]]), "must hold one word, holds several words");
    check("campaign_id", numbers(&[1.0; 3]), "must hold one word, holds a number");
    check("max_age", texts(&["29"; 3]), "must hold a number, holds one word");
    check("starts_at", words(&[&["c"], &[], &[]]), "must hold a number, holds several words");
    check("a`b", numbers(&[1.0; 3]), "must have a name of 1 to 128 bytes without control characters and backticks");
    check_spoiled("ads", "languages", vectors(&[&[1.0], &[1.0], &[1.0]]), ": is List(");
    let lists = interests(&[&[], &[], &[]]);
    check_spoiled("ads", "audience", lists, ": is List(");
}

#[test]
fn an_ad_whose_attributes_contradict_each_other_is_named() {
    let dir = Fixture::sound().with("ads.parquet", "max_age", integers(&[0, 17, 30])).write();
    check_fault(dir.path(), "ads.parquet, row 1: attribute `min_age` 18 is above `max_age`, 17");
}

#[test]
fn a_missing_column_is_named() {
    let cases = [
        ("events.parquet", "user_id"),
        ("events.parquet", "item_id"),
        ("events.parquet", "event_type"),
        ("items.parquet", "item_id"),
        ("users.parquet", "user_id"),
        ("ads.parquet", "ad_id"),
        ("ads.parquet", "item_id"),
        ("ads.parquet", "advertiser_id"),
        ("ads.parquet", "status"),
    ];
    for (file, column) in cases {
        let dir = Fixture::sound().without(file, column).write();
        check_fault(dir.path(), &format!("{file}, column {column}: is missing, and required"));
    }
}

#[test]
fn a_mapped_column_that_is_missing_is_named_though_it_is_optional() {
    let dir = Fixture::sound().write();
    let mut source = DataSource::canonical(dir.path());
    let items = source.items.as_mut().unwrap();
    items.columns.insert("price".to_owned(), "cost".to_owned());
    let report = fixture::check(&source);
    let found: Vec<String> = report.faults.iter().map(Fault::to_string).collect();
    assert_eq!(found, ["items.parquet, column cost: is missing, though `price` is mapped to `cost`"]);

    items_without(&mut source);
    let ads = source.ads.as_mut().unwrap();
    ads.columns.insert("tier".to_owned(), "level".to_owned());
    ads.columns.insert("age".to_owned(), "min_age".to_owned());
    let found: Vec<String> = fixture::check(&source).faults.iter().map(Fault::to_string).collect();
    assert_eq!(found, ["ads.parquet, column level: is missing, though `tier` is mapped to `level`"]);
}

fn items_without(source: &mut DataSource) {
    source.items.as_mut().unwrap().columns.clear();
}

#[test]
fn a_file_that_is_no_whole_parquet_is_one_fault() {
    for file in ["events.parquet", "items.parquet", "ads.parquet", "users.parquet"] {
        let dir = Fixture::sound().write();
        let path = dir.path().join(file);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, b"").unwrap();
        check_fault(dir.path(), &format!("{file}: is empty: 0 bytes"));
        std::fs::write(&path, b"user_id,item_id\n1,2\n").unwrap();
        check_fault(dir.path(), &format!("{file}: is not Parquet, or not all of it: "));
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        check_fault(dir.path(), &format!("{file}: is not Parquet, or not all of it: "));
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        check_fault(dir.path(), &format!("{file}: is not Parquet, or not all of it: "));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let rule = match file {
            "events.parquet" => "is a directory without files whose names end in .parquet",
            _ => "is not a file",
        };
        check_fault(dir.path(), &format!("{file}: {rule}"));
    }
    let dir = Fixture::sound().without_file("events.parquet").write();
    check_fault(dir.path(), "events.parquet: cannot be opened: ");
}

#[test]
fn events_without_rows_are_one_fault() {
    let none: ArrayRef = Arc::new(StringArray::new_null(0));
    let times: ArrayRef = Arc::new(Int64Array::new_null(0));
    let mut fixture = Fixture::sound();
    fixture.files.insert(
        "events.parquet",
        vec![
            ("user_id", Arc::clone(&none)),
            ("item_id", Arc::clone(&none)),
            ("event_type", none),
            ("timestamp_ms", times),
        ],
    );
    check_fault(fixture.write().path(), "events.parquet: holds no rows");
}

#[test]
fn damaged_bytes_are_a_fault_or_other_data_but_never_a_panic() {
    let dir = Fixture::sound().write();
    let source = DataSource::canonical(dir.path());
    let mut faulty = 0;
    for file in ["events.parquet", "items.parquet"] {
        let path = dir.path().join(file);
        let bytes = std::fs::read(&path).unwrap();
        for position in (0..bytes.len()).step_by(13) {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[position] ^= flip;
                std::fs::write(&path, &damaged).unwrap();
                faulty += usize::from(fixture::check(&source).faults_total > 0);
            }
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(faulty > 50, "{faulty}");
}

#[test]
fn faults_are_all_counted_and_some_listed() {
    let count = FAULTS_LISTED_MAX + 23;
    let prices: ArrayRef = Arc::new(Float64Array::from(vec![-1.0; count]));
    let ids: Vec<String> = (0..count).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut fixture = Fixture::sound().without_file("ads.parquet");
    fixture.files.insert("items.parquet", vec![("item_id", texts(&ids)), ("price", prices)]);
    let fixture = fixture.with("events.parquet", "item_id", texts(&["0", "1", "2", "3", "4"]));
    let dir = fixture.write();
    let report = fixture::check(&DataSource::canonical(dir.path()));
    assert_eq!((report.faults.len(), report.faults_total), (FAULTS_LISTED_MAX, count as u64));
    assert_eq!(report.faults[99].row, Some(99));
    assert_eq!(report.profile.items, count as u64, "an item with a faulty price is an item without one");
    assert_eq!(report.profile.items_with_price, 0);
}

#[test]
fn faults_of_several_files_are_found_at_once() {
    let dir = Fixture::sound()
        .with("items.parquet", "price", numbers(&[1.0, -1.0, 1.0]))
        .with("users.parquet", "age", integers(&[200, 30]))
        .with("ads.parquet", "status", texts(&["active", "", "paused"]))
        .with("events.parquet", "timestamp_ms", integers(&[1, 2, -3, 4, 5]))
        .write();
    let report = fixture::check(&DataSource::canonical(dir.path()));
    let files: Vec<&str> = report.faults.iter().map(|fault| fault.file.as_str()).collect();
    assert_eq!(files, ["items.parquet", "users.parquet", "ads.parquet", "events.parquet"]);
    assert_eq!(report.profile.events, 4, "the faulty event is left out");
}

#[test]
fn the_profile_counts_what_is_there() {
    let dir = Fixture::sound().write();
    let profile = fixture::check(&DataSource::canonical(dir.path())).profile;
    let expected = "\
events       5: 1 add_to_cart, 1 checkout, 1 signup, 2 view
time         1970-01-01 to 1970-01-01 (UTC)
sessions     3
users        3, 3 with events
             events each: min 1, p50 1, p90 1, p99 1, max 3
             age known of 33.3 %, country of 33.3 %, gender of 33.3 %
items        3, 3 with events
             interests: 2 distinct, 1.00 per item, 1 items without
             3 with a price, 2 with a title, 3 with an embedding of 2
ads          3 (ads file), 2 active, of 2 items
             attributes: advertiser_id (keyword), countries (keywords), min_age (number), status (keyword)";
    assert_eq!(profile.to_string(), expected);
}

#[test]
fn a_check_stops_when_asked_to() {
    let dir = Fixture::sound().write();
    let mut calls = Vec::new();
    let stopped = check(&DataSource::canonical(dir.path()), &mut |progress| {
        calls.push((progress.done, progress.total, progress.what.to_string()));
        if calls.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(ReadError::Interrupted)));
    assert_eq!(calls, [(3, 13, "items.parquet".to_owned()), (5, 13, "users.parquet".to_owned())]);
}
