//! Searches without a filter that look into cells.

use turret_retrieval::calibration::{ListPoint, ReachPoint};

use super::live::pause;
use super::*;
use crate::view::{Measured, View};

const QUERIES: usize = 50;

/// As if a walk were dear.
fn looking() -> ShardIndex {
    let settings = IndexSettings { exact_below_ads: 500, ..settings(Backend::Auto) };
    let mut index = index(ADS.clone(), &settings);
    index.planner.costs =
        Costs { distance: 40.0, posting: 10.0, unlinked: 10.0, masked: 2.0, look: 1.0, cell: 0.1, near: 1.0 };
    index
}

/// The share of the exact hits that are found by looks, and the ads compared.
fn recall(index: &ShardIndex, k: usize) -> (f64, u64) {
    let (mut found, mut compared) = (0, 0);
    for query in queries(QUERIES) {
        let exact = Search { vector: &query, baseline: None, crowding: None, k, filter: None, exact: true };
        let exact = hits(&index.search(&exact).unwrap());
        let looked = search(index, &query, k, None);
        let is_whole = !looked.early_stopped && !looked.exhausted && looked.selectivity.is_none();
        assert!(looked.plan == Plan::NearestCells && looked.list == 0 && is_whole, "{looked:?}");
        assert_eq!(looked.ads.len(), k);
        assert!(hits(&looked).is_sorted());
        found += hits(&looked).iter().filter(|hit| exact.contains(hit)).count();
        compared += looked.distances;
    }
    (f64::from(found as u32) / (QUERIES * k) as f64, compared)
}

#[test]
fn cells_find_what_a_scan_finds_of_all_and_of_all_but_what_is_paused() {
    let index = looking();
    for k in [10, 100] {
        let (recall, compared) = recall(&index, k);
        println!("recall@{k} {recall:.4}, {compared} compared");
        assert!(recall >= 0.95, "recall@{k} is {recall}");
        assert!(compared < (QUERIES * ROWS / 4) as u64, "{compared} compared");
    }
    let ids = (0..ROWS).step_by(3).map(|row| format!("{row:07}"));
    index.apply(ids.map(|id| pause(&id, true, 1)).collect()).unwrap();
    let (recall, _) = recall(&index, 20);
    assert!(recall >= 0.95, "{recall} where a third is paused");
}

#[test]
fn where_too_many_cells_are_in_question_the_graph_is_walked_instead() {
    let mut index = looking();
    index.planner.costs.distance = 0.5;
    let view = index.view();
    // As if one cell did, and every cell had to be thought of.
    let mut calibration = index.calibration().unwrap();
    let point = ReachPoint { k: 1_000, share: 1.0, recall: 1.0, recall_low: 1.0, cells: 1, rows: 50 };
    let reach = calibration.reach.as_mut().unwrap();
    reach.points = vec![point];
    assert!(reach.cells > 64, "{} cells, of which 64 may be looked into", reach.cells);
    // Of so few ads none was measured for so many hits: a scan of all is cheaper than any walk.
    let list = 1_200;
    calibration.points =
        vec![ListPoint { k: 1_000, list: list as u32, recall: 1.0, recall_low: 1.0, distances: 2_000 }];
    index.publish(View { measured: Some(Arc::new(Measured { calibration, born: 0 })), ..(*view).clone() });
    for query in queries(10) {
        let found = search(&index, &query, 1_000, None);
        let ask = Search { vector: &query, baseline: None, crowding: None, k: 1_000, filter: None, exact: false };
        let walked = index.search_listed(&ask, list).unwrap().unwrap();
        assert_eq!((found.plan, found.list as usize), (Plan::Graph, list));
        // Those that were looked at in vain are counted.
        assert!(found.distances >= walked.distances + 64, "{} and {}", found.distances, walked.distances);
        assert_eq!(hits(&found), hits(&walked));
    }
}
