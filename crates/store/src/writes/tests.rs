use std::path::Path;

use turret_retrieval::event::EventType;
use turret_retrieval::ids::{GenerationId, ItemId};
use turret_retrieval::state::{Precision, SequenceState};

use super::*;
use crate::partition::StoreSettings;
use crate::snapshot::{SnapshotUser, SnapshotWriter};
use crate::{PartitionStore, StoredState};

fn open(dir: &Path) -> PartitionStore {
    PartitionStore::open(dir, StoreSettings { events_per_user_max: 9, cache_bytes: 1 << 20 }, 0).unwrap()
}

fn event(at: i64) -> Event {
    Event { item_id: ItemId::from(7), event_type: EventType::View, timestamp_ms: at, event_id: None }
}

fn encoder() -> EncoderVersion {
    EncoderVersion::from(1)
}

fn state(covers: Revision) -> StoredState {
    // So many rows that there are parts.
    let sequence = SequenceState::new(&[0.5; 64 * 64], 64, Precision::F16).unwrap();
    StoredState { encoder: encoder(), made_at_ms: 5, covers_until_ms: 1_000, covers, sequence }
}

fn write(store: &PartitionStore, user: &str, change: Change, now_ms: i64) -> Written {
    let write = Write { user: UserId::new(user).unwrap(), change };
    store.write(&[write], now_ms).unwrap().remove(0).unwrap()
}

fn append(store: &PartitionStore, user: &str, times: &[i64], now_ms: i64) -> Appended {
    let events = times.iter().map(|at| event(*at)).collect();
    let Written::Appended(appended) = write(store, user, Change::Append(events), now_ms) else { unreachable!() };
    appended
}

fn known(age: u8) -> Demographics {
    Demographics { age: Some(age), country: None, gender: None }
}

#[test]
fn an_erased_user_leaves_a_mark_that_late_and_repeated_events_do_not_pass() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::new("u").unwrap();
    append(&store, "u", &[10, 20], 100);
    write(&store, "u", Change::Describe(known(30)), 100);
    let dirty = store.dirty_users(&encoder(), None, 9).unwrap().users.remove(0);
    store.put_states(&[(user.clone(), state(dirty.log_at))], None).unwrap();
    assert!(!store.parts.is_empty());
    assert_eq!(store.stats().users, 1);

    let Written::Erased(erasure) = write(&store, "u", Change::Erase, 200) else { unreachable!() };
    assert_eq!((erasure.events, erasure.demographics, erasure.watermark_ms), (2, true, 200));
    assert_eq!(erasure.states, [encoder()]);
    assert_eq!((store.stats().users, store.parts.len(), store.logs.len()), (0, 0, 0));
    let profile = store.profile(&user).unwrap().unwrap();
    assert_eq!((profile.events, profile.states.len(), profile.demographics.is_unknown()), (0, 0, true));
    assert_eq!(profile.erased.unwrap().at_ms, 200);

    // Repeated and late events, and a state that was being made meanwhile.
    assert_eq!(append(&store, "u", &[10, 20, 150, 200], 300), Appended { erased: 4, ..Appended::default() });
    assert_eq!(store.put_states(&[(user.clone(), state(dirty.log_at))], None).unwrap(), 0);
    assert_eq!(store.view(&user, &encoder()).unwrap().unwrap().state, None);
    assert_eq!(store.stats().users, 0);

    // What the user does afterwards is new.
    assert_eq!(append(&store, "u", &[201], 300), Appended { added: 1, ..Appended::default() });
    assert_eq!((store.events(&user).unwrap(), store.stats().users), (vec![event(201)], 1));
    let log_at = store.view(&user, &encoder()).unwrap().unwrap().log_at;
    assert_eq!(store.put_states(&[(user.clone(), state(log_at))], None).unwrap(), 1);
    assert!(store.view(&user, &encoder()).unwrap().unwrap().is_current());
}

#[test]
fn the_mark_is_as_late_as_the_latest_event_and_never_moves_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, "u", &[500], 100);
    let watermark = |now_ms| match write(&store, "u", Change::Erase, now_ms) {
        Written::Erased(erasure) => (erasure.watermark_ms, erasure.revision),
        other @ (Written::Appended(_) | Written::Described(_)) => unreachable!("{other:?}"),
    };
    let (first, second) = (watermark(100), watermark(50));
    assert_eq!((first.0, second.0), (500, 500));
    assert!(second.1 > first.1);
    // Nobody who was ever known.
    let Written::Erased(erasure) = write(&store, "v", Change::Erase, 70) else { unreachable!() };
    assert_eq!((erasure.events, erasure.watermark_ms), (0, 70));
    assert_eq!(append(&store, "v", &[70], 80).erased, 1);
}

#[test]
fn a_snapshot_does_not_bring_an_erased_user_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    write(&store, "u", Change::Erase, 200);
    let import = |generation: u64, times: &[i64]| {
        let path = dir.path().join(generation.to_string());
        let mut writer = SnapshotWriter::create(&path).unwrap();
        let user = UserId::new("u").unwrap();
        let events = times.iter().map(|at| event(*at)).collect();
        writer
            .append(&SnapshotUser { user, demographics: known(30), events, state: Some(state(Revision::NONE)) })
            .unwrap();
        writer.finish().unwrap();
        let mut go_on = |_| std::ops::ControlFlow::Continue(());
        store.import_snapshot(&path, &GenerationId::from(generation), 300, &mut go_on).unwrap();
        store.view(&UserId::new("u").unwrap(), &encoder()).unwrap().unwrap()
    };
    let view = import(1, &[100, 200]);
    assert!(view.state.is_none() && view.demographics.is_unknown() && view.log_at == Revision::NONE);
    // A state that knows erased events beside later ones is as bad.
    let view = import(2, &[100, 250]);
    assert!(view.state.is_none() && view.demographics.is_unknown() && view.log_at > Revision::NONE);
    // And of later ones alone it is good. Of demographics nobody can say when they were known: they come back by whoever sets them.
    let view = import(3, &[250, 260]);
    assert!(view.is_current() && view.demographics.is_unknown());
    let change = Change::Describe(known(31));
    store.write(&[Write { user: UserId::new("u").unwrap(), change }], 300).unwrap();
    assert_eq!(import(4, &[250, 260]).demographics, known(31));
}

#[test]
fn demographics_are_replaced_whole_and_the_batch_goes_on_behind_a_damaged_user() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.users.insert("bad", &[9, 0]).unwrap();
    let describe =
        |user: &str, demographics| Write { user: UserId::new(user).unwrap(), change: Change::Describe(demographics) };
    let country = Demographics { age: None, country: Some("US".into()), gender: None };
    let writes = [describe("u", known(30)), describe("bad", known(1)), describe("u", country.clone())];
    let outcomes = store.write(&writes, 100).unwrap();
    let revisions: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().ok()).collect();
    let (Some(Written::Described(first)), None, Some(Written::Described(second))) =
        (revisions[0], revisions[1], revisions[2])
    else {
        unreachable!("{outcomes:?}")
    };
    assert!(second > first);
    let view = open_view(&store, "u");
    assert_eq!(view.demographics, country);
    // Nothing known any more is nobody.
    write(&store, "u", Change::Describe(Demographics::default()), 100);
    assert_eq!(store.stats().users, 0);
}

fn open_view(store: &PartitionStore, user: &str) -> crate::UserView {
    store.view(&UserId::new(user).unwrap(), &encoder()).unwrap().unwrap()
}

#[test]
fn an_erasure_that_was_cut_off_behind_its_record_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, "u", &[10, 300], 100);
    let log = store.logs.get("u").unwrap().unwrap();
    write(&store, "u", Change::Erase, 400);
    // As if the log had still been there when the power went.
    store.logs.insert("u", log).unwrap();
    let user = UserId::new("u").unwrap();
    assert_eq!(store.events(&user).unwrap(), []);
    assert_eq!(store.profile(&user).unwrap().unwrap().events, 0);
    assert_eq!(append(&store, "u", &[500], 600).added, 1);
    assert_eq!(store.events(&user).unwrap(), [event(500)]);
}

#[test]
fn what_cannot_be_read_and_what_nobody_names_is_erased_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, "u", &[10], 100);
    store.parts.insert(b"u\0e9\0\x01\0\0", &[3, 1]).unwrap();
    append(&store, "u2", &[10], 100);
    store.parts.insert(b"u2\0e9\0\x01\0\0", &[3, 1]).unwrap();
    store.users.insert("u", &[9, 0]).unwrap();
    let Written::Erased(erasure) = write(&store, "u", Change::Erase, 200) else { unreachable!() };
    assert_eq!((erasure.events, erasure.watermark_ms, store.stats().users), (0, 200, 1));
    assert_eq!(store.profile(&UserId::new("u").unwrap()).unwrap().unwrap().events, 0);
    assert_eq!((store.logs.len(), store.parts.len()), (1, 1), "of another user, whose id begins the same");
}

#[test]
fn a_snapshot_fills_in_no_demographics_where_they_were_set() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    write(&store, "u", Change::Describe(Demographics::default()), 100);
    let path = dir.path().join("snapshot");
    let mut writer = SnapshotWriter::create(&path).unwrap();
    for user in ["u", "v"] {
        let (user, events) = (UserId::new(user).unwrap(), vec![event(5)]);
        writer.append(&SnapshotUser { user, demographics: known(30), events, state: None }).unwrap();
    }
    writer.finish().unwrap();
    store.import_snapshot(&path, &GenerationId::from(1), 300, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(open_view(&store, "u").demographics.is_unknown());
    let imported = open_view(&store, "v");
    assert_eq!((imported.demographics, imported.log_at.at_ms()), (known(30), 5));
}
