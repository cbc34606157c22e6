//! How the cost of a search grows with the ads of a shard, and with the shards that the same ads lie in: `just bench-scaling [ADS]`.
//!
//! Ads around random centres, 64 numbers each. Where many shards answer, each gives its best `k` and they are merged as a
//! gateway does. Lists are as long as a recall needs, as in `just bench-index`. Prints tables, and puts its rows into
//! docs/results/index.json in place of its last ones.

use std::ops::ControlFlow;

use serde_json::json;
use turret_index::{Found, ShardIndex};
use turret_retrieval::merge::merge;

use super::curve::{Cost, Point, reach};
use super::embeddings::World;
use super::figures::{self, Row};
use super::median::median;
use super::thread::cpu_of_thread;
use super::{KS, LISTS, ROUNDS, TARGETS, THREADS, TRUTH_K, ours, progress, say, worlds};

const SIZES: [usize; 5] = [10_000, 30_000, 100_000, 300_000, 1_000_000];
const SHARDS: [usize; 4] = [1, 2, 4, 8];
const SHARDED_ADS: usize = 200_000;
const DIMENSION: usize = 64;
const QUERIES: usize = 500;
pub(crate) fn run(ads_max: usize) {
    let is_trial = ads_max < SIZES[3];
    let mut rows = Vec::new();
    say(
        "| ads | shards | k | recall | by | list, or hundredths of the radius | CPU µs a query, all shards | of the slowest shard | distances | scan, CPU µs |",
    );
    say("|---|---|---|---|---|---|---|---|---|---|");
    for ads in SIZES.into_iter().filter(|ads| *ads <= ads_max) {
        rows.extend(measure(ads, 1, "ads"));
    }
    for shards in SHARDS {
        rows.extend(measure(SHARDED_ADS.min(ads_max), shards, "shards"));
    }
    if !is_trial {
        figures::put("just bench-index", "scaling", rows);
    }
}

/// Ads in shards, and what is to be found.
struct Sharded {
    world: World,
    shards: Vec<ShardIndex>,
    truth: Vec<Vec<u32>>,
}

/// What one pass over all queries took.
struct Pass {
    recall: f64,
    /// Of all shards, and of the merge.
    total_us: f64,
    /// Of the slowest shard for each query, and of the merge.
    slowest_us: f64,
    distances: f64,
}

fn measure(ads: usize, shards: usize, group: &str) -> Vec<Row> {
    progress(&format!("{ads} ads in {shards} shards: building"));
    let world = worlds::clustered(DIMENSION, ads, QUERIES);
    let build = |shard: usize| {
        // Nothing in the order of these ads says where they lie: any partition is a fair sample.
        let ads = ours::ads(&world, (shard..world.rows()).step_by(shards));
        ShardIndex::build(DIMENSION, ads, &ours::settings(THREADS), &[], &mut |_| ControlFlow::Continue(()))
            .expect("ads are good")
    };
    let built = (0..shards).map(build).collect();
    let mut sharded = Sharded { world, shards: built, truth: Vec::new() };
    let exact = (0..sharded.world.queries.len()).map(|query| sharded.ask(query, TRUTH_K, ours::SCAN).0);
    sharded.truth = exact.collect();
    let mut rows = Vec::new();
    for k in KS {
        let scan = sharded.passes(k, ours::SCAN);
        let lists: Vec<usize> = LISTS.into_iter().filter(|list| *list >= k).collect();
        for (run, parameters) in [("graph", &lists[..]), ("cells", &ours::LOOKS)] {
            let points = sharded.sweep(k, parameters);
            for target in TARGETS {
                let Some(reach) = reach(&points, target) else { continue };
                let (below, from) = (reach.below.map(|list| sharded.passes(k, list)), sharded.passes(k, reach.from));
                let at = |figure: fn(&Pass) -> f64| {
                    let from = figure(&from);
                    let below = below.as_ref().map_or(from, figure);
                    below + reach.share * (from - below)
                };
                let (total, slowest, distances) = (at(|p| p.total_us), at(|p| p.slowest_us), at(|p| p.distances));
                let parameter = if run == "cells" { reach.from - ours::LOOKS[0] } else { reach.from };
                say(&format!(
                    "| {ads} | {shards} | {k} | {target} | {run} | {parameter} | {total:.1} | {slowest:.1} | {distances:.0} | {:.1} |",
                    scan.total_us
                ));
                let name = format!("scaling over {group}, recall@{k} of {target}");
                let key = if group == "ads" { "cost_us" } else { "total_us" };
                let row = |run: &str, pass: [f64; 3]| {
                    let [us, slowest, distances] = pass;
                    let row = Row::new(&format!("{name}: {run}, {ads} ads in {shards} shards"), &name).run(run);
                    let row =
                        row.set("ads", json!(ads)).set("shards", json!(shards)).set("parameter", json!(parameter));
                    row.means([(key, us), ("slowest_us", slowest), ("distances", distances)])
                };
                rows.push(row(run, [total, slowest, distances]));
                if run == "graph" {
                    rows.push(row("scan", [scan.total_us, scan.slowest_us, scan.distances]));
                }
            }
        }
    }
    rows
}

impl Sharded {
    /// Each of `parameters`, in their order, until the highest recall that is asked for is reached.
    fn sweep(&self, k: usize, parameters: &[usize]) -> Vec<Point> {
        let mut points: Vec<Point> = Vec::new();
        for parameter in parameters.iter().copied() {
            let pass = self.pass(k, parameter);
            let cost = Cost { cpu_us: pass.total_us, wall_us: 0.0 };
            points.push(Point { parameter, recall: pass.recall, cost });
            if pass.recall >= TARGETS[1] {
                break;
            }
        }
        points
    }

    /// The best rows for a query, what each shard took in seconds, and what the merge did, and how many distances that were.
    fn ask(&self, query: usize, k: usize, list: usize) -> (Vec<u32>, Vec<f64>, u64) {
        let vector = &self.world.queries[query];
        let mut seconds = Vec::with_capacity(self.shards.len() + 1);
        let mut timed = |clock: std::time::Instant| seconds.push(clock.elapsed().as_secs_f64());
        let (mut lists, mut distances) = (Vec::with_capacity(self.shards.len()), 0);
        for shard in &self.shards {
            let clock = std::time::Instant::now();
            // A shard of few ads may have less than the list asks for.
            let Found { ads, distances: own, .. } = ours::search(shard, vector, k, list);
            timed(clock);
            distances += own;
            lists.push(ads.into_iter().map(|ad| (ad.hit, ())).collect::<Vec<_>>());
        }
        let clock = std::time::Instant::now();
        let merged = merge(&lists, k);
        timed(clock);
        (merged.iter().map(|(hit, ())| ours::number(&hit.ad)).collect(), seconds, distances)
    }

    /// Every query once.
    fn pass(&self, k: usize, list: usize) -> Pass {
        let (mut hits, mut slowest, mut distances) = (0, 0.0, 0);
        let queries = self.world.queries.len();
        let before = cpu_of_thread();
        let clock = std::time::Instant::now();
        for query in 0..queries {
            let (found, seconds, own) = self.ask(query, k, list);
            let truth = self.truth.get(query).map_or(&[][..], |truth| &truth[..k]);
            hits += found.iter().filter(|row| truth.contains(row)).count();
            let (shards, merge) = seconds.split_at(self.shards.len());
            slowest += shards.iter().copied().fold(0.0, f64::max) + merge[0];
            distances += own;
        }
        let (cpu, wall) = (cpu_of_thread() - before, clock.elapsed().as_secs_f64());
        let queries = queries as f64;
        Pass {
            recall: hits as f64 / (k as f64 * queries),
            total_us: cpu * 1e6 / queries,
            // By the clock on the wall, less what others took of it.
            slowest_us: slowest * (cpu / wall) * 1e6 / queries,
            distances: distances as f64 / queries,
        }
    }

    /// The medians of some passes.
    fn passes(&self, k: usize, list: usize) -> Pass {
        let passes: Vec<Pass> = (0..ROUNDS).map(|_| self.pass(k, list)).collect();
        let of = |figure: fn(&Pass) -> f64| median(&passes.iter().map(figure).collect::<Vec<_>>());
        Pass {
            recall: passes[0].recall,
            total_us: of(|pass| pass.total_us),
            slowest_us: of(|pass| pass.slowest_us),
            distances: passes[0].distances,
        }
    }
}
