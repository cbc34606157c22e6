//! What a user's record costs on sled: `just bench-users [USERS]`.
//!
//! Fills the partitions of one node as a node does, with events and `f16` states of 64 values, then looks users up one after
//! the other: warm, and with neither sled nor the system having their pages. Then writes events in groups that share a flush.
//! Writes docs/results/hybrid.json.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use turret::provenance::Provenance;
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::{EncoderVersion, ItemId, UserId};
use turret_retrieval::state::{Precision, SequenceState};
use turret_store::{Change, PartitionStore, StoreSettings, StoredState, Write};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As configurations have them.
const PARTITIONS: u32 = 4;
const EVENTS_PER_USER_MAX: usize = 200;
/// Of sled, for each partition: as configurations have it, and the least, with which opening leaves next to nothing in it.
const CACHE_BYTES: [u64; 2] = [64 << 20, 1 << 20];
/// Events of each user.
const EVENTS: i64 = 20;
/// Users whose states are of every event, as cross-attention wants them, and the rows of such a state.
const SEQUENCE_USERS: u64 = 20_000;
const SEQUENCE_ROWS: usize = 100;
/// Values of a row.
const DIMENSION: usize = 64;
/// Users between two flushes while the store is filled.
const FILL: u64 = 2_000;
/// Look-ups of the warm and of the cold measurement.
const LOOKUPS: [usize; 2] = [200_000, 5_000];
/// Events that share one flush, and how many groups are written.
const GROUPS: [(usize, usize); 4] = [(1, 500), (16, 300), (64, 200), (256, 100)];
const NOW_MS: i64 = 1_768_000_000_000;

fn main() -> Result<()> {
    let users: u64 = match std::env::args().skip(1).find(|argument| argument != "--bench") {
        Some(users) => users.parse().context("USERS: how many users the store holds")?,
        None => 1_000_000,
    };
    ensure!((FILL..=100_000_000).contains(&users), "USERS: {users} is not in {FILL}..=100000000");
    let scratch = || tempfile::Builder::new().prefix("users-").tempdir_in("target/tmp");
    let mut rows = Vec::new();

    let sequences = scratch()?;
    let stores = open(sequences.path(), CACHE_BYTES[0])?;
    let some = users.min(SEQUENCE_USERS);
    fill(&stores, some, SEQUENCE_ROWS)?;
    look_up(&stores, some, LOOKUPS[0] / 2)?;
    rows.push(row("look-up of a whole encoded sequence, warm", look_up(&stores, some, LOOKUPS[0])?));
    drop((stores, sequences));

    let dir = scratch()?;
    let filling = Instant::now();
    let stores = open(dir.path(), CACHE_BYTES[0])?;
    fill(&stores, users, 1)?;
    let seconds = filling.elapsed().as_secs_f64();
    let bytes = size_of(dir.path())? as f64 / users as f64;
    rows.push(row("size", json!({
        "users": users, "bytes_per_user": bytes, "of_10_m_users_gb": bytes / 100.0, "fill_users_per_s": users as f64 / seconds,
    })));

    look_up(&stores, users, LOOKUPS[0] / 2)?;
    rows.push(row("look-up, warm", look_up(&stores, users, LOOKUPS[0])?));
    drop(stores);
    forget(dir.path())?;
    let opening = Instant::now();
    let stores = open(dir.path(), CACHE_BYTES[1])?;
    rows.push(row("opening, cold", json!({ "seconds": opening.elapsed().as_secs_f64() })));
    forget(dir.path())?;
    rows.push(row("look-up, cold", look_up(&stores, users, LOOKUPS[1])?));
    drop(stores);
    let stores = open(dir.path(), CACHE_BYTES[0])?;

    for (group, count) in GROUPS {
        let mut random = ChaCha8Rng::seed_from_u64(group as u64);
        let started = Instant::now();
        for number in 0..count {
            let write = |at: usize| {
                let user = UserId::from(random.random_range(0..users));
                Write { user, change: Change::Append(vec![event(at as u64, NOW_MS + (number * group + at) as i64)]) }
            };
            let writes: Vec<Write> = (0..group).map(write).collect();
            stores[0].write(&writes, NOW_MS)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let name = format!("events, groups of {group}");
        let rate = (group * count) as f64 / seconds;
        rows.push(row(&name, json!({ "events_per_s": rate, "flushes_per_s": count as f64 / seconds })));
    }
    let report = json!({ "seeds": [1], "rows": rows });
    write("docs/results/hybrid.json", users, report)
}

fn row(name: &str, figures: Value) -> Value {
    // Whoever closed the output has the file.
    drop(writeln!(std::io::stdout(), "{name}: {figures}"));
    json!({ "name": name, "mean": figures, "seeds": [figures] })
}

fn open(dir: &Path, cache_bytes: u64) -> Result<Vec<PartitionStore>> {
    let settings = StoreSettings { events_per_user_max: EVENTS_PER_USER_MAX, cache_bytes };
    let open = |number| PartitionStore::open(&dir.join(format!("{number:04}")), settings.clone(), NOW_MS);
    (0..PARTITIONS).map(|number| open(number).map_err(Into::into)).collect()
}

fn encoder() -> EncoderVersion {
    EncoderVersion::from(1)
}

fn event(item: u64, at: i64) -> Event {
    Event { item_id: ItemId::from(item % 50_000), event_type: EventType::View, timestamp_ms: at, event_id: None }
}

/// As a node does: events first, then a state of them, of `rows` rows.
fn fill(stores: &[PartitionStore], users: u64, rows: usize) -> Result<()> {
    let style = ProgressStyle::with_template("filling {bar:30} {pos}/{len} users, {eta} left")?;
    let progress = ProgressBar::new(users).with_style(style);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for first in (0..users).step_by(FILL as usize) {
        let mut writes: Vec<Vec<Write>> = vec![Vec::new(); stores.len()];
        for number in first..users.min(first + FILL) {
            let user = UserId::from(number);
            let events = (0..EVENTS).map(|at| event(random.random(), NOW_MS - 1_000_000 * at)).collect();
            writes[partition_of(&user, PARTITIONS).0 as usize].push(Write { user, change: Change::Append(events) });
        }
        for (store, writes) in stores.iter().zip(writes) {
            store.write(&writes, NOW_MS)?.into_iter().collect::<Result<Vec<_>, _>>()?;
            let states = writes.into_iter().map(|write| {
                let values: Vec<f32> = (0..rows * DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
                let covers = store.view(&write.user, &encoder())?.context("it has just been written")?.log_at;
                let sequence = SequenceState::new(&values, DIMENSION, Precision::F16)?;
                let (made_at_ms, covers_until_ms) = (NOW_MS, NOW_MS);
                Ok((write.user, StoredState { encoder: encoder(), made_at_ms, covers_until_ms, covers, sequence }))
            });
            store.put_states(&states.collect::<Result<Vec<_>>>()?, None)?;
        }
        progress.inc(FILL);
    }
    progress.finish_and_clear();
    Ok(())
}

/// Looks `count` users up, drawn at random.
fn look_up(stores: &[PartitionStore], users: u64, count: usize) -> Result<Value> {
    let mut random = ChaCha8Rng::seed_from_u64(count as u64);
    let mut histogram = Histogram::<u64>::new(3)?;
    for _ in 0..count {
        let user = UserId::from(random.random_range(0..users));
        let started = Instant::now();
        let view = stores[partition_of(&user, PARTITIONS).0 as usize].view(&user, &encoder())?;
        histogram.record(started.elapsed().as_nanos() as u64)?;
        ensure!(view.is_some_and(|view| view.is_current()), "user {user} has no current state");
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Ok(json!({
        "lookups": count, "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "p999_us": at(0.999),
        "max_us": histogram.max() as f64 / 1e3, "mean_us": histogram.mean() / 1e3,
    }))
}

fn files(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn size_of(dir: &Path) -> Result<u64> {
    files(dir)?.iter().map(|path| Ok(path.metadata()?.len())).sum()
}

/// Has the system forget every page of the store; `dd` of coreutils asks it to.
fn forget(dir: &Path) -> Result<()> {
    for path in files(dir)? {
        File::open(&path)?.sync_all()?;
        let done =
            Command::new("dd").arg(format!("if={}", path.display())).args(["iflag=nocache", "count=0"]).output()?;
        ensure!(done.status.success(), "dd cannot drop the pages of {}", path.display());
    }
    Ok(())
}

fn write(path: &str, users: u64, mut report: Value) -> Result<()> {
    let Provenance { command, commit, machine } = Provenance::of(format!("just bench-users {users}"));
    for (key, value) in [("command", command), ("commit", commit), ("machine", machine)] {
        report[key] = json!(value);
    }
    Ok(std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(&report)?))?)
}
