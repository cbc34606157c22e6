//! Messages that an actor must not act upon: of another generation, or not messages at all.

use ractor::rpc::CallResult;
use ractor::{ActorRef, BytesConvertable, Message, RpcReplyPort};
use turret_actors::protocol::{
    AdminRequest, ENCODE_ROWS_MAX, EmbedAsk, Embedded, EncodeAsk, EncodedHistory, IndexRequest, InferenceRequest,
    QueryEmbedding, RefreshPageAsk, RefreshUsersAsk, Refusal, SearchAsk, SearchReply, UserRequest, ViewAsk, WriteAsk,
};
use turret_actors::wire::{Inbox, WIRE_VERSION, Wire};
use turret_actors::{admin, groups};
use turret_retrieval::ids::{EncoderVersion, GenerationId, UserId};
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::topk::K_MAX;
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::UnitVector;

use crate::world::published::MODEL;
use crate::world::{World, ask, with_node};

type Port<T> = RpcReplyPort<Wire<Result<T, Refusal>>>;

/// What `actor` answers to a request.
async fn call<R: Message, L: Send + 'static, T: Send + 'static>(
    actor: &ActorRef<Inbox<R, L>>,
    request: impl FnOnce(Port<T>) -> R,
) -> Result<T, Refusal>
where
    Wire<Result<T, Refusal>>: BytesConvertable,
{
    match actor.call(|reply| Inbox::Request(request(reply)), None).await.unwrap() {
        CallResult::Success(answer) => answer.open().unwrap(),
        CallResult::Timeout | CallResult::SenderError => panic!("a request was not answered"),
    }
}

fn search_ask(world: &World) -> SearchAsk {
    SearchAsk {
        query: query(world, direction(MODEL.dimension())),
        k: 5,
        filter: None,
        crowding: None,
        exact: false,
        remaining_us: 5_000_000,
    }
}

fn query(world: &World, vector: UnitVector) -> QueryEmbedding {
    QueryEmbedding { generation: world.generation.manifest.id.clone(), vector, without_context: None }
}

/// A query of nobody.
pub(crate) fn embed_ask(world: &World) -> EmbedAsk {
    EmbedAsk {
        generation: world.generation.manifest.id.clone(),
        state: None,
        context: None,
        demographics: Demographics::default(),
        compares_without_context: false,
        remaining_us: 5_000_000,
    }
}

/// Of empty histories.
pub(crate) fn encode_ask(encoder: EncoderVersion, histories: usize) -> EncodeAsk {
    EncodeAsk { encoder, histories: vec![vec![]; histories], precision: Precision::Int8, remaining_us: 5_000_000 }
}

fn direction(dimension: usize) -> UnitVector {
    UnitVector::normalize((1..=dimension).map(|x| x as f32).collect()).unwrap()
}

/// A vector that nobody here makes, as it would come over the wire.
pub(crate) fn forged(components: &[f32]) -> UnitVector {
    postcard::from_bytes(&postcard::to_stdvec(components).unwrap()).unwrap()
}

async fn search(world: &World, ask: Wire<SearchAsk>) -> Result<SearchReply, Refusal> {
    call(&world.node.retriever.table().shards[0][0], |reply| IndexRequest::Search(ask, reply)).await
}

/// What the first worker answers.
pub(crate) async fn embed(world: &World, ask: Wire<EmbedAsk>) -> Result<Embedded, Refusal> {
    call(&world.node.retriever.table().inference[0], |reply| InferenceRequest::Embed(ask, reply)).await
}

pub(crate) async fn encode(world: &World, ask: Wire<EncodeAsk>) -> Result<Vec<Option<SequenceState>>, Refusal> {
    let encode = |reply| InferenceRequest::Encode(ask, reply);
    call(&world.node.retriever.table().inference[0], encode).await.map(|encoded| encoded.states)
}

/// Nothing was restarted, and the node answers as ever.
async fn is_unharmed(world: &World) {
    let answer = world.answer(ask(Some(1), 5)).await;
    assert!(answer.coverage.is_full());
    assert_eq!(answer.user_state.reason, None);
    assert_eq!(world.metrics.restarts(), 0);
}

#[test]
fn a_query_of_another_generation_is_refused() {
    with_node(async |world| {
        let other = GenerationId::new("g-other").unwrap();
        let (serving, asked) = (world.generation.manifest.id.to_string(), other.to_string());
        let refusal = Refusal::OtherVersion { serving, asked };
        let query = QueryEmbedding { generation: other.clone(), ..query(world, direction(MODEL.dimension())) };
        let searched = search(world, Wire::new(SearchAsk { query, ..search_ask(world) })).await;
        assert_eq!(searched, Err(refusal.clone()));
        let embedded = embed(world, Wire::new(EmbedAsk { generation: other, ..embed_ask(world) })).await;
        assert_eq!(embedded, Err(refusal));

        let encoder = EncoderVersion::new("enc-other").unwrap();
        let refusal =
            Refusal::OtherVersion { serving: MODEL.encoder_version().to_string(), asked: encoder.to_string() };
        assert_eq!(encode(world, Wire::new(encode_ask(encoder, 0))).await, Err(refusal));

        assert!(search(world, Wire::new(search_ask(world))).await.is_ok());
        assert!(embed(world, Wire::new(embed_ask(world))).await.is_ok());
        is_unharmed(world).await;
    });
}

#[test]
fn bytes_that_are_no_message_are_refused_and_counted() {
    with_node(async |world| {
        let table = world.node.retriever.table();
        let partition = &table.partitions[0][0];
        let admin = ractor::pg::get_members(&groups::admin(world.node.name())).remove(0);
        let admin: ActorRef<admin::Msg> = admin.into();
        let garbage: [&[u8]; 4] = [&[], &[WIRE_VERSION], &[WIRE_VERSION, 0xff, 0xff, 0xff], &[WIRE_VERSION + 1, 0]];
        fn unreadable<T: std::fmt::Debug>(answer: Result<T, Refusal>) {
            assert!(matches!(answer, Err(Refusal::Unreadable(_))), "{answer:?}");
        }
        for bytes in garbage.map(<[u8]>::to_vec) {
            unreadable(search(world, Wire::from_bytes(bytes.clone())).await);
            unreadable(embed(world, Wire::from_bytes(bytes.clone())).await);
            unreadable(encode(world, Wire::from_bytes(bytes.clone())).await);
            // An empty message is nothing but the version; with a byte more it is none.
            let refresh = Wire::<()>::from_bytes([&bytes[..], &[0]].concat());
            unreadable(call(&admin, |reply| AdminRequest::Refresh(refresh, reply)).await);
            let view = Wire::<ViewAsk>::from_bytes(bytes.clone());
            unreadable(call(partition, |reply| UserRequest::View(view, reply)).await);
            let write = Wire::<WriteAsk>::from_bytes(bytes.clone());
            unreadable(call(partition, |reply| UserRequest::Write(write, reply)).await);
            let user = Wire::<UserId>::from_bytes(bytes.clone());
            unreadable(call(partition, |reply| UserRequest::Profile(user, reply)).await);
            let user = Wire::<UserId>::from_bytes(bytes.clone());
            unreadable(call(partition, |reply| UserRequest::Traces(user, reply)).await);
            let page = Wire::<RefreshPageAsk>::from_bytes(bytes.clone());
            unreadable(call(partition, |reply| UserRequest::RefreshPage(page, reply)).await);
            let users = Wire::<RefreshUsersAsk>::from_bytes(bytes.clone());
            unreadable(call(partition, |reply| UserRequest::RefreshUsers(users, reply)).await);
            let import = Wire::<GenerationId>::from_bytes(bytes.clone());
            unreadable(call(partition, |reply| UserRequest::Import(import, reply)).await);
            let publish = Wire::<GenerationId>::from_bytes(bytes);
            unreadable(call(&admin, |reply| AdminRequest::Publish(publish, reply)).await);
        }
        for (reason, kinds) in [("admin", 2), ("index", 1), ("inference", 2), ("users", 7)] {
            let counted = world.metrics.wire_rejected.with_label_values(&[reason]).get();
            assert_eq!(counted, kinds * garbage.len() as u64, "{reason}");
        }
        let status = world.status().await;
        assert_eq!(status.refresh.unwrap().run, 0, "a refresh was started by garbage");
        assert_eq!(status.rollout.unwrap().plan, None, "a publication was started by garbage");
        is_unharmed(world).await;
    });
}

#[test]
fn a_search_that_breaks_a_rule_is_refused_with_the_rule() {
    with_node(async |world| {
        let check = async |ask: SearchAsk, rule: &str| match search(world, Wire::new(ask)).await {
            Err(Refusal::Failed(why)) => assert!(why.contains(rule), "`{rule}` is not in `{why}`"),
            other => panic!("{rule}: {other:?}"),
        };
        let sound = search_ask(world);
        let (zero, many) = (SearchAsk { k: 0, ..sound.clone() }, SearchAsk { k: K_MAX as u32 + 1, ..sound.clone() });
        check(zero, "k 0 is not in").await;
        check(many, "k 2001 is not in").await;
        let of = |vector| SearchAsk { query: query(world, vector), ..sound.clone() };
        check(of(direction(MODEL.dimension() + 1)), "dimension 17 where 16 is expected").await;
        check(of(forged(&[0.0; 16])), "length is zero").await;
        check(of(forged(&[f32::NAN; 16])), "component 0 is not finite").await;
        check(of(forged(&[])), "dimension 0 where 16 is expected").await;
        let without_context = Some(forged(&[f32::NAN; 16]));
        let beside = SearchAsk { query: QueryEmbedding { without_context, ..sound.query.clone() }, ..sound.clone() };
        check(beside, "baseline: component 0 is not finite").await;
        let late = search(world, Wire::new(SearchAsk { remaining_us: 0, ..sound })).await;
        assert_eq!(late, Err(Refusal::Expired));
        is_unharmed(world).await;
    });
}

#[test]
fn a_state_that_is_none_is_refused_and_harms_no_other_row() {
    with_node(async |world| {
        let of_encoder = |encoder: &EncoderVersion, sequence| {
            let state = Some(EncodedHistory::new(encoder.clone(), sequence));
            EmbedAsk { state, ..embed_ask(world) }
        };
        let check = async |state: SequenceState, rule: &str| {
            let bad = embed(world, Wire::new(of_encoder(MODEL.encoder_version(), state)));
            let good = embed(world, Wire::new(embed_ask(world)));
            let (bad, good) = futures_util::future::join(bad, good).await;
            assert!(good.is_ok(), "{good:?}");
            match bad {
                Err(Refusal::Failed(why)) => assert!(why.contains(rule), "`{rule}` is not in `{why}`"),
                other => panic!("{rule}: {other:?}"),
            }
        };
        // One row more than the model has.
        let of = |dimension| SequenceState::new(&[0.5; 21 * 16], dimension, Precision::F16).unwrap();
        check(of(8), "rows of 8 values where 16 are expected").await;
        check(of(42), "rows of 42 values where 16 are expected").await;
        check(of(16), "a state of 336 values where 20 x 16 at most").await;
        // Nobody here makes it, but it may come over the wire.
        let none = SequenceState::from_bytes([0xff; 64].into(), 16, Precision::F32).unwrap();
        check(none, "is not finite").await;

        let (encoder, other) = (MODEL.encoder_version().clone(), EncoderVersion::new("enc-other").unwrap());
        let sound = SequenceState::new(&[0.5; 16], 16, Precision::F16).unwrap();
        let old = embed(world, Wire::new(of_encoder(&other, sound.clone()))).await;
        let (serving, asked) = (encoder.to_string(), other.to_string());
        assert_eq!(old, Err(Refusal::OtherVersion { serving, asked }), "an old state in a new head");
        assert!(embed(world, Wire::new(of_encoder(&encoder, sound))).await.is_ok());
        let many = encode(world, Wire::new(encode_ask(encoder.clone(), ENCODE_ROWS_MAX + 1))).await;
        assert_eq!(many, Err(Refusal::Failed("257 histories, the limit is 256".to_owned())));
        let empty = encode(world, Wire::new(encode_ask(encoder.clone(), ENCODE_ROWS_MAX))).await;
        assert_eq!(empty, Ok(vec![None; ENCODE_ROWS_MAX]));
        let expired = || world.metrics.inference_refused.with_label_values(&["expired"]).get();
        let late = encode(world, Wire::new(EncodeAsk { remaining_us: 0, ..encode_ask(encoder, 1) })).await;
        assert_eq!((late, expired()), (Err(Refusal::Expired), 1));
        let late = embed(world, Wire::new(EmbedAsk { remaining_us: 0, ..embed_ask(world) })).await;
        assert_eq!(late, Err(Refusal::Expired));
        is_unharmed(world).await;
    });
}

#[test]
fn an_unknown_user_is_an_answer_of_its_own() {
    with_node(async |world| {
        let table = world.node.retriever.table();
        let ask = ViewAsk { user: UserId::new("nobody").unwrap(), encoder: MODEL.encoder_version().clone() };
        for partition in table.partitions.iter().flatten() {
            let view = Wire::new(ask.clone());
            assert_eq!(call(partition, |reply| UserRequest::View(view, reply)).await, Ok(None));
        }
        is_unharmed(world).await;
    });
}
