//! What filters cost, and what is found with them: `just bench-filters [ADS]`.
//!
//! Filters that pass from 0.1 to 90 % of the ads, which have nothing to do with the query, keep the ads nearest to it, or those
//! furthest from it; each beside an exact scan of the ads that pass and beside a search without a filter, on one thread and in turns.
//! Of ads that are made up, of a published marketplace, and of the vectors below `TURRET_DATA`. Prints tables, and writes
//! docs/results/filters.json.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use turret_index::{Found, IndexSettings, Search, ShardIndex};
use turret_retrieval::filter::Filter;

use self::median::median;
use self::results::say;
use self::thread::cpu_of_thread;
use self::world::{Relation, World};

#[path = "measuring/around.rs"]
mod around;
#[path = "measuring/embeddings.rs"]
mod embeddings;
#[path = "measuring/median.rs"]
mod median;
#[path = "measuring/published.rs"]
mod published;
#[path = "measuring/results.rs"]
mod results;
#[path = "measuring/thread.rs"]
mod thread;
#[path = "measuring/uneven.rs"]
mod uneven;
#[path = "filters/world.rs"]
mod world;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ads that are made up in clusters.
const SIZES: [usize; 3] = [20_000, 200_000, 1_000_000];
const SHARES: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 0.9];
const K: usize = 100;
/// Turns of each; the median counts, and of ratios that of each round's own, for a machine that others use is another one a moment later. Their
/// order changes from turn to turn, for whoever follows another finds its caches.
const ROUNDS: usize = 24;
/// Searches of each query before it is known how long they take.
const REPEATS: usize = 4;
/// CPU microseconds of a turn, about.
const TURN_US: f64 = 20_000.0;

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (generation, ads) = match &arguments[..] {
        [generation] => (generation, None),
        [generation, ads] => (generation, Some(ads.parse().expect("ADS is a number"))),
        _ => {
            say("error: run `just bench-filters`, which has a generation published");
            return ExitCode::FAILURE;
        }
    };
    if let Some(ads) = ads {
        measure(world::clustered(ads));
        return ExitCode::SUCCESS;
    }
    let mut rows: Vec<Value> = SIZES.into_iter().flat_map(|ads| measure(world::clustered(ads))).collect();
    rows.extend(measure(uneven::uneven(world::QUERIES)));
    rows.extend(measure(published::published(Path::new(generation))));
    rows.extend(embeddings::real().into_iter().flat_map(measure));
    let mut figures = results::head("just bench-filters");
    figures["rows"] = rows.into();
    results::write("filters.json", &figures);
    ExitCode::SUCCESS
}

fn measure(world: embeddings::World) -> Vec<Value> {
    let (world, shard) = World::new(world);
    let (ads, queries) = (world.ads, world.queries.len());
    let group = format!("{}, {ads} ads", world.name);
    let index = build(world.dimension, shard, &world.probes);
    say(&format!("\n{group}, {queries} queries"));
    let calibration = index.calibration();
    for point in calibration.iter().flat_map(|calibration| &calibration.points) {
        let (k, list, recall, distances) = (point.k, point.list, point.recall, point.distances);
        say(&format!("  k {k}: list {list}, recall {recall:.4}, {distances} distances"));
    }
    if let Some(reach) = calibration.and_then(|calibration| calibration.reach) {
        say(&format!("looks into {} cells:", reach.cells));
        for point in &reach.points {
            let (k, share, recall, cells, rows) = (point.k, point.share, point.recall, point.cells, point.rows);
            say(&format!("  k {k}: {share:.2} of the radius, recall {recall:.4}, {cells} cells of {rows} rows"));
        }
    }
    say("\n| filter | share | recall@100 | CPU µs | scan, CPU µs | / scan | / unfiltered | distances | plans |");
    say("|---|---|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    let unfiltered: Vec<Option<Filter>> = vec![None; queries];
    let recall = recall(&index, &world, &unfiltered);
    let Turns { us: [ours, scan], over: [_, of_scan] } =
        turns(&index, &world, [(&unfiltered, false), (&unfiltered, true)]);
    let name = format!("{group}, no filter");
    say(&format!(
        "| none | 1 | {:.4} | {ours:.0} | {scan:.0} | {of_scan:.2} | 1 | {:.0} | {} |",
        recall.share, recall.distances, recall.plans
    ));
    let figures = json!({
        "recall@100": recall.share, "cpu_us": ours, "scan_cpu_us": scan, "of_scan": of_scan, "distances": recall.distances,
    });
    rows.push(row(&name, figures));
    for relation in Relation::ALL {
        for share in SHARES {
            let filters: Vec<_> = (0..queries).map(|query| Some(world.filter(query, relation, share))).collect();
            let found = self::recall(&index, &world, &filters);
            let Turns { us: [ours, scan, unfiltered_us], over: [_, of_scan, of_plain] } =
                turns(&index, &world, [(&filters, false), (&filters, true), (&unfiltered, false)]);
            let name = format!("{group}, {}, {} %", relation.name(), share * 100.0);
            say(&format!(
                "| {} | {} % | {:.4} | {ours:.0} | {scan:.0} | {of_scan:.2} | {of_plain:.2} | {:.0} | {} |",
                relation.name(),
                share * 100.0,
                found.share,
                found.distances,
                found.plans
            ));
            rows.push(row(
                &name,
                json!({
                    "recall@100": found.share, "cpu_us": ours, "scan_cpu_us": scan, "of_scan": of_scan,
                    "unfiltered_cpu_us": unfiltered_us, "of_unfiltered": of_plain, "distances": found.distances,
                    "distances_of_scan": found.distances / (ads as f64 * share),
                }),
            ));
        }
    }
    rows
}

fn row(name: &str, mean: Value) -> Value {
    json!({ "name": name, "mean": mean, "seeds": [mean] })
}

struct Recall {
    share: f64,
    distances: f64,
    plans: String,
}

/// What is found of an exact scan's ads, and how.
fn recall(index: &ShardIndex, world: &World, filters: &[Option<Filter>]) -> Recall {
    let (mut found, mut wanted, mut distances, mut plans) = (0, 0, 0, std::collections::BTreeMap::new());
    for (query, filter) in filters.iter().enumerate() {
        let exact = search(index, world, query, filter.as_ref(), true);
        let ours = search(index, world, query, filter.as_ref(), false);
        let ids = |found: &Found| -> HashSet<_> { found.ads.iter().map(|ad| ad.hit.ad.clone()).collect() };
        wanted += exact.ads.len();
        found += ids(&exact).intersection(&ids(&ours)).count();
        distances += ours.distances;
        *plans.entry(ours.plan.name()).or_insert(0) += 1;
    }
    let plans = plans.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
    Recall {
        share: f64::from(found as u32) / f64::from(wanted as u32),
        distances: distances as f64 / filters.len() as f64,
        plans,
    }
}

fn search(index: &ShardIndex, world: &World, query: usize, filter: Option<&Filter>, exact: bool) -> Found {
    let vector = &world.queries[query];
    let search = Search { vector, baseline: None, k: K, filter, crowding: None, exact };
    index.search(&search).expect("the query is good")
}

/// What some ways to search took, medians of rounds in turns.
struct Turns<const N: usize> {
    /// CPU microseconds a query.
    us: [f64; N],
    /// What the first took over each.
    over: [f64; N],
}

fn turns<const N: usize>(index: &ShardIndex, world: &World, what: [(&Vec<Option<Filter>>, bool); N]) -> Turns<N> {
    let turn = |(filters, exact): &(&Vec<Option<Filter>>, bool), repeats: usize| {
        let before = cpu_of_thread();
        for _ in 0..repeats {
            for (query, filter) in filters.iter().enumerate() {
                std::hint::black_box(search(index, world, query, filter.as_ref(), *exact));
            }
        }
        (cpu_of_thread() - before) * 1e6 / (repeats * filters.len()) as f64
    };
    let repeats = what.map(|what| {
        let us = turn(&what, REPEATS).max(1.0);
        (TURN_US / (us * what.0.len() as f64)).ceil() as usize
    });
    let mut times = [const { Vec::new() }; N];
    for round in 0..ROUNDS {
        let mut order: [usize; N] = std::array::from_fn(|at| at);
        order.rotate_left(round % N);
        if (round / N) % 2 == 1 {
            order.reverse();
        }
        order.into_iter().for_each(|at| times[at].push(turn(&what[at], repeats[at])));
    }
    let first = times[0].clone();
    let over =
        |times: &Vec<f64>| median(&first.iter().zip(times).map(|(first, time)| first / time).collect::<Vec<_>>());
    Turns { over: times.each_ref().map(over), us: times.each_ref().map(|times| median(times)) }
}

fn build(
    dimension: usize,
    ads: Vec<turret_index::ShardAd>,
    probes: &[turret_retrieval::vector::UnitVector],
) -> ShardIndex {
    let settings = IndexSettings { threads: 2, ..IndexSettings::default() };
    ShardIndex::build(dimension, ads, &settings, probes, &mut |_| ControlFlow::Continue(())).expect("the ads are sound")
}
