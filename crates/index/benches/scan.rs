//! What an exact scan costs: `just bench-scan`.
//!
//! Scans of one query and of sixteen together, beside scoring every ad in `f32` and beside faiss's flat index on the same
//! vectors, all on one thread and in turns; then the number of ads from which a graph is faster. Prints tables, and writes
//! docs/results/scan.json. Real embeddings are read where `TURRET_DATA` names the data sets.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::process::ExitCode;

use serde_json::{Value, json};
use turret_index::{Backend, IndexSettings, Search, ShardAd, ShardIndex};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::Ad;
use turret_retrieval::topk::{Hit, TopK};
use turret_retrieval::vector::{UnitVector, dot};

use self::embeddings::World;
use self::faiss::Faiss;
use self::median::median;
use self::results::{repository, say};
use self::thread::cpu_of_thread;

#[path = "measuring/around.rs"]
mod around;
#[path = "measuring/embeddings.rs"]
mod embeddings;
#[path = "scan/faiss.rs"]
mod faiss;
#[path = "measuring/median.rs"]
mod median;
#[path = "measuring/results.rs"]
mod results;
#[path = "measuring/thread.rs"]
mod thread;
#[path = "scan/worlds.rs"]
mod worlds;

/// Turns of each; the median counts.
const ROUNDS: usize = 5;
const SIZES: [usize; 4] = [10_000, 50_000, 200_000, 1_000_000];
const GRAPH_SIZES: [usize; 3] = [20_000, 50_000, 200_000];
const DIMENSIONS: [usize; 2] = [64, 128];
const QUERIES: usize = 64;
const KS: [usize; 2] = [10, 100];
/// Queries that are scanned for together.
const TOGETHER: usize = 16;
/// Ads compared in a turn, about, with all queries.
const TURN_ADS: usize = 40_000_000;
/// So many times more of them in a turn of ours: the system counts CPU time by milliseconds.
const FASTER: usize = 4;

/// By what is measured, the figure of each round.
type Figures = BTreeMap<&'static str, Vec<f64>>;

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (python, rows_max) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [python] => (python, usize::MAX),
        [python, rows_max] => (python, rows_max.parse().expect("ROWS_MAX is a number")),
        _ => {
            say("error: run `just bench-scan`, which knows a Python with faiss");
            return ExitCode::FAILURE;
        }
    };
    let mut rows = Vec::new();
    say("CPU microseconds a query; ratios are the other's time over that of the codes");
    say(
        "| vectors | ads | k | every ad in f32 | codes | ratio | 16 together | faiss | ratio | faiss, 16 together | ratio |",
    );
    say("|---|---|---|---|---|---|---|---|---|---|---|");
    for world in worlds(rows_max) {
        scans(&world, python, &mut rows);
    }
    say("\n| ads | graph, L 100 | scan | recall@10 of the graph |\n|---|---|---|---|");
    for ads in GRAPH_SIZES.into_iter().filter(|ads| *ads <= rows_max) {
        graph(&worlds::clustered(64, ads, QUERIES), &mut rows);
    }
    if rows_max < usize::MAX {
        return ExitCode::SUCCESS;
    }
    let mut figures = results::head("just bench-scan");
    figures["rows"] = rows.into();
    results::write("scan.json", &figures);
    ExitCode::SUCCESS
}

/// Made when they are asked for: the largest are half a gigabyte.
fn worlds(rows_max: usize) -> impl Iterator<Item = World> {
    let sizes = SIZES.into_iter().filter(move |ads| *ads <= rows_max);
    let made = DIMENSIONS.into_iter().flat_map(move |dimension| sizes.clone().map(move |ads| (dimension, ads)));
    made.map(|(dimension, ads)| worlds::clustered(dimension, ads, QUERIES)).chain(worlds::real(QUERIES))
}

fn scans(world: &World, python: &str, rows: &mut Vec<Value>) {
    let index = build(world, Backend::Exact);
    let mut faiss = Faiss::start(python, &repository().join("benches/peers/scan.py"), world);
    let turns = (TURN_ADS / world.rows() / world.queries.len()).max(1);
    for k in KS {
        let expected: Vec<Vec<u32>> = world.queries.iter().map(|query| in_f32(world, query, k)).collect();
        let mut figures = Figures::new();
        for round in 0..=ROUNDS {
            let mut found = Vec::new();
            let f32 = cpu_us(world, turns, || {
                world.queries.iter().for_each(|query| drop(black_box(in_f32(world, query, k))))
            });
            let codes = cpu_us(world, FASTER * turns, || {
                found = world.queries.iter().map(|query| scan(&index, query, k)).collect()
            });
            assert_eq!(found, expected, "a scan finds what scoring every ad does");
            let together = cpu_us(world, FASTER * turns, || {
                let batches = world.queries.chunks(TOGETHER);
                found = batches
                    .flat_map(|queries| index.scan_many(queries, k).expect("queries are good"))
                    .map(|hits| numbers(&hits))
                    .collect();
            });
            assert_eq!(found, expected, "so does one for many queries");
            let [faiss_alone, faiss_together] = [1, TOGETHER].map(|batch| {
                let answer = faiss.search(k, batch, turns);
                // Ties and roundings aside: faiss sums in another order.
                let same = answer.first.iter().filter(|row| expected[0].contains(row)).count();
                assert!(same * 10 >= k * 9, "faiss finds the same: {same} of {k}");
                answer.cpu_s * 1e6 / (turns * world.queries.len()) as f64
            });
            // The first round is for caches and clocks.
            if round > 0 {
                let all = [
                    ("f32_us", f32),
                    ("codes_us", codes),
                    ("codes_16_us", together),
                    ("faiss_us", faiss_alone),
                    ("faiss_16_us", faiss_together),
                ];
                all.into_iter().for_each(|(name, us)| figures.entry(name).or_default().push(us));
            }
        }
        let of = |name| median(&figures[name]);
        let (f32, codes, together) = (of("f32_us"), of("codes_us"), of("codes_16_us"));
        let (alone, batched) = (of("faiss_us"), of("faiss_16_us"));
        say(&format!(
            "| {} | {} | {k} | {f32:.0} | {codes:.1} | {:.2} | {together:.1} | {alone:.0} | {:.2} | {batched:.0} | {:.2} |",
            world.name,
            world.rows(),
            f32 / codes,
            alone / codes,
            batched / together,
        ));
        let mut mean: BTreeMap<&str, f64> = figures.iter().map(|(name, us)| (*name, median(us))).collect();
        mean.extend([
            ("f32_over_codes", f32 / codes),
            ("faiss_over_codes", alone / codes),
            ("faiss_over_codes_16", batched / together),
        ]);
        let name = format!("{}, {} ads, k {k}", world.name, world.rows());
        rows.push(row(&name, &mean, &figures));
    }
}

fn graph(world: &World, rows: &mut Vec<Value>) {
    let (walked, scanned) = (build(world, Backend::DiskAnn), build(world, Backend::Exact));
    let turns = FASTER * (TURN_ADS / world.rows() / world.queries.len()).max(1);
    let (mut figures, mut recall) = (Figures::new(), 0.0);
    for round in 0..=ROUNDS {
        let (mut found, mut expected): (Vec<Vec<u32>>, Vec<Vec<u32>>) = Default::default();
        let walk = |query: &UnitVector| {
            let search = Search { vector: query, baseline: None, crowding: None, k: 10, filter: None, exact: false };
            walked.search(&search).expect("the query is good").ads.iter().map(|ad| number(&ad.hit)).collect()
        };
        let graph = cpu_us(world, turns, || found = world.queries.iter().map(walk).collect());
        let scan =
            cpu_us(world, turns, || expected = world.queries.iter().map(|query| scan(&scanned, query, 10)).collect());
        let hits = expected.iter().zip(&found).map(|(all, found)| all.iter().filter(|row| found.contains(row)).count());
        recall = hits.sum::<usize>() as f64 / (10 * expected.len()) as f64;
        if round > 0 {
            [("graph_us", graph), ("scan_us", scan)]
                .into_iter()
                .for_each(|(name, us)| figures.entry(name).or_default().push(us));
        }
    }
    let mut mean: BTreeMap<&str, f64> = figures.iter().map(|(name, us)| (*name, median(us))).collect();
    mean.insert("recall@10", recall);
    say(&format!("| {} | {:.0} | {:.0} | {recall:.3} |", world.rows(), mean["graph_us"], mean["scan_us"]));
    rows.push(row(&format!("graph beside scan, {} ads", world.rows()), &mean, &figures));
}

/// What a scan was before codes: every ad is scored.
fn in_f32(world: &World, query: &UnitVector, k: usize) -> Vec<u32> {
    let mut top = TopK::new(k);
    let mut floor = f32::NEG_INFINITY;
    for (row, vector) in world.flat.chunks_exact(world.dimension).enumerate() {
        let score = dot(query.as_slice(), vector);
        if score < floor {
            continue;
        }
        top.push(Worst { score, row: row as u32 });
        if let Some(worst) = top.threshold() {
            floor = worst.score;
        }
    }
    top.into_sorted().iter().map(|row| row.row).collect()
}

/// The better is the smaller.
#[derive(PartialEq)]
struct Worst {
    score: f32,
    row: u32,
}

impl Eq for Worst {}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

fn scan(index: &ShardIndex, query: &UnitVector, k: usize) -> Vec<u32> {
    let search = Search { vector: query, baseline: None, crowding: None, k, filter: None, exact: true };
    index.search(&search).expect("the query is good").ads.iter().map(|ad| number(&ad.hit)).collect()
}

fn numbers(hits: &[Hit]) -> Vec<u32> {
    hits.iter().map(number).collect()
}

fn number(hit: &Hit) -> u32 {
    hit.ad.as_str().parse().expect("ids are numbers")
}

fn build(world: &World, backend: Backend) -> ShardIndex {
    let ad = |(row, vector): (usize, &[f32])| ShardAd {
        ad: Ad { id: AdId::new(&format!("{row:07}")).expect("an id"), item: 1.into(), attributes: BTreeMap::new() },
        embedding: UnitVector::normalize(vector.to_vec()).expect("a direction"),
    };
    let ads = world.flat.chunks_exact(world.dimension).enumerate().map(ad).collect();
    let settings = IndexSettings { backend, exact_below_ads: 0, threads: 2, ..IndexSettings::default() };
    ShardIndex::build(world.dimension, ads, &settings, &[], &mut |_| ControlFlow::Continue(())).expect("ads are good")
}

/// CPU time of this thread for one query, in microseconds.
fn cpu_us(world: &World, turns: usize, mut work: impl FnMut()) -> f64 {
    let before = cpu_of_thread();
    (0..turns).for_each(|_| work());
    (cpu_of_thread() - before) * 1e6 / (turns * world.queries.len()) as f64
}

fn row(name: &str, mean: &BTreeMap<&str, f64>, figures: &Figures) -> Value {
    let round = |round: usize| figures.iter().map(|(name, us)| (*name, us[round])).collect::<BTreeMap<_, _>>();
    json!({ "name": name, "mean": mean, "seeds": (0..ROUNDS).map(round).collect::<Vec<_>>() })
}
