use std::collections::BTreeMap;

use turret_retrieval::dataset::Dataset;
use turret_retrieval::event::EventType;

use super::*;
use crate::fixture::{self, Fixture, go_on, integers, optional_texts, texts};
use crate::marketplace::{MarketplaceSettings, generate};

/// Of each user: what is known of them, and their events by the items' ids, sessions numbered anew.
type Histories = BTreeMap<String, (String, Vec<(String, i64, Option<usize>, EventType)>)>;

fn histories(data: &Dataset) -> Histories {
    let mut histories = Histories::new();
    for (user, number) in data.users.iter().zip(0..) {
        let mut sessions = Vec::new();
        let events = data.events_of(number).iter().map(|row| {
            let session = row.session.map(|session| {
                sessions.iter().position(|known| *known == session).unwrap_or_else(|| {
                    sessions.push(session);
                    sessions.len() - 1
                })
            });
            (data.items[row.item as usize].id.to_string(), row.at, session, row.kind)
        });
        let events = events.collect();
        let known = histories.insert(user.id.to_string(), (format!("{:?}", user.demographics), events));
        assert!(known.is_none(), "user {} is in two parts", user.id);
    }
    histories
}

/// The union of all parts must be the data set that is read at once.
#[track_caller]
fn check_union(source: &DataSource, events_per_part: u64) -> (Vec<usize>, PartsPlan) {
    let scratch = tempfile::tempdir().unwrap();
    let plan = PartsPlan::of(source, events_per_part).unwrap();
    let log = plan.split(source, &scratch.path().join("parts"), &mut go_on).unwrap();
    let whole = fixture::read(source).unwrap();
    let mut union = Histories::new();
    let mut sizes = Vec::new();
    for number in 0..log.count() {
        let part = log.read(number).unwrap();
        assert_eq!(histories(&part), histories(&log.read(number).unwrap()), "the same on every call");
        sizes.push(part.events().len());
        for (user, history) in histories(&part) {
            assert!(union.insert(user, history).is_none());
        }
    }
    assert_eq!(union, histories(&whole));
    assert_eq!((log.items(), log.clock()), (&*whole.items, whole.clock));
    assert_eq!(log.events(), whole.events().len() as u64);
    assert!(log.disk_bytes() <= plan.disk_bytes_max, "{} of {plan:?}", log.disk_bytes());
    (sizes, plan)
}

#[test]
fn the_parts_together_are_the_data_set_event_for_event() {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        MarketplaceSettings { users: 1_500, ads: 300, advertisers: 20, days: 15, seed: 4, start_ms: 1_767_571_200_000 };
    let made = generate(&settings, &dir.path().join("m"), &mut go_on).unwrap();
    let (sizes, plan) = check_union(&DataSource::canonical(&dir.path().join("m")), 2_000);
    assert_eq!((plan.events, u64::from(plan.parts)), (made.events, made.events.div_ceil(2_000)));
    let fair = made.events as f64 / sizes.len() as f64;
    assert!(sizes.iter().all(|size| (*size as f64 / fair - 1.0).abs() < 0.35), "{sizes:?}");
}

#[test]
fn ids_of_every_kind_and_absent_facts_survive() {
    check_union(&DataSource::canonical(Fixture::sound().write().path()), 1);
    let mixed = Fixture::sound()
        .with("users.parquet", "user_id", integers(&[7, -3]))
        .with("events.parquet", "user_id", texts(&["7", "-3", "07", "18446744073709551615", "7"]))
        .with("events.parquet", "session_id", optional_texts(&[Some("1"), None, Some("1"), Some("ä"), Some("2")]));
    check_union(&DataSource::canonical(mixed.write().path()), 2);
    let untimed = Fixture::sound().without("events.parquet", "timestamp_ms").without_file("items.parquet");
    check_union(&DataSource::canonical(untimed.without_file("ads.parquet").write().path()), 1);
}

#[test]
fn nothing_is_left_behind_and_what_a_killed_run_left_is_removed() {
    let data = Fixture::sound().write();
    let source = DataSource::canonical(data.path());
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("parts");
    let plan = PartsPlan::of(&source, 2).unwrap();
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("part-000"), b"left by another run").unwrap();
    let log = plan.split(&source, &dir, &mut go_on).unwrap();
    assert!(matches!(plan.split(&source, &dir, &mut go_on), Err(PartingError::InUse { .. })));
    assert_eq!(log.events(), 5, "another run did not disturb this one");
    assert!((0..log.count()).all(|number| log.read(number).is_ok()));
    drop(log);
    assert!(!dir.exists());
    let stopped = plan.split(&source, &dir, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(PartingError::Read(ReadError::Interrupted))));
    assert!(!dir.exists());
}

#[test]
fn a_fault_of_the_data_ends_the_splitting_or_the_reading() {
    let split = |fixture: Fixture| {
        let (data, scratch) = (fixture.write(), tempfile::tempdir().unwrap());
        let source = DataSource::canonical(data.path());
        let log = PartsPlan::of(&source, 100)?.split(&source, &scratch.path().join("parts"), &mut go_on);
        log.map(|log| log.read(0).map(drop))
    };
    let faulty = Fixture::sound().with("events.parquet", "timestamp_ms", integers(&[1, 2, -3, 4, 5]));
    let error = split(faulty).unwrap_err().to_string();
    assert!(error.ends_with("events.parquet, column timestamp_ms, row 2: -3 is not in 0..=253402300799999"), "{error}");
    let twice = Fixture::sound().with("users.parquet", "user_id", texts(&["u0", "u0"]));
    let error = split(twice).unwrap().unwrap_err().to_string();
    assert_eq!(error, "part 0 of the log: user `u0` is there twice in the users file");
}

#[test]
fn a_damaged_part_is_an_error_and_no_panic() {
    let data = Fixture::sound().write();
    let source = DataSource::canonical(data.path());
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("parts");
    let log = PartsPlan::of(&source, 100).unwrap().split(&source, &dir, &mut go_on).unwrap();
    let path = dir.join("part-000");
    let sound = std::fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x80;
        std::fs::write(&path, &damaged).unwrap();
        drop(log.read(0));
        std::fs::write(&path, &sound[..at]).unwrap();
        assert!(log.read(0).is_err(), "truncated to {at} bytes");
    }
}
