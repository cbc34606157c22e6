//! What opening a shard costs beside building it, and what writing it costs those who change it: `just bench-snapshot [ADS...]`.
//!
//! Random unit vectors with a few attributes. A shard is built, written while a thread pauses, resumes and replaces its ads one by one
//! with a step of upkeep after each, and opened three times, from files that the system has in memory. Prints a table, and writes docs/results/snapshot.json, with the
//! load of the machine.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use turret_index::{Backend, GraphOrigin, IndexSettings, Origin, ShardAd, ShardChange, ShardContent, ShardIndex};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::{Ad, Attribute};
use turret_retrieval::revision::Revision;
use turret_retrieval::vector::UnitVector;

use self::process::cpu_of_process;
use self::queued::queued_of_thread;
use self::results::say;

#[path = "measuring/process.rs"]
mod process;
#[path = "measuring/queued.rs"]
mod queued;
#[path = "measuring/results.rs"]
mod results;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 2] = [200_000, 1_000_000];
const DIMENSION: usize = 64;
const OPENS: usize = 3;
const GENERATION: &str = "g-bench";

fn main() {
    // `cargo bench` adds an argument of its own.
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { SIZES.to_vec() } else { sizes };
    say(
        "| ads | build s (CPU) | write s | change (without the wait for a processor), upkeep, worst ms | the same without | MB | open s (CPU) | load |",
    );
    say("|---|---|---|---|---|---|---|---|");
    let rows: Vec<Value> = sizes
        .iter()
        .map(|ads| {
            let mean = measure(*ads);
            json!({ "name": format!("{ads} ads"), "mean": mean, "seeds": [mean] })
        })
        .collect();
    let mut figures = results::head("just bench-snapshot");
    figures["rows"] = rows.into();
    results::write("snapshot.json", &figures);
}

fn measure(ads: usize) -> Value {
    let settings = settings();
    let (index, [build_s, build_cpu_s]) = timed(|| {
        ShardIndex::build(DIMENSION, world(ads), &settings, &[], &mut |_| ControlFlow::Continue(())).expect("sound")
    });
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.shard");
    let ((write_s, bytes), beside) = beside_changes(&index, ads, 1, || {
        let (written, [write_s, _]) =
            timed(|| index.snapshot(&path, GENERATION, Revision::NONE).expect("it is written"));
        (write_s, written.bytes)
    });
    let ((), alone) = beside_changes(&index, ads, 1 << 32, || std::thread::sleep(Duration::from_secs_f64(write_s)));
    let count = index.len();
    drop(index);
    let mut opens: Vec<[f64; 2]> = (0..OPENS).map(|_| open(&path, &settings, count)).collect();
    opens.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let ([open_s, open_cpu_s], load) = (opens[OPENS / 2], load());
    let megabytes = bytes as f64 / 1e6;
    say(&format!(
        "| {ads} | {build_s:.1} ({build_cpu_s:.1}) | {write_s:.2} | {beside} | {alone} | {megabytes:.0} | \
         {open_s:.2} ({open_cpu_s:.2}) | {load:.1} |"
    ));
    let per_million = 1e6 / ads as f64;
    json!({
        "build_s": build_s, "build_cpu_s": build_cpu_s, "write_s": write_s, "bytes": bytes,
        "changes": beside.count, "change_ms_max": beside.apply_ms, "change_held_ms_max": beside.held_ms, "upkeep_ms_max": beside.upkeep_ms,
        "changes_alone": alone.count, "change_alone_ms_max": alone.apply_ms, "change_alone_held_ms_max": alone.held_ms, "upkeep_alone_ms_max": alone.upkeep_ms,
        "open_s": open_s, "open_cpu_s": open_cpu_s, "open_s_per_million": open_s * per_million,
        "open_cpu_s_per_million": open_cpu_s * per_million, "build_over_open": build_s / open_s,
        "build_cpu_over_open": build_cpu_s / open_cpu_s, "load": load,
    })
}

fn open(path: &Path, settings: &IndexSettings, ads: usize) -> [f64; 2] {
    let origin = Origin { generation: GENERATION, dimension: DIMENSION };
    let (opened, open_s) = timed(|| {
        ShardIndex::open(path, &origin, settings, &Vec::new, &mut |_| ControlFlow::Continue(())).expect("it opens")
    });
    assert_eq!((opened.index.len(), opened.graph), (ads, GraphOrigin::Restored));
    open_s
}

/// What changes took: how many there were, and the longest of them and of the steps of upkeep behind them. `held_ms` is the longest
/// change less the time that its thread was ready and had no processor: what the shard itself had it wait.
#[derive(Default)]
struct Changes {
    count: u64,
    apply_ms: f64,
    held_ms: f64,
    upkeep_ms: f64,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}), {:.2} of {}", self.apply_ms, self.held_ms, self.upkeep_ms, self.count)
    }
}

/// Does `work` while another thread changes ads, by revisions from `first` on.
fn beside_changes<T>(index: &ShardIndex, ads: usize, first: u64, work: impl FnOnce() -> T) -> (T, Changes) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut changes = Changes::default();
            let mut random = ChaCha8Rng::seed_from_u64(first);
            while !done.load(Ordering::Relaxed) {
                let ad = random.random_range(0..ads);
                let at = Revision::from_bits(first + changes.count);
                let content = match ad % 4 {
                    0 => ShardContent::Is(Box::new(row(&mut random, ad))),
                    _ => ShardContent::AsBuilt,
                };
                let id = AdId::from(ad as u64);
                let change = ShardChange { id, content, content_at: at, paused: ad.is_multiple_of(2), paused_at: at };
                let (queued, begun) = (queued_of_thread(), Instant::now());
                index.apply(vec![change]).expect("sound");
                let applied = Instant::now();
                let queued_ms = (queued_of_thread() - queued) * 1e3;
                let held_ms = (applied - begun).as_secs_f64() * 1e3 - queued_ms;
                changes.held_ms = changes.held_ms.max(held_ms);
                let maintained = Instant::now();
                index.maintain().expect("the graph takes all");
                changes.apply_ms = changes.apply_ms.max((applied - begun).as_secs_f64() * 1e3);
                changes.upkeep_ms = changes.upkeep_ms.max(maintained.elapsed().as_secs_f64() * 1e3);
                changes.count += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            changes
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, writer.join().expect("the writer ends"))
    })
}

fn settings() -> IndexSettings {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    IndexSettings { backend: Backend::DiskAnn, threads, ..IndexSettings::default() }
}

fn world(ads: usize) -> Vec<ShardAd> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    (0..ads).map(|ad| row(&mut random, ad)).collect()
}

fn row(random: &mut ChaCha8Rng, ad: usize) -> ShardAd {
    let components = (0..DIMENSION).map(|_| (0..4).map(|_| random.random::<f32>()).sum::<f32>() - 2.0).collect();
    let word = |text: String| Attribute::Keyword(text.into());
    let attributes = [
        ("status", word(if ad.is_multiple_of(9) { "ended" } else { "active" }.to_owned())),
        ("advertiser_id", word(format!("adv{}", ad % 5_000))),
        ("countries", Attribute::Keywords((0..3).map(|at| format!("c{}", (ad >> at) % 40).into()).collect())),
        ("min_age", Attribute::Number((ad % 50) as f64)),
        ("bid", Attribute::Number((ad % 997) as f64 / 100.0)),
    ];
    let attributes = attributes.into_iter().map(|(name, value)| (name.into(), value)).collect();
    ShardAd {
        ad: Ad { id: AdId::from(ad as u64), item: 1.into(), attributes },
        embedding: UnitVector::normalize(components).expect("a direction"),
    }
}

/// What `work` gives, its seconds, and those that the process had a processor.
fn timed<T>(work: impl FnOnce() -> T) -> (T, [f64; 2]) {
    let (begun, before) = (Instant::now(), cpu_of_process());
    let result = work();
    (result, [begun.elapsed().as_secs_f64(), cpu_of_process() - before])
}

/// Of the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}
