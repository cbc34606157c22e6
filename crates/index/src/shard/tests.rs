use std::sync::LazyLock;

use turret_retrieval::filter::{End, Filter, NumberRange};
use turret_retrieval::item::Attribute;
use turret_retrieval::topk::{Hit, K_MAX};
use turret_retrieval::vector::{UnitVector, VectorError, dot};

use super::*;
use crate::fixtures::{ads, any_of, brute_force, clustered, keyword, settings, unit};
use crate::planner::Costs;
use crate::{FoundAd, Plan, UnitError};

mod churn;
mod correlation;
mod crowding;
mod globo;
mod large;
mod live;
mod looks;
mod matrix;
mod recall;
mod snapshot;
mod stopping;

const DIMENSION: usize = 24;
const CLUSTERS: usize = 40;
const ROWS: usize = 6_000;

/// Ads with `half`, `tenth` and `fiftieth` that have nothing to do with where they lie, and `cluster` that says where.
static ADS: LazyLock<Vec<ShardAd>> = LazyLock::new(|| {
    ads(&clustered(1, ROWS, DIMENSION, CLUSTERS), |row| {
        let mixed = (row as u32).wrapping_mul(2_654_435_761) >> 12;
        vec![
            ("half", keyword(if mixed.is_multiple_of(2) { "yes" } else { "no" })),
            ("tenth", Attribute::Keywords(vec![format!("t{}", mixed % 10).into(), "all".into()])),
            ("fiftieth", Attribute::Number(f64::from(mixed % 50))),
            ("cluster", Attribute::Number((row % CLUSTERS) as f64)),
            ("advertiser_id", keyword(&format!("adv{}", row % 7))),
        ]
    })
});
static EXACT: LazyLock<ShardIndex> = LazyLock::new(|| index(ADS.clone(), &settings(Backend::Exact)));
static GRAPH: LazyLock<ShardIndex> = LazyLock::new(|| walking(index(ADS.clone(), &settings(Backend::DiskAnn))));

fn index(ads: Vec<ShardAd>, settings: &IndexSettings) -> ShardIndex {
    let dimension = ads.first().map_or(3, |row| row.embedding.as_slice().len());
    ShardIndex::build(dimension, ads, settings, &[], &mut |_| ControlFlow::Continue(())).unwrap()
}

/// As if a walk cost next to nothing: what the filter leaves of so few ads would be scanned.
fn walking(mut index: ShardIndex) -> ShardIndex {
    index.planner.costs =
        Costs { distance: 0.1, posting: 1.0, unlinked: 1.0, masked: 0.0, look: 1e9, cell: 0.0, near: 0.0 };
    index
}

fn queries(count: usize) -> Vec<UnitVector> {
    clustered(2, count, DIMENSION, CLUSTERS)
}

fn search(index: &ShardIndex, vector: &UnitVector, k: usize, filter: Option<&Filter>) -> Found {
    index.search(&Search { vector, baseline: None, crowding: None, k, filter, exact: false }).unwrap()
}

fn hits(found: &Found) -> Vec<Hit> {
    found.ads.iter().map(|ad| ad.hit.clone()).collect()
}

fn between(field: &str, low: f64, high: f64) -> Filter {
    let range = NumberRange { low: Some((low, End::Included)), high: Some((high, End::Included)) };
    Filter::Between { field: field.into(), range }
}

#[test]
fn the_exact_backend_finds_what_sorting_finds() {
    let filters = [any_of("half", &["yes"]), any_of("tenth", &["t3", "t4"]), between("fiftieth", 10.0, 12.0)];
    for query in queries(10) {
        for k in [1, 10, 100] {
            let found = search(&EXACT, &query, k, None);
            assert_eq!(hits(&found), brute_force(&ADS, &query, k, None));
            assert_eq!((found.plan, found.exhausted, found.selectivity), (Plan::Exact, false, None));
            for filter in &filters {
                let found = search(&EXACT, &query, k, Some(filter));
                assert_eq!(hits(&found), brute_force(&ADS, &query, k, Some(filter)));
                assert_eq!(found.plan, Plan::ExactPostings);
            }
        }
    }
}

#[test]
fn graph_and_scan_agree_on_every_score_to_the_bit() {
    for query in queries(20) {
        let all = brute_force(&ADS, &query, ROWS, None);
        let found = search(&GRAPH, &query, 50, None);
        assert_eq!((found.plan, found.ads.len()), (Plan::Graph, 50));
        assert!(hits(&found).is_sorted());
        for hit in hits(&found) {
            let exact = all.iter().find(|exact| exact.ad == hit.ad).unwrap();
            assert_eq!(exact.score.to_bits(), hit.score.to_bits(), "{}", hit.ad);
        }
    }
}

#[test]
fn a_hit_names_its_advertiser() {
    let found = search(&GRAPH, &ADS[8].embedding, 1, None);
    assert_eq!((found.ads[0].hit.ad.as_str(), found.ads[0].advertiser.as_deref()), ("0000008", Some("adv1")));
    let bare = index(ads(&[unit(&[1.0, 0.0])], |_| vec![]), &settings(Backend::Exact));
    assert_eq!(search(&bare, &unit(&[1.0, 0.0]), 1, None).ads[0].advertiser, None);
}

#[test]
fn equal_scores_are_ordered_by_ad_id() {
    let vector = unit(&[0.6, 0.8, 0.0]);
    let mut same = ads(&vec![vector.clone(); 40], |_| vec![]);
    same.reverse();
    for backend in [Backend::Exact, Backend::DiskAnn] {
        let index = index(same.clone(), &IndexSettings { ..settings(backend) });
        let found = search(&index, &vector, 7, None);
        assert_eq!(found.ads.len(), 7);
        assert!(hits(&found).is_sorted_by(|a, b| a.score == b.score && a.ad < b.ad), "{found:?}");
        if backend == Backend::Exact {
            assert_eq!(hits(&found), brute_force(&same, &vector, 7, None));
        }
    }
}

#[test]
fn an_empty_shard_answers_that_it_is_exhausted() {
    let filter = any_of("half", &["yes"]);
    for backend in [Backend::Auto, Backend::Exact, Backend::DiskAnn] {
        let empty = index(vec![], &settings(backend));
        assert_eq!((empty.len(), empty.is_empty(), empty.backend()), (0, true, Backend::Exact));
        for (filter, selectivity) in [(None, None), (Some(&filter), Some(0.0))] {
            let found = search(&empty, &unit(&[1.0, 0.0, 0.0]), 5, filter);
            assert!(found.ads.is_empty() && found.exhausted);
            assert_eq!(found.selectivity, selectivity);
        }
    }
}

#[test]
fn more_hits_than_ads_are_all_ads_and_exhausted() {
    let few = ADS[..150].to_vec();
    for backend in [Backend::Exact, Backend::DiskAnn] {
        let index = index(few.clone(), &settings(backend));
        for query in queries(5) {
            let found = search(&index, &query, K_MAX, None);
            assert_eq!(hits(&found), brute_force(&few, &query, K_MAX, None));
            assert!(found.exhausted);
            assert!(!search(&index, &query, 150, None).exhausted);
            let filter = any_of("half", &["yes"]);
            let found = search(&index, &query, 149, Some(&filter));
            assert_eq!(hits(&found), brute_force(&few, &query, 149, Some(&filter)));
            assert!(found.exhausted && found.ads.len() < 149);
        }
    }
}

#[test]
fn a_baseline_scores_the_ads_found_and_finds_none() {
    let [query, other] = &queries(2)[..] else { panic!("two queries") };
    for index in [&EXACT, &GRAPH] {
        let plain = search(index, query, 50, None);
        assert!(plain.ads.iter().all(|ad| ad.baseline_score.is_none()));
        let both = index
            .search(&Search { vector: query, baseline: Some(other), crowding: None, k: 50, filter: None, exact: false })
            .unwrap();
        assert_eq!(hits(&both), hits(&plain));
        for ad in &both.ads {
            let row: usize = ad.hit.ad.as_str().parse().unwrap();
            let expected = dot(other.as_slice(), ADS[row].embedding.as_slice());
            assert_eq!(ad.baseline_score.map(f32::to_bits), Some(expected.to_bits()), "{}", ad.hit.ad);
        }
    }
}

#[test]
fn a_filter_that_nothing_passes_is_exhausted_and_one_that_all_pass_costs_nothing() {
    let query = &queries(1)[0];
    let nothing = search(&GRAPH, query, 10, Some(&any_of("half", &["maybe"])));
    assert_eq!((nothing.ads.len(), nothing.exhausted, nothing.distances), (0, true, 0));
    assert_eq!((nothing.plan, nothing.selectivity), (Plan::ExactPostings, Some(0.0)));
    let all = search(&GRAPH, query, 10, Some(&any_of("tenth", &["all"])));
    assert_eq!((all.plan, all.selectivity), (Plan::Graph, Some(1.0)));
    assert_eq!(all.ads, search(&GRAPH, query, 10, None).ads);
}

#[test]
fn ads_that_pass_but_lie_far_away_are_found_by_their_postings() {
    // One of 40 clusters passes, and the query lies in another: the walk never comes near it.
    let query = &queries(1)[0];
    let filter = between("cluster", 20.0, 20.0);
    let found = search(&GRAPH, query, 20, Some(&filter));
    let exact = search(&EXACT, query, 20, Some(&filter));
    assert_eq!((found.ads.len(), found.exhausted, found.plan), (20, false, Plan::ExactPostings));
    assert_eq!(found.ads, exact.ads);
}

#[test]
fn bad_searches_name_the_rule() {
    let good = &queries(1)[0];
    let check = |vector: &UnitVector, k: usize, filter: Option<&Filter>, expected: &str| {
        let error =
            GRAPH.search(&Search { vector, baseline: None, crowding: None, k, filter, exact: false }).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let raw =
        |components: &[f32]| -> UnitVector { postcard::from_bytes(&postcard::to_stdvec(components).unwrap()).unwrap() };
    check(good, 0, None, "k 0 is not in 1..=2000");
    check(good, K_MAX + 1, None, "k 2001 is not in 1..=2000");
    check(&unit(&[1.0, 0.0]), 5, None, "vector: dimension 2 where 24 is expected");
    check(&raw(&[f32::NAN; DIMENSION]), 5, None, "vector: component 0 is not finite");
    check(&raw(&[0.0; DIMENSION]), 5, None, "vector: length is zero");
    check(&raw(&[1.0; DIMENSION]), 5, None, "vector: length 4.898979485566356 is not 1");
    let zero = SearchError::Vector(VectorError::Zero.into());
    let vector = raw(&[0.0; DIMENSION]);
    assert_eq!(
        EXACT.search(&Search { vector: &vector, baseline: None, crowding: None, k: 5, filter: None, exact: false }),
        Err(zero)
    );
    let baseline = Some(&vector);
    let error =
        GRAPH.search(&Search { vector: good, baseline, crowding: None, k: 5, filter: None, exact: false }).unwrap_err();
    assert_eq!(error.to_string(), "baseline: length is zero");

    let deep = (0..40).fold(any_of("half", &["yes"]), |filter, _| Filter::Not(Box::new(filter)));
    check(good, 5, Some(&deep), "filter: nested deeper than 32");
    let wide = Filter::And(vec![any_of("half", &["yes"]); 512]);
    check(good, 5, Some(&wide), "filter: more than 512 conditions");
    let long = any_of("half", &["yes"; 1_001]);
    check(good, 5, Some(&long), "filter: 1001 values in one condition, the limit is 1000");
}

#[test]
fn two_threads_search_as_one_does() {
    let filter = any_of("half", &["yes"]);
    let answer = |query: &UnitVector| (search(&GRAPH, query, 20, None), search(&GRAPH, query, 20, Some(&filter)));
    let queries = queries(60);
    let alone: Vec<_> = queries.iter().map(answer).collect();
    let together: Vec<Vec<_>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| queries.iter().map(answer).collect())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(together, [alone.clone(), alone]);
}

#[test]
fn many_are_scanned_for_as_each_is() {
    let queries = queries(9);
    for index in [&*EXACT, &*GRAPH] {
        let found = index.scan_many(&queries, 20).unwrap();
        let expected: Vec<Vec<Hit>> = queries.iter().map(|query| brute_force(&ADS, query, 20, None)).collect();
        assert_eq!(found, expected);
    }
    assert_eq!(EXACT.scan_many(&queries, 0), Err(SearchError::K { found: 0 }));
    let short = VectorError::Dimension { expected: DIMENSION, found: 2 };
    let found = EXACT.scan_many(&[queries[0].clone(), unit(&[1.0, 0.0])], 5);
    assert_eq!(found, Err(SearchError::Vector(UnitError::Vector(short))));
    assert_eq!(EXACT.scan_many(&[], 5), Ok(vec![]));
}

#[test]
fn a_shard_says_what_it_is_made_of() {
    let kinds = EXACT.attributes();
    assert_eq!(kinds.len(), 5);
    assert_eq!(kinds["tenth"], AttributeKind::Keywords);
    assert_eq!(kinds["fiftieth"], AttributeKind::Number);
    let (exact, graph) = (EXACT.stats(), GRAPH.stats());
    assert_eq!((exact.ads, exact.dimension), (ROWS, DIMENSION));
    // As numbers and as codes, of 64 rows together and of each by itself, in lines of 64 bytes, the last of 64 rows filled up, each with its
    // scale, and the place of it.
    let codes = ROWS.next_multiple_of(64) * (DIMENSION + DIMENSION.next_multiple_of(64) + 4 + 1);
    assert_eq!(exact.vector_bytes, ROWS * DIMENSION * 4 + codes);
    assert_eq!((exact.backend, graph.backend), (Backend::Exact, Backend::DiskAnn));
    assert_eq!(exact.graph_bytes, 0);
    assert!(graph.graph_bytes > graph.vector_bytes && graph.posting_bytes > 0);
    // Twice as numbers and twice as codes, 42 edges, an eighth of slots more than ads, and what ids and attributes take.
    assert!(exact.bytes_per_ad() < 520.0 && graph.bytes_per_ad() < 970.0, "{exact:?} {graph:?}");
    let parts = [graph.vector_bytes, graph.graph_bytes, graph.posting_bytes, graph.id_bytes];
    assert_eq!(graph.bytes(), parts.iter().sum::<usize>());
}

#[test]
fn bad_ads_are_refused_before_anything_is_built() {
    let twice = [&ADS[..3], &ADS[..1]].concat();
    let error =
        ShardIndex::build(DIMENSION, twice, &settings(Backend::DiskAnn), &[], &mut |_| ControlFlow::Continue(()));
    assert_eq!(error.unwrap_err().to_string(), "ad 0000000 is there twice");
    let settings = IndexSettings { degree: 0, ..settings(Backend::DiskAnn) };
    let error = ShardIndex::build(DIMENSION, ADS[..3].to_vec(), &settings, &[], &mut |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(BuildError::Graph(GraphError::Settings { .. }))), "{error:?}");
}
