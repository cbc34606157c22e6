use super::*;

fn parse(json: &str) -> Result<DataSource, serde_json::Error> {
    serde_json::from_str(json)
}

#[test]
fn an_absent_section_is_a_file_that_is_not_read() {
    let source = parse(
        r#"{"dir": "globo",
            "events": {"columns": {"user_id": "user", "item_id": "item"}, "event_types": {"click": "view"},
                       "timestamp_unit": "s", "from": "2017-10-01T00:00:00Z"},
            "items": {"file": "articles.parquet", "repeated_ids": "join", "columns": {"interests": "category"}}}"#,
    )
    .unwrap();
    assert_eq!(source.events.file, "events.parquet");
    assert_eq!(source.events.event_types["click"], EventType::View);
    assert_eq!((source.events.from_ms, source.events.until_ms), (Some(1_506_816_000_000), None));
    assert_eq!(source.items.as_ref().unwrap().file, "articles.parquet");
    assert_eq!((&source.ads, &source.users), (&None, &None));
    let again = parse(&serde_json::to_string(&source).unwrap()).unwrap();
    assert_eq!(again, source);
}

#[test]
fn a_mapping_of_something_that_the_schema_lacks_is_refused() {
    let check = |json: &str, rule: &str| {
        let error = parse(json).unwrap_err().to_string();
        assert!(error.contains(rule), "{json}: {error}");
    };
    check(
        r#"{"dir": "d", "events": {"columns": {"usr": "u"}}}"#,
        "`usr` is not a column of the schema, which has user_id,",
    );
    check(r#"{"dir": "d", "items": {"columns": {"user_id": "u"}}}"#, "`user_id` is not a column");
    check(r#"{"dir": "d", "users": {"columns": {"zip": "u"}}}"#, "`zip` is not a column");
    check(r#"{"dir": "d", "events": {"event_types": {"click": "look"}}}"#, "unknown variant `look`");
    check(r#"{"dir": "d", "events": {"timestamp_unit": "hours"}}"#, "unknown variant `hours`");
    check(r#"{"dir": "d", "events": {"from": "yesterday"}}"#, "`yesterday` is not a time such as 2017-11-24T16:00:00Z");
    check(r#"{"dir": "d", "items": {"repeated_ids": "drop"}}"#, "unknown variant `drop`");
    check(r#"{"dir": "d", "item": {}}"#, "unknown field `item`");
    check(r#"{"dir": "d", "ads": {"files": "x"}}"#, "unknown field `files`");
    // An ads file may have any column.
    assert!(parse(r#"{"dir": "d", "ads": {"columns": {"tier": "price_level"}}}"#).is_ok());
}

#[test]
fn the_canonical_source_has_the_files_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("users.parquet"), b"").unwrap();
    let source = DataSource::canonical(dir.path());
    assert_eq!((&source.items, &source.ads), (&None, &None));
    assert_eq!(source.users, Some(UsersFile::default()));
    assert_eq!(source.dir, dir.path());
}
