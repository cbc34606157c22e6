//! Ads to cut into shards, and queries for them.

use std::path::Path;

use turret_retrieval::vector::UnitVector;

use super::embeddings::{self, World};
use super::published::published;
use super::uneven::uneven;

/// The first half is for probes, as many as a publication has.
const QUERIES: usize = 256;

/// The generation in `dir`, the data sets that `TURRET_DATA` has, and one that is made up.
pub(crate) fn all(generation: Option<&Path>) -> Vec<World> {
    let mixed = |world: World| {
        let mut queries = mixed(world.queries);
        queries.truncate(QUERIES);
        World { queries, ..world }
    };
    let mut worlds: Vec<World> = generation.map(published).into_iter().chain(embeddings::real()).map(mixed).collect();
    worlds.push(uneven(QUERIES));
    worlds
}

/// Those at even places before those at odd ones: files may be in an order.
fn mixed(queries: Vec<UnitVector>) -> Vec<UnitVector> {
    let (even, odd): (Vec<_>, Vec<_>) = queries.into_iter().enumerate().partition(|(place, _)| place % 2 == 0);
    even.into_iter().chain(odd).map(|(_, query)| query).collect()
}
