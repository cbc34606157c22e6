//! A share of the answers is compared with those of an exact scan.

use turret_actors::retrieve::RetrieveRequest;
use turret_retrieval::filter::Filter;

use crate::world::{World, ask, until, with_node, with_node_set};

fn compared(world: &World, selectivity: &str) -> u64 {
    world.metrics.shadow_compared.with_label_values(&[selectivity]).get()
}

#[test]
fn the_share_that_was_found_is_told_by_generation_and_by_how_many_pass() {
    with_node_set(
        |settings| settings.shadow_every = 1,
        async |world| {
            let some = Filter::AnyOf { field: "advertiser_id".into(), values: vec!["adv0".into()] };
            let filtered = || RetrieveRequest { filter: Some(some.clone()), ..ask(Some(1), 20) };
            let classes = ["unfiltered", "10_to_50_percent"];
            // One comparison at a time: an answer that finds another going on has none.
            until("one without a filter was compared", async || {
                world.answer(ask(Some(1), 20)).await;
                compared(world, classes[0]) > 0
            })
            .await;
            until("one with a filter was compared", async || {
                world.answer(filtered()).await;
                compared(world, classes[1]) > 0
            })
            .await;
            // These shards are scanned, so that nothing is missed.
            let generation = world.generation.manifest.id.as_str();
            let recall = classes.map(|class| world.metrics.shadow_recall.with_label_values(&[generation, class]).get());
            assert_eq!(recall, [1.0, 1.0]);
        },
    );
}

#[test]
fn none_is_compared_where_that_is_off() {
    with_node(async |world| {
        for _ in 0..20 {
            world.answer(ask(Some(1), 20)).await;
        }
        assert_eq!(compared(world, "unfiltered"), 0);
    });
}
