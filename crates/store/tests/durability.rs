//! What was acknowledged is on the disk: shown with a child process that is killed, and with one that is traced.
//!
//! The child is this test binary again, told by an environment variable what to do.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EncoderVersion, ItemId, UserId};
use turret_store::{Change, PartitionStore, StoreSettings, Write};

const DIR: &str = "TURRET_TEST_STORE_DIR";
const BATCHES: &str = "TURRET_TEST_STORE_BATCHES";
const USERS: u64 = 3;

fn open(dir: &Path) -> PartitionStore {
    PartitionStore::open(dir, StoreSettings { events_per_user_max: 10_000, cache_bytes: 1 << 20 }, 0).expect("a store")
}

fn event(number: u64) -> Event {
    Event { item_id: ItemId::from(number), event_type: EventType::View, timestamp_ms: number as i64, event_id: None }
}

/// Not a test by itself: what the children do.
#[test]
fn the_child_appends_and_acknowledges() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let batches: u64 = std::env::var(BATCHES).unwrap().parse().unwrap();
    let store = open(Path::new(&dir));
    // A batch that was cut off may have reached some of the users; it is repeated.
    let start = (0..USERS).map(|user| store.events(&UserId::from(user)).unwrap().len() as u64).min().unwrap();
    let mut out = std::io::stdout();
    for number in start..start + batches {
        let change = Change::Append(vec![event(number)]);
        let batch: Vec<_> = (0..USERS).map(|user| Write { user: user.into(), change: change.clone() }).collect();
        store.write(&batch, number as i64).unwrap();
        // Not through print!, which the test harness captures.
        writeln!(out, "ack {number}").unwrap();
        out.flush().unwrap();
    }
}

fn child(program: &[&str], dir: &Path, batches: u64) -> Command {
    let own = std::env::current_exe().expect("a program");
    let mut words = program.iter().map(std::ffi::OsStr::new).chain([own.as_os_str()]);
    let mut command = Command::new(words.next().expect("own is one"));
    command
        .args(words)
        .args(["--exact", "the_child_appends_and_acknowledges", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(BATCHES, batches.to_string())
        .stdout(Stdio::piped());
    command
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..5 {
        let mut writer = child(&[], dir.path(), 1_000_000).spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let acks = lines.map_while(Result::ok).filter_map(|line| line.split("ack ").nth(1)?.trim().parse::<u64>().ok());
        // A different moment each round; the writer is in the middle of the batches after it.
        acknowledged = acks.take(20 + 17 * round).last().unwrap();
        writer.kill().unwrap();
        writer.wait().unwrap();

        let store = open(dir.path());
        for user in (0..USERS).map(UserId::from) {
            let events = store.events(&user).unwrap();
            let expected: Vec<Event> = (0..events.len() as u64).map(event).collect();
            assert!(
                events == expected,
                "a hole in the log: {:?}",
                events.iter().map(|e| e.timestamp_ms).collect::<Vec<_>>()
            );
            assert!(events.len() as u64 > acknowledged, "{} events, {acknowledged} acknowledged", events.len());
            let view = store.view(&user, &EncoderVersion::from(1)).unwrap().unwrap();
            let last = events.last().map(|event| event.timestamp_ms);
            // The record goes first: what was cut off there and then makes a state stale, never newer than it is.
            assert!(Some(view.log_at.at_ms()) >= last, "the log was written before its record");
        }
    }
    assert!(acknowledged > 100);
}

#[test]
fn every_acknowledged_batch_is_flushed_first() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("trace");
    let trace = log.to_str().unwrap();
    let program = ["strace", "-f", "-s", "32", "-e", "trace=write,fdatasync", "-o", trace];
    let output = child(&program, &dir.path().join("store"), 25).output().unwrap();
    if !output.status.success() {
        eprintln!("skipped: strace may not trace here");
        return;
    }
    let trace = std::fs::read_to_string(&log).unwrap();
    let (mut acknowledged, mut flushed) = (0, false);
    for line in trace.lines() {
        if line.contains("fdatasync") && line.ends_with("= 0") {
            flushed = true;
        } else if line.contains("write(1, \"ack ") {
            assert!(flushed, "acknowledged without a flush: {line}");
            flushed = false;
            acknowledged += 1;
        }
    }
    assert_eq!(acknowledged, 25);
}
