use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use turret_retrieval::state::{Precision, STATE_BYTES_MAX};

use super::*;
use crate::partition::StoreSettings;
use crate::record::FIRST_BYTES_MAX;

fn open(dir: &Path) -> PartitionStore {
    PartitionStore::open(dir, StoreSettings { events_per_user_max: 4, cache_bytes: 1 << 20 }, 0).unwrap()
}

/// A state of `rows` rows of 64 values, all different.
fn state(encoder: u64, made_at_ms: i64, rows: usize) -> StoredState {
    let values: Vec<f32> = (0..rows * 64).map(|x| x as f32 + made_at_ms as f32).collect();
    StoredState {
        encoder: EncoderVersion::from(encoder),
        made_at_ms,
        covers_until_ms: 0,
        covers: Revision::NONE,
        sequence: SequenceState::new(&values, 64, Precision::F32).unwrap(),
    }
}

fn found(store: &PartitionStore, user: &UserId, encoder: u64) -> Result<Option<StoredState>, ReadError> {
    let record = store.record_with_state(user.as_str().as_bytes(), &EncoderVersion::from(encoder))?;
    Ok(record.and_then(|(_, state)| state))
}

#[test]
fn a_state_of_any_length_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::from(1);
    // Shorter than a part, as long as one, and longer; each in the place of the one before.
    for (made_at_ms, rows) in (1..).zip([1, 8, 9, 24, 25, 240, 100, 32, 2]) {
        let state = state(1, made_at_ms, rows);
        store.put_states(&[(user.clone(), state.clone())], None).unwrap();
        assert_eq!(found(&store, &user, 1).unwrap(), Some(state));
        let parts = (rows * 256).saturating_sub(FIRST_BYTES_MAX).div_ceil(PART_BYTES_MAX);
        assert_eq!(store.parts.len(), parts, "of {rows} rows");
    }
    assert_eq!(found(&store, &UserId::from(2), 1).unwrap(), None);
}

#[test]
fn the_parts_of_a_forgotten_state_go_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::from(1);
    for encoder in 1..=4 {
        store.put_states(&[(user.clone(), state(encoder, encoder as i64, 33))], None).unwrap();
    }
    assert_eq!(store.parts.len(), 4);
    let found = |encoder| found(&store, &user, encoder).unwrap();
    assert_eq!((found(2), found(3), found(4)), (None, Some(state(3, 3, 33)), Some(state(4, 4, 33))));
}

#[test]
fn the_states_that_must_be_kept_outlive_newer_ones_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::from(1);
    let put = |encoder, made_at_ms| store.put_states(&[(user.clone(), state(encoder, made_at_ms, 33))], None).unwrap();
    let found = |encoder| found(&store, &user, encoder).unwrap().map(|found| found.made_at_ms);
    store.keep_states_of(vec![EncoderVersion::from(1)]);
    // The second is tried and given up, the third takes its place although it is older.
    assert_eq!((put(1, 10), put(2, 30), put(3, 20)), (1, 1, 1));
    assert_eq!((found(1), found(2), found(3)), (Some(10), None, Some(20)));
    // What comes late of the second is in the way of both.
    store.keep_states_of(vec![EncoderVersion::from(1), EncoderVersion::from(3)]);
    assert_eq!(put(2, 40), 0);
    assert_eq!((put(1, 50), found(1), found(2), found(3)), (1, Some(50), None, Some(20)));
    assert_eq!(store.parts.len(), 2 * usize::from(StateRecord::of(&state(1, 1, 33), false).parts()));
}

#[test]
fn parts_that_do_not_belong_together_are_never_joined() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::from(1);
    let part_in = |odd, number| part_key(b"1", &StateRecord::of(&state(1, 1, 40), odd), number);
    store.put_states(&[(user.clone(), state(1, 1, 40))], None).unwrap();
    let old = store.parts.get(part_in(false, 1)).unwrap().unwrap();
    store.put_states(&[(user.clone(), state(1, 2, 40))], None).unwrap();
    let part_key = |number| part_in(true, number);
    let new = store.parts.insert(part_key(1), old).unwrap().unwrap();
    let torn = "user 1: its parts do not belong together";
    assert_eq!(found(&store, &user, 1).unwrap_err().to_string(), torn);
    store.parts.remove(part_key(1)).unwrap();
    assert_eq!(found(&store, &user, 1).unwrap_err().to_string(), torn);
    store.parts.insert(part_key(1), &new[..new.len() - 1]).unwrap();
    assert_eq!(found(&store, &user, 1).unwrap_err().to_string(), torn);
    // Made again, it is whole.
    store.put_states(&[(user.clone(), state(1, 3, 40))], None).unwrap();
    assert_eq!(found(&store, &user, 1).unwrap(), Some(state(1, 3, 40)));
}

#[test]
fn a_state_whose_writing_was_cut_off_leaves_the_one_before_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::from(1);
    store.put_states(&[(user.clone(), state(1, 1, 40))], None).unwrap();
    let before = store.users.get("1").unwrap().unwrap();
    store.put_states(&[(user.clone(), state(1, 2, 40))], None).unwrap();
    // As if the record and what came after it had not reached the disk.
    store.users.insert("1", before).unwrap();
    let parts: Vec<_> = state(1, 1, 40).sequence.bytes()[FIRST_BYTES_MAX..]
        .chunks(PART_BYTES_MAX)
        .map(|part| StateRecord::of(&state(1, 1, 40), false).encode_part(part))
        .collect();
    for (number, part) in (0..).zip(parts) {
        store.parts.insert(part_key(b"1", &StateRecord::of(&state(1, 1, 40), false), number), part).unwrap();
    }
    assert_eq!(found(&store, &user, 1).unwrap(), Some(state(1, 1, 40)));
    // Written once more, both places hold what belongs there.
    store.put_states(&[(user.clone(), state(1, 3, 40))], None).unwrap();
    assert_eq!(found(&store, &user, 1).unwrap(), Some(state(1, 3, 40)));
    assert_eq!(store.parts.len(), usize::from(StateRecord::of(&state(1, 3, 40), true).parts()));
}

#[test]
fn a_reader_never_sees_half_of_a_replacement() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::from(1);
    store.put_states(&[(user.clone(), state(1, 0, 100))], None).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for made_at_ms in 1..60 {
                store.put_states(&[(user.clone(), state(1, made_at_ms, 60 + made_at_ms as usize))], None).unwrap();
            }
        });
        while !writer.is_finished() {
            match found(&store, &user, 1) {
                Ok(found) => {
                    let found = found.expect("there is always one");
                    let rows = if found.made_at_ms == 0 { 100 } else { 60 + found.made_at_ms as usize };
                    assert_eq!(found, state(1, found.made_at_ms, rows));
                }
                // A reader that is held up again and again gives up, and says so.
                Err(error) => assert!(error.to_string().contains("do not belong together"), "{error}"),
            }
        }
    });
}

#[test]
fn no_page_is_moved_to_a_file_that_nobody_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let rows = STATE_BYTES_MAX / 256;
    for round in 0..3 {
        let states: Vec<_> = (0..40).map(|user| (UserId::from(user), state(1, round, rows))).collect();
        store.put_states(&states, None).unwrap();
    }
    let files = std::fs::read_dir(dir.path().join("blobs")).unwrap().count();
    assert_eq!(files, 0);
    drop(store);
    let store = open(dir.path());
    assert_eq!(found(&store, &UserId::from(7), 1).unwrap(), Some(state(1, 2, rows)));
}

#[test]
fn how_far_a_run_is_stands_with_its_states_and_is_nobodys_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let encoder = EncoderVersion::from(1);
    let progress = |run, after: u64| RefreshProgress { run, encoder: encoder.clone(), after: UserId::from(after) };
    let states: Vec<_> = (1..=3).map(|user| (UserId::from(user), state(1, 5, 33))).collect();
    assert_eq!(store.put_states(&states, Some(&progress(7, 3))).unwrap(), 3);
    assert_eq!(store.put_states(&[], Some(&progress(7, 9))).unwrap(), 0);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.refresh_progress(&encoder).unwrap(), Some(progress(7, 9)));
    assert_eq!(store.refresh_progress(&EncoderVersion::from(2)).unwrap(), None);
    assert_eq!(found(&store, &UserId::from(2), 1).unwrap(), Some(state(1, 5, 33)));
    // No walk over the users meets it.
    assert_eq!(store.dirty_users(&encoder, None, 9).unwrap().users, []);
    assert_eq!(store.count_dirty(&encoder).unwrap(), 0);
    assert_eq!(store.kept_users(None, 9).unwrap().users.len(), 3);
    assert_eq!(store.sweep(None, crate::Retention::default(), 1).unwrap(), crate::Swept::default());
}

#[test]
fn two_states_of_one_user_in_one_step_leave_the_better_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let user = UserId::from(1);
    let states = [(user.clone(), state(1, 1, 33)), (user.clone(), state(2, 1, 33)), (user.clone(), state(1, 2, 40))];
    assert_eq!(store.put_states(&states, None).unwrap(), 3);
    assert_eq!(found(&store, &user, 1).unwrap(), Some(state(1, 2, 40)));
    assert_eq!(found(&store, &user, 2).unwrap(), Some(state(2, 1, 33)));
}

/// Names the directory of a store to the process that is killed while it writes there.
const CRASHED: &str = "TURRET_STORE_TEST_CRASHED";
/// What it says after each chunk.
const WRITTEN: &str = "a chunk is written";
/// States that stand in their records whole: a batch of more than a mebibyte, twice what sled writes at once.
const CHUNK: (u64, usize) = (600, 8);

/// Chunk after chunk of the states of the same users, until it is killed.
fn write_chunks(dir: &Path) {
    let store = open(dir);
    let (encoder, (users, rows)) = (EncoderVersion::from(1), CHUNK);
    let first = store.refresh_progress(&encoder).unwrap().map_or(1, |progress| progress.run + 1);
    for run in first..first + 1_000 {
        let states: Vec<_> = (0..users).map(|user| (UserId::from(user), state(1, run as i64, rows))).collect();
        let progress = RefreshProgress { run, encoder: encoder.clone(), after: UserId::from(users) };
        assert_eq!(u64::from(store.put_states(&states, Some(&progress)).unwrap()), users);
        println!("{WRITTEN}");
    }
}

#[test]
fn after_a_crash_the_states_of_a_chunk_and_how_far_its_run_is_are_all_there_or_none() {
    if let Some(dir) = std::env::var_os(CRASHED) {
        return write_chunks(Path::new(&dir));
    }
    let (dir, mut before, (users, rows)) = (tempfile::tempdir().unwrap(), None, CHUNK);
    for kill in 0..12 {
        let mut writer = Command::new(std::env::current_exe().unwrap());
        writer.args(["--exact", "--nocapture", std::thread::current().name().unwrap()]).env(CRASHED, dir.path());
        let mut writer = writer.stdout(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(writer.stdout.take().unwrap()).lines();
        told.find(|line| line.as_ref().unwrap().contains(WRITTEN)).expect("it writes until it is killed").unwrap();
        // At another moment of the next chunk each time.
        std::thread::sleep(Duration::from_millis(3 * kill));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let store = open(dir.path());
        let run = store.refresh_progress(&EncoderVersion::from(1)).unwrap().map(|progress| progress.run);
        assert!(run > before, "what was written is there, kill {kill}");
        for user in (0..users).map(UserId::from) {
            let found = found(&store, &user, 1).unwrap();
            assert_eq!(found.as_ref().map(|found| found.made_at_ms as u64), run, "{user}, kill {kill}");
            assert!(found.is_none_or(|found| found == state(1, found.made_at_ms, rows)));
        }
        before = run;
    }
}

#[test]
fn of_a_user_who_is_named_twice_the_better_state_is_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (number, [first, second]) in [[2, 3], [3, 2]].into_iter().enumerate() {
        let user = UserId::from(number as u64);
        let of = |made_at_ms: i64| (user.clone(), state(1, made_at_ms, if made_at_ms == 3 { 33 } else { 100 }));
        store.put_states(&[of(1)], None).unwrap();
        let parts_before = store.parts.len();
        assert_eq!(store.put_states(&[of(first), of(second)], None).unwrap(), 2 - number as u32);
        assert_eq!(found(&store, &user, 1).unwrap(), Some(of(3).1));
        let parts = |rows| usize::from(StateRecord::of(&state(1, 1, rows), false).parts());
        assert_eq!(store.parts.len(), parts_before - parts(100) + parts(33));
    }
}
