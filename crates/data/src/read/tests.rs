use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float32Array, Int8Array, Int32Array, Int64Array, LargeStringArray, ListArray,
    ListBuilder, StringArray, StringViewArray, TimestampMicrosecondArray, TimestampMillisecondArray, UInt32Array,
    UInt64Array,
};
use arrow::array::{Int16Builder, UInt8Array};
use arrow::datatypes::{Int8Type, Int32Type, UInt32Type};
use tempfile::TempDir;
use turret_retrieval::dataset::{Clock, Row};
use turret_retrieval::event::EventType;
use turret_retrieval::item::Attribute;

use super::*;
use crate::fixture::{self, Fixture, integers, interests, optional_texts, read, texts};

#[test]
fn a_canonical_data_set_is_read_whole() {
    let dir = Fixture::sound().write();
    let data = read(&DataSource::canonical(dir.path())).unwrap();
    assert_eq!(data.clock, Clock::Milliseconds);
    let item = &data.items[0];
    assert_eq!((item.id.as_str(), item.price, item.title.as_deref()), ("i0", Some(9.5), Some("A chair")));
    assert_eq!(item.advertiser.as_ref().unwrap().as_str(), "adv0");
    assert_eq!(item.embedding.as_deref(), Some(&[1.0, 0.0][..]));
    let interests: Vec<(&str, f32)> = item.interests.iter().map(|of| (of.id.as_str(), of.confidence)).collect();
    assert_eq!(interests, [("a/x", 0.9), ("b/y", 0.4)]);
    let ad = &data.ads[1];
    assert_eq!((ad.id.as_str(), ad.item.as_str(), ad.advertiser(), ad.is_active()), ("ad1", "i2", Some("adv1"), false));
    assert_eq!(ad.attributes["countries"], Attribute::Keywords(vec![]));
    assert_eq!(ad.attributes["min_age"], Attribute::Number(18.0));
    assert_eq!(data.ads[0].attributes["countries"], Attribute::Keywords(vec!["US".into(), "DE".into()]));
    let users: Vec<&str> = data.users.iter().map(|user| user.id.as_str()).collect();
    assert_eq!(users, ["u0", "u1", "u9"], "a user of no users file is added");
    assert_eq!(data.users[0].demographics.age, Some(29));
    assert!(data.users[2].demographics.is_unknown());
    let row = |user, item, at, session, kind| Row { user, item, at, session, kind };
    let expected = [
        row(0, 1, 5_000, Some(1), EventType::View),
        row(1, 2, 2_000, Some(0), EventType::AddToCart),
        row(1, 0, 3_000, Some(0), EventType::View),
        row(1, 1, 9_000, Some(2), EventType::Signup),
        row(2, 0, 1_000, None, EventType::Checkout),
    ];
    assert_eq!(data.events(), expected, "sessions of one name are two where they are of two users");
}

#[test]
fn without_items_ads_and_users_the_events_say_what_there_is() {
    let fixture =
        Fixture::sound().without_file("items.parquet").without_file("ads.parquet").without_file("users.parquet");
    let data = read(&DataSource::canonical(fixture.write().path())).unwrap();
    let items: Vec<&str> = data.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(items, ["i0", "i1", "i2"]);
    let ads: Vec<(&str, &str)> = data.ads.iter().map(|ad| (ad.id.as_str(), ad.item.as_str())).collect();
    assert_eq!(ads, [("i0", "i0"), ("i1", "i1"), ("i2", "i2")]);
    assert!(data.ads.iter().all(|ad| ad.is_active() && ad.attributes.is_empty()));

    let fixture = Fixture::sound().without_file("ads.parquet");
    let data = read(&DataSource::canonical(fixture.write().path())).unwrap();
    let advertisers: Vec<_> = data.ads.iter().map(|ad| ad.advertiser()).collect();
    assert_eq!(advertisers, [Some("adv0"), None, Some("adv1")], "an item's advertiser pays for its ad");
}

/// Reads four events of two users whose ids are `users`, and which a users file of texts describes.
#[track_caller]
fn check_ids(users: ArrayRef, file: &[&str]) {
    let fixture =
        Fixture::sound().with("users.parquet", "user_id", texts(file)).with("events.parquet", "user_id", users.clone());
    let data = read(&DataSource::canonical(fixture.write().path())).unwrap();
    let ids: Vec<&str> = data.users.iter().map(|user| user.id.as_str()).collect();
    assert_eq!(ids, file, "of {}", users.data_type());
    assert_eq!((data.events_of(0).len(), data.events_of(1).len()), (3, 2), "of {}", users.data_type());
}

#[test]
fn an_id_is_a_string_or_an_integer_of_any_width_and_encoding() {
    let (small, words) = (["7", "-3"], ["ab", "7b"]);
    check_ids(Arc::new(Int8Array::from(vec![7, -3, 7, -3, 7])), &small);
    check_ids(Arc::new(Int32Array::from(vec![7, -3, 7, -3, 7])), &small);
    check_ids(Arc::new(Int64Array::from(vec![i64::MIN, -3, i64::MIN, -3, i64::MIN])), &["-9223372036854775808", "-3"]);
    check_ids(Arc::new(UInt8Array::from(vec![255, 0, 255, 0, 255])), &["255", "0"]);
    check_ids(Arc::new(UInt32Array::from(vec![7, 0, 7, 0, 7])), &["7", "0"]);
    check_ids(Arc::new(UInt64Array::from(vec![u64::MAX, 1, u64::MAX, 1, u64::MAX])), &["18446744073709551615", "1"]);
    check_ids(Arc::new(StringArray::from(vec!["ab", "7b", "ab", "7b", "ab"])), &words);
    check_ids(Arc::new(LargeStringArray::from(vec!["ab", "7b", "ab", "7b", "ab"])), &words);
    check_ids(Arc::new(StringViewArray::from(vec!["ab", "7b", "ab", "7b", "ab"])), &words);
    check_ids(Arc::new(["ab", "7b", "ab", "7b", "ab"].into_iter().collect::<DictionaryArray<UInt32Type>>()), &words);
    check_ids(Arc::new(["7", "-3", "7", "-3", "7"].into_iter().collect::<DictionaryArray<Int8Type>>()), &small);
}

#[test]
fn interests_are_weighted_or_plain_or_single() {
    let check = |values: ArrayRef, expected: [&[&str]; 3]| {
        let of = values.data_type().clone();
        let fixture = Fixture::sound().with("items.parquet", "interests", values);
        let data = read(&DataSource::canonical(fixture.write().path())).unwrap();
        for (item, expected) in data.items.iter().zip(expected) {
            let ids: Vec<&str> = item.interests.iter().map(|interest| interest.id.as_str()).collect();
            assert_eq!(ids, expected, "of {of}");
            assert!(item.interests.iter().all(|interest| interest.confidence == 1.0), "of {of}");
        }
    };
    check(optional_texts(&[Some("a"), None, Some("b")]), [&["a"], &[], &["b"]]);
    check(Arc::new(Int8Array::from(vec![Some(4), None, Some(-1)])), [&["4"], &[], &["-1"]]);
    check(crate::fixture::words(&[&["a", "b"], &[], &["c"]]), [&["a", "b"], &[], &["c"]]);
    let mut builder = ListBuilder::new(Int16Builder::new());
    builder.append_value([Some(1), Some(2)]);
    builder.append_null();
    builder.append_value([Some(3)]);
    check(Arc::new(builder.finish()), [&["1", "2"], &[], &["3"]]);
}

#[test]
fn times_are_numbers_or_timestamps() {
    let check = |values: ArrayRef| {
        let of = values.data_type().clone();
        let fixture = Fixture::sound().with("events.parquet", "timestamp_ms", values);
        let data = read(&DataSource::canonical(fixture.write().path())).unwrap();
        let times: Vec<i64> = data.events_of(1).iter().map(|row| row.at).collect();
        assert_eq!((data.clock, times), (Clock::Milliseconds, vec![2_000, 3_000, 9_000]), "of {of}");
    };
    check(integers(&[3_000, 5_000, 2_000, 1_000, 9_000]));
    check(Arc::new(UInt64Array::from(vec![3_000, 5_000, 2_000, 1_000, 9_000])));
    check(Arc::new(Float32Array::from(vec![3_000.0, 5_000.0, 2_000.0, 1_000.0, 9_000.0])));
    let microseconds = TimestampMicrosecondArray::from(vec![3_000_000, 5_000_000, 2_000_000, 1_000_000, 9_000_000]);
    check(Arc::new(microseconds.clone()));
    check(Arc::new(microseconds.with_timezone("UTC")));
}

#[test]
fn without_times_there_is_an_order() {
    let order = |fixture: Fixture| {
        let data = read(&DataSource::canonical(fixture.write().path())).unwrap();
        (data.clock, data.events_of(1).iter().map(|row| (row.item, row.at)).collect::<Vec<_>>())
    };
    let untimed = || Fixture::sound().without("events.parquet", "timestamp_ms");
    assert_eq!(order(untimed()), (Clock::Order, vec![(0, 0), (2, 2), (1, 4)]));
    let positions = integers(&[2, 0, 1, 0, 0]);
    let placed = || untimed().with("events.parquet", "position", Arc::clone(&positions));
    assert_eq!(order(placed()), (Clock::Order, vec![(1, 0), (2, 1), (0, 2)]));
    let nothing: ArrayRef = Arc::new(Int64Array::new_null(5));
    let emptied = placed().with("events.parquet", "timestamp_ms", nothing);
    assert_eq!(order(emptied), (Clock::Order, vec![(1, 0), (2, 1), (0, 2)]));
    let timed = Fixture::sound().with("events.parquet", "position", positions);
    assert_eq!(order(timed).0, Clock::Milliseconds);
}

#[test]
fn a_directory_of_files_reads_as_one() {
    let twin = Fixture::sound().write();
    let whole = read(&DataSource::canonical(twin.path())).unwrap();
    let dir = Fixture::sound().without_file("events.parquet").write();
    let events = dir.path().join("events.parquet");
    std::fs::create_dir(&events).unwrap();
    let columns = &Fixture::sound().files["events.parquet"];
    let rows = |from: usize, count: usize| -> fixture::Columns {
        columns.iter().map(|(name, values)| (*name, values.slice(from, count))).collect()
    };
    fixture::write(&events.join("part-0.parquet"), &rows(0, 2));
    fixture::write(&events.join("part-1.parquet"), &rows(2, 3));
    std::fs::write(events.join("_SUCCESS"), b"").unwrap();
    std::fs::write(events.join(".part-1.parquet.crc"), b"?").unwrap();
    let source = DataSource::canonical(dir.path());
    let parts = read(&source).unwrap();
    assert_eq!((parts.events(), &parts.users), (whole.events(), &whole.users));

    let spoiled =
        Fixture::sound().with("events.parquet", "event_type", texts(&["view", "look", "view", "view", "view"]));
    fixture::write(&events.join("part-2.parquet"), &spoiled.files["events.parquet"]);
    let untimed = Fixture::sound().without("events.parquet", "timestamp_ms");
    fixture::write(&events.join("part-3.parquet"), &untimed.files["events.parquet"]);
    let faults: Vec<String> = fixture::check(&source).faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with("events.parquet/part-2.parquet, column event_type, row 1: event type `look`"));
    assert_eq!(faults[1], "events.parquet/part-3.parquet: has only an order, and the files before it have times");

    std::fs::remove_dir_all(&events).unwrap();
    std::fs::create_dir(&events).unwrap();
    let error = read(&source).unwrap_err().to_string();
    assert!(error.ends_with("events.parquet: is a directory without files whose names end in .parquet"), "{error}");
}

/// The sound data set, with these settings of its events file.
fn with_events(dir: &TempDir, events: serde_json::Value) -> DataSource {
    let source = serde_json::json!({ "dir": dir.path(), "events": events, "items": {}, "users": {} });
    serde_json::from_value(source).unwrap()
}

#[test]
fn times_are_counted_in_the_unit_that_the_source_names() {
    let times = |unit: &str, values: &[i64]| {
        let dir = Fixture::sound().with("events.parquet", "timestamp_ms", integers(values)).write();
        let source = with_events(&dir, serde_json::json!({ "timestamp_unit": unit }));
        read(&source).map(|data| data.events().iter().map(|row| row.at).collect::<Vec<_>>())
    };
    assert_eq!(times("s", &[3, 5, 2, 1, 9]).unwrap(), [5_000, 2_000, 3_000, 9_000, 1_000]);
    assert_eq!(times("ms", &[3, 5, 2, 1, 9]).unwrap(), [5, 2, 3, 9, 1]);
    assert_eq!(times("us", &[3_999, 5_000, 2_000, 1_000, 9_000]).unwrap(), [5, 2, 3, 9, 1]);
    let error = times("s", &[3, 5, 253_402_300_800, 1, 9]).unwrap_err().to_string();
    assert!(error.ends_with("column timestamp_ms, row 2: 253402300800 is not in 0..=253402300799"), "{error}");
}

#[test]
fn events_outside_the_span_are_left_out_and_counted() {
    let dir = Fixture::sound().write();
    let span = serde_json::json!({ "from": "1970-01-01T00:00:02Z", "until": "1970-01-01T00:00:05Z" });
    let source = with_events(&dir, span);
    let data = read(&source).unwrap();
    assert_eq!(data.events().iter().map(|row| row.at).collect::<Vec<_>>(), [2_000, 3_000]);
    let profile = fixture::check(&source).profile;
    assert_eq!((profile.events, profile.events_left_out), (2, 3));
    let text = profile.to_string();
    assert!(text.contains("\n             3 more are left out: before `from`, or not before `until`\n"), "{text}");

    let untimed = Fixture::sound().without("events.parquet", "timestamp_ms").write();
    let source = with_events(&untimed, serde_json::json!({ "from": "1970-01-01T00:00:02Z" }));
    let error = read(&source).unwrap_err().to_string();
    assert!(error.ends_with("events.parquet: has no times, which `from` and `until` ask for"), "{error}");
}

#[test]
fn an_interest_that_is_there_twice_counts_once() {
    let often: Vec<(&str, f32)> = [("a", 0.5), ("b", 0.25), ("a", 0.75)].repeat(20);
    let dir = Fixture::sound().with("items.parquet", "interests", interests(&[&often, &[], &[]])).write();
    let items = read(&DataSource::canonical(dir.path())).unwrap().items;
    let found: Vec<(&str, f32)> = items[0].interests.iter().map(|of| (of.id.as_str(), of.confidence)).collect();
    assert_eq!(found, [("a", 0.75), ("b", 0.25)]);
}

#[test]
fn rows_of_one_item_are_refused_or_joined() {
    let dir = Fixture::sound()
        .with("items.parquet", "item_id", texts(&["i0", "i1", "i0"]))
        .with("items.parquet", "interests", interests(&[&[("a", 0.9), ("b", 0.4)], &[], &[("b", 0.5), ("c", 1.0)]]))
        .with("events.parquet", "item_id", texts(&["i0", "i1", "i0", "i1", "i0"]))
        .write();
    let source = |repeated: &str| -> DataSource {
        let items = serde_json::json!({ "repeated_ids": repeated });
        serde_json::from_value(serde_json::json!({ "dir": dir.path(), "items": items })).unwrap()
    };
    let error = read(&source("refuse")).unwrap_err().to_string();
    assert!(error.ends_with("items.parquet, column item_id, row 2: `i0` is there twice"), "{error}");
    let items = read(&source("join")).unwrap().items;
    assert_eq!(items.len(), 2);
    let found: Vec<(&str, f32)> = items[0].interests.iter().map(|of| (of.id.as_str(), of.confidence)).collect();
    assert_eq!(found, [("a", 0.9), ("b", 0.5), ("c", 1.0)]);
    assert_eq!((items[0].price, items[0].title.as_deref()), (Some(9.5), Some("A chair")));
    assert_eq!(items[0].advertiser.as_ref().map(|id| id.as_str()), Some("adv0"));
}

#[test]
fn a_mapped_data_set_reads_as_its_canonical_twin() {
    let mut fixture = Fixture::sound();
    for (old, new) in [("user_id", "user"), ("item_id", "item"), ("timestamp_ms", "when"), ("event_type", "what")] {
        let columns = fixture.files.get_mut("events.parquet").unwrap();
        columns.iter_mut().filter(|(name, _)| *name == old).for_each(|(name, _)| *name = new);
    }
    let words = texts(&["click", "click", "fav", "buy", "signup"]);
    let dir = fixture.with("events.parquet", "what", words).write();
    std::fs::rename(dir.path().join("events.parquet"), dir.path().join("clicks.parquet")).unwrap();
    let source: DataSource = serde_json::from_value(serde_json::json!({
        "dir": dir.path(),
        "events": {
            "file": "clicks.parquet",
            "columns": { "user_id": "user", "item_id": "item", "timestamp_ms": "when", "event_type": "what" },
            "event_types": { "click": "view", "fav": "add_to_cart", "buy": "checkout" },
        },
        "items": {}, "ads": { "columns": { "least_age": "min_age" } }, "users": {},
    }))
    .unwrap();
    let mapped = read(&source).unwrap();
    let twin = Fixture::sound().write();
    let canonical = read(&DataSource::canonical(twin.path())).unwrap();
    assert_eq!(mapped.events(), canonical.events());
    assert_eq!(mapped.users, canonical.users);
    assert_eq!(mapped.ads[1].attributes["least_age"], Attribute::Number(18.0));
    assert!(!mapped.ads[1].attributes.contains_key("min_age"));
}

#[test]
fn well_known_attributes_have_their_kind_whatever_the_type_of_their_column() {
    let seconds = 1_767_571_200;
    let milliseconds = TimestampMillisecondArray::from(vec![Some(1_000 * seconds), None, Some(1_500)]);
    let categories = [vec![Some(1), Some(2)], vec![], vec![Some(3)]].map(Some);
    let categories: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(categories));
    let dir = Fixture::sound()
        .with("ads.parquet", "campaign_id", integers(&[7, 8, 9]))
        .with("ads.parquet", "categories", categories)
        .with("ads.parquet", "starts_at", integers(&[5, 6, 1]))
        .with("ads.parquet", "ends_at", Arc::new(milliseconds))
        .with("ads.parquet", "tier", integers(&[7, 8, 9]))
        .write();
    let ads = read(&DataSource::canonical(dir.path())).unwrap().ads;
    let of = |ad: usize, name: &str| ads[ad].attributes.get(name).cloned();
    assert_eq!(of(1, "campaign_id"), Some(Attribute::Keyword("8".into())));
    assert_eq!(of(0, "categories"), Some(Attribute::Keywords(vec!["1".into(), "2".into()])));
    assert_eq!(of(1, "starts_at"), Some(Attribute::Number(6.0)));
    assert_eq!(of(0, "ends_at"), Some(Attribute::Number(seconds as f64)));
    assert_eq!(of(1, "ends_at"), None);
    assert_eq!(of(2, "tier"), Some(Attribute::Number(9.0)));
    assert_eq!(of(2, "ends_at"), Some(Attribute::Number(1.5)));
}

#[test]
fn the_error_names_the_file_where_it_lies() {
    let dir = Fixture::sound().with("users.parquet", "age", integers(&[1, 121])).write();
    let error = read(&DataSource::canonical(dir.path())).unwrap_err().to_string();
    let expected = format!("{}, column age, row 1: 121 is not in 0..=120", dir.path().join("users.parquet").display());
    assert_eq!(error, expected);
}

/// Where the real data sets lie, if somewhere.
fn real_data() -> Option<PathBuf> {
    let dir = std::env::var_os("TURRET_DATA").map(PathBuf::from);
    if dir.is_none() {
        println!("skipped: TURRET_DATA is not set");
    }
    dir
}

#[test]
fn globo_reads_as_it_lies() {
    let Some(dir) = real_data() else { return };
    let source: DataSource = serde_json::from_value(serde_json::json!({
        "dir": dir.join("globo"),
        "events": {
            "columns": { "user_id": "user", "item_id": "item", "session_id": "session" },
            "event_types": { "click": "view" },
        },
        "items": { "columns": { "item_id": "item", "interests": "category" } },
    }))
    .unwrap();
    let data = read(&source).unwrap();
    assert_eq!((data.events().len(), data.users.len(), data.items.len()), (2_988_181, 322_897, 46_033));
    assert_eq!(data.clock, Clock::Milliseconds);
    let sessions = data.events().iter().filter_map(|row| row.session).max().unwrap() + 1;
    assert_eq!(sessions, 1_048_594);
    assert_eq!(data.items.iter().filter(|item| item.interests.is_empty()).count(), 3_553);
    assert!(data.users.iter().all(|user| user.demographics.is_unknown()));
}

#[test]
fn movielens_reads_as_it_lies() {
    let Some(dir) = real_data() else { return };
    let source: DataSource = serde_json::from_value(serde_json::json!({
        "dir": dir.join("ml-1m"),
        "events": { "columns": { "user_id": "user", "item_id": "item" }, "event_types": { "rating": "view" } },
        "items": { "columns": { "item_id": "item", "interests": "categories" } },
        "users": { "columns": { "user_id": "user" } },
    }))
    .unwrap();
    let data = read(&source).unwrap();
    assert_eq!((data.events().len(), data.users.len(), data.items.len()), (999_611, 6_040, 3_883));
    assert_eq!(data.clock, Clock::Order);
    assert!(data.users.iter().all(|user| user.demographics.age.is_some() && user.demographics.gender.is_some()));
    assert_eq!(data.items[0].title.as_deref(), Some("Toy Story (1995)"));
}
