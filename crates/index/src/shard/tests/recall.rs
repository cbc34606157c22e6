//! How much the graph finds of what a scan finds.

use super::*;

const QUERIES: usize = 100;

/// The share of the exact hits that the graph finds, over [`QUERIES`] queries; every hit must pass the filter.
fn recall(k: usize, filter: Option<&Filter>, plan: Plan) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for query in queries(QUERIES) {
        let exact = search(&EXACT, &query, k, filter);
        let answer = search(&GRAPH, &query, k, filter);
        assert_eq!(answer.plan, plan, "k {k}, {filter:?}");
        assert_eq!(answer.hits.len(), exact.hits.len());
        assert_eq!(answer.selectivity, exact.selectivity);
        for (hit, _) in &answer.hits {
            let row: usize = hit.ad.as_str().parse().unwrap();
            assert!(filter.is_none_or(|filter| filter.matches(&ADS[row].ad.attributes)), "{} does not pass", hit.ad);
        }
        wanted += exact.hits.len();
        found += exact.hits.iter().filter(|hit| answer.hits.contains(hit)).count();
    }
    f64::from(found as u32) / f64::from(wanted as u32)
}

#[test]
fn the_graph_finds_what_a_scan_finds() {
    for k in [10, 100] {
        let recall = recall(k, None, Plan::Graph);
        println!("recall@{k} {recall:.4}");
        assert!(recall >= 0.95, "recall@{k} is {recall}");
    }
}

#[test]
fn filters_that_say_nothing_of_the_place_keep_the_recall() {
    let cases = [
        (0.5, any_of("half", &["yes"])),
        (0.1, any_of("tenth", &["t3"])),
        (0.04, between("fiftieth", 10.0, 11.0)),
        (0.9, Filter::Not(Box::new(any_of("tenth", &["t3"])))),
        (0.05, Filter::And(vec![any_of("tenth", &["t2", "t6"]), between("fiftieth", 0.0, 24.0)])),
    ];
    for (selectivity, filter) in &cases {
        let share = search(&EXACT, &queries(1)[0], 1, Some(filter)).selectivity.unwrap();
        let recall = recall(10, Some(filter), Plan::InGraph);
        println!("recall@10 {recall:.4} at selectivity {share:.3}, about {selectivity}");
        assert!(recall >= 0.95, "recall@10 is {recall} at {share}");
    }
    // Of a tenth, 100 hits need a list of 1 000, which would hold all that pass.
    let recall = recall(100, Some(&cases[0].1), Plan::InGraph);
    println!("recall@100 {recall:.4} at selectivity 0.5");
    assert!(recall >= 0.95, "recall@100 is {recall}");
}

#[test]
fn filters_that_few_pass_lose_nothing() {
    let filter = between("fiftieth", 7.0, 7.0);
    let strict = IndexSettings { exact_below_ads: 200, ..settings(Backend::DiskAnn) };
    let index = index(ADS[..3_000].to_vec(), &strict);
    for query in queries(10) {
        let found = search(&index, &query, 10, Some(&filter));
        assert_eq!(found.plan, Plan::ExactPostings);
        assert_eq!(hits(&found), brute_force(&ADS[..3_000], &query, 10, Some(&filter)));
    }
}
