//! At most so many ads of one value.

use std::collections::BTreeMap;

use proptest::prelude::*;
use turret_retrieval::crowding::Crowding;

use super::*;

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

#[test]
fn a_cap_of_nothing_is_refused() {
    let (query, crowding) = (&queries(1)[0], Crowding { field: "advertiser_id".into(), max: 0 });
    let search = Search { vector: query, baseline: None, crowding: Some(&crowding), k: 5, filter: None, exact: false };
    assert!(EXACT.search(&search).unwrap_err().to_string().starts_with("crowding: 0 is not in 1..="));
}
