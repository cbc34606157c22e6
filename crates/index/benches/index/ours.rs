//! Turret's own index.

use std::collections::BTreeMap;

use turret_index::{Backend, Found, IndexSettings, Plan, Search, ShardAd, ShardIndex};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::Ad;
use turret_retrieval::vector::UnitVector;

use super::World;

/// The list that stands for an exact scan.
pub(crate) const SCAN: usize = 0;
/// From here on a list stands for a look into cells, with so many hundredths of their radius.
const CELLS: usize = 20_000;
/// The looks that are tried.
pub(crate) const LOOKS: [usize; 18] = {
    let mut looks = [0, 2, 4, 6, 8, 10, 12, 15, 18, 21, 25, 30, 35, 40, 50, 60, 80, 100];
    let mut at = 0;
    while at < looks.len() {
        looks[at] += CELLS;
        at += 1;
    }
    looks
};

pub(crate) fn settings(threads: usize) -> IndexSettings {
    // A graph always; then the shard chooses.
    IndexSettings { backend: Backend::Auto, exact_below_ads: 1, threads, ..IndexSettings::default() }
}

/// What a shard of so many ads is built with by default, where it makes no graph then.
pub(crate) fn default_without_graph(ads: usize, threads: usize) -> Option<IndexSettings> {
    let settings = IndexSettings { threads, ..IndexSettings::default() };
    (ads < settings.exact_below_ads).then_some(settings)
}

pub(crate) fn ads(world: &World, rows: impl Iterator<Item = usize>) -> Vec<ShardAd> {
    let vector = |row: usize| world.flat[row * world.dimension..][..world.dimension].to_vec();
    rows.map(|row| ShardAd {
        ad: Ad { id: AdId::from(row as u64), item: 1.into(), attributes: BTreeMap::new() },
        embedding: UnitVector::normalize(vector(row)).expect("a direction"),
    })
    .collect()
}

/// One search with a list of `list`, or what stands for one: the whole of what a shard does for a request without a filter, ids and all.
///
/// The one place that says how a recall is asked for.
pub(crate) fn search(index: &ShardIndex, vector: &UnitVector, k: usize, list: usize) -> Found {
    let search = Search { vector, baseline: None, crowding: None, k, filter: None, exact: list == SCAN };
    let found = match list {
        SCAN => index.search(&search).map(Some),
        CELLS.. => index.search_reaching(&search, (list - CELLS) as f32 / 100.0),
        list => index.search_listed(&search, list),
    };
    found.expect("the query is good").expect("there is a graph, which has enough, and there are cells")
}

/// What the shard does where it chooses, for most of the queries.
pub(crate) fn chosen(index: &ShardIndex, queries: &[UnitVector], k: usize) -> Plan {
    let plan = |vector| {
        let search = Search { vector, baseline: None, crowding: None, k, filter: None, exact: false };
        index.search(&search).expect("the query is good").plan
    };
    let plans: Vec<Plan> = queries.iter().map(plan).collect();
    let times = |plan: &Plan| plans.iter().filter(|other| *other == plan).count();
    plans.iter().copied().max_by_key(times).expect("there are queries")
}

pub(crate) fn number(ad: &AdId) -> u32 {
    ad.as_str().parse().expect("ids are numbers")
}
