//! Ads that change while the index serves: found, hidden and replaced at once, and still so after whatever dies.

use turret_actors::groups;
use turret_actors::rollout::plan::{Outcome, Phase};
use turret_model::{HeadInput, Model};
use turret_retrieval::ids::{AdId, GenerationId, ItemId, ShardId};
use turret_retrieval::item::{Ad, Item};
use turret_retrieval::live_ad::{AdChange, Promoted};
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::dot;

use crate::world::published::{ADS, DATASET, MODEL, NEXT_MODEL, publish};
use crate::world::{World, ask, until, with_node};

fn id(ad: &str) -> AdId {
    AdId::new(ad).unwrap()
}

/// An ad like that of item `number`, called `ad`.
fn like(ad: &str, number: usize) -> Promoted {
    let item = Item { id: ItemId::new(&format!("item-of-{ad}")).unwrap(), ..DATASET.items[number].clone() };
    Promoted { ad: Ad { id: id(ad), item: item.id.clone(), ..DATASET.ads[number].clone() }, item }
}

async fn upsert(world: &World, promoted: Promoted) {
    let id = promoted.ad.id.clone();
    let changed = world.node.ads.change(id, AdChange::Upsert(Box::new(promoted))).await.unwrap();
    assert!(changed.visible);
}

async fn change(world: &World, ad: &str, change: AdChange) {
    assert!(world.node.ads.change(id(ad), change).await.unwrap().visible);
}

/// All that somebody unknown would be shown, with the scores.
async fn shown(world: &World) -> Vec<(String, f32)> {
    let answer = world.answer(ask(None, ADS as usize + 50)).await;
    assert!(answer.coverage.is_full() && answer.exhausted);
    answer.candidates.iter().map(|found| (found.hit.ad.to_string(), found.hit.score)).collect()
}

fn score(shown: &[(String, f32)], ad: &str) -> Option<f32> {
    shown.iter().find(|(shown, _)| shown == ad).map(|(_, score)| *score)
}

/// What a model gives an item, asked by somebody unknown.
fn expected(model: &Model, item: &Item) -> f32 {
    let unknown = HeadInput { state: None, context: None, demographics: &Demographics::default() };
    let query = model.embed_queries(&[unknown]).unwrap().remove(0);
    dot(query.as_slice(), model.embed_items(&[item]).unwrap()[0].as_slice())
}

#[test]
fn a_change_is_seen_by_the_next_request_and_scored_by_the_ad_tower_that_serves() {
    with_node(async |world| {
        let before = shown(world).await;
        assert_eq!(before.len(), ADS as usize);
        upsert(world, like("fresh", 3)).await;
        let now = shown(world).await;
        assert_eq!(now.len(), ADS as usize + 1);
        let found = score(&now, "fresh").unwrap();
        assert!((found - expected(&MODEL, &like("fresh", 3).item)).abs() < 1e-5);

        change(world, "ad7", AdChange::Pause(true)).await;
        change(world, "fresh", AdChange::Pause(true)).await;
        let now = shown(world).await;
        assert_eq!((now.len(), score(&now, "ad7"), score(&now, "fresh")), (ADS as usize - 1, None, None));
        // An upsert does not clear the pause.
        upsert(world, like("ad7", 11)).await;
        assert_eq!(score(&shown(world).await, "ad7"), None);
        change(world, "ad7", AdChange::Pause(false)).await;
        let now = shown(world).await;
        assert!((score(&now, "ad7").unwrap() - expected(&MODEL, &like("ad7", 11).item)).abs() < 1e-5);

        change(world, "ad9", AdChange::Delete).await;
        change(world, "ad7", AdChange::Delete).await;
        let now = shown(world).await;
        assert_eq!((now.len(), score(&now, "ad9"), score(&now, "ad7")), (ADS as usize - 2, None, None));
        // Somebody who is not active is shown to nobody.
        let mut promoted = like("ad5", 5);
        promoted.ad.attributes.insert("status".into(), turret_retrieval::item::Attribute::Keyword("ended".into()));
        upsert(world, promoted).await;
        assert_eq!(score(&shown(world).await, "ad5"), None);

        let known = world.node.ads.get(id("ad9")).await.unwrap().unwrap();
        assert_eq!(known.content, turret_retrieval::live_ad::Content::Deleted);
        assert_eq!(world.node.ads.get(id("ad1")).await, Ok(None));
    });
}

#[test]
fn changes_outlive_the_shards_the_actor_of_the_ads_and_the_worker() {
    with_node(async |world| {
        upsert(world, like("fresh", 3)).await;
        change(world, "ad7", AdChange::Pause(true)).await;
        let expected = shown(world).await;
        for shard in [0, 1] {
            let group = groups::index(ShardId(shard), &world.generation.manifest.id);
            let killed = world.kill(&group).await;
            world.back(&group, killed).await;
            assert_eq!(shown(world).await, expected, "a shard that serves again knows what it missed");
        }
        let name = groups::actor("live_ads", world.node.name());
        let killed = ractor::registry::where_is(name.clone()).unwrap();
        killed.kill_and_wait(None).await.unwrap();
        let is_back = async || world.node.ads.get(id("ad7")).await.is_ok();
        until("the actor of the ads is back", is_back).await;
        change(world, "ad7", AdChange::Pause(false)).await;
        change(world, "ad8", AdChange::Delete).await;
        let now = shown(world).await;
        assert!(score(&now, "ad7").is_some() && score(&now, "ad8").is_none() && score(&now, "fresh").is_some());
    });
}

#[test]
fn what_changed_is_in_the_next_generation_by_its_own_ad_tower_before_it_answers_anybody() {
    with_node(async |world| {
        publish(world.generation.dir.parent().unwrap(), "g-next", &NEXT_MODEL);
        upsert(world, like("fresh", 3)).await;
        change(world, "ad7", AdChange::Pause(true)).await;
        world.node.publish(GenerationId::new("g-next").unwrap()).await.unwrap();
        // While it is prepared and judged, more changes.
        change(world, "ad8", AdChange::Delete).await;
        let mut number = 0;
        until("the publication ends", async || {
            number += 1;
            change(
                world,
                &format!("new{}", number % 20),
                AdChange::Upsert(Box::new(like(&format!("new{}", number % 20), 4))),
            )
            .await;
            let answer = world.answer(ask(None, ADS as usize + 50)).await;
            let has = |ad: &str| answer.candidates.iter().any(|found| found.hit.ad == id(ad));
            assert_eq!((has("fresh"), has("ad7"), has("ad8")), (true, false, false), "by {}", answer.manifest.id);
            let plan = world.status().await.rollout.unwrap().plan.unwrap();
            let Phase::Ended { outcome } = plan.phase else { return false };
            assert_eq!(outcome, Outcome::Published);
            true
        })
        .await;
        let now = shown(world).await;
        let found = score(&now, "fresh").unwrap();
        assert!((found - expected(&NEXT_MODEL, &like("fresh", 3).item)).abs() < 1e-5);
        assert_eq!(now.len(), ADS as usize + 1 + number.min(20) - 2);
    });
}

#[test]
fn an_ad_that_cannot_stand_in_the_index_holds_up_no_other() {
    with_node(async |world| {
        let mut odd = like("odd", 3);
        odd.ad.attributes.insert("advertiser_id".into(), turret_retrieval::item::Attribute::Number(1.0));
        let changed = world.node.ads.change(id("odd"), AdChange::Upsert(Box::new(odd.clone()))).await.unwrap();
        assert!(!changed.visible, "it will never be");
        // One that is there stays as it was.
        odd.ad.id = id("ad7");
        assert!(!world.node.ads.change(id("ad7"), AdChange::Upsert(Box::new(odd))).await.unwrap().visible);
        upsert(world, like("fresh", 3)).await;
        let now = shown(world).await;
        let is_shown = ["odd", "ad7", "fresh"].map(|ad| score(&now, ad).is_some());
        assert_eq!(is_shown, [false, true, true]);
        assert_eq!(world.metrics.restarts(), 0);
    });
}
