//! At most so many ads of one value.

use std::collections::BTreeMap;

use proptest::prelude::*;
use turret_retrieval::crowding::{Crowding, CrowdingError};

use super::live::{Model, change, pause};
use super::*;
use crate::change::ShardContent;
use crate::fixtures::ad;

fn crowded(index: &ShardIndex, vector: &UnitVector, k: usize, filter: Option<&Filter>, crowding: &Crowding) -> Found {
    index.search(&Search { vector, baseline: None, crowding: Some(crowding), k, filter, exact: false }).unwrap()
}

fn value(ad: &ShardAd, field: &str) -> Option<Box<str>> {
    match ad.ad.attributes.get(field) {
        Some(Attribute::Keyword(word)) => Some(word.clone()),
        Some(Attribute::Keywords(_) | Attribute::Number(_)) | None => None,
    }
}

/// By walking over all that pass, best first.
pub(super) fn thinned(
    all: &[ShardAd],
    query: &UnitVector,
    k: usize,
    filter: Option<&Filter>,
    crowding: &Crowding,
) -> Vec<Hit> {
    let values: BTreeMap<_, _> = all.iter().map(|ad| (&ad.ad.id, value(ad, &crowding.field))).collect();
    let mut taken: BTreeMap<Box<str>, u32> = BTreeMap::new();
    let mut hits = brute_force(all, query, all.len(), filter);
    hits.retain(|hit| match &values[&hit.ad] {
        None => true,
        Some(value) => {
            let taken = taken.entry(value.clone()).or_default();
            *taken += 1;
            *taken <= crowding.max
        }
    });
    hits.truncate(k);
    hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_scan_finds_what_walking_over_all_finds(
        values in prop::collection::vec(prop::option::weighted(0.9, 0u8..6), 1..300),
        (k, max, seed) in (1usize..60, 1u32..5, 0u64..1_000),
        (is_filtered, field) in (any::<bool>(), prop::sample::select(vec!["campaign_id", "advertiser_id"])),
    ) {
        let vectors = clustered(seed, values.len(), 8, 3);
        let all = ads(&vectors, |row| {
            // One value has most of the ads, as a large advertiser has.
            let value = values[row].map(|value| (field, keyword(&format!("c{}", value / 4))));
            value.into_iter().chain([("half", keyword(if row % 2 == 0 { "yes" } else { "no" }))]).collect()
        });
        let (filter, crowding) = (any_of("half", &["yes"]), Crowding { field: field.into(), max });
        let filter = Some(&filter).filter(|_| is_filtered);
        let index = index(all.clone(), &settings(Backend::Exact));
        let query = &clustered(seed + 1, 1, 8, 3)[0];
        let found = crowded(&index, query, k, filter, &crowding);
        let expected = thinned(&all, query, k, filter, &crowding);
        prop_assert_eq!(hits(&found), &expected[..]);
        prop_assert_eq!(found.exhausted, expected.len() < k);
        let told = |ad: &FoundAd| (ad.hit.ad.clone(), ad.crowd.clone());
        let values: BTreeMap<_, _> = all.iter().map(|ad| (ad.ad.id.clone(), value(ad, field))).collect();
        prop_assert!(found.ads.iter().map(told).all(|(ad, crowd)| values[&ad] == crowd));
    }
}

#[test]
fn a_graph_loses_little_by_a_crowding() {
    // Seven advertisers: three of each are all there may be, and two of the last are found only by looking further.
    let crowding = Crowding { field: "advertiser_id".into(), max: 3 };
    let (mut kept, mut wanted) = (0, 0);
    for query in queries(20) {
        for (k, filter) in [(20, None), (15, Some(any_of("half", &["yes"])))] {
            let found = crowded(&GRAPH, &query, k, filter.as_ref(), &crowding);
            let expected = thinned(&ADS, &query, k, filter.as_ref(), &crowding);
            assert_eq!(found.ads.len(), k);
            let mut of_each = BTreeMap::new();
            found.ads.iter().for_each(|ad| *of_each.entry(ad.crowd.clone()).or_insert(0) += 1);
            assert!(of_each.values().all(|count| *count <= 3), "{of_each:?}");
            kept += expected.iter().filter(|hit| hits(&found).contains(hit)).count();
            wanted += expected.len();
        }
    }
    assert!(kept as f64 >= 0.95 * wanted as f64, "{kept} of {wanted}");
}

/// Every ad has a vector of its own; of the values of `campaign_id`, one after the other holds the nearest ads.
#[test]
fn values_that_fill_up_one_by_one_take_few_rounds() {
    let (query, rows) = (unit(&[1.0, 0.0]), 4_000);
    let angle = |row: usize| (row as f32 / rows as f32) * 3.0;
    let vectors: Vec<_> = (0..rows).map(|row| unit(&[angle(row).cos(), angle(row).sin()])).collect();
    let all = ads(&vectors, |row| vec![("campaign_id", keyword(&format!("c{}", row / 100)))]);
    let index = index(all.clone(), &settings(Backend::Exact));
    for (k, max) in [(1, 1), (20, 1), (40, 1), (41, 1), (16, 2), (39, 7)] {
        let crowding = Crowding { field: "campaign_id".into(), max };
        let found = crowded(&index, &query, k, None, &crowding);
        let expected = thinned(&all, &query, k, None, &crowding);
        assert_eq!((hits(&found), found.exhausted), (expected.clone(), expected.len() < k), "{k} {max}");
        assert!(found.distances <= 5 * rows as u64, "{k} {max}: {}", found.distances);
    }
    // What was gathered for it is counted.
    let fresh = super::index(all, &settings(Backend::Exact));
    assert!(index.stats().posting_bytes >= fresh.stats().posting_bytes + 8 * rows);
}

fn campaign(row: usize, campaign: u8, embedding: &UnitVector) -> ShardContent {
    let id = format!("{row:07}");
    let ad = ad(&id, &[("campaign_id", keyword(&format!("c{campaign}")))]);
    ShardContent::Is(Box::new(ShardAd { ad, embedding: embedding.clone() }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_crowding_of_ads_that_change_is_that_of_those_that_may_be_found(
        batches in prop::collection::vec(prop::collection::vec((0usize..90, 0u8..5, 0u8..6), 1..12), 0..12),
        (k, max, has_graph) in (1usize..40, 1u32..4, any::<bool>()),
    ) {
        let backend = if has_graph { Backend::DiskAnn } else { Backend::Exact };
        let vectors = clustered(3, 200, DIMENSION, 10);
        let all = ads(&vectors[..60], |row| vec![("campaign_id", keyword(&format!("c{}", row % 4)))]);
        let index = index(all.clone(), &settings(backend));
        let mut model = Model::new(&all);
        // Nobody sees to upkeep: ads are paused, dead and not linked, and their words are in several segments.
        for (at, batch) in (1..).zip(&batches) {
            let of = |(row, kind, value): &(usize, u8, u8)| {
                let id = format!("{row:07}");
                match kind {
                    0 => change(&id, ShardContent::Nothing, at),
                    1 => pause(&id, true, at),
                    _ => change(&id, campaign(*row, *value, &vectors[(row + at as usize * 7) % 200]), at),
                }
            };
            let changes: Vec<_> = batch.iter().map(of).collect();
            index.apply(changes.clone()).unwrap();
            model.apply(&changes);
        }
        let (query, now) = (&clustered(4, 1, DIMENSION, 10)[0], model.now());
        let crowding = Crowding { field: "campaign_id".into(), max };
        let expected = thinned(&now, query, k, None, &crowding);
        for exact in [true, false] {
            let search = Search { vector: query, baseline: None, crowding: Some(&crowding), k, filter: None, exact };
            let found = index.search(&search).unwrap();
            prop_assert_eq!((found.ads.len(), found.exhausted), (expected.len(), expected.len() < k));
            if exact || !has_graph {
                prop_assert_eq!(hits(&found), &expected[..]);
            }
            let values: BTreeMap<_, _> = now.iter().map(|ad| (&ad.ad.id, value(ad, "campaign_id"))).collect();
            prop_assert!(found.ads.iter().all(|ad| values.get(&ad.hit.ad) == Some(&ad.crowd)));
        }
    }
}

#[test]
fn a_crowding_by_what_is_not_one_word_is_refused() {
    let query = &queries(1)[0];
    for (field, refused) in [("fiftieth", true), ("tenth", true), ("half", false), ("colour", false)] {
        let crowding = Crowding { field: field.into(), max: 9 };
        let search =
            Search { vector: query, baseline: None, crowding: Some(&crowding), k: 5, filter: None, exact: false };
        let outcome = EXACT.search(&search).map(|found| found.ads.len());
        let is_refused = matches!(&outcome, Err(SearchError::Crowding(CrowdingError::Kind { .. })));
        assert!(is_refused == refused && (refused || outcome == Ok(5)), "{field}: {outcome:?}");
    }
}

#[test]
fn a_cap_of_nothing_is_refused() {
    let (query, crowding) = (&queries(1)[0], Crowding { field: "advertiser_id".into(), max: 0 });
    let search = Search { vector: query, baseline: None, crowding: Some(&crowding), k: 5, filter: None, exact: false };
    assert!(EXACT.search(&search).unwrap_err().to_string().starts_with("crowding: 0 is not in 1..="));
}
