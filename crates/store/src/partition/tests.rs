use std::ops::ControlFlow;

use turret_retrieval::event::EventType;
use turret_retrieval::ids::{GenerationId, ItemId};
use turret_retrieval::state::{Precision, SequenceState};

use super::*;
use crate::DirtyPage;
use crate::record::encode;
use crate::snapshot::{SnapshotUser, SnapshotWriter};
use crate::writes::{Appended, Change, Write, Written};

fn open(dir: &Path) -> PartitionStore {
    PartitionStore::open(dir, StoreSettings { events_per_user_max: 4, cache_bytes: 1 << 20 }, NOW).unwrap()
}

const NOW: i64 = 1_000_000;

fn append(store: &PartitionStore, user: &UserId, events: &[Event]) -> Result<Appended, WriteError> {
    let write = Write { user: user.clone(), change: Change::Append(events.to_vec()) };
    match store.write(&[write], NOW)?.remove(0)? {
        Written::Appended(appended) => Ok(appended),
        other @ (Written::Described(_) | Written::Erased(_)) => unreachable!("{other:?}"),
    }
}

fn event(item: u64, at: i64) -> Event {
    Event { item_id: ItemId::from(item), event_type: EventType::View, timestamp_ms: at, event_id: None }
}

fn state(encoder: u64, made_at_ms: i64, covers: Revision) -> StoredState {
    let encoder = EncoderVersion::from(encoder);
    let sequence = SequenceState::new(&[0.5, -2.0], 2, Precision::F16).unwrap();
    StoredState { encoder, made_at_ms, covers_until_ms: 0, covers, sequence }
}

fn users(page: &DirtyPage) -> Vec<&str> {
    page.users.iter().map(|dirty| dirty.user.as_str()).collect()
}

#[test]
fn what_was_appended_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let user = UserId::from(1);
    let appended = append(&open(dir.path()), &user, &[event(1, 2), event(2, 1)]).unwrap();
    assert_eq!(appended, Appended { added: 2, ..Appended::default() });
    let store = open(dir.path());
    assert_eq!(store.events(&user).unwrap(), [event(2, 1), event(1, 2)]);
    assert_eq!(store.stats(), StoreStats { users: 1 });
    let view = store.view(&user, &EncoderVersion::from(1)).unwrap().unwrap();
    let log_at = Revision::mint(NOW, Revision::NONE);
    assert_eq!(view, UserView { demographics: Demographics::default(), state: None, log_at });
    assert_eq!(store.view(&UserId::from(2), &EncoderVersion::from(1)).unwrap(), None);
}

#[test]
fn the_position_in_the_log_grows_with_every_change_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::from(1);
    let position = || store.view(&user, &EncoderVersion::from(1)).unwrap().unwrap().log_at;
    let mut last = Revision::NONE;
    for at in 0..9 {
        append(&store, &user, &[event(1, at)]).unwrap();
        assert!(position() > last);
        last = position();
    }
    let late = append(&store, &user, &[event(1, 0), event(1, 8)]).unwrap();
    assert_eq!(late, Appended { known: 1, dropped: 1, ..Appended::default() });
    assert_eq!((store.events(&user).unwrap().len(), position()), (4, last));
}

#[test]
fn a_log_of_huge_events_is_cut_to_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let settings = StoreSettings { events_per_user_max: 2_000, cache_bytes: 1 << 20 };
    let store = PartitionStore::open(dir.path(), settings, NOW).unwrap();
    let item_id = ItemId::new(&"x".repeat(128)).unwrap();
    let events: Vec<Event> = (0..2_000).map(|at| Event { item_id: item_id.clone(), ..event(0, at) }).collect();
    let user = UserId::from(1);
    append(&store, &user, &events).unwrap();
    let kept = store.events(&user).unwrap();
    assert!((150..1_000).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap().timestamp_ms, 1_999);
}

#[test]
fn pages_that_sled_keeps_in_files_of_their_own_are_flushed_with_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let settings = StoreSettings { events_per_user_max: 2_000, cache_bytes: 1 << 20 };
    let store = PartitionStore::open(dir.path(), settings, NOW).unwrap();
    let item_id = ItemId::new(&"x".repeat(100)).unwrap();
    let mut files = 0;
    for round in 0..8i64 {
        for user in 0..40 {
            let event = |at: i64| Event { item_id: item_id.clone(), ..event(0, round * 100 + at) };
            append(&store, &UserId::from(user), &(0..25).map(event).collect::<Vec<_>>()).unwrap();
            assert_eq!(store.disk.blobs.flush().unwrap(), 0, "acknowledged before it was flushed");
        }
        files += std::fs::read_dir(dir.path().join("blobs")).unwrap().count();
    }
    assert!(files > 0, "no page was long enough");
}

#[test]
fn users_are_dirty_until_a_state_covers_all_their_events() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let encoder = EncoderVersion::from(1);
    let append = |user: u64, at| append(&store, &UserId::from(user), &[event(1, at)]).unwrap();
    (1..=3).for_each(|user| assert_eq!(append(user, 0).added, 1));
    assert_eq!(store.count_dirty(&encoder).unwrap(), 3);
    let first = store.dirty_users(&encoder, None, 2).unwrap();
    assert_eq!((users(&first), first.next.clone()), (vec!["1", "2"], Some(UserId::from(2))));
    let rest = store.dirty_users(&encoder, first.next.as_ref(), 2).unwrap();
    assert_eq!((users(&rest), rest.next.clone()), (vec!["3"], None));

    let states = first.users.iter().map(|dirty| (dirty.user.clone(), state(1, 5, dirty.log_at)));
    store.put_states(&states.collect::<Vec<_>>(), None).unwrap();
    assert_eq!(store.count_dirty(&encoder).unwrap(), 1);
    append(2, 9);
    assert_eq!(users(&store.dirty_users(&encoder, None, 9).unwrap()), ["2", "3"]);
    assert_eq!(users(&store.dirty_users(&EncoderVersion::from(2), None, 9).unwrap()), ["1", "2", "3"]);
}

#[test]
fn states_of_two_encoders_are_kept_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // A user whose id begins another's must not share its states.
    let (user, other) = (UserId::from(1), UserId::from(11));
    let first = Revision::NONE;
    store.put_states(&[(other.clone(), state(1, 0, first))], None).unwrap();
    for (encoder, made_at_ms) in [(1, 10), (2, 20), (2, 30), (3, 40)] {
        assert_eq!(store.put_states(&[(user.clone(), state(encoder, made_at_ms, first))], None).unwrap(), 1);
    }
    // One that was made before what is there.
    assert_eq!(store.put_states(&[(user.clone(), state(3, 39, first))], None).unwrap(), 0);
    let found = |user, encoder| store.view(user, &EncoderVersion::from(encoder)).unwrap().unwrap().state;
    assert_eq!(found(&user, 1), None);
    assert_eq!(found(&user, 2), Some(state(2, 30, first)));
    assert_eq!(found(&user, 3), Some(state(3, 40, first)));
    assert_eq!(found(&other, 1), Some(state(1, 0, first)));
}

fn snapshot(dir: &Path, name: &str, events: &[Event]) -> PathBuf {
    let path = dir.join(name);
    let mut writer = SnapshotWriter::create(&path).unwrap();
    let demographics = Demographics { age: Some(30), country: None, gender: None };
    let state = Some(state(1, 1, Revision::NONE));
    writer.append(&SnapshotUser { user: UserId::from(1), demographics, events: events.to_vec(), state }).unwrap();
    assert_eq!(writer.finish().unwrap(), 1);
    path
}

fn import(store: &PartitionStore, path: &Path, generation: u64) -> UserView {
    let mut go_on = |_| ControlFlow::Continue(());
    store.import_snapshot(path, &GenerationId::from(generation), NOW, &mut go_on).unwrap();
    store.view(&UserId::from(1), &EncoderVersion::from(1)).unwrap().unwrap()
}

#[test]
fn an_imported_state_is_current_only_if_the_snapshot_knew_every_event() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let view = import(&store, &snapshot(dir.path(), "one", &[event(1, 1), event(2, 2)]), 1);
    assert!(view.is_current());
    assert_eq!(view.demographics.age, Some(30));

    // Something happens, and the next generation does not know it yet.
    append(&store, &UserId::from(1), &[event(9, 9)]).unwrap();
    let view = import(&store, &snapshot(dir.path(), "two", &[event(1, 1), event(2, 2), event(3, 3)]), 2);
    assert!(view.state.is_some() && !view.is_current());
    assert_eq!(store.events(&UserId::from(1)).unwrap().len(), 4);

    // Once it is known to a snapshot, the state is current again.
    let all = [event(1, 1), event(2, 2), event(3, 3), event(9, 9)];
    let view = import(&store, &snapshot(dir.path(), "three", &all), 3);
    assert!(view.is_current());
}

#[test]
fn a_snapshot_is_imported_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let path = snapshot(dir.path(), "one", &[event(1, 1)]);
    import(&store, &path, 1);
    std::fs::remove_file(&path).unwrap();
    assert!(import(&store, &path, 1).is_current());
    let mut go_on = |_| ControlFlow::Continue(());
    assert!(store.import_snapshot(&path, &GenerationId::from(2), NOW, &mut go_on).is_err());
}

#[test]
fn a_store_is_opened_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let settings = StoreSettings { events_per_user_max: 4, cache_bytes: 1 << 20 };
    let error = PartitionStore::open(dir.path(), settings.clone(), NOW).err().unwrap();
    assert!(error.is_in_use(), "{error}");
    let closing = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(store);
    });
    // Waits for it.
    open(dir.path());
    closing.join().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let error = PartitionStore::open(&dir.path().join("file"), settings, NOW).err().unwrap();
    assert!(!error.is_in_use(), "{error}");
}

#[test]
fn a_damaged_record_is_an_error_that_names_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.users.insert("u7", &[9, 0]).unwrap();
    let error = store.view(&UserId::new("u7").unwrap(), &EncoderVersion::from(1)).unwrap_err().to_string();
    assert_eq!(error, "user u7: record version 9 where 3 is read");
    assert!(append(&store, &UserId::new("u7").unwrap(), &[event(1, 1)]).is_err());

    // It keeps nobody else from being refreshed.
    append(&store, &UserId::new("u8").unwrap(), &[event(1, 1)]).unwrap();
    let page = store.dirty_users(&EncoderVersion::from(1), None, 9).unwrap();
    assert_eq!((users(&page), page.damaged.clone()), (vec!["u8"], vec![UserId::new("u7").unwrap()]));
}

#[test]
fn a_damaged_record_keeps_nobody_else_from_being_imported() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let path = dir.path().join("two");
    let mut writer = SnapshotWriter::create(&path).unwrap();
    for user in [7u64, 8] {
        let (demographics, events) = (Demographics { age: Some(30), country: None, gender: None }, vec![event(1, 1)]);
        writer.append(&SnapshotUser { user: user.into(), demographics, events, state: None }).unwrap();
    }
    writer.finish().unwrap();
    store.users.insert("7", &[9, 0]).unwrap();
    let mut go_on = |_| ControlFlow::Continue(());
    let imported = store.import_snapshot(&path, &GenerationId::from(1), NOW, &mut go_on).unwrap();
    assert_eq!((imported.users, imported.damaged), (1, vec![7.into()]));
    assert!(store.has_imported(&GenerationId::from(1)).unwrap());
    assert_eq!(store.events(&UserId::from(8)).unwrap().len(), 1);
    assert_eq!(&*store.users.get("7").unwrap().unwrap(), &[9, 0], "left as it is");
}

#[test]
fn what_is_written_between_a_record_and_its_log_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (user, encoder) = (UserId::from(1), EncoderVersion::from(1));
    append(&store, &user, &[event(1, 1)]).unwrap();
    std::thread::scope(|scope| {
        // Half of a write: the record says that the log has changed, and the log is as it was.
        let changing = store.changing();
        let mut record = store.record(b"1").unwrap().unwrap();
        record.log_at = Revision::mint(NOW + 1, record.log_at);
        store.users.insert("1", encode(&record)).unwrap();
        let page = scope.spawn(|| store.dirty_users(&encoder, None, 9).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
        let both = crate::record::LogRecord { events: vec![event(1, 1), event(2, 2)] };
        store.logs.insert("1", encode(&both)).unwrap();
        drop(changing);
        let dirty = page.join().unwrap().users.remove(0);
        assert_eq!((dirty.events.len(), dirty.log_at), (2, record.log_at));
    });
    // The first log of a user, cut off behind its record.
    store.logs.remove("1").unwrap();
    assert_eq!(users(&store.dirty_users(&encoder, None, 9).unwrap()), [""; 0]);
    assert_eq!(store.count_dirty(&encoder).unwrap(), 0);
}
