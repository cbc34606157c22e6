//! States of an encoder that does not serve: no head reads one, whoever hands it over.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use turret_actors::local_head::LocalHeads;
use turret_actors::protocol::{EmbedAsk, EncodedHistory, Refusal, StateView, UserRequest, UserView};
use turret_actors::retrieve::RetrieveRequest;
use turret_actors::wire::{Inbox, Wire};
use turret_actors::{groups, user_partition};
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::tier::History;

use crate::inference::model;
use crate::refusals::embed_ask;
use crate::world::published::{MODEL, PARTITIONS, demographics};
use crate::world::{ask, until, with_node};

const USER: u64 = 3;

/// One that a model of the serving dimension could read, were it not for who made it.
fn old_state() -> EncodedHistory {
    let sequence = SequenceState::new(&vec![0.5; MODEL.dimension()], MODEL.dimension(), Precision::F16).unwrap();
    EncodedHistory::new(EncoderVersion::new("enc-other").unwrap(), sequence)
}

#[test]
fn the_own_head_does_not_read_what_a_worker_refuses() {
    with_node(async |world| {
        let heads = LocalHeads::new(1).unwrap();
        heads.put(world.generation.manifest.id.clone(), model());
        let old = EmbedAsk { state: Some(old_state()), ..embed_ask(world) };
        let (serving, asked) = (MODEL.encoder_version().to_string(), "enc-other".to_owned());
        let refused = heads.embed(old, Duration::from_secs(60)).await;
        assert_eq!(refused, Err(Refusal::OtherVersion { serving, asked }));
        assert!(heads.embed(embed_ask(world), Duration::from_secs(60)).await.is_ok());
    });
}

/// Joins a partition's group, and shows everybody an old state.
struct Impostor(String);

impl Actor for Impostor {
    type Msg = user_partition::Msg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        ractor::pg::join(self.0.clone(), vec![myself.get_cell()]);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, message: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if let Inbox::Request(UserRequest::View(_, reply)) = message {
            let state = StateView { history: old_state(), made_at_ms: 0, is_current: true };
            let view = UserView { demographics: demographics(USER), state: Some(state) };
            drop(reply.send(Wire::new(Ok(Some(view)))));
        }
        Ok(())
    }
}

#[test]
fn a_partition_that_shows_one_costs_the_history_and_not_the_answer() {
    with_node(async |world| {
        let before = world.answer(ask(Some(USER), 20)).await;
        assert_eq!((before.user_state.history, before.user_state.reason), (History::Fresh, None));
        let partition = partition_of(&UserId::from(USER), PARTITIONS);
        let sound = ractor::pg::get_members(&groups::users(partition)).remove(0);
        ractor::pg::leave(groups::users(partition), vec![sound.clone()]);
        let (actor, ended) = Actor::spawn(None, Impostor(groups::users(partition)), ()).await.unwrap();
        let holder = async || {
            let table = world.node.retriever.table();
            table.partitions[partition.0 as usize].first().map(|holder| holder.get_id())
        };
        until("it is routed to", async || holder().await == Some(actor.get_id())).await;
        let answer = world.answer(ask(Some(USER), 20)).await;
        assert_eq!(
            (answer.user_state.history, answer.user_state.reason),
            (History::None, Some("state_of_other_encoder"))
        );
        // What else is known of the user is used.
        let known = RetrieveRequest { demographics: demographics(USER), ..ask(None, 20) };
        assert_eq!(answer.candidates, world.answer(known).await.candidates);
        actor.stop(None);
        ended.await.unwrap();
        let sound_id = sound.get_id();
        ractor::pg::join(groups::users(partition), vec![sound]);
        until("the sound one is routed to", async || holder().await == Some(sound_id)).await;
        assert_eq!(world.answer(ask(Some(USER), 20)).await.candidates, before.candidates);
    });
}
