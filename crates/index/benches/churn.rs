//! What changes cost a shard, and what they cost its searches: `just bench-churn [ADS]`.
//!
//! Replaces every ad, and every ad once more by what it was, while two threads search, one change after the other in batches of
//! [`BATCH`], with upkeep between them and overhauls on a thread of their own; then pauses and resumes ads one by one. Every answer is
//! checked. Prints a table, and writes docs/results/churn.json.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use turret_index::{IndexSettings, Search, ShardChange, ShardContent, ShardIndex};
use turret_retrieval::filter::Filter;
use turret_retrieval::revision::Revision;
use turret_retrieval::vector::dot;

use self::memory::{pages_filled_max, resident};
use self::process::cpu_of_process;
use self::results::say;
use self::searches::{costs, recalls};
use self::thread::cpu_of_thread;
use self::world::{DIMENSION, World, id};

#[path = "measuring/around.rs"]
mod around;
#[path = "measuring/median.rs"]
mod median;
#[path = "churn/memory.rs"]
mod memory;
#[path = "measuring/process.rs"]
mod process;
#[path = "measuring/results.rs"]
mod results;
#[path = "churn/searches.rs"]
mod searches;
#[path = "measuring/thread.rs"]
mod thread;
#[path = "churn/world.rs"]
mod world;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ADS: usize = 200_000;
const QUERIES: usize = 1_000;
const READERS: usize = 2;
/// How often every ad is replaced.
const PASSES: usize = 2;
/// Ads replaced by one change.
const BATCH: usize = 64;
/// Ads that stay paused throughout: one in so many.
const PAUSED_ONE_IN: u32 = 200;
const PAUSES: usize = 100_000;

fn main() {
    // `cargo bench` adds an argument of its own.
    let ads = std::env::args().skip(1).find(|argument| argument != "--bench");
    let ads = ads.map_or(ADS, |ads| ads.parse().expect("ADS is a number"));
    let world = World::new(ads, QUERIES);
    let empty = resident();
    let all = |version| (0..ads as u32).map(|ad| world.ad(version, ad)).collect();
    let (index, build_s) = cpu_while(|| build(all(0)));
    // They are not to be found from here on.
    index.apply((0..ads as u32).filter(|ad| is_paused(*ad)).map(|ad| pause(ad, true, 1)).collect()).expect("sound");
    let fresh_before = recalls(&index, &world);
    let (before, stats_before) = (resident() - empty, index.stats());

    let mut churn = Churn::default();
    let (mut readers, mut overhaul_s, mut after, mut churned) = (Readers::default(), 0.0, [0.0; PASSES], [0.0; 2]);
    for (pass, after) in after.iter_mut().enumerate() {
        let replacing = Replacing {
            version: (pass + 1) % 2,
            at: Revision::from_bits(10 + pass as u64),
            count: AtomicUsize::new(0),
        };
        let ((of_pass, beside), process_s) =
            cpu_while(|| beside_readers(&index, &world, &replacing, || replace_all(&index, &world, &replacing)));
        // Threads that build a graph are nobody's but the process's.
        overhaul_s += (process_s - of_pass.thread_s - beside.cpu_s).max(0.0);
        churn.add(of_pass);
        readers.add(beside);
        churned = recalls(&index, &world);
        *after = resident() - empty;
    }
    let stats = index.stats();
    let replaced = Replacing { version: 0, at: Revision::NONE, count: AtomicUsize::new(ads) };
    let (pauses, pause_readers) = beside_readers(&index, &world, &replaced, || pause_many(&index, ads));
    let bytes_per_ad = stats.bytes_per_ad();
    let (fresh, _) = cpu_while(|| build(all(0)));
    fresh.apply((0..ads as u32).filter(|ad| is_paused(*ad)).map(|ad| pause(ad, true, 1)).collect()).expect("sound");
    let again = recalls(&fresh, &world);
    let costs = costs([&index, &fresh], &world);

    let replaced = (PASSES * ads) as f64;
    let per_core = replaced / (churn.writer_s + overhaul_s);
    let (apply_us, step_us) = (quantiles(churn.apply_us), quantiles(churn.step_us));
    let rows = [
        (
            "recall",
            json!({
                "churned@10": churned[0], "churned@100": churned[1], "fresh@10": again[0], "fresh@100": again[1],
                "before@10": fresh_before[0], "before@100": fresh_before[1],
                "lost@10": again[0] - churned[0], "lost@100": again[1] - churned[1],
            }),
        ),
        (
            "replacements",
            json!({
                "ads": ads, "passes": PASSES, "batch": BATCH, "wall_s": churn.wall_s, "per_s": replaced / churn.wall_s,
                "cpu_s": churn.writer_s, "overhaul_cpu_s": overhaul_s, "overhauls": churn.overhauls,
                "per_cpu_s": per_core, "build_cpu_s": build_s,
                "apply_us_p50": apply_us[0], "apply_us_p99": apply_us[1], "apply_us_max": apply_us[2],
                "step_us_p50": step_us[0], "step_us_p99": step_us[1], "step_us_max": step_us[2],
            }),
        ),
        (
            "readers meanwhile",
            json!({
                "threads": READERS, "searches": readers.searches, "errors": readers.errors,
                "hidden_or_stale": readers.wrong, "exact_plans": readers.exact,
            "search_and_check_cpu_us": readers.cpu_s * 1e6 / readers.searches as f64,
            }),
        ),
        ("searches afterwards, CPU us, and over those of the shard built anew", costs),
        (
            "memory",
            json!({
                "before_mb": before / 1e6, "after_mb": after[0] / 1e6, "after_over_before": after[0] / before,
                "after_again_mb": after[1] / 1e6, "after_again_over_after": after[1] / after[0],
                "bytes_per_ad_before": stats_before.bytes_per_ad(), "bytes_per_ad_after": bytes_per_ad,
                "rows_after": stats.rows, "dead_after": stats.dead, "segments_after": stats.segments,
                "khugepaged_max_ptes_none": pages_filled_max(),
            }),
        ),
        (
            "pauses one by one",
            json!({
                "pauses": PAUSES, "per_s": PAUSES as f64 / pauses.wall_s, "per_cpu_s": PAUSES as f64 / pauses.cpu_s,
                "reader_errors": pause_readers.errors, "hidden_or_stale": pause_readers.wrong,
            }),
        ),
    ];
    say("| what | figure |\n|---|---|");
    for (name, figures) in &rows {
        for (key, value) in figures.as_object().expect("figures are an object") {
            say(&format!("| {name}, {key} | {value:.4} |"));
        }
    }
    if ads == ADS {
        let rows: Vec<Value> =
            rows.iter().map(|(name, mean)| json!({ "name": name, "mean": mean, "seeds": [mean] })).collect();
        let mut figures = results::head("just bench-churn");
        figures["rows"] = rows.into();
        results::write("churn.json", &figures);
    }
}

fn build(ads: Vec<turret_index::ShardAd>) -> ShardIndex {
    let settings = IndexSettings { exact_below_ads: 20_000, threads: 2, ..IndexSettings::default() };
    ShardIndex::build(DIMENSION, ads, &settings, &[], &mut |_| ControlFlow::Continue(())).expect("the ads are sound")
}

fn is_paused(ad: u32) -> bool {
    ad.is_multiple_of(PAUSED_ONE_IN)
}

fn pause(ad: u32, paused: bool, at: u64) -> ShardChange {
    let (content, content_at) = (ShardContent::AsBuilt, Revision::NONE);
    ShardChange { id: id(ad), content, content_at, paused, paused_at: Revision::from_bits(at) }
}

/// What every ad becomes.
struct Replacing {
    /// Of the world's.
    version: usize,
    at: Revision,
    /// How many are replaced, in the world's order.
    count: AtomicUsize,
}

#[derive(Default)]
struct Churn {
    wall_s: f64,
    writer_s: f64,
    /// The same, with making what is applied.
    thread_s: f64,
    overhauls: usize,
    apply_us: Vec<f64>,
    step_us: Vec<f64>,
}

impl Churn {
    fn add(&mut self, other: Self) {
        self.wall_s += other.wall_s;
        self.writer_s += other.writer_s;
        self.thread_s += other.thread_s;
        self.overhauls += other.overhauls;
        self.apply_us.extend(other.apply_us);
        self.step_us.extend(other.step_us);
    }
}

fn replace_all(index: &ShardIndex, world: &World, replacing: &Replacing) -> Churn {
    let (mut apply_us, mut step_us) = (Vec::new(), Vec::new());
    let (wanted, overhauls, over) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicBool::new(false));
    let (started, thread_s) = (Instant::now(), cpu_of_thread());
    let writer_s = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                if wanted.swap(false, Ordering::AcqRel) {
                    index.overhaul(&mut |_| ControlFlow::Continue(())).expect("a graph can be made");
                    overhauls.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        });
        let _end = OnDrop(&over);
        let mut cpu = 0.0;
        let batches = world.order.chunks(BATCH).count();
        for (at, batch) in world.order.chunks(BATCH).enumerate() {
            let content = |ad: &u32| ShardContent::Is(Box::new(world.ad(replacing.version, *ad)));
            let change = |ad: &u32| ShardChange {
                id: id(*ad),
                content: content(ad),
                content_at: replacing.at,
                paused: false,
                paused_at: Revision::NONE,
            };
            let changes = batch.iter().map(change).collect();
            let before = cpu_of_thread();
            let apply = Instant::now();
            index.apply(changes).expect("the ads are sound");
            apply_us.push(apply.elapsed().as_secs_f64() * 1e6);
            replacing.count.fetch_add(batch.len(), Ordering::Release);
            loop {
                let step = Instant::now();
                let due = index.maintain().expect("the graph takes every ad");
                step_us.push(step.elapsed().as_secs_f64() * 1e6);
                wanted.fetch_or(due.overhaul, Ordering::AcqRel);
                if due.step {
                    continue;
                }
                if at + 1 < batches || !(due.later || due.overhaul) {
                    break;
                }
                // At the end until all is done that searches and the overhaul hold up.
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            cpu += cpu_of_thread() - before;
        }
        cpu
    });
    let thread_s = cpu_of_thread() - thread_s;
    let wall_s = started.elapsed().as_secs_f64();
    Churn { wall_s, writer_s, thread_s, overhauls: overhauls.into_inner(), apply_us, step_us }
}

struct Pauses {
    wall_s: f64,
    cpu_s: f64,
}

fn pause_many(index: &ShardIndex, ads: usize) -> Pauses {
    let (started, cpu) = (Instant::now(), cpu_of_thread());
    for at in 0..PAUSES {
        // Each is paused and then resumed; those that stay paused are left alone.
        let ad = (at / 2 * 7_919 % ads) as u32;
        let ad = if is_paused(ad) { ad + 1 } else { ad };
        index.apply(vec![pause(ad, at.is_multiple_of(2), 100 + at as u64)]).expect("sound");
    }
    Pauses { wall_s: started.elapsed().as_secs_f64(), cpu_s: cpu_of_thread() - cpu }
}

/// Ends the threads that go on until this is so, after a panic too.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Default)]
struct Readers {
    searches: usize,
    errors: usize,
    /// Ads that must not be found, in a version that must not be seen, or twice.
    wrong: usize,
    exact: usize,
    cpu_s: f64,
}

impl Readers {
    fn add(&mut self, other: Self) {
        self.searches += other.searches;
        self.errors += other.errors;
        self.wrong += other.wrong;
        self.exact += other.exact;
        self.cpu_s += other.cpu_s;
    }
}

fn beside_readers<T>(
    index: &ShardIndex,
    world: &World,
    replacing: &Replacing,
    work: impl FnOnce() -> T,
) -> (T, Readers) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = |reader: usize| {
            let mut seen = Readers::default();
            for at in (reader..).step_by(READERS) {
                if over.load(Ordering::Acquire) {
                    break;
                }
                let query = &world.queries[at % world.queries.len()];
                let filter = Filter::AnyOf { field: "status".into(), values: vec!["active".into()] };
                // Every fourth is filtered.
                let filter = at.is_multiple_of(4).then_some(&filter);
                let new = replacing.count.load(Ordering::Acquire);
                let k = if at % 2 == 0 { 10 } else { 100 };
                let search = Search { vector: query, baseline: None, crowding: None, k, filter, exact: false };
                seen.searches += 1;
                let Ok(found) = index.search(&search) else {
                    seen.errors += 1;
                    continue;
                };
                seen.exact += usize::from(matches!(found.plan, turret_index::Plan::Exact));
                let mut ads = HashSet::new();
                for hit in found.ads.iter().map(|ad| &ad.hit) {
                    let ad: u32 = hit.ad.as_str().parse().expect("ids are numbers");
                    let is =
                        |version| dot(query.as_slice(), world.vector(version, ad)).to_bits() == hit.score.to_bits();
                    let is_new = (world.turn[ad as usize] as usize) < new;
                    seen.wrong += usize::from(
                        !ads.insert(ad)
                            || is_paused(ad)
                            || !(is(replacing.version) || (!is_new && is(1 - replacing.version))),
                    );
                }
            }
            seen.cpu_s = cpu_of_thread();
            seen
        };
        let threads: Vec<_> = (0..READERS).map(|reader| scope.spawn(move || read(reader))).collect();
        let end = OnDrop(&over);
        let result = work();
        drop(end);
        let mut all = Readers::default();
        for thread in threads {
            let seen = thread.join().expect("no reader panics");
            all.add(seen);
        }
        (result, all)
    })
}

fn quantiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0.5, 0.99, 1.0].map(|share| values[((values.len() - 1) as f64 * share) as usize])
}

/// CPU seconds of the whole process while `work` runs.
fn cpu_while<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let before = cpu_of_process();
    let result = work();
    (result, cpu_of_process() - before)
}
