//! The bytes of every message and reply of the current wire version, committed.
//!
//! Peers of the same version must agree on every byte, and postcard does not describe itself. So where one of these
//! fails, a layout has changed: raise `WIRE_VERSION`, then take the new bytes over from the failure.

use std::fmt::Debug;

use ractor::message::SerializedMessage;
use ractor::{BytesConvertable, Message, RpcReplyPort};
use serde::Serialize;
use serde::de::DeserializeOwned;
use turret_actors::protocol::{
    AdminRequest, EmbedAsk, Embedded, EncodeAsk, IndexRequest, InferenceRequest, NodeStatus, RefreshPageAsk,
    RefreshStarted, RefreshStatus, RefreshedPage, Refusal, SearchAsk, SearchReply, StateView, Trace, UserRequest,
    UserView, ViewAsk, WriteAsk, WriteReply,
};
use turret_actors::wire::{WIRE_VERSION, Wire, WireError};
use turret_index::{FoundAd, Plan};
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::filter::{End, Filter, NumberRange};
use turret_retrieval::ids::{AdId, EncoderVersion, EventId, GenerationId, InterestId, ItemId, NodeName, UserId};
use turret_retrieval::item::Interest;
use turret_retrieval::revision::Revision;
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::topk::Hit;
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::UnitVector;
use turret_store::{Appended, Change, Erasure, ErasureMark, Profile, StateProfile, Write, Written};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Holds `value` to its bytes, and every damaged form of them to an error value.
fn golden<T: Clone + Debug + PartialEq + Serialize + DeserializeOwned>(value: T, expected: &str) {
    let bytes = Wire::new(value.clone()).into_bytes();
    assert_eq!(hex(&bytes), expected, "{value:?}");
    let read = |bytes: Vec<u8>| Wire::<T>::from_bytes(bytes).open();
    assert_eq!(read(bytes.clone()), Ok(value));

    for end in 0..bytes.len() {
        assert_eq!(read(bytes[..end].to_vec()), Err(WireError::Malformed), "the first {end} bytes of {expected}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(read(longer), Err(WireError::Malformed), "a byte behind {expected}");
    for version in (0..=u8::MAX).filter(|version| *version != WIRE_VERSION) {
        let mut other = bytes.clone();
        other[0] = version;
        assert_eq!(read(other), Err(WireError::Version { found: version }));
    }
    // Any byte may arrive as any other; what matters is that something comes back.
    for at in 1..bytes.len() {
        for damage in [0x00, 0x7f, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = damage;
            drop(read(damaged));
        }
    }
}

fn user() -> UserId {
    UserId::new("u1").expect("an id")
}

fn generation() -> GenerationId {
    GenerationId::new("g-2026-11-23.2").expect("an id")
}

fn encoder() -> EncoderVersion {
    EncoderVersion::new("enc-41").expect("an id")
}

fn node() -> NodeName {
    NodeName::new("a").expect("an id")
}

fn vector() -> UnitVector {
    UnitVector::normalize(vec![0.0, -1.0]).expect("it has a direction")
}

fn sequence(precision: Precision) -> SequenceState {
    SequenceState::new(&[0.5, -2.0], 2, precision).expect("a state")
}

fn events() -> Vec<Event> {
    let event = |item: &str, event_type, timestamp_ms, event_id: Option<&str>| Event {
        item_id: ItemId::new(item).expect("an id"),
        event_type,
        timestamp_ms,
        event_id: event_id.map(|id| EventId::new(id).expect("an id")),
    };
    vec![
        event("i1", EventType::View, 1_767_571_200_000, Some("e1")),
        event("i2", EventType::AddToCart, -1, None),
        event("i3", EventType::Checkout, 0, None),
        event("i4", EventType::Signup, 1, None),
    ]
}

fn demographics() -> Demographics {
    Demographics { age: Some(29), country: Some("US".into()), gender: None }
}

/// Every kind of condition.
fn filter() -> Filter {
    let range = NumberRange { low: Some((18.0, End::Included)), high: Some((65.5, End::Excluded)) };
    Filter::And(vec![
        Filter::AnyOf { field: "status".into(), values: vec!["active".into()] },
        Filter::Not(Box::new(Filter::Or(vec![Filter::Between { field: "min_age".into(), range }]))),
    ])
}

#[test]
fn the_version_is_the_one_that_the_bytes_are_of() {
    assert_eq!(WIRE_VERSION, 4, "take the bytes of the new version over, then raise this");
}

#[test]
fn messages_of_the_index() {
    let ask = |filter| SearchAsk {
        generation: generation(),
        vector: vector(),
        without_context: None,
        k: 200,
        filter,
        remaining_us: 25_000,
    };
    golden(ask(None), "040e672d323032362d31312d32332e320200000000000080bf00c80100a8c301");
    golden(
        SearchAsk { without_context: Some(vector()), ..ask(None) },
        "040e672d323032362d31312d32332e320200000000000080bf010200000000000080bfc80100a8c301",
    );
    golden(
        ask(Some(filter())),
        "040e672d323032362d31312d32332e320200000000000080bf00c8010100020306737461747573010661637469766502010104076d696e5f6167650100000000000032400001000000000060504001a8c301",
    );
    let hit = |ad: &str, score| Hit { ad: AdId::new(ad).expect("an id"), score };
    let found = |hit, advertiser: Option<&str>, baseline_score| FoundAd {
        hit,
        advertiser: advertiser.map(Into::into),
        baseline_score,
    };
    let reply = |plan, selectivity| {
        let ads = vec![found(hit("ad901", 0.8125), Some("adv12"), Some(0.5)), found(hit("7", -0.5), None, None)];
        Ok::<_, Refusal>(SearchReply { ads, exhausted: true, plan, selectivity })
    };
    golden(reply(Plan::Exact, None), "0400020561643930310000503f01056164763132010000003f0137000000bf0000010000");
    golden(
        reply(Plan::ExactPostings, Some(0.25)),
        "0400020561643930310000503f01056164763132010000003f0137000000bf0000010101000000000000d03f",
    );
    golden(
        reply(Plan::InGraph, Some(0.5)),
        "0400020561643930310000503f01056164763132010000003f0137000000bf0000010201000000000000e03f",
    );
    golden(reply(Plan::Graph, None), "0400020561643930310000503f01056164763132010000003f0137000000bf0000010300");
}

#[test]
fn messages_of_the_user_partitions() {
    golden(ViewAsk { user: user(), encoder: encoder() }, "0402753106656e632d3431");
    let view = |state| Ok::<_, Refusal>(Some(UserView { demographics: demographics(), state }));
    let state = StateView { sequence: sequence(Precision::F16), made_at_ms: 1_767_571_200_000, is_current: true };
    golden(Ok::<Option<UserView>, Refusal>(None), "040000");
    golden(view(None), "040001011d010255530000");
    golden(view(Some(state)), "040001011d010255530001020104003800c080e0a0b7f16601");
    let write = |change| WriteAsk { writes: vec![Write { user: user(), change }] };
    golden(
        write(Change::Append(events())),
        "040102753100040269310080e0a0b7f16601026531026932010100026933020000026934030200",
    );
    golden(write(Change::Describe(demographics())), "040102753101011d0102555300");
    golden(write(Change::Erase), "040102753102");
    let erasure = Erasure {
        revision: Revision::from_bits(300),
        watermark_ms: 5,
        events: 2,
        states: vec![encoder()],
        demographics: true,
    };
    let outcomes = vec![
        Ok(Written::Appended(Appended { added: 300, known: 2, dropped: 1, erased: 0 })),
        Ok(Written::Described(Revision::from_bits(300))),
        Ok(Written::Erased(erasure)),
        Err(Refusal::Overloaded),
    ];
    golden(Ok::<_, Refusal>(WriteReply { outcomes }), "0400040000ac020201000001ac020002ac020a020106656e632d3431010102");
    golden(Ok::<Option<Profile>, Refusal>(None), "040000");
    let profile = Profile {
        demographics: demographics(),
        events: 3,
        oldest_ms: Some(1),
        latest_ms: None,
        states: vec![StateProfile { encoder: encoder(), made_at_ms: 2, is_current: true, bytes: 128 }],
        erased: Some(ErasureMark { at_ms: 3, watermark_ms: 4 }),
    };
    golden(Ok::<_, Refusal>(Some(profile)), "040001011d0102555300030102000106656e632d343104018001010608");
    let trace = Trace { generation: generation(), published_at_ms: 1 };
    golden(Ok::<_, Refusal>(vec![trace]), "0400010e672d323032362d31312d32332e3202");
    golden(Ok::<u64, Refusal>(300), "0400ac02");
    golden(RefreshPageAsk { after: None, users_max: 16 }, "040010");
    golden(RefreshPageAsk { after: Some(user()), users_max: 16 }, "040102753110");
    golden(Ok::<_, Refusal>(RefreshedPage { refreshed: 16, next: Some(user()) }), "04001001027531");
    golden(Ok::<_, Refusal>(RefreshedPage { refreshed: 0, next: None }), "04000000");
}

#[test]
fn messages_of_the_inference_workers() {
    let interest = Interest { id: InterestId::new("style/vintage").expect("an id"), confidence: 0.75 };
    let subject = Subject { item_id: Some(ItemId::new("pin5521").expect("an id")), interests: vec![interest] };
    let ask = |state, context| EmbedAsk {
        generation: generation(),
        state,
        context,
        demographics: demographics(),
        compares_without_context: true,
        remaining_us: 25_000,
    };
    golden(ask(None, None), "040e672d323032362d31312d32332e320000011d010255530001a8c301");
    golden(
        ask(Some(sequence(Precision::F32)), Some(Context { subject: Some(subject), query: None })),
        "040e672d323032362d31312d32332e32010200080000003f000000c00101010770696e35353231010d7374796c652f76696e746167650000403f00011d010255530001a8c301",
    );
    golden(
        ask(None, Some(Context { subject: None, query: Some("armchair".to_owned()) })),
        "040e672d323032362d31312d32332e32000100010861726d6368616972011d010255530001a8c301",
    );
    let embedded =
        |without_context| Ok::<_, Refusal>(Embedded { vector: vector(), without_context, context_used: true });
    golden(embedded(None), "04000200000000000080bf0001");
    golden(embedded(Some(vector())), "04000200000000000080bf010200000000000080bf01");
    golden(
        EncodeAsk { encoder: encoder(), histories: vec![events(), vec![]], precision: Precision::Int8 },
        "0406656e632d343102040269310080e0a0b7f166010265310269320101000269330200000269340302000002",
    );
    golden(Ok::<_, Refusal>(vec![Some(sequence(Precision::Int8)), None]), "040002010202060402813c208100");
}

#[test]
fn messages_of_the_admin_actors() {
    golden((), "04");
    golden(node(), "040161");
    let status = |refresh| NodeStatus {
        node: node(),
        generation: generation(),
        ready: true,
        restarts: 300,
        shards: vec![0, 3],
        partitions: vec![1],
        refresh,
    };
    golden(status(None), "0401610e672d323032362d31312d32332e3201ac02020003010100");
    let refresh = RefreshStatus {
        run: 2,
        running: true,
        started_at_ms: 1,
        ended_at_ms: None,
        users_dirty: Some(300),
        users_refreshed: 1_000,
        partitions_done: 3,
        partitions_failed: 1,
        partitions: 4,
    };
    golden(status(Some(refresh)), "0401610e672d323032362d31312d32332e3201ac020200030101010201020001ac02e807030104");
    golden(Ok::<_, Refusal>(RefreshStarted { run: 2, started: false }), "04000200");
}

#[test]
fn every_refusal() {
    let refused = |refusal: Refusal| Err::<(), _>(refusal);
    golden(refused(Refusal::Unreadable("malformed message".to_owned())), "040100116d616c666f726d6564206d657373616765");
    golden(
        refused(Refusal::OtherVersion { serving: "g-1".to_owned(), asked: "g-2".to_owned() }),
        "04010103672d3103672d32",
    );
    golden(refused(Refusal::Overloaded), "040102");
    golden(refused(Refusal::Expired), "040103");
    golden(refused(Refusal::Starting), "040104");
    golden(refused(Refusal::Failed("why".to_owned())), "04010503776879");
}

/// How a request reaches a peer: the name of its variant, and its arguments, each with its length before it.
fn framed<M: Message>(request: M) -> (String, String) {
    match request.serialize() {
        Ok(SerializedMessage::Call { variant, args, .. }) => (variant, hex(&args)),
        Ok(SerializedMessage::Cast { .. } | SerializedMessage::CallReply(..)) => {
            panic!("a request waits for its reply")
        }
        Err(_) => panic!("a request crosses nodes"),
    }
}

fn port<T: Send + 'static>() -> RpcReplyPort<T> {
    ractor::concurrency::oneshot().0.into()
}

#[tokio::test]
async fn requests_are_framed_by_the_name_of_their_variant() {
    let check = |found: (String, String), variant: &str, args: &str| {
        assert_eq!(found, (variant.to_owned(), args.to_owned()));
    };
    let refresh = RefreshPageAsk { after: None, users_max: 16 };
    check(framed(AdminRequest::Ping(Wire::new(()), port())), "Ping", "000000000000000104");
    check(framed(AdminRequest::Status(Wire::new(()), port())), "Status", "000000000000000104");
    check(framed(AdminRequest::Refresh(Wire::new(()), port())), "Refresh", "000000000000000104");
    check(framed(UserRequest::RefreshPage(Wire::new(refresh), port())), "RefreshPage", "0000000000000003040010");
    let view = ViewAsk { user: user(), encoder: encoder() };
    check(framed(UserRequest::View(Wire::new(view), port())), "View", "000000000000000b0402753106656e632d3431");
    check(framed(UserRequest::CountDirty(Wire::new(()), port())), "CountDirty", "000000000000000104");
    let write = WriteAsk { writes: vec![] };
    check(framed(UserRequest::Write(Wire::new(write), port())), "Write", "00000000000000020400");
    check(framed(UserRequest::Profile(Wire::new(user()), port())), "Profile", "000000000000000404027531");
    check(framed(UserRequest::Traces(Wire::new(user()), port())), "Traces", "000000000000000404027531");
    let encode = EncodeAsk { encoder: encoder(), histories: vec![], precision: Precision::F32 };
    check(
        framed(InferenceRequest::Encode(Wire::new(encode), port())),
        "Encode",
        "000000000000000a0406656e632d34310000",
    );
    let embed = EmbedAsk {
        generation: generation(),
        state: None,
        context: None,
        demographics: Demographics::default(),
        compares_without_context: false,
        remaining_us: 1,
    };
    check(
        framed(InferenceRequest::Embed(Wire::new(embed), port())),
        "Embed",
        "0000000000000017040e672d323032362d31312d32332e3200000000000001",
    );
    let search = SearchAsk {
        generation: generation(),
        vector: vector(),
        without_context: None,
        k: 1,
        filter: None,
        remaining_us: 1,
    };
    check(
        framed(IndexRequest::Search(Wire::new(search), port())),
        "Search",
        "000000000000001d040e672d323032362d31312d32332e320200000000000080bf00010001",
    );
}

#[tokio::test]
async fn a_damaged_request_reaches_its_actor_as_a_value() {
    let Ok(SerializedMessage::Call { variant, metadata, reply, mut args }) =
        AdminRequest::Ping(Wire::new(()), port()).serialize()
    else {
        panic!("a request waits for its reply")
    };
    *args.last_mut().expect("the version at least") = 9;
    let read = AdminRequest::deserialize(SerializedMessage::Call { variant, metadata, reply, args });
    match read {
        Ok(AdminRequest::Ping(ping, _)) => assert_eq!(ping.open(), Err(WireError::Version { found: 9 })),
        Ok(AdminRequest::Status(..) | AdminRequest::Refresh(..)) | Err(_) => panic!("another request came out"),
    }
}

#[tokio::test]
async fn garbage_is_refused_or_reaches_its_actor_as_a_value() {
    let read = |variant: &str, args: &[u8]| {
        let (reply, variant, args) = (port(), variant.to_owned(), args.to_vec());
        IndexRequest::deserialize(SerializedMessage::Call { variant, metadata: None, reply, args })
    };
    assert!(read("Later", &[]).is_err(), "a variant that this version does not know");
    // Lengths that are missing, cut short, or longer than what follows.
    for args in [&[][..], &[0; 3], &[0, 0, 0, 0, 0, 0, 0, 2, 1], &[0xff; 8], &[0xff; 64]] {
        assert!(read("Search", args).is_err(), "{args:?}");
    }
    let check = |content: &[u8], expected| {
        let mut args = (content.len() as u64).to_be_bytes().to_vec();
        args.extend(content);
        match read("Search", &args) {
            Ok(IndexRequest::Search(search, _)) => assert_eq!(search.open(), Err(expected), "{content:?}"),
            Err(_) => panic!("nobody would answer {content:?}"),
        }
    };
    check(&[], WireError::Malformed);
    check(&[WIRE_VERSION], WireError::Malformed);
    check(&[WIRE_VERSION, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], WireError::Malformed);
    check(&[WIRE_VERSION + 1, 1, 2, 3], WireError::Version { found: WIRE_VERSION + 1 });
    check(b"GET / HTTP/1.1", WireError::Version { found: b'G' });
}
