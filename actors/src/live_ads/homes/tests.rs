use std::ops::ControlFlow;

use proptest::prelude::*;
use turret_index::{Backend, ClusterSettings, IndexSettings, Search, ShardAd, ShardIndex, cluster};
use turret_retrieval::hashing::stable_hash;
use turret_retrieval::ids::GenerationId;
use turret_retrieval::item::{Ad, Attribute};
use turret_retrieval::partitioning::RankShares;
use turret_retrieval::revision::Revision;
use turret_retrieval::vector::UnitVector;

use super::*;
use crate::rollout::fixture::manifest;

const DIMENSION: usize = 4;
const SHARDS: usize = 5;
const BUILT: u64 = 23;

/// An embedding for each number.
fn embedding(number: u64) -> UnitVector {
    let component = |axis: u64| (stable_hash(axis, &number.to_le_bytes()) % 2_001) as f32 / 1_000.0 - 1.0;
    UnitVector::normalize((0..DIMENSION as u64).map(component).collect()).unwrap()
}

fn ad(id: u64, place: u64) -> ShardAd {
    ShardAd { ad: Ad { id: id.into(), item: id.into(), attributes: Default::default() }, embedding: embedding(place) }
}

/// A generation of clusters of equal size, and the shards as they were built.
fn generation() -> (Manifest, Vec<Vec<ShardAd>>) {
    let ads: Vec<ShardAd> = (0..BUILT).map(|id| ad(id, id)).collect();
    let vectors: Vec<&[f32]> = ads.iter().map(|ad| ad.embedding.as_slice()).collect();
    let settings = ClusterSettings { clusters: SHARDS, fullness_max: 1.0, seed: 3 };
    let clustering = cluster(&vectors, DIMENSION, &settings);
    let mut shards = vec![Vec::new(); SHARDS];
    for (ad, shard) in ads.into_iter().zip(&clustering.cluster_of) {
        shards[*shard as usize].push(ad);
    }
    let clusters = Clusters {
        centroids: clustering.centroids,
        target_recall: 0.9,
        probes: 0,
        shares: vec![RankShares { k: 10, by_rank: vec![1.0 / SHARDS as f64; SHARDS] }],
    };
    let built = Manifest {
        id: GenerationId::new("g-clustered").unwrap(),
        dimension: DIMENSION as u32,
        shard_ads: shards.iter().map(|ads| ads.len() as u64).collect(),
        partitioning: Partitioning::Clustered(clusters),
        calibrations: vec![None; SHARDS],
        ..manifest()
    };
    built.check().unwrap();
    (built, shards)
}

fn load(ads: &[ShardAd]) -> ShardIndex {
    let settings = IndexSettings { backend: Backend::Exact, ..IndexSettings::default() };
    ShardIndex::build(DIMENSION, ads.to_vec(), &settings, &[], &mut |_| ControlFlow::Continue(())).unwrap()
}

/// The ads that searches of a shard see.
fn seen(index: &ShardIndex) -> Vec<u64> {
    let query = embedding(0);
    let search = Search { vector: &query, baseline: None, crowding: None, k: 500, filter: None, exact: true };
    index.search(&search).unwrap().ads.iter().map(|ad| ad.hit.ad.as_str().parse().unwrap()).collect()
}

/// The last that the journal knows of an ad, as its generation's shards take it.
fn change(id: u64) -> ShardChange {
    ShardChange {
        id: id.into(),
        content: ShardContent::AsBuilt,
        content_at: Revision::NONE,
        paused: false,
        paused_at: Revision::NONE,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn after_any_changes_and_restarts_each_live_ad_is_in_its_shard_and_no_other(
        steps in prop::collection::vec((0u8..9, 0u64..BUILT + 9, any::<u64>()), 1..120),
    ) {
        let (manifest, built) = generation();
        let mut shards: Vec<ShardIndex> = built.iter().map(|ads| load(ads)).collect();
        let mut journal: BTreeMap<u64, ShardChange> = BTreeMap::new();
        // What was handed over and not taken in yet: some of it waits, and comes later and out of order.
        let mut waiting: Vec<(ShardId, Vec<ShardChange>)> = Vec::new();
        for (at, (kind, id, chance)) in (1u64..).zip(&steps) {
            let at = Revision::from_bits(at);
            let mut ad_of = journal.get(id).cloned().unwrap_or_else(|| change(*id));
            match kind {
                0..=3 => {
                    let content = ShardContent::Is(Box::new(ad(*id, 1_000 + chance % 50)));
                    (ad_of.content, ad_of.content_at) = (content, at);
                }
                4 => (ad_of.content, ad_of.content_at) = (ShardContent::Nothing, at),
                7 if matches!(ad_of.content, ShardContent::AsBuilt | ShardContent::Patched(_)) => {
                    let bid = Some(Attribute::Number(*chance as f64));
                    (ad_of.content, ad_of.content_at) = (ShardContent::Patched([("bid".into(), bid)].into()), at);
                }
                5 | 6 => (ad_of.paused, ad_of.paused_at) = (kind % 2 == 0, at),
                _ => {
                    // A shard starts again, and asks for what it missed.
                    let shard = (chance % SHARDS as u64) as usize;
                    shards[shard] = load(&built[shard]);
                    let of_shard = ShardId(shard as u32);
                    let replayed = journal.values().map(|change| as_told(&manifest, change, of_shard)).collect();
                    shards[shard].apply(replayed).unwrap();
                    continue;
                }
            }
            journal.insert(*id, ad_of.clone());
            waiting.extend(told(&manifest, vec![ad_of]));
            let late = if chance % 3 == 0 { waiting.len() / 2 } else { 0 };
            let turn = waiting.len().min((chance % 7) as usize);
            waiting.rotate_left(turn);
            for (shard, changes) in waiting.drain(late..) {
                shards[shard.0 as usize].apply(changes).unwrap();
            }
        }
        for (shard, changes) in waiting {
            shards[shard.0 as usize].apply(changes).unwrap();
        }
        let clusters = manifest.partitioning.clusters().unwrap();
        let seen: Vec<Vec<u64>> = shards.iter().map(seen).collect();
        for id in 0..BUILT + 9 {
            let found: Vec<ShardId> = (0u32..).map(ShardId).zip(&seen).filter(|(_, ads)| ads.contains(&id)).map(|(shard, _)| shard).collect();
            let as_built = (0u32..).map(ShardId).zip(&built).filter(|(_, ads)| ads.iter().any(|ad| ad.ad.id == AdId::from(id)));
            let as_built: Vec<ShardId> = as_built.map(|(shard, _)| shard).collect();
            let known = journal.get(&id).cloned().unwrap_or_else(|| change(id));
            let expected = match &known.content {
                _ if known.paused => Vec::new(),
                ShardContent::AsBuilt | ShardContent::Patched(_) => as_built,
                ShardContent::Nothing => Vec::new(),
                // One, but for the rare tie.
                ShardContent::Is(ad) => clusters.homes(&ad.embedding),
            };
            prop_assert_eq!(found, expected, "ad {}", id);
        }
    }
}

#[test]
fn what_an_ad_is_is_told_before_what_it_is_not() {
    let (manifest, _) = generation();
    let moved = |id, place| ShardChange {
        content: ShardContent::Is(Box::new(ad(id, place))),
        content_at: Revision::from_bits(1),
        ..change(id)
    };
    let told = told(&manifest, vec![moved(1, 1_001), moved(2, 1_002), change(3)]);
    let is_first = |(_, changes): &(ShardId, Vec<ShardChange>)| {
        changes.iter().all(|change| matches!(change.content, ShardContent::Is(_)))
    };
    let first = told.iter().take_while(|told| is_first(told)).count();
    assert!((1..=2).contains(&first) && !told[first..].iter().any(is_first), "{told:?}");
    assert_eq!(told.len() - first, SHARDS, "everybody hears of the third, wherever it is");
    let by_hash = Manifest { partitioning: Partitioning::Hash, ..manifest };
    assert_eq!(super::told(&by_hash, vec![change(1)]), [(shard_of(&1.into(), SHARDS as u32), vec![change(1)])]);
    assert!((0..5).filter(|shard| is_told(&by_hash, &1.into(), ShardId(*shard))).count() == 1);
}
