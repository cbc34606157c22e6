use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;
use turret_retrieval::filter::Filter;
use turret_retrieval::item::Attribute;
use turret_retrieval::topk::Hit;
use turret_retrieval::vector::UnitVector;

use super::*;
use crate::Backend;
use crate::fixtures::{ad, ads, any_of, brute_force, clustered, keyword, settings, unit};

const DIMENSION: usize = 16;

fn built(rows: usize, backend: Backend) -> (Vec<ShardAd>, LiveShard) {
    let vectors = clustered(1, rows, DIMENSION, 10);
    let ads = ads(&vectors, |row| vec![("half", keyword(if row.is_multiple_of(2) { "yes" } else { "no" }))]);
    let index = ShardIndex::build(DIMENSION, ads.clone(), &settings(backend), &mut |_| ControlFlow::Continue(()));
    (ads, LiveShard::new(index.unwrap()))
}

fn change(id: &str, content: ShardContent, at: u64) -> ShardChange {
    let (content_at, paused_at) = (Revision::from_bits(at), Revision::NONE);
    ShardChange { id: AdId::new(id).unwrap(), content, content_at, paused: false, paused_at }
}

fn pause(id: &str, paused: bool, at: u64) -> ShardChange {
    let paused_at = Revision::from_bits(at);
    ShardChange { paused, paused_at, content_at: Revision::NONE, ..change(id, ShardContent::AsBuilt, 0) }
}

fn is(id: &str, half: &str, embedding: &UnitVector) -> ShardContent {
    ShardContent::Is(Box::new(ShardAd { ad: ad(id, &[("half", keyword(half))]), embedding: embedding.clone() }))
}

fn find(shard: &LiveShard, vector: &UnitVector, k: usize, filter: Option<&Filter>) -> Found {
    shard.search(&Search { vector, baseline: None, k, filter, exact: false }).unwrap()
}

fn hits(found: &Found) -> Vec<Hit> {
    found.ads.iter().map(|ad| ad.hit.clone()).collect()
}

/// The ads of now, made by hand.
fn now(ads: &[ShardAd], changes: &[ShardChange]) -> Vec<ShardAd> {
    let mut known: BTreeMap<&AdId, ShardChange> = BTreeMap::new();
    for change in changes {
        match known.get_mut(&change.id) {
            Some(ad) => join(ad, change.clone()),
            None => drop(known.insert(&change.id, change.clone())),
        }
    }
    let as_built = ads.iter().filter(|row| {
        known.get(&row.ad.id).is_none_or(|change| change.content == ShardContent::AsBuilt && !change.paused)
    });
    let changed = known.values().filter(|change| !change.paused).filter_map(|change| match &change.content {
        ShardContent::Is(ad) => Some((**ad).clone()),
        ShardContent::AsBuilt | ShardContent::Nothing => None,
    });
    as_built.cloned().chain(changed).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_found_is_what_sorting_the_ads_of_now_finds(
        steps in prop::collection::vec((0usize..130, 0u8..5, any::<bool>()), 0..60),
        k in 1usize..150,
    ) {
        let (ads, shard) = built(120, Backend::Exact);
        let others = clustered(3, 60, DIMENSION, 10);
        let mut changes = Vec::new();
        for (at, ((row, kind, half), vector)) in (1..).zip(steps.iter().zip(&others)) {
            let id = format!("{row:07}");
            changes.push(match kind {
                0 => change(&id, ShardContent::Nothing, at),
                1 => pause(&id, true, at),
                2 => pause(&id, false, at),
                _ => change(&id, is(&id, if *half { "yes" } else { "no" }, vector), at),
            });
        }
        // In another order, and partly twice: the result is one.
        let (early, late) = changes.split_at(changes.len() / 2);
        shard.apply([late, early, late].concat()).unwrap();
        let now = now(&ads, &changes);
        for query in clustered(2, 3, DIMENSION, 10) {
            for filter in [None, Some(any_of("half", &["yes"])), Some(any_of("half", &["neither"]))] {
                let found = find(&shard, &query, k, filter.as_ref());
                prop_assert_eq!(hits(&found), brute_force(&now, &query, k, filter.as_ref()));
                prop_assert_eq!(found.exhausted, found.ads.len() < k);
                if let Some(filter) = &filter {
                    let passing = now.iter().filter(|row| filter.matches(&row.ad.attributes)).count();
                    let share = passing as f64 / now.len().max(1) as f64;
                    prop_assert!((found.selectivity.unwrap() - share).abs() < 1e-9);
                }
            }
        }
    }
}

#[test]
fn a_graph_never_returns_what_is_hidden_and_fills_k_all_the_same() {
    let (ads, shard) = built(3_000, Backend::DiskAnn);
    let query = clustered(2, 1, DIMENSION, 10).remove(0);
    let best = brute_force(&ads, &query, 200, None);
    // The nearest hundred are paused, the next is replaced.
    let changes: Vec<_> = best[..100].iter().map(|hit| pause(hit.ad.as_str(), true, 1)).collect();
    shard.apply(changes).unwrap();
    shard.apply(vec![change(best[100].ad.as_str(), is(best[100].ad.as_str(), "yes", &query), 2)]).unwrap();
    let found = find(&shard, &query, 50, None);
    assert_eq!(found.ads.len(), 50);
    assert_eq!(found.ads[0].hit.ad, best[100].ad);
    assert!(found.ads.iter().all(|ad| !best[..100].iter().any(|hit| hit.ad == ad.hit.ad)));
    let paused: Vec<_> = best[..100].iter().map(|hit| pause(hit.ad.as_str(), true, 1)).collect();
    let exact = brute_force(&now(&ads, &paused), &query, 50, None);
    let kept = exact.iter().filter(|hit| found.ads.iter().any(|ad| ad.hit.ad == hit.ad)).count();
    assert!(kept >= 45, "{kept} of 50");
    shard.apply(best[..100].iter().map(|hit| pause(hit.ad.as_str(), false, 3)).collect()).unwrap();
    assert_eq!(find(&shard, &query, 1, None).ads[0].hit.ad, best[100].ad);
    assert!(find(&shard, &query, 200, None).ads.iter().any(|ad| ad.hit.ad == best[0].ad));
}

#[test]
fn a_change_that_cannot_stand_is_refused_and_nothing_of_its_batch_is_made() {
    let (_, shard) = built(20, Backend::Exact);
    let query = unit(&[1.0; DIMENSION]);
    let before = hits(&find(&shard, &query, 20, None));
    let sound = change("0000003", ShardContent::Nothing, 1);
    let number = ShardAd { ad: ad("new", &[("half", Attribute::Number(1.0))]), embedding: query.clone() };
    let refused = |content, rule: &str| {
        let error = shard.apply(vec![sound.clone(), change("new", content, 1)]).unwrap_err().to_string();
        assert!(error.contains(rule), "{error}");
        assert_eq!((hits(&find(&shard, &query, 20, None)), shard.changed()), (before.clone(), 0));
    };
    refused(ShardContent::Is(Box::new(number)), "attribute half of ad new is of kind Number");
    refused(is("new", "yes", &unit(&[1.0; 3])), "dimension 3 where 16 is expected");
    let many = (0..=CHANGED_ADS_MAX).map(|row| change(&format!("n{row}"), ShardContent::Nothing, 1)).collect();
    assert!(shard.apply(many).unwrap_err().to_string().contains("20001 ads are not as built"));
}
