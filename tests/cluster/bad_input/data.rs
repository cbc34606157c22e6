//! Data sets that are not what they should be: exit code 1, by file, column and row, and no model.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{text, turret};
use crate::world::{config_of, world};

/// A copy of the world's marketplace that may be spoiled.
fn marketplace() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("marketplace");
    fs::create_dir(&target).unwrap();
    for file in ["events.parquet", "items.parquet", "ads.parquet", "users.parquet"] {
        fs::copy(world().dir.join("marketplace").join(file), target.join(file)).unwrap();
    }
    dir
}

/// Checks the faults that a check finds in the marketplace below `dir` with `mapping` added to its configuration, and
/// that training refuses it for the same reason.
#[track_caller]
fn check(dir: &Path, mapping: &str, file: &str, column: Option<&str>, row: Option<u64>, rule: &str) {
    let config = dir.join("world.toml");
    fs::write(&config, format!("{}{mapping}", config_of(dir))).unwrap();
    let finished = turret(&["data", "check", "--config", text(&config), "--json"]).expect(1);
    finished.says(&["fault"]);
    let report: Value = serde_json::from_str(&finished.output).unwrap();
    let fault = &report["faults"][0];
    assert_eq!(fault["file"], file, "{fault:#}");
    assert_eq!(fault["column"].as_str(), column, "{fault:#}");
    assert_eq!(fault["row"].as_u64(), row, "{fault:#}");
    assert!(fault["rule"].as_str().is_some_and(|text| text.contains(rule)), "`{rule}` is not in {fault:#}");
    assert!(report["faults"].as_array().is_some_and(|faults| faults.len() <= 100), "the list is bounded");

    turret(&["train", "--config", text(&config), "--only", "contextual"]).expect(1).says(&[file, rule]);
    assert!(!dir.join("models").exists(), "a model was written");
    turret(&["publish", "--config", text(&config)]).expect(1).says(&["models/contextual", "turret train"]);
    assert!(!dir.join("generations").exists(), "a generation was begun");
}

#[test]
fn columns_that_are_missing_or_of_another_type_are_named() {
    let dir = marketplace();
    let check =
        |mapping: &str, file, column, row, rule: &str| check(dir.path(), mapping, file, Some(column), row, rule);
    let events = "events.parquet";
    check("[data.events]\ncolumns = { user_id = \"who\" }\n", events, "who", None, "is missing");
    check("[data.events]\ncolumns = { timestamp_ms = \"user_id\" }\n", events, "user_id", None, "is Utf8, must be");
    check("[data.events]\ncolumns = { event_type = \"timestamp_ms\" }\n", events, "timestamp_ms", None, "must be");
    check("[data.items]\ncolumns = { price = \"title\" }\n", "items.parquet", "title", None, "is Utf8, must be");
    check("[data.users]\ncolumns = { age = \"country\" }\n", "users.parquet", "country", None, "is Utf8, must be");
}

#[test]
fn an_unknown_event_type_is_named_by_row() {
    let dir = marketplace();
    let mapping = "[data.events]\ncolumns = { event_type = \"session_id\" }\n";
    check(dir.path(), mapping, "events.parquet", Some("session_id"), Some(0), "is none of view, add_to_cart");
}

#[test]
fn files_that_are_not_whole_are_named() {
    for file in ["events.parquet", "items.parquet", "ads.parquet", "users.parquet"] {
        let spoiled = |spoil: &dyn Fn(&Path), rule: &str| {
            let dir = marketplace();
            spoil(&dir.path().join("marketplace").join(file));
            check(dir.path(), "", file, None, None, rule);
        };
        spoiled(&|path| fs::write(path, "").unwrap(), "is empty: 0 bytes");
        spoiled(&|path| fs::write(path, "user_id,item_id\n7,8\n").unwrap(), "is not Parquet");
        // Its footer is at its end.
        spoiled(
            &|path| {
                let whole = fs::read(path).unwrap();
                fs::write(path, &whole[..whole.len() / 2]).unwrap();
            },
            "is not Parquet, or not all of it",
        );
    }
}

#[test]
fn a_file_that_breaks_off_within_its_columns_is_refused() {
    // The footer is whole, and what it points to is not: the reader finds out while it decodes.
    let dir = marketplace();
    let path = dir.path().join("marketplace/events.parquet");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[4..middle].fill(0xff);
    fs::write(&path, bytes).unwrap();
    check(dir.path(), "", "events.parquet", None, None, "decoded");
}

#[test]
fn a_data_set_without_its_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let finished = turret(&["data", "check", text(dir.path())]).expect(1);
    assert!(finished.output.contains("events.parquet: cannot be opened"), "{finished:#?}");
    let missing = dir.path().join("missing");
    turret(&["data", "check", text(&missing)]).expect(2).says(&["missing is not a directory"]);
}

#[test]
fn a_marketplace_is_never_written_over_what_is_there() {
    let dir = marketplace();
    let target = dir.path().join("marketplace");
    turret(&["synth", text(&target), "--users", "5", "--ads", "5"]).expect(1).says(&["not an empty directory"]);
    assert_eq!(
        fs::read(target.join("ads.parquet")).unwrap(),
        fs::read(world().dir.join("marketplace/ads.parquet")).unwrap()
    );
}
