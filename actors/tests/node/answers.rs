//! What a sound node answers.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use ractor::ActorRef;
use ractor::rpc::CallResult;
use turret_actors::protocol::{UserRequest, UserView, ViewAsk};
use turret_actors::retrieve::RetrieveRequest;
use turret_actors::user_partition;
use turret_actors::wire::{Inbox, Wire};
use turret_model::HeadInput;
use turret_retrieval::context::Context;
use turret_retrieval::filter::Filter;
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::{AdId, UserId};
use turret_retrieval::item::{Ad, Item};
use turret_retrieval::tier::{History, Tier};
use turret_retrieval::topk::Hit;
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::{UnitVector, dot};

use crate::world::published::{ADS, DATASET, MODEL, PARTITIONS, SHARDS, USERS};
use crate::world::{World, ask, looking_at, with_node};

/// Sums of few numbers near 1, in another order.
const TOLERANCE: f32 = 1e-4;

/// What is stored of a user, asked of the partition itself.
pub(crate) async fn view(world: &World, user: u64) -> Option<UserView> {
    let user = UserId::from(user);
    let table = world.node.retriever.table();
    let partition = partition_of(&user, PARTITIONS);
    let holder: &ActorRef<user_partition::Msg> = &table.partitions[partition.0 as usize][0];
    let ask = ViewAsk { user, encoder: MODEL.encoder_version().clone() };
    let message = |reply| -> user_partition::Msg { Inbox::Request(UserRequest::View(Wire::new(ask), reply)) };
    match holder.call(message, None).await.unwrap() {
        CallResult::Success(answer) => answer.open().unwrap().unwrap(),
        CallResult::Timeout | CallResult::SenderError => panic!("a view was not answered"),
    }
}

/// Every ad with the score that the model gives it, best first.
async fn ranking(world: &World, user: u64, context: Option<&Context>) -> Vec<Hit> {
    let view = view(world, user).await.unwrap();
    let state = view.state.as_ref().map(|state| state.history.sequence_of(MODEL.encoder_version()).unwrap().values());
    let query = HeadInput { state: state.as_deref(), context, demographics: &view.demographics };
    let query = MODEL.embed_queries(&[query]).unwrap().remove(0);
    let items: Vec<&Item> = DATASET.items.iter().collect();
    let score =
        |(ad, item): (&Ad, &UnitVector)| Hit { ad: ad.id.clone(), score: dot(query.as_slice(), item.as_slice()) };
    let mut hits: Vec<Hit> = DATASET.ads.iter().zip(&MODEL.embed_items(&items).unwrap()).map(score).collect();
    hits.sort();
    hits
}

#[test]
fn an_answer_is_what_the_model_says() {
    with_node(async |world| {
        for (user, item) in [(0, None), (17, Some(30)), (58, Some(199)), (USERS - 1, None), (USERS - 1, Some(3))] {
            let context = item.map(looking_at);
            let expected = ranking(world, user, context.as_ref()).await;
            for k in [1, 10, ADS as usize] {
                let mut request = ask(Some(user), k);
                request.context.clone_from(&context);
                let answer = world.answer(request).await;
                assert_eq!(answer.candidates.len(), k);
                assert!(answer.candidates.is_sorted_by(|a, b| a.hit < b.hit), "not in order, or an ad twice");
                for (candidate, expected) in answer.candidates.iter().zip(&expected) {
                    let off = (candidate.hit.score - expected.score).abs();
                    assert!(off < TOLERANCE, "user {user} k {k}: {candidate:?} where {expected:?} is expected");
                }
                assert!(answer.coverage.is_full());
                assert_eq!(answer.coverage.shards.asked, SHARDS);
                assert_eq!(answer.coverage.documents, 1.0);
                assert_eq!(answer.coverage.reasons, [] as [&str; 0]);
            }
        }
    });
}

#[test]
fn a_score_without_context_is_what_the_model_says_without_it() {
    with_node(async |world| {
        for (user, item) in [(17, Some(30)), (USERS - 1, Some(3)), (17, None), (17, Some(ADS))] {
            let bare: BTreeMap<AdId, f32> =
                ranking(world, user, None).await.into_iter().map(|hit| (hit.ad, hit.score)).collect();
            let mut request = RetrieveRequest { context: item.map(looking_at), ..ask(Some(user), 50) };
            let plain = world.answer(request.clone()).await.candidates;
            assert!(plain.iter().all(|candidate| candidate.score_without_context.is_none()), "nobody asked");
            request.compares_without_context = true;
            let answer = world.answer(request).await;
            let mut changed = 0;
            for (candidate, plain) in answer.candidates.iter().zip(&plain) {
                assert_eq!(candidate.hit.ad, plain.hit.ad, "the comparison decides nothing");
                let without = candidate.score_without_context.expect("it was asked");
                assert!((without - bare[&candidate.hit.ad]).abs() < TOLERANCE, "user {user}: {candidate:?}");
                changed += u32::from((without - candidate.hit.score).abs() > TOLERANCE);
            }
            // An unknown item is no context.
            assert_eq!(changed > 0, answer.user_state.context_used, "user {user} looking at {item:?}");
        }
    });
}

#[test]
fn a_search_query_is_a_context() {
    with_node(async |world| {
        // Interests are called 0 to 7, and queries are trained with their names.
        for (query, is_known) in [("5", true), ("7, please", true), ("zzz", false), ("", false)] {
            let context = Context { subject: None, query: Some(query.to_owned()) };
            for (user, without) in [(17, Tier::Fresh), (USERS - 1, Tier::Demographic)] {
                let expected = ranking(world, user, Some(&context)).await;
                let answer =
                    world.answer(RetrieveRequest { context: Some(context.clone()), ..ask(Some(user), 9) }).await;
                let tier = if is_known && without == Tier::Demographic { Tier::ContextOnly } else { without };
                assert_eq!((answer.user_state.context_used, answer.user_state.tier), (is_known, tier), "`{query}`");
                for (candidate, expected) in answer.candidates.iter().zip(&expected) {
                    assert!((candidate.hit.score - expected.score).abs() < TOLERANCE, "`{query}`: {candidate:?}");
                }
            }
        }
    });
}

#[test]
fn the_tier_says_what_was_known() {
    with_node(async |world| {
        let check = async |user: Option<u64>, item: Option<u64>, tier: Tier, history: History| {
            let mut request = ask(user, 5);
            request.context = item.map(looking_at);
            let state = world.answer(request).await.user_state;
            assert_eq!((state.tier, state.history), (tier, history), "user {user:?} looking at {item:?}");
            assert_eq!(state.context_used, item.is_some_and(|item| item < ADS));
            assert_eq!(state.encoder.is_some(), history != History::None);
            assert_eq!(state.reason, None);
        };
        check(Some(3), None, Tier::Fresh, History::Fresh).await;
        check(Some(3), Some(8), Tier::Fresh, History::Fresh).await;
        check(Some(USERS - 1), None, Tier::Demographic, History::None).await;
        check(Some(USERS - 1), Some(8), Tier::ContextOnly, History::None).await;
        check(Some(USERS), None, Tier::Cold, History::None).await;
        check(Some(USERS), Some(ADS), Tier::Cold, History::None).await;
        check(None, None, Tier::Cold, History::None).await;

        let mut request = ask(Some(USERS), 5);
        request.demographics = Demographics { country: Some("BR".into()), ..Demographics::default() };
        assert_eq!(world.answer(request).await.user_state.tier, Tier::Demographic);
    });
}

#[test]
fn a_state_older_than_the_caller_allows_is_not_used() {
    with_node(async |world| {
        let mut request = ask(Some(3), 5);
        request.max_state_age_ms = Some(-1);
        let state = world.answer(request).await.user_state;
        assert_eq!((state.history, state.tier), (History::None, Tier::Demographic));
        assert_eq!((state.reason, state.age_ms), (Some("state_too_old"), None));
        let mut request = ask(Some(3), 5);
        request.max_state_age_ms = Some(86_400_000);
        assert_eq!(world.answer(request).await.user_state.history, History::Fresh);
    });
}

#[test]
fn a_request_that_its_caller_gives_up_counts_as_failed_and_one_that_was_not_asked_for_nothing() {
    with_node(async |world| {
        let retriever = &world.node.retriever;
        let counts = || retriever.table().tally.counts();
        drop(retriever.pin());
        assert_eq!(counts().requests, 0);
        assert!(retriever.retrieve(retriever.pin(), ask(Some(3), 5)).now_or_never().is_none());
        assert_eq!((counts().requests, counts().failed, retriever.table().tally.running()), (1, 1, 0));
        world.answer(ask(Some(3), 5)).await;
        assert_eq!((counts().requests, counts().failed), (2, 1));
    });
}

#[test]
fn an_answer_that_a_filter_exhausts_says_so() {
    with_node(async |world| {
        let of_advertiser = |name: &str| Filter::AnyOf { field: "advertiser_id".into(), values: vec![name.into()] };
        let mut request = ask(Some(3), ADS as usize);
        request.filter = Some(of_advertiser("adv2"));
        let answer = world.answer(request).await;
        assert!(answer.exhausted);
        assert_eq!(answer.candidates.len() as u64, ADS / 5);
        assert!(answer.candidates.iter().all(|candidate| candidate.advertiser.as_deref() == Some("adv2")));

        let mut request = ask(Some(3), 7);
        request.filter = Some(of_advertiser("adv2"));
        let answer = world.answer(request).await;
        assert_eq!((answer.candidates.len(), answer.exhausted), (7, false));

        let mut request = ask(Some(3), 7);
        request.filter = Some(of_advertiser("nobody"));
        let answer = world.answer(request).await;
        assert_eq!((answer.candidates.len(), answer.exhausted), (0, true));
        assert!(answer.coverage.is_full());
    });
}
