//! What the shard's searches find and cost, before and after.

use std::collections::HashSet;

use serde_json::Value;
use turret_index::{Search, ShardIndex};
use turret_retrieval::filter::{End, Filter, NumberRange};

use super::median::median;
use super::thread::cpu_of_thread;
use super::world::World;

const ROUNDS: usize = 5;

/// Recall@10 and @100 against an exact scan.
pub(crate) fn recalls(index: &ShardIndex, world: &World) -> [f64; 2] {
    [10, 100].map(|k| {
        let mut found = 0;
        for vector in &world.queries {
            let ads = |exact| -> HashSet<u32> {
                let search = Search { vector, baseline: None, crowding: None, k, filter: None, exact };
                let ads = index.search(&search).expect("the query is good").ads;
                ads.iter().map(|ad| ad.hit.ad.as_str().parse().expect("ids are numbers")).collect()
            };
            found += ads(true).intersection(&ads(false)).count();
        }
        found as f64 / (k * world.queries.len()) as f64
    })
}

/// What a search for the best 100 takes of each shard, CPU microseconds, medians of [`ROUNDS`] in turns: without a filter, and with some.
pub(crate) fn costs(shards: [&ShardIndex; 2], world: &World) -> Value {
    let word = |field: &str, value: &str| Filter::AnyOf { field: field.into(), values: vec![value.into()] };
    let below = |age: f64| Filter::Between {
        field: "min_age".into(),
        range: NumberRange { low: None, high: Some((age, End::Excluded)) },
    };
    let filters = [
        ("no filter", None),
        ("7.5 %", Some(word("countries", "c7"))),
        ("20 %", Some(below(12.0))),
        ("50 %", Some(word("status", "active"))),
    ];
    let mut costs = serde_json::Map::new();
    for (name, filter) in &filters {
        let turn = |index: &ShardIndex| {
            let before = cpu_of_thread();
            for vector in &world.queries {
                let search =
                    Search { vector, baseline: None, crowding: None, k: 100, filter: filter.as_ref(), exact: false };
                std::hint::black_box(index.search(&search).expect("the query is good"));
            }
            (cpu_of_thread() - before) * 1e6 / world.queries.len() as f64
        };
        let rounds: Vec<[f64; 2]> = (0..ROUNDS).map(|_| shards.map(turn)).collect();
        let [churned, fresh] = [0, 1].map(|at| median(&rounds.iter().map(|round| round[at]).collect::<Vec<_>>()));
        let ratio = median(&rounds.iter().map(|[churned, fresh]| churned / fresh).collect::<Vec<_>>());
        costs.insert(format!("{name}: us"), churned.into());
        costs.insert(format!("{name}: fresh us"), fresh.into());
        costs.insert(format!("{name}: over fresh"), ratio.into());
    }
    costs.into()
}
