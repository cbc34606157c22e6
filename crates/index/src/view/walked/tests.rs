use std::ops::ControlFlow;

use proptest::prelude::*;
use turret_retrieval::vector::{UnitVector, dot};

use crate::fixtures::{ads, clustered, settings, unit};
use crate::graph::Candidate;
use crate::search::Search;
use crate::{Backend, SearchError, ShardIndex};

const ROWS: usize = 300;

fn search(vector: &UnitVector, k: usize) -> Search<'_> {
    Search { vector, baseline: None, crowding: None, k, filter: None, exact: false }
}

fn index(backend: Backend, vectors: &[UnitVector]) -> ShardIndex {
    let ads = ads(vectors, |_| Vec::new());
    ShardIndex::build(vectors[0].as_slice().len(), ads, &settings(backend), &[], &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

proptest! {
    #[test]
    fn the_best_of_what_was_met_are_those_of_scoring_all_of_it(
        // Few values, so that many rows are of one score, or nearly.
        rows in prop::collection::vec(prop::collection::vec(-2i8..3, 4), 2..ROWS),
        roundings in prop::collection::vec(-1.0f32..1.0, ROWS),
        query in prop::collection::vec(-2i8..3, 4),
        unscored_one_in in 2usize..50,
        k in 1usize..40,
    ) {
        let vector = |components: &[i8]| -> UnitVector {
            // None is zero.
            unit(&components.iter().map(|x| f32::from(*x) + 0.25).collect::<Vec<_>>())
        };
        let vectors: Vec<UnitVector> = rows.iter().map(|row| vector(row)).collect();
        let (index, query) = (index(Backend::Exact, &vectors), vector(&query));
        let score = |row: u32| dot(query.as_slice(), vectors[row as usize].as_slice());
        let is_met = |row: &u32| !row.is_multiple_of(3);
        let is_unscored = |row: &u32| (*row as usize).is_multiple_of(unscored_one_in);
        let all = || (0..vectors.len() as u32).filter(is_met);
        let roughly = |row: u32| Candidate { row, score: score(row) + roundings[row as usize] * 2.0 * f32::EPSILON };
        let mut met: Vec<Candidate> = all().filter(|row| !is_unscored(row)).map(roughly).collect();
        met.sort_by(|a, b| b.score.total_cmp(&a.score));
        met.extend(all().filter(is_unscored).map(Candidate::unscored));
        let mut expected: Vec<(u32, u32)> = all().map(|row| (score(row).to_bits(), row)).collect();
        // Rows lie in the order of their ids.
        expected.sort_by(|a, b| f32::from_bits(b.0).total_cmp(&f32::from_bits(a.0)).then(a.1.cmp(&b.1)));
        expected.truncate(k);
        let found = index.view().best_of(&met, &search(&query, k));
        prop_assert_eq!(found.iter().map(|row| (row.score.to_bits(), row.row)).collect::<Vec<_>>(), expected);
    }
}

/// A shard with a graph, the same without one, and a query.
fn both() -> (ShardIndex, ShardIndex, UnitVector) {
    let vectors = clustered(1, 3_000, 16, 30);
    let query = clustered(2, 1, 16, 30).remove(0);
    (index(Backend::DiskAnn, &vectors), index(Backend::Exact, &vectors), query)
}

#[test]
fn a_list_that_is_asked_for_is_walked_with() {
    let (graph, scan, query) = &both();
    let [short, long] = [20, 400].map(|list| graph.search_listed(&search(query, 10), list).unwrap().unwrap());
    assert_eq!((short.ads.len(), long.ads.len(), long.exhausted), (10, 10, false));
    assert!(short.distances < long.distances, "{} against {}", short.distances, long.distances);
    assert_eq!(long.ads, scan.search(&search(query, 10)).unwrap().ads);
    assert_eq!(scan.search_listed(&search(query, 10), 20).unwrap(), None, "no graph, no list");
    assert_eq!(graph.search_listed(&search(query, 0), 20).unwrap_err(), SearchError::K { found: 0 });
}

#[test]
fn a_share_that_is_asked_for_is_looked_with() {
    let (graph, scan, query) = &both();
    let [near, all] = [0.1, 1.0].map(|share| graph.search_reaching(&search(query, 10), share).unwrap().unwrap());
    assert!(near.distances < all.distances, "{} against {}", near.distances, all.distances);
    assert_eq!(all.ads, scan.search(&search(query, 10)).unwrap().ads);
    assert_eq!(scan.search_reaching(&search(query, 10), 0.1).unwrap(), None, "no graph, no cells");
    for share in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
        assert_eq!(graph.search_reaching(&search(query, 10), share).unwrap(), None, "{share}");
    }
}
