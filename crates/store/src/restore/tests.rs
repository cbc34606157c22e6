use std::path::Path;

use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EncoderVersion, EventId, ItemId};
use turret_retrieval::kept::{Erased, StoredState};
use turret_retrieval::revision::Revision;
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::user::Demographics;

use super::*;
use crate::partition::StoreSettings;
use crate::record::FIRST_BYTES_MAX;
use crate::writes::{Appended, Change, Write, Written};

const NOW: i64 = 1_000_000;

fn open(dir: &Path) -> PartitionStore {
    PartitionStore::open(dir, StoreSettings { events_per_user_max: 4, cache_bytes: 1 << 20 }, NOW).unwrap()
}

fn write(store: &PartitionStore, user: u64, now_ms: i64, change: Change) -> Written {
    store.write(&[Write { user: UserId::from(user), change }], now_ms).unwrap().remove(0).unwrap()
}

fn event(item: u64, at: i64, id: Option<u64>) -> Event {
    let event_id = id.map(EventId::from);
    Event { item_id: ItemId::from(item), event_type: EventType::AddToCart, timestamp_ms: at, event_id }
}

fn log_at(store: &PartitionStore, user: u64) -> Revision {
    store.view(&UserId::from(user), &EncoderVersion::from(1)).unwrap().unwrap().log_at
}

/// A state of `rows` rows of 64 values, all different.
fn put_state(store: &PartitionStore, user: u64, encoder: u64, rows: usize, precision: Precision) {
    let values: Vec<f32> = (0..rows * 64).map(|x| x as f32 - 100.0).collect();
    let sequence = SequenceState::new(&values, 64, precision).unwrap();
    let (encoder, covers) = (EncoderVersion::from(encoder), log_at(store, user));
    let state = StoredState { encoder, made_at_ms: NOW, covers_until_ms: 7, covers, sequence };
    assert_eq!(store.put_states(&[(UserId::from(user), state)], None).unwrap(), 1);
}

/// Users of every kind, and what a generation brought.
fn filled(dir: &Path) -> PartitionStore {
    let store = open(dir);
    let demographics = Demographics { age: Some(29), country: Some("US".into()), gender: None };
    write(&store, 1, NOW, Change::Describe(demographics.clone()));
    write(&store, 1, NOW + 1, Change::Append(vec![event(1, NOW, None), event(2, NOW + 5, Some(7))]));
    put_state(&store, 1, 1, 1, Precision::F16);
    put_state(&store, 1, 2, 100, Precision::Int8);
    // Stale, and of other parts than the state before.
    write(&store, 1, NOW + 2, Change::Append(vec![event(3, NOW + 9, None)]));
    put_state(&store, 1, 2, 60, Precision::F32);
    write(&store, 1, NOW + 3, Change::Append(vec![event(4, NOW + 9, None)]));
    // An id that begins another's, of whom only demographics are known.
    write(&store, 11, NOW, Change::Describe(demographics));
    // Events in an order, without times.
    write(&store, 2, NOW, Change::Append((0..9).map(|at| event(at as u64, at, None)).collect()));
    // Erased, one of them back again.
    for user in [3, 4] {
        write(&store, user, NOW, Change::Append(vec![event(1, NOW, None)]));
        write(&store, user, NOW + 1, Change::Erase);
    }
    write(&store, 4, NOW + 2, Change::Append(vec![event(1, NOW + 9, None)]));
    put_state(&store, 4, 1, 1, Precision::F32);
    store.finish_restore(&[GenerationId::from(1), GenerationId::from(2)]).unwrap();
    store
}

fn all(store: &PartitionStore, limit: usize) -> Vec<KeptUser> {
    let mut page = store.kept_users(None, limit).unwrap();
    let mut users = page.users;
    while let Some(next) = page.next {
        page = store.kept_users(Some(&next), limit).unwrap();
        assert!(page.users.len() <= limit);
        users.extend(page.users);
    }
    users
}

#[test]
fn what_is_put_back_is_all_that_was_there_and_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let first = filled(&dir.path().join("first"));
    let users = all(&first, 9);
    assert_eq!(users.iter().map(|user| user.user.as_str()).collect::<Vec<_>>(), ["1", "11", "2", "3", "4"]);
    (1..9).for_each(|limit| assert_eq!(all(&first, limit), users, "in pages of {limit}"));

    // The rest of the test has something to compare.
    let one = &users[0];
    assert_eq!(one.events.len(), 4);
    assert!(one.states[0].sequence.bytes().len() > 2 * FIRST_BYTES_MAX);
    assert_eq!(
        one.states.iter().map(|state| state.sequence.precision()).collect::<Vec<_>>(),
        [Precision::F32, Precision::F16]
    );
    assert!(one.states[1].covers < one.states[0].covers && one.states[0].covers < one.log_at);
    assert!(one.demographics_at > Revision::NONE && one.demographics_at < one.log_at);
    let erased = Erased { at: Revision::mint(NOW + 1, Revision::NONE), watermark_ms: NOW + 1 };
    assert_eq!((users[3].erased, users[3].log_at, users[3].events.len()), (Some(erased), Revision::NONE, 0));
    assert_eq!((users[4].erased, users[4].events.len(), users[4].states.len()), (Some(erased), 1, 1));

    let second = open(&dir.path().join("second"));
    assert!(second.is_empty().unwrap());
    users.iter().for_each(|user| second.restore(user).unwrap());
    second.finish_restore(&first.imported_generations().unwrap()).unwrap();
    drop(second);
    let second = open(&dir.path().join("second"));
    assert_eq!(all(&second, 9), users);
    assert_eq!(second.imported_generations().unwrap(), [GenerationId::from(1), GenerationId::from(2)]);
    assert_eq!(second.stats(), first.stats());
    assert!(!second.is_empty().unwrap());
    for encoder in (1..=3).map(EncoderVersion::from) {
        assert_eq!(second.dirty_users(&encoder, None, 9).unwrap(), first.dirty_users(&encoder, None, 9).unwrap());
    }
    // The parts of states are where a replacement and an erasure look for them.
    put_state(&second, 1, 2, 90, Precision::F16);
    assert_eq!(second.parts.len(), 90usize.div_ceil(32));
    write(&second, 1, NOW + 4, Change::Erase);
    assert_eq!(second.parts.len(), 0);
}

#[test]
fn an_erased_user_who_is_put_back_does_not_come_back_by_a_late_event() {
    let dir = tempfile::tempdir().unwrap();
    let users = all(&filled(&dir.path().join("first")), 9);
    let store = open(&dir.path().join("second"));
    users.iter().for_each(|user| store.restore(user).unwrap());
    let written = write(&store, 3, NOW + 50, Change::Append(vec![event(1, NOW, None)]));
    assert_eq!(written, Written::Appended(Appended { erased: 1, ..Appended::default() }));
}

#[test]
fn what_is_there_is_not_joined_to_what_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let before = all(&store, 9);
    let known = KeptUser { events: Vec::new(), ..before[2].clone() };
    let error = store.restore(&known).unwrap_err().to_string();
    assert_eq!(error, "user 2 is there already");
    assert_eq!(all(&store, 9), before);
}

#[test]
fn a_user_whom_no_store_keeps_is_refused_and_nothing_of_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let sound = all(&filled(&dir.path().join("first")), 9).swap_remove(0);
    let store = open(&dir.path().join("second"));
    let check = |user: KeptUser, rule: &str| {
        assert_eq!(store.restore(&user).unwrap_err().to_string(), rule);
        assert!(store.is_empty().unwrap() && store.parts.is_empty() && store.logs.is_empty());
    };
    let states = sound.states.iter().cloned().chain(sound.states.iter().cloned()).collect();
    check(KeptUser { states, ..sound.clone() }, "user 1: states: 4 states, the limit is 2");
    check(KeptUser { log_at: Revision::NONE, ..sound.clone() }, "user 1: log_revision: is 0, and there are events");
    let long = |at: i64| Event { item_id: ItemId::new(&"x".repeat(128)).unwrap(), ..event(0, at, None) };
    let events = (0..400).map(long).collect();
    check(KeptUser { events, ..sound.clone() }, "user 1: events: they take more than 49152 bytes");

    // A log of more events than are kept is no fault: the next event cuts it.
    let events: Vec<Event> = (0..9).map(|at| event(0, at, None)).collect();
    store.restore(&KeptUser { events: events.clone(), ..sound }).unwrap();
    assert_eq!(store.events(&UserId::from(1)).unwrap(), events);
    write(&store, 1, NOW + 9, Change::Append(vec![event(0, 9, None)]));
    assert_eq!(store.events(&UserId::from(1)).unwrap().len(), 4);
}

#[test]
fn what_a_cut_off_erasure_left_is_not_of_the_user_who_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let user = all(&filled(&dir.path().join("first")), 9).swap_remove(0);
    let store = filled(&dir.path().join("second"));
    store.users.remove("1").unwrap();
    let cut_off = KeptUser { events: Vec::new(), states: Vec::new(), ..user };
    store.restore(&cut_off).unwrap();
    assert_eq!(all(&store, 1)[0], cut_off);
    assert_eq!(store.parts.len(), 0);
}

#[test]
fn a_user_who_cannot_be_read_is_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let part = store.parts.iter().keys().next().unwrap().unwrap();
    store.parts.remove(part).unwrap();
    assert_eq!(store.kept_users(None, 9).unwrap_err().to_string(), "user 1: its parts do not belong together");
    store.users.insert("1", &[9, 0]).unwrap();
    assert_eq!(store.kept_users(None, 9).unwrap_err().to_string(), "user 1: record version 9 where 3 is read");
    assert_eq!(store.kept_users(Some(&UserId::from(1)), 9).unwrap().users.len(), 4);
}
