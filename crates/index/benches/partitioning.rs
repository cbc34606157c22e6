//! What it costs and saves to ask only the nearest shards: `just bench-partitioning`.
//!
//! Ads are clustered as a publication does it. One half of the queries are its probes, by which the number of shards is chosen; the
//! other half is asked: recall against all ads by the number of nearest shards, CPU beside asking every shard of a hash, filters, and
//! what the bound on the size of a cluster costs. Prints tables, and writes docs/results/partitioning.json.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};
use turret_index::{Backend, ClusterSettings, IndexSettings, Search, ShardAd, ShardIndex, cluster};
use turret_retrieval::hashing::{shard_of, stable_hash};
use turret_retrieval::ids::{AdId, ShardId};
use turret_retrieval::item::Ad;
use turret_retrieval::partitioning::{Clusters, RankShares};
use turret_retrieval::vector::{UnitVector, dot};

use self::embeddings::World;
use self::median::median;
use self::results::say;
use self::thread::cpu_of_thread;

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
#[path = "partitioning/worlds.rs"]
mod worlds;

const SHARDS: [usize; 3] = [4, 8, 16];
const KS: [usize; 3] = [10, 100, 1_000];
const K: usize = 100;
const TARGETS: [f64; 3] = [0.9, 0.95, 0.99];
/// Times the mean that a cluster may hold; the last is no bound.
const FULLNESS: [f64; 6] = [1.0, 1.05, 1.1, 1.25, 1.5, 1_000.0];
const FULLNESS_MAX: f64 = 1.05;
/// Shares of ads that a filter passes which has nothing to do with where they lie.
const FILTERS: [f64; 2] = [0.1, 0.01];
const ROUNDS: usize = 5;
/// Ads compared in a turn, about, with all queries: the system counts CPU time by milliseconds.
const TURN_ADS: usize = 4_000_000;

/// Ads in clusters, as a publication makes them of the probes.
struct Cut {
    clusters: Clusters,
    cluster_of: Vec<u32>,
    /// Times the mean that the largest holds.
    fullness: f64,
    seconds: f64,
}

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let generation = match &arguments[..] {
        [] => None,
        [dir] => Some(Path::new(dir)),
        _ => {
            say("error: at most one argument is taken, the directory of a published generation");
            return ExitCode::FAILURE;
        }
    };
    let mut rows = Vec::new();
    for world in worlds::all(generation) {
        measure(&world, &mut rows);
    }
    let mut figures = results::head("just bench-partitioning");
    figures["rows"] = rows.into();
    results::write("partitioning.json", &figures);
    ExitCode::SUCCESS
}

fn measure(world: &World, rows: &mut Vec<Value>) {
    let (probes, asked) = world.queries.split_at(world.queries.len() / 2);
    let best_of_probes: Vec<Vec<u32>> = probes.iter().map(|query| best(world, query, KS[2], |_| true)).collect();
    let best_ads: Vec<Vec<u32>> = asked.iter().map(|query| best(world, query, K, |_| true)).collect();
    let best_10: Vec<Vec<u32>> = best_ads.iter().map(|ads| ads[..KS[0]].to_vec()).collect();
    say(&format!("\n{}: {} ads, {} probes, {} other queries", world.name, world.rows(), probes.len(), asked.len()));
    say(
        "| shards | largest / mean | s | recall@100 by shards asked | target | asked | expected | measured | ads compared | CPU µs | of a hash, all asked | asked for 10 | measured |",
    );
    say("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for shards in SHARDS {
        let cut = Cut::of(world, shards, FULLNESS_MAX, probes, &best_of_probes);
        let curve: Vec<f64> = (1..=shards).map(|asks| recall(&cut, asked, &best_ads, |_| asks)).collect();
        let cpu = Cpu::of(world, &cut, shards, asked);
        for target in TARGETS {
            let clusters = Clusters { target_recall: target, ..cut.clusters.clone() };
            let asks = clusters.asked(K as f64);
            let expected = clusters.shares[1].curve()[asks - 1];
            let found = recall(&cut, asked, &best_ads, |_| asks);
            let compared = compared(world, &cut, asked, asks);
            let [ours, of_hash] = cpu.measured(asks);
            let asks_10 = clusters.asked(KS[0] as f64);
            let found_10 = recall(&cut, asked, &best_10, |_| asks_10);
            say(&format!(
                "| {shards} | {:.3} | {:.1} | {} | {target} | {asks} | {expected:.3} | {found:.3} | {compared:.3} | {ours:.0} | {of_hash:.0} | {asks_10} | {found_10:.3} |",
                cut.fullness,
                cut.seconds,
                shown(&curve)
            ));
            let mut mean: BTreeMap<String, f64> = BTreeMap::from(
                [
                    ("asked", asks as f64),
                    ("expected_recall@100", expected),
                    ("recall@100", found),
                    ("ads_compared_share", compared),
                    ("asked_for_10", asks_10 as f64),
                    ("recall@10", found_10),
                    ("cpu_us", ours),
                    ("cpu_us_of_hash", of_hash),
                    ("largest_over_mean", cut.fullness),
                    ("clustering_s", cut.seconds),
                ]
                .map(|(name, figure)| (name.to_owned(), figure)),
            );
            mean.extend(
                curve.iter().zip(1..).map(|(recall, asks)| (format!("recall@100_of_{asks:02}_shards"), *recall)),
            );
            for passing in FILTERS {
                let (first, waves, share) = filtered(world, &clusters, &cut, asked, passing);
                let percent = passing * 100.0;
                mean.insert(format!("filter_{percent}_percent_recall@100_of_one_wave"), first);
                mean.insert(format!("filter_{percent}_percent_recall@100"), waves);
                mean.insert(format!("filter_{percent}_percent_shards_asked_share"), share);
            }
            rows.push(json!({ "name": format!("{}, {shards} shards, target {target}", world.name), "mean": mean, "seeds": [] }));
        }
    }
    say(
        "\n| shards | bound | largest / mean | smallest / mean | asked for .99 | recall@100 | ads compared |\n|---|---|---|---|---|---|---|",
    );
    for fullness in FULLNESS {
        let cut = Cut::of(world, 8, fullness, probes, &best_of_probes);
        let asks = cut.clusters.asked(K as f64);
        let (found, compared) = (recall(&cut, asked, &best_ads, |_| asks), compared(world, &cut, asked, asks));
        let smallest =
            sizes(&cut.cluster_of, 8).into_iter().min().unwrap_or_default() as f64 * 8.0 / world.rows() as f64;
        say(&format!("| 8 | {fullness} | {:.3} | {smallest:.3} | {asks} | {found:.3} | {compared:.3} |", cut.fullness));
        let one = recall(&cut, asked, &best_ads, |_| 1);
        let mean = BTreeMap::from([
            ("largest_over_mean", cut.fullness),
            ("smallest_over_mean", smallest),
            ("asked", asks as f64),
            ("recall@100", found),
            ("recall@100_of_01_shards", one),
            ("ads_compared_share", compared),
        ]);
        rows.push(json!({ "name": format!("{}, 8 shards, bound {fullness}", world.name), "mean": mean, "seeds": [] }));
    }
}

impl Cut {
    fn of(world: &World, shards: usize, fullness_max: f64, probes: &[UnitVector], best: &[Vec<u32>]) -> Self {
        let vectors: Vec<&[f32]> = world.flat.chunks_exact(world.dimension).collect();
        let began = Instant::now();
        let clustering =
            cluster(&vectors, world.dimension, &ClusterSettings { clusters: shards, fullness_max, seed: 1 });
        let seconds = began.elapsed().as_secs_f64();
        let largest = sizes(&clustering.cluster_of, shards).into_iter().max().unwrap_or_default();
        let mut clusters = Clusters {
            centroids: clustering.centroids,
            target_recall: 0.99,
            probes: probes.len() as u32,
            shares: vec![],
        };
        let ranked: Vec<Vec<ShardId>> = probes.iter().map(|query| clusters.ranked(query)).collect();
        clusters.shares = KS
            .into_iter()
            .map(|k| {
                let mut by_rank = vec![0.0; shards];
                for (ranked, best) in ranked.iter().zip(best) {
                    for ad in best.iter().take(k) {
                        let shard = ShardId(clustering.cluster_of[*ad as usize]);
                        let rank = ranked.iter().position(|ranked| *ranked == shard).expect("every shard has a rank");
                        by_rank[rank] += 1.0 / (k.min(best.len()) * probes.len()) as f64;
                    }
                }
                RankShares { k: k as u32, by_rank }
            })
            .collect();
        let fullness = largest as f64 * shards as f64 / world.rows() as f64;
        Self { clusters, cluster_of: clustering.cluster_of, fullness, seconds }
    }
}

fn sizes(cluster_of: &[u32], shards: usize) -> Vec<usize> {
    let mut sizes = vec![0; shards];
    cluster_of.iter().for_each(|cluster| sizes[*cluster as usize] += 1);
    sizes
}

/// The best ads of a query that pass, by comparing all.
fn best(world: &World, query: &UnitVector, k: usize, passes: impl Fn(u32) -> bool) -> Vec<u32> {
    let rows = (0u32..).zip(world.flat.chunks_exact(world.dimension)).filter(|(row, _)| passes(*row));
    let mut scored: Vec<(f32, u32)> = rows.map(|(row, vector)| (dot(query.as_slice(), vector), row)).collect();
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if scored.len() > k {
        scored.select_nth_unstable_by(k - 1, order);
        scored.truncate(k);
    }
    scored.sort_by(order);
    scored.into_iter().map(|(_, row)| row).collect()
}

/// The share of the best ads that lie in as many of the nearest shards as `asks` says of each query.
fn recall(cut: &Cut, queries: &[UnitVector], best: &[Vec<u32>], asks: impl Fn(usize) -> usize) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for (number, (query, best)) in queries.iter().zip(best).enumerate() {
        let asked: HashSet<u32> =
            cut.clusters.ranked(query).into_iter().take(asks(number)).map(|shard| shard.0).collect();
        found += best.iter().filter(|ad| asked.contains(&cut.cluster_of[**ad as usize])).count();
        wanted += best.len();
    }
    found as f64 / wanted.max(1) as f64
}

/// The share of all ads that a scan of the shards asked compares.
fn compared(world: &World, cut: &Cut, queries: &[UnitVector], asks: usize) -> f64 {
    let sizes = sizes(&cut.cluster_of, cut.clusters.centroids.len());
    let of = |query: &UnitVector| -> usize {
        cut.clusters.ranked(query).into_iter().take(asks).map(|shard| sizes[shard.0 as usize]).sum()
    };
    queries.iter().map(of).sum::<usize>() as f64 / (world.rows() * queries.len()) as f64
}

/// Recall of a filter by the first wave, by both, and the share of shards that both ask. As `Route` and `Gather` of the actors do it,
/// with the selectivity of the shards that were asked first.
fn filtered(world: &World, clusters: &Clusters, cut: &Cut, queries: &[UnitVector], passing: f64) -> (f64, f64, f64) {
    let shards = clusters.centroids.len();
    let passes = |row: u32| (stable_hash(5, &row.to_le_bytes()) as f64 / u64::MAX as f64) < passing;
    let best: Vec<Vec<u32>> = queries.iter().map(|query| self::best(world, query, K, passes)).collect();
    let (mut of, mut all) = (vec![0usize; shards], vec![0usize; shards]);
    for (row, cluster) in (0u32..).zip(&cut.cluster_of) {
        all[*cluster as usize] += 1;
        of[*cluster as usize] += usize::from(passes(row));
    }
    let first = clusters.asked(K as f64);
    let asks: Vec<usize> = queries
        .iter()
        .map(|query| {
            let near: Vec<usize> =
                clusters.ranked(query).into_iter().take(first).map(|shard| shard.0 as usize).collect();
            let share =
                near.iter().map(|shard| of[*shard] as f64 / all[*shard].max(1) as f64).sum::<f64>() / first as f64;
            let has = near.iter().map(|shard| of[*shard]).sum::<usize>() >= K;
            if has { clusters.asked(K as f64 / share).max(first) } else { shards }
        })
        .collect();
    let share = asks.iter().sum::<usize>() as f64 / (shards * queries.len()) as f64;
    (recall(cut, queries, &best, |_| first), recall(cut, queries, &best, |number| asks[number]), share)
}

/// CPU of searches of the best 100, scanned exactly: a query goes to its shards, then the next one.
struct Cpu<'a> {
    queries: &'a [UnitVector],
    ranked: Vec<Vec<ShardId>>,
    clustered: Vec<ShardIndex>,
    hash: Vec<ShardIndex>,
    turns: usize,
}

impl<'a> Cpu<'a> {
    fn of(world: &World, cut: &Cut, shards: usize, queries: &'a [UnitVector]) -> Self {
        let id = |row: u32| AdId::new(&format!("{row:07}")).expect("an id");
        Self {
            queries,
            ranked: queries.iter().map(|query| cut.clusters.ranked(query)).collect(),
            clustered: build(world, shards, |row| cut.cluster_of[row as usize]),
            hash: build(world, shards, |row| shard_of(&id(row), shards as u32).0),
            turns: (TURN_ADS / world.rows() / queries.len()).max(1),
        }
    }

    /// Microseconds a query: of that many of the nearest clusters, and of all shards of a hash; medians of rounds in turns.
    fn measured(&self, asks: usize) -> [f64; 2] {
        let [mut ours, mut of_hash] = [vec![], vec![]];
        for round in 0..=ROUNDS {
            let clustered = self.cpu_us(|number| {
                let nearest = self.ranked[number].iter().take(asks);
                nearest.for_each(|shard| scan(&self.clustered[shard.0 as usize], &self.queries[number]));
            });
            let hash = self.cpu_us(|number| self.hash.iter().for_each(|shard| scan(shard, &self.queries[number])));
            // The first round is for caches and clocks.
            if round > 0 {
                ours.push(clustered);
                of_hash.push(hash);
            }
        }
        [median(&ours), median(&of_hash)]
    }

    fn cpu_us(&self, search: impl Fn(usize)) -> f64 {
        let before = cpu_of_thread();
        (0..self.turns).for_each(|_| (0..self.queries.len()).for_each(&search));
        (cpu_of_thread() - before) * 1e6 / (self.turns * self.queries.len()) as f64
    }
}

fn scan(index: &ShardIndex, query: &UnitVector) {
    let search = Search { vector: query, baseline: None, crowding: None, k: K, filter: None, exact: true };
    drop(std::hint::black_box(index.search(&search).expect("the query is good")));
}

fn build(world: &World, shards: usize, shard: impl Fn(u32) -> u32) -> Vec<ShardIndex> {
    let mut ads: Vec<Vec<ShardAd>> = vec![Vec::new(); shards];
    for (row, vector) in (0u32..).zip(world.flat.chunks_exact(world.dimension)) {
        let id = AdId::new(&format!("{row:07}")).expect("an id");
        let embedding = UnitVector::normalize(vector.to_vec()).expect("a direction");
        let ad = Ad { id, item: 1.into(), attributes: BTreeMap::new() };
        ads[shard(row) as usize].push(ShardAd { ad, embedding });
    }
    let settings = scanned();
    let build = |ads| ShardIndex::build(world.dimension, ads, &settings, &[], &mut |_| ControlFlow::Continue(()));
    ads.into_iter().map(|ads| build(ads).expect("ads are good")).collect()
}

/// Shards without a graph.
fn scanned() -> IndexSettings {
    IndexSettings { backend: Backend::Exact, ..IndexSettings::default() }
}

fn shown(curve: &[f64]) -> String {
    let points = (1..=curve.len()).filter(|asks| asks.is_power_of_two());
    points.map(|asks| format!("{asks}: {:.3}", curve[asks - 1])).collect::<Vec<_>>().join(", ")
}
