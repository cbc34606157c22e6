//! Turret's own index.

use std::collections::BTreeMap;

use turret_index::{Backend, Found, IndexSettings, Search, ShardAd, ShardIndex};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::Ad;
use turret_retrieval::vector::UnitVector;

use super::World;

/// The list that stands for an exact scan.
pub(crate) const SCAN: usize = 0;

pub(crate) fn settings(threads: usize) -> IndexSettings {
    IndexSettings { backend: Backend::DiskAnn, threads, ..IndexSettings::default() }
}

pub(crate) fn ads(world: &World, rows: impl Iterator<Item = usize>) -> Vec<ShardAd> {
    let vector = |row: usize| world.flat[row * world.dimension..][..world.dimension].to_vec();
    rows.map(|row| ShardAd {
        ad: Ad { id: AdId::from(row as u64), item: 1.into(), attributes: BTreeMap::new() },
        embedding: UnitVector::normalize(vector(row)).expect("a direction"),
    })
    .collect()
}

/// One search with a list of `list`: the whole of what a shard does for a request without a filter, ids and all.
///
/// The one place that says how a recall is asked for.
pub(crate) fn search(index: &ShardIndex, vector: &UnitVector, k: usize, list: usize) -> Found {
    let search = Search { vector, baseline: None, crowding: None, k, filter: None, exact: list == SCAN };
    if list == SCAN {
        return index.search(&search).expect("the query is good");
    }
    index.search_listed(&search, list).expect("the query is good").expect("the graph has enough")
}

pub(crate) fn number(ad: &AdId) -> u32 {
    ad.as_str().parse().expect("ids are numbers")
}
