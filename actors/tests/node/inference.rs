//! Workers that end, are busy, silent, or none: the only node that has one answers all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinSet;
use tokio::time::Instant;
use turret_actors::local_head::LocalHeads;
use turret_actors::protocol::{EmbedAsk, Embedded, EncodedHistory, InferenceRequest, QueryEmbedding, Refusal};
use turret_actors::retrieve::RetrieveRequest;
use turret_actors::retrieve::inference::{Fallback, Inference};
use turret_actors::wire::{Inbox, Wire};
use turret_actors::{groups, inference_worker};
use turret_model::Model;
use turret_retrieval::budget::Budget;
use turret_retrieval::state::{Precision, SequenceState};

use crate::refusals::{embed, embed_ask, forged};
use crate::world::published::{MODEL, history, publish};
use crate::world::{World, alone, ask, looking_at, retrieve, until, until_grown, with_node, with_node_set};

const TASKS: u64 = 8;
const ALL_FALLBACKS: [Fallback; 6] = [
    Fallback::NoWorker,
    Fallback::WorkerOverloaded,
    Fallback::WorkerEnded,
    Fallback::WorkerTimeout,
    Fallback::NotFinite,
    Fallback::WorkerFailed,
];

/// Answers of the node's own head so far, as they are counted.
fn fallbacks(world: &World) -> u64 {
    let counted = |fallback: Fallback| world.metrics.inference_fallback.with_label_values(&[fallback.name()]).get();
    ALL_FALLBACKS.into_iter().map(counted).sum()
}

/// The model of the tests, which is the same wherever it is loaded from.
pub(crate) fn model() -> Arc<Model> {
    let dir = tempfile::TempDir::new().unwrap();
    MODEL.save(dir.path()).unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

#[test]
fn a_killed_worker_costs_no_answer_and_comes_back() {
    with_node(async |world| {
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, felt) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut before = Vec::new();
        for user in 0..TASKS {
            let answer = world.answer(ask(Some(user), 20)).await;
            assert_eq!(answer.inference, Inference::Worker);
            before.push(answer.candidates);
        }
        let mut tasks = JoinSet::new();
        for (user, before) in (0..TASKS).zip(before.clone()) {
            let (retriever, stop) = (world.node.retriever.clone(), stop.clone());
            let (answered, felt) = (answered.clone(), felt.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = retrieve(&retriever, ask(Some(user), 20)).await.expect("every request is answered");
                    assert!(answer.coverage.is_full(), "{:?}", answer.coverage);
                    assert_eq!(answer.candidates, before, "{:?}", answer.inference);
                    match answer.inference {
                        Inference::Worker => answered.fetch_add(1, Ordering::Relaxed),
                        // Nobody waits for a worker that is known to be dead.
                        Inference::LocalHead(Fallback::NoWorker | Fallback::WorkerEnded) => {
                            felt.fetch_add(1, Ordering::Relaxed)
                        }
                        other @ Inference::LocalHead(_) => panic!("an answer of {other:?}"),
                    };
                    tokio::task::yield_now().await;
                }
            });
        }
        let group = groups::inference(&world.generation.manifest.id);
        until_grown("there is load", &answered, 10 * TASKS).await;
        let kills = world.kill_until_felt(&group, &felt).await;
        until_grown("the worker answers again", &answered, 10 * TASKS).await;
        stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;

        assert_eq!(world.restarts("inference_worker"), kills);
        assert_eq!(world.metrics.restarts(), kills, "something else was restarted too");
        assert_eq!(fallbacks(world), felt.load(Ordering::Relaxed));
    });
}

#[test]
fn what_a_full_queue_refuses_the_own_head_answers() {
    let set = |settings: &mut turret_actors::node::NodeSettings| {
        settings.inference.batch_rows_max = 1;
        settings.inference.online_queue_rows_max = 1;
        settings.in_flight_max = 200;
        settings.search_queue = 1_000;
    };
    with_node_set(set, async |world| {
        let before = world.answer(ask(Some(1), 20)).await.candidates;
        let mut refused = 0;
        until("a queue is full", async || {
            let answers = (0..200).map(|_| {
                let retriever = world.node.retriever.clone();
                tokio::spawn(async move { retrieve(&retriever, ask(Some(1), 20)).await })
            });
            for answer in join_all(answers).await {
                let answer = answer.unwrap().expect("every request is answered");
                assert_eq!(answer.candidates, before, "{:?}", answer.inference);
                match answer.inference {
                    Inference::Worker => {}
                    Inference::LocalHead(fallback) => {
                        assert_eq!(fallback, Fallback::WorkerOverloaded);
                        refused += 1;
                    }
                }
            }
            refused > 0
        })
        .await;
        let counted = |reason| world.metrics.inference_refused.with_label_values(&[reason]).get();
        assert_eq!((fallbacks(world), counted("overloaded")), (refused, refused));
        assert_eq!(world.metrics.restarts(), 0);
    });
}

#[test]
fn the_own_head_has_a_bound_of_its_own() {
    alone(async || {
        let dir = tempfile::TempDir::new().unwrap();
        let generation = publish(dir.path(), "g-test", &MODEL).manifest.id.clone();
        let heads = LocalHeads::new(1).unwrap();
        let ask = EmbedAsk {
            generation: generation.clone(),
            state: None,
            context: Some(looking_at(3)),
            demographics: Default::default(),
            compares_without_context: true,
            remaining_us: 0,
        };
        let minute = Duration::from_secs(60);
        assert!(!heads.answers(&generation));
        assert!(matches!(heads.embed(ask.clone(), minute).await, Err(Refusal::OtherVersion { .. })));
        heads.put(generation.clone(), model());
        assert!(heads.answers(&generation));
        assert_eq!(heads.embed(ask.clone(), Duration::ZERO).await, Err(Refusal::Expired));
        let expected = heads.embed(ask.clone(), minute).await.unwrap();
        // Far more at once than could be computed while they are asked for.
        let answers = join_all((0..5_000).map(|_| heads.embed(ask.clone(), minute))).await;
        let refused = answers.iter().filter(|answer| **answer == Err(Refusal::Overloaded)).count();
        let answered = answers.iter().filter(|answer| answer.as_ref() == Ok(&expected)).count();
        assert!(refused > 0 && answered > 0, "{refused} and {answered}");
        assert_eq!(refused + answered, 5_000);
        heads.remove(&generation);
        assert!(!heads.answers(&generation));
    });
}

#[test]
fn the_own_head_and_a_worker_give_one_answer() {
    with_node(async |world| {
        let heads = LocalHeads::new(1).unwrap();
        heads.put(world.generation.manifest.id.clone(), model());
        for user in 0..8 {
            let sequence = MODEL.encode(&[&history(user)]).unwrap().remove(0);
            let sequence = SequenceState::new(&sequence, MODEL.dimension(), Precision::F16).unwrap();
            let state = EncodedHistory::new(MODEL.encoder_version().clone(), sequence);
            let ask = EmbedAsk {
                state: Some(state).filter(|_| user % 4 != 3),
                context: Some(looking_at(user)).filter(|_| user % 2 == 0),
                compares_without_context: true,
                ..embed_ask(world)
            };
            let own = heads.embed(ask.clone(), Duration::from_secs(60)).await.unwrap();
            let other = embed(world, Wire::new(ask)).await.unwrap();
            assert_eq!(own.context_used, other.context_used);
            let vectors = |embedded: Embedded| {
                let QueryEmbedding { vector, without_context, .. } = embedded.query;
                [vector.as_slice(), without_context.unwrap().as_slice()].concat()
            };
            let pairs = vectors(own).into_iter().zip(vectors(other));
            let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off <= 1e-5, "{off}");
        }
    });
}

/// Joins the workers of a generation, before those that are sound, and gives everybody the same answer, or none for ever.
struct Impostor {
    world: String,
    answer: Option<Embedded>,
}

impl Actor for Impostor {
    type Msg = inference_worker::Msg;
    type State = Vec<RpcReplyPort<Wire<Result<Embedded, Refusal>>>>;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        ractor::pg::join(self.world.clone(), vec![myself.get_cell()]);
        Ok(Vec::new())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        silent: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Inbox::Request(InferenceRequest::Embed(_, reply)) = message {
            match &self.answer {
                Some(answer) => drop(reply.send(Wire::new(Ok(answer.clone())))),
                None => silent.push(reply),
            }
        }
        Ok(())
    }
}

/// Asks while an impostor stands before the worker, and then while it stands alone.
async fn beside_an_impostor(world: &World, answer: Option<Embedded>) -> (Inference, Inference) {
    let group = groups::inference(&world.generation.manifest.id);
    let worker = ractor::pg::get_members(&group).remove(0);
    let workers = async |count: usize| {
        until("it is routed to", async || world.node.retriever.table().inference.len() == count).await;
    };
    let impostor = Impostor { world: group.clone(), answer };
    let (actor, ended) = Actor::spawn(Some("impostor@solo".to_owned()), impostor, ()).await.unwrap();
    workers(2).await;
    assert_eq!(world.node.retriever.table().inference[0].get_id(), actor.get_id());
    let in_time = || RetrieveRequest {
        budget: Budget::new(Instant::now().into_std(), Duration::from_secs(3)),
        ..ask(Some(1), 20)
    };
    let before = world.answer(in_time()).await;
    ractor::pg::leave(group.clone(), vec![worker.clone()]);
    workers(1).await;
    let alone = world.answer(in_time()).await;
    assert_eq!(alone.candidates, before.candidates);
    actor.stop(None);
    ended.await.unwrap();
    workers(0).await;
    let nobody = world.answer(in_time()).await;
    assert_eq!(nobody.inference, Inference::LocalHead(Fallback::NoWorker));
    assert_eq!(nobody.candidates, before.candidates);
    ractor::pg::join(group, vec![worker]);
    workers(1).await;
    (before.inference, alone.inference)
}

#[test]
fn who_keeps_silent_or_answers_what_is_no_number_is_passed_over() {
    with_node(async |world| {
        let local = Inference::LocalHead;
        let found = beside_an_impostor(world, None).await;
        assert_eq!(found, (Inference::Worker, local(Fallback::WorkerTimeout)));

        let sound = embed(world, Wire::new(embed_ask(world))).await.unwrap();
        let of = |vector| QueryEmbedding { vector, ..sound.query.clone() };
        let check = async |query: QueryEmbedding, fallback| {
            let found = beside_an_impostor(world, Some(Embedded { query, ..sound.clone() })).await;
            assert_eq!(found, (Inference::Worker, local(fallback)));
        };
        check(of(forged(&[f32::NAN; 16])), Fallback::NotFinite).await;
        let without_context = Some(forged(&[f32::INFINITY; 16]));
        check(QueryEmbedding { without_context, ..sound.query.clone() }, Fallback::NotFinite).await;
        check(of(forged(&[0.5; 8])), Fallback::WorkerFailed).await;
        let generation = turret_retrieval::ids::GenerationId::new("g-other").unwrap();
        check(QueryEmbedding { generation, ..sound.query.clone() }, Fallback::WorkerFailed).await;
        assert_eq!(fallbacks(world), 10, "two of each impostor");
        assert_eq!(world.metrics.restarts(), 0);
    });
}
