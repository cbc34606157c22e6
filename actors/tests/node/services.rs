//! The actors that serve no data: they are killed, and the node goes on.

use ractor::registry::where_is;
use turret_actors::groups;
use turret_retrieval::ids::ShardId;

use crate::world::{World, ask, until, with_node};

/// Kills a registered actor, and waits until another has its name.
async fn replace(world: &World, kind: &str) {
    let name = groups::actor(kind, world.node.name());
    let killed = where_is(name.clone()).expect("it is registered");
    killed.kill_and_wait(None).await.unwrap();
    let is_new = async || where_is(name.clone()).is_some_and(|cell| cell.get_id() != killed.get_id());
    until(&format!("{name} is there again"), is_new).await;
}

#[test]
fn a_killed_routing_actor_is_replaced_by_one_that_sees_what_changes() {
    with_node(async |world| {
        let before = world.answer(ask(Some(2), 20)).await.candidates;
        replace(world, "routing").await;
        assert_eq!(world.answer(ask(Some(2), 20)).await.candidates, before, "readers keep the table they have");
        let group = groups::index(ShardId(0), &world.generation.manifest.id);
        let killed = world.kill(&group).await;
        world.back(&group, killed).await;
        assert!(world.node.is_ready());
        assert_eq!(world.answer(ask(Some(2), 20)).await.candidates, before);
        assert_eq!(world.restarts("service"), 1);
    });
}

#[test]
fn killed_admin_and_refresh_actors_come_back() {
    with_node(async |world| {
        for (restarts, kind) in (1..).zip(["admin", "refresh"]) {
            replace(world, kind).await;
            let answers = async || world.node.status_of(world.node.name()).await.is_some_and(|s| s.refresh.is_some());
            until("the node answers for itself", answers).await;
            let status = world.status().await;
            assert_eq!((status.ready, status.restarts), (true, restarts));
        }
        assert!(world.node.refresh().await.unwrap().started);
    });
}
