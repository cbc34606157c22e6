//! How much the graph finds of what a scan finds.

use super::*;

const QUERIES: usize = 100;

/// The share of the exact hits that the graph finds, over [`QUERIES`] queries, and how many of them walked the graph.
///
/// Every hit must pass the filter, and no hit may be missing for another reason than the walk.
fn recall(k: usize, filter: Option<&Filter>) -> (f64, usize) {
    let (mut found, mut wanted, mut walked) = (0, 0, 0);
    for query in queries(QUERIES) {
        let exact = search(&EXACT, &query, k, filter);
        let answer = search(&GRAPH, &query, k, filter);
        assert_eq!((answer.ads.len(), answer.selectivity), (exact.ads.len(), exact.selectivity));
        for FoundAd { hit, .. } in &answer.ads {
            let row: usize = hit.ad.as_str().parse().unwrap();
            assert!(filter.is_none_or(|filter| filter.matches(&ADS[row].ad.attributes)), "{} does not pass", hit.ad);
        }
        walked += usize::from(matches!(answer.plan, Plan::Graph | Plan::InGraph));
        wanted += exact.ads.len();
        found += exact.ads.iter().filter(|hit| answer.ads.contains(hit)).count();
    }
    (f64::from(found as u32) / f64::from(wanted as u32), walked)
}

#[test]
fn the_graph_finds_what_a_scan_finds() {
    for k in [10, 100] {
        let (recall, walked) = recall(k, None);
        println!("recall@{k} {recall:.4}, {walked} of {QUERIES} walked");
        assert!(recall >= 0.95, "recall@{k} is {recall}");
        assert_eq!(walked, QUERIES);
    }
    let distances: u64 = queries(QUERIES).iter().map(|query| search(&GRAPH, query, 10, None).distances).sum();
    assert!(distances < (QUERIES * ROWS / 4) as u64, "{distances} distances are no better than a scan");
}

#[test]
fn filters_that_say_nothing_of_the_place_keep_the_recall() {
    let mixed = Filter::And(vec![any_of("tenth", &["t2", "t6"]), between("fiftieth", 0.0, 24.0)]);
    let cases = [
        (10, any_of("half", &["yes"])),
        (100, any_of("half", &["yes"])),
        (100, Filter::Not(Box::new(any_of("tenth", &["t3"])))),
        (10, any_of("tenth", &["t3"])),
        (10, mixed),
        (5, between("fiftieth", 10.0, 12.0)),
    ];
    for (k, filter) in &cases {
        let share = search(&EXACT, &queries(1)[0], 1, Some(filter)).selectivity.unwrap();
        let (recall, walked) = recall(*k, Some(filter));
        println!("recall@{k} {recall:.4} at selectivity {share:.3}, {walked} of {QUERIES} walked");
        assert!(recall >= 0.95, "recall@{k} is {recall} at {share}");
        assert!(walked >= QUERIES * 9 / 10, "{walked} walked at {share}");
    }
}

#[test]
fn filters_that_say_where_an_ad_lies_keep_the_recall() {
    // Most queries lie in clusters that do not pass: what a walk around them meets by chance is not the nearest.
    for (k, last) in [(10, 3.0), (10, 9.0), (10, 19.0), (50, 19.0), (10, 38.0)] {
        let (recall, walked) = recall(k, Some(&between("cluster", 0.0, last)));
        println!("recall@{k} {recall:.4} of clusters 0..={last}, {walked} of {QUERIES} walked");
        assert!(recall >= 0.95, "recall@{k} is {recall} of clusters 0..={last}");
        assert!(walked > 0, "none walked of clusters 0..={last}");
    }
}

#[test]
fn a_list_too_short_for_the_filter_is_lengthened() {
    let short = IndexSettings { search_list: 1, ..settings(Backend::DiskAnn) };
    let short = index(ADS.clone(), &short);
    let filter = between("cluster", 10.0, 39.0);
    // Queries 10 to 39 lie where ads pass, 0 to 9 where none do.
    let answers: Vec<Found> = queries(40).iter().map(|query| search(&short, query, 1, Some(&filter))).collect();
    assert!(answers.iter().all(|found| found.ads.len() == 1));
    let passing = brute_force(&ADS, &queries(1)[0], ROWS, Some(&filter)).len() as u64;
    let scanned = answers[..10].iter().filter(|found| found.plan == Plan::ExactPostings).collect::<Vec<_>>();
    assert!(!scanned.is_empty());
    assert!(scanned.iter().all(|found| found.distances > passing && found.distances < 2 * passing), "{scanned:?}");
    assert!(answers[10..].iter().filter(|found| found.plan == Plan::InGraph).count() >= 25);
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
