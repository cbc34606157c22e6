//! Every selectivity, with filters that have nothing to do with the query, keep what is near it, or keep what is far.
//!
//! A cost is a number of ads compared, by scan or by graph alike.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const ROWS: usize = 20_000;
const DIMENSION: usize = 32;
const K: usize = 100;
const SHARES: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 0.9];

/// Ads compared are what a search costs.
fn counting(mut index: ShardIndex) -> ShardIndex {
    index.planner.costs =
        Costs { distance: 1.0, posting: 1.0, unlinked: 1.0, masked: 0.0, look: 0.0, cell: 0.0, near: 0.0 };
    index
}

/// An ad's place by its score for each of the queries, and one that has to do with nothing.
fn ranked_ads(vectors: &[UnitVector], queries: &[UnitVector]) -> Vec<ShardAd> {
    let ranks: Vec<Vec<usize>> = queries
        .iter()
        .map(|query| {
            let score = |row: usize| dot(query.as_slice(), vectors[row].as_slice());
            let mut order: Vec<usize> = (0..vectors.len()).collect();
            order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
            let mut ranks = vec![0; vectors.len()];
            order.into_iter().enumerate().for_each(|(rank, row)| ranks[row] = rank);
            ranks
        })
        .collect();
    const NAMES: [&str; 16] =
        ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    ads(vectors, |row| {
        let mixed = (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let mut attributes = vec![("mixed", Attribute::Number(mixed as f64 / (1 << 24) as f64))];
        attributes.extend(NAMES.iter().zip(&ranks).map(|(name, ranks)| (*name, Attribute::Number(ranks[row] as f64))));
        attributes
    })
}

#[derive(Clone, Copy, Debug)]
enum Relation {
    Independent,
    Correlated,
    Opposed,
}

impl Relation {
    fn filter(self, query: usize, rows: usize, share: f64) -> Filter {
        let count = (rows as f64 * share).round();
        match self {
            Self::Independent => between("mixed", 0.0, share),
            Self::Correlated => between(&format!("r{query}"), 0.0, count - 1.0),
            Self::Opposed => between(&format!("r{query}"), rows as f64 - count, rows as f64),
        }
    }
}

#[test]
fn no_selectivity_loses_recall_or_costs_more_than_the_ads_that_pass() {
    let queries = clustered(2, 16, DIMENSION, 200);
    let all = ranked_ads(&clustered(1, ROWS, DIMENSION, 200), &queries);
    let index = counting(index(all, &settings(Backend::Auto)));
    let unfiltered: u64 = queries.iter().map(|query| search(&index, query, K, None).distances).sum();
    for relation in [Relation::Independent, Relation::Correlated, Relation::Opposed] {
        for share in SHARES {
            let (mut kept, mut wanted, mut cost, mut passing, mut walked, mut looked) = (0, 0, 0, 0, 0, 0);
            for (at, query) in queries.iter().enumerate() {
                let filter = Some(&relation.filter(at, ROWS, share)).cloned();
                let ask = Search {
                    vector: query,
                    baseline: None,
                    crowding: None,
                    k: K,
                    filter: filter.as_ref(),
                    exact: true,
                };
                let exact = index.search(&ask).unwrap();
                let found = index.search(&Search { exact: false, ..ask }).unwrap();
                let ids = |found: &Found| hits(found).into_iter().map(|hit| hit.ad).collect::<HashSet<_>>();
                assert_eq!(found.ads.len(), exact.ads.len());
                // Walks in vain are short, and few.
                assert!(found.distances * 2 <= exact.distances * 3, "{relation:?} {share} {found:?}");
                wanted += exact.ads.len();
                kept += ids(&exact).intersection(&ids(&found)).count();
                cost += found.distances;
                passing += exact.distances;
                walked += usize::from(matches!(found.plan, Plan::PostFilter | Plan::AdaptiveList));
                looked += usize::from(matches!(found.plan, Plan::NearestCells));
            }
            let recall = kept as f64 / wanted as f64;
            let (of_scan, of_plain) = (cost as f64 / passing as f64, cost as f64 / unfiltered as f64);
            println!(
                "{relation:?} {share}: recall {recall:.4}, {of_scan:.2} of the scan, {of_plain:.2} of unfiltered, {walked} walked, {looked} looked"
            );
            // Most of a shard passes, and some near the query.
            let is_looked = share >= 0.1 && !matches!(relation, Relation::Opposed);
            assert!(!is_looked || looked > 12, "{relation:?} {share}: {looked} of 16 looked into cells");
            assert!(recall >= 0.95, "{relation:?} {share}: {recall}");
            // A walk in vain is counted with the scan that follows it.
            assert!(of_scan <= 1.05, "{relation:?} {share}: {of_scan}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_passes_is_found_in_the_order_of_sorting(
        seed in 1u64..1_000, rows in 50usize..800, share in 0.01f64..1.0, k in 1usize..120, which in 0usize..3, dear in any::<bool>(),
    ) {
        let queries = clustered(seed + 1, 1, 8, 5);
        let all = ranked_ads(&clustered(seed, rows, 8, 5), &queries);
        let index = index(all.clone(), &IndexSettings { threads: 1, ..settings(Backend::DiskAnn) });
        let index = if dear { counting(index) } else { walking(index) };
        let relation = [Relation::Independent, Relation::Correlated, Relation::Opposed][which];
        let filter = relation.filter(0, rows, share);
        let found = search(&index, &queries[0], k, Some(&filter));
        let exact = brute_force(&all, &queries[0], k, Some(&filter));
        prop_assert_eq!(found.ads.len(), exact.len());
        prop_assert_eq!(found.exhausted, exact.len() < k);
        prop_assert!(hits(&found).is_sorted());
        let kept = hits(&found).iter().filter(|hit| exact.contains(hit)).count();
        if matches!(found.plan, Plan::Exact | Plan::ExactPostings) {
            prop_assert_eq!(kept, exact.len());
        }
        // One search, not the mean of many: that has no promise.
        prop_assert!((kept + 1) * 10 >= exact.len() * 7, "{kept} of {}", exact.len());
    }
}
