//! Models that give what is no number, and workers that are not what was loaded.

use std::time::Duration;

use prometheus::Registry;
use ractor::Actor;
use tempfile::TempDir;
use turret_actors::asked::Asked;
use turret_actors::groups;
use turret_actors::inference_worker::batcher::BatcherSettings;
use turret_actors::inference_worker::encoder::Encoder;
use turret_actors::inference_worker::{InferenceWorker, Note};
use turret_actors::metrics::Metrics;
use turret_actors::node::{Node, StartError};
use turret_actors::offload::Offload;
use turret_actors::protocol::{EmbedAsk, EncodeAsk, Refusal};
use turret_actors::retrieve::inference::{Fallback, Inference};
use turret_actors::retrieve::{Rejection, RetrieveRequest};
use turret_actors::wire::{Inbox, Wire};
use turret_model::Model;
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{GenerationId, InterestId};
use turret_retrieval::item::Interest;
use turret_store::Change;

use crate::refusals::{embed, embed_ask, encode, encode_ask};
use crate::world::planted::{DEAF_TO_QUERIES, DEAF_TO_SIGNUPS, break_head};
use crate::world::published::{MODEL, publish};
use crate::world::{World, alone, ask, depot, retrieve, settings, until, with_node, with_node_of};

fn searching() -> Option<Context> {
    Some(Context { subject: None, query: Some("chair".to_owned()) })
}

fn refused(world: &World, reason: &str) -> u64 {
    world.metrics.inference_refused.with_label_values(&[reason]).get()
}

#[test]
fn what_is_no_number_is_refused_and_counted_and_the_worker_starts_again() {
    with_node_of(
        &DEAF_TO_QUERIES,
        |_| {},
        async |world| {
            let before = world.answer(ask(Some(1), 20)).await;
            assert_eq!(before.inference, Inference::Worker);
            let query = EmbedAsk { context: searching(), ..embed_ask(world) };
            assert_eq!(embed(world, Wire::new(query)).await, Err(Refusal::NotFinite));
            assert_eq!(refused(world, "not_finite"), 1);
            until("the worker is started again", async || world.restarts("inference_worker") == 1).await;

            // Whether or not it has come back by now, the own head gives no number either.
            let searching = || RetrieveRequest { context: searching(), ..ask(Some(1), 20) };
            match retrieve(&world.node.retriever, searching()).await {
                Err(Rejection::NoInference { why }) => assert!(why.contains("not finite"), "{why}"),
                other => panic!("{other:?}"),
            }
            assert!(refused(world, "not_finite") >= 2);
            // Who does not search is answered, and the same, by whoever answers.
            for _ in 0..20 {
                let answer = world.answer(ask(Some(1), 20)).await;
                assert_eq!(answer.candidates, before.candidates);
                let known = [Fallback::NoWorker, Fallback::WorkerEnded];
                assert!(answer.inference.fallback().is_none_or(|fallback| known.contains(&fallback)));
            }
            let routed = async || world.answer(ask(Some(1), 20)).await.inference == Inference::Worker;
            until("the worker is back", routed).await;
        },
    );
}

#[test]
fn a_head_that_gives_no_number_at_all_is_not_started_from() {
    alone(async || {
        let dir = TempDir::new().unwrap();
        let generation = break_head(&publish(dir.path(), "g-test", &MODEL));
        let started =
            Node::start(settings(&dir), depot(&generation), generation, Metrics::new(&Registry::new()).unwrap()).await;
        match started {
            Err(StartError::Model(error)) => assert!(error.is_not_finite(), "{error}"),
            Err(other) => panic!("the node does not start for another reason: {other}"),
            Ok(_) => panic!("the node starts"),
        }
    });
}

#[test]
fn a_worker_that_does_not_answer_as_when_it_was_loaded_never_serves() {
    alone(async || {
        let generation = GenerationId::new("g-unsound").unwrap();
        let dir = TempDir::new().unwrap();
        MODEL.save(dir.path()).unwrap();
        let mut known = MODEL.probe(1).unwrap().remove(0).as_slice().to_vec();
        known[0] += 0.2;
        let worker = InferenceWorker {
            generation: generation.clone(),
            model: Model::load(dir.path()).unwrap().into(),
            known: turret_retrieval::vector::UnitVector::normalize(known).unwrap(),
            settings: BatcherSettings { batch_rows_max: 4, online_queue_rows_max: 4, refresh_queue_jobs_max: 4 },
            encoders: Encoder::several(1).unwrap(),
            asked: Asked::default(),
            thread: Offload::new("inference", 1, 1).unwrap(),
            metrics: Metrics::new(&Registry::new()).unwrap(),
        };
        let (_, ended) = Actor::spawn(None, worker, ()).await.unwrap();
        ended.await.unwrap();
        assert!(ractor::pg::get_members(&groups::inference(&generation)).is_empty());
    });
}

#[test]
fn a_history_that_has_no_state_costs_nobody_else_theirs() {
    with_node_of(
        &DEAF_TO_SIGNUPS,
        |_| {},
        async |world| {
            let history = |event_type| vec![Event { item_id: 1.into(), event_type, timestamp_ms: 1, event_id: None }];
            let encoded = async |types: &[EventType]| {
                let histories = types.iter().map(|event_type| history(*event_type)).collect();
                let ask = encode_ask(world.generation.manifest.versions.encoder.clone(), 0);
                let states = encode(world, Wire::new(EncodeAsk { histories, ..ask })).await.unwrap();
                states.iter().map(Option::is_some).collect::<Vec<_>>()
            };
            let (view, signup) = (EventType::View, EventType::Signup);
            assert_eq!(encoded(&[view, signup, view]).await, [true, false, true]);
            assert_eq!(refused(world, "not_finite"), 1);
            assert_eq!(encoded(&[signup]).await, [false], "the model is sound, and gives the states of others");
            assert_eq!((refused(world, "not_finite"), world.metrics.restarts()), (2, 0));

            // And so for a refresh: the one who signed up stays as they are, and everybody behind them is refreshed.
            let users = &world.node.users;
            let append = async |user: u64, event_type| {
                let change = Change::Append(history(event_type));
                users.write(user.into(), change, Duration::from_secs(5)).await.unwrap();
            };
            for user in 1_000..1_004 {
                append(user, view).await;
            }
            append(1_001, signup).await;
            world.node.refresh().await.unwrap();
            let status = async || world.status().await.refresh.unwrap();
            until("the run ends", async || !status().await.running).await;
            let status = status().await;
            assert_eq!((status.users_refreshed, status.partitions_failed), (3, 0), "{status:?}");
        },
    );
}

#[test]
fn a_confidence_that_nobody_may_have_ends_no_worker() {
    with_node(async |world| {
        let interests = vec![Interest { id: InterestId::from(1), confidence: f32::NAN }];
        let context = Some(Context { subject: Some(Subject { item_id: None, interests }), query: None });
        let answer = embed(world, Wire::new(EmbedAsk { context, ..embed_ask(world) })).await;
        assert!(matches!(answer, Err(Refusal::Failed(_))), "{answer:?}");
        assert!(embed(world, Wire::new(embed_ask(world))).await.is_ok());
        assert_eq!((world.metrics.restarts(), refused(world, "failed")), (0, 1));
    });
}

#[test]
fn a_worker_whose_batch_panicked_is_counted_and_started_again() {
    with_node(async |world| {
        let worker = world.node.retriever.table().inference[0].clone();
        // No input is known that makes a batch panic; this is what the thread tells when one does.
        worker.cast(Inbox::Note(Note::Panicked(2))).unwrap();
        until("the worker is started again", async || world.restarts("inference_worker") == 1).await;
        assert_eq!(refused(world, "panicked"), 2);
        world.answer(ask(Some(1), 20)).await;
        let routed = async || world.answer(ask(Some(1), 20)).await.inference == Inference::Worker;
        until("the worker is back", routed).await;
    });
}
