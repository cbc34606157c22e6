use std::path::Path;

use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EncoderVersion, GenerationId, ItemId};
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::user::Demographics;

use super::*;
use crate::partition::StoreSettings;
use crate::writes::{Change, Write};
use crate::{PartitionStore, SnapshotUser, SnapshotWriter, StoredState};

fn open(dir: &Path) -> PartitionStore {
    PartitionStore::open(dir, StoreSettings { events_per_user_max: 9, cache_bytes: 1 << 20 }, 0).unwrap()
}

fn append(store: &PartitionStore, user: u64, times: &[i64], now_ms: i64) {
    let event = |at| Event { item_id: ItemId::from(7), event_type: EventType::View, timestamp_ms: at, event_id: None };
    let change = Change::Append(times.iter().map(|at| event(*at)).collect());
    store.write(&[Write { user: user.into(), change }], now_ms).unwrap().remove(0).unwrap();
}

fn put_state(store: &PartitionStore, user: u64) {
    let sequence = SequenceState::new(&[0.5; 64 * 64], 64, Precision::F16).unwrap();
    let encoder = EncoderVersion::from(1);
    let covers = store.view(&user.into(), &encoder).unwrap().unwrap().log_at;
    let state = StoredState { encoder, made_at_ms: 5, covers_until_ms: 0, covers, sequence };
    assert_eq!(store.put_states(&[(user.into(), state)], None).unwrap(), 1);
}

#[test]
fn old_events_go_and_what_was_made_of_them_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let encoder = EncoderVersion::from(1);
    for (user, times) in [(1, &[10, 900][..]), (2, &[10, 20]), (3, &[900])] {
        append(&store, user, times, 900);
        put_state(&store, user);
    }
    let retention = Retention { events_ms: Some(500), ..Retention::default() };
    let swept = store.sweep(None, retention, 1_000).unwrap();
    assert_eq!(swept, Swept { events: 3, ..Swept::default() });
    let view = |user: u64| store.view(&user.into(), &encoder).unwrap();
    assert!(view(1).is_some_and(|view| view.state.is_some() && !view.is_current()));
    assert_eq!(view(2), None);
    assert!(view(3).is_some_and(|view| view.is_current()));
    assert_eq!((store.stats().users, store.logs.len()), (2, 2));
    assert_eq!(store.sweep(None, retention, 1_000).unwrap(), Swept::default());
}

#[test]
fn the_silent_and_the_marks_of_the_erased_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, &[10], 100);
    put_state(&store, 1);
    append(&store, 2, &[10], 900);
    let describe = |user: u64, age, now_ms| {
        let change = Change::Describe(Demographics { age: Some(age), country: None, gender: None });
        store.write(&[Write { user: user.into(), change }], now_ms).unwrap();
    };
    append(&store, 3, &[10], 100);
    describe(3, 30, 900);
    for (user, now_ms) in [(4u64, 100), (5, 900)] {
        store.write(&[Write { user: user.into(), change: Change::Erase }], now_ms).unwrap();
    }
    let retention = Retention { silent_ms: Some(500), erased_ms: Some(500), ..Retention::default() };
    let swept = store.sweep(None, retention, 1_000).unwrap();
    assert_eq!(swept, Swept { silent_users: 1, erasures: 1, ..Swept::default() });
    let left: Vec<_> = store.users.iter().keys().map(|key| String::from_utf8(key.unwrap().to_vec()).unwrap()).collect();
    assert_eq!(left, ["2", "3", "5"]);
    assert_eq!((store.stats().users, store.logs.len(), store.parts.len()), (2, 2, 0));
}

#[test]
fn whom_only_a_generation_told_of_is_not_silent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let path = dir.path().join("shipped");
    let mut writer = SnapshotWriter::create(&path).unwrap();
    let demographics = Demographics { age: Some(30), country: None, gender: None };
    writer.append(&SnapshotUser { user: 1.into(), demographics, events: vec![], state: None }).unwrap();
    writer.finish().unwrap();
    let mut go_on = |_| std::ops::ControlFlow::Continue(());
    store.import_snapshot(&path, &GenerationId::from(1), 900, &mut go_on).unwrap();
    let retention = Retention { silent_ms: Some(500), ..Retention::default() };
    assert_eq!(store.sweep(None, retention, 1_000).unwrap(), Swept::default());
    assert_eq!(store.stats().users, 1);
    // Who was heard of since may fall silent, whatever became of the events.
    append(&store, 1, &[10], 1_000);
    let both = Retention { events_ms: Some(100), ..retention };
    assert_eq!(store.sweep(None, both, 1_400).unwrap(), Swept { events: 1, ..Swept::default() });
    assert_eq!((store.stats().users, store.sweep(None, both, 1_500).unwrap()), (1, Swept::default()));
    assert_eq!(store.sweep(None, both, 1_501).unwrap().silent_users, 1);
    assert_eq!(store.stats().users, 0);
}

#[test]
fn a_sweep_goes_on_behind_its_page_and_passes_over_what_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let write = |number: usize| Write { user: UserId::new(&format!("u{number:05}")).unwrap(), change: Change::Erase };
    store.write(&(0..SWEEP_MAX + 5).map(write).collect::<Vec<_>>(), 100).unwrap();
    store.users.insert("u00003", &[9, 0]).unwrap();
    let retention = Retention { erased_ms: Some(1), ..Retention::default() };
    let first = store.sweep(None, retention, 1_000).unwrap();
    assert_eq!((first.erasures, first.next.clone()), (SWEEP_MAX as u64 - 1, Some(write(SWEEP_MAX - 1).user)));
    let second = store.sweep(first.next.as_ref(), retention, 1_000).unwrap();
    assert_eq!((second.erasures, second.next), (5, None));
    assert_eq!(store.users.len(), 1);
}

#[test]
fn an_event_that_expires_is_no_sign_of_life_and_a_state_no_user() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, &[10, 100], 100);
    let dirty = store.dirty_users(&EncoderVersion::from(1), None, 9).unwrap().users.remove(0);
    let retention = Retention { events_ms: Some(500), silent_ms: Some(600), ..Retention::default() };
    assert_eq!(store.sweep(None, retention, 520).unwrap().events, 1);
    assert_eq!(store.sweep(None, retention, 590).unwrap(), Swept::default());
    assert_eq!(store.sweep(None, Retention { events_ms: None, ..retention }, 701).unwrap().silent_users, 1);
    // What was being made of the events meanwhile.
    let sequence = SequenceState::new(&[0.5; 4], 4, Precision::F16).unwrap();
    let (encoder, covers) = (EncoderVersion::from(1), dirty.log_at);
    let state = StoredState { encoder, made_at_ms: 5, covers_until_ms: 0, covers, sequence };
    assert_eq!(store.put_states(&[(dirty.user, state)], None).unwrap(), 0);
    assert!(store.users.is_empty());
    // Somebody of whom nothing is known any more.
    let change = Change::Describe(Demographics::default());
    store.write(&[Write { user: 2u64.into(), change }], 700).unwrap();
    store.sweep(None, retention, 710).unwrap();
    assert!(store.users.is_empty());
}
