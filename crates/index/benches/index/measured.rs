//! Turret's own index, measured as the others are.

use std::ops::ControlFlow;
use std::time::Instant;

use turret_index::{Found, IndexSettings, ShardIndex};
use turret_retrieval::vector::UnitVector;

use super::World;
use super::curve::{Cost, Point};
use super::ours::{ads, number, search};
use super::peer::Built;
use super::process::cpu_of_process;
use super::thread::cpu_of_thread;

/// The index of a whole world, measured with `probes`, or with ads where there are none; and what it cost.
pub(crate) fn build(world: &World, probes: &[UnitVector], settings: &IndexSettings) -> (ShardIndex, Built) {
    let given = ads(world, 0..world.rows());
    let (wall, cpu) = (Instant::now(), cpu_of_process());
    let index = ShardIndex::build(world.dimension, given, settings, probes, &mut |_| ControlFlow::Continue(()));
    let index = index.expect("ads are good");
    let built = Built {
        cpu_s: cpu_of_process() - cpu,
        wall_s: wall.elapsed().as_secs_f64(),
        bytes: index.stats().bytes_per_ad() * world.rows() as f64,
        call_us: 0.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    (index, built)
}

pub(crate) fn run(index: &ShardIndex, world: &World, truth: &[Vec<u32>], k: usize, list: usize, turns: usize) -> Point {
    let mut found = Vec::new();
    let (wall, cpu) = (Instant::now(), cpu_of_thread());
    for _ in 0..turns {
        found = world.queries.iter().map(|query| search(index, query, k, list)).collect();
    }
    let (cpu, wall) = (cpu_of_thread() - cpu, wall.elapsed().as_secs_f64());
    let hits = |(found, truth): (&Found, &Vec<u32>)| {
        let best = &truth[..k];
        found.ads.iter().filter(|ad| best.contains(&number(&ad.hit.ad))).count()
    };
    let recall = found.iter().zip(truth).map(hits).sum::<usize>() as f64 / (k * found.len()) as f64;
    Point { parameter: list, recall, cost: a_query(world, turns, cpu, wall) }
}

/// The same by two threads at once.
pub(crate) fn run_twice(index: &ShardIndex, world: &World, k: usize, list: usize, turns: usize) -> Cost {
    let wall = Instant::now();
    let one = || {
        let cpu = cpu_of_thread();
        for query in (0..turns).flat_map(|_| &world.queries) {
            std::hint::black_box(search(index, query, k, list));
        }
        cpu_of_thread() - cpu
    };
    let cpu: f64 = std::thread::scope(|scope| {
        let threads = [scope.spawn(one), scope.spawn(one)];
        threads.into_iter().map(|thread| thread.join().expect("no search panics")).sum()
    });
    a_query(world, turns, cpu / 2.0, wall.elapsed().as_secs_f64())
}

fn a_query(world: &World, turns: usize, cpu_s: f64, wall_s: f64) -> Cost {
    let queries = (turns * world.queries.len()) as f64;
    Cost { cpu_us: cpu_s * 1e6 / queries, wall_us: wall_s * 1e6 / queries }
}
