//! The bytes of every message and reply of the current wire version, committed.
//!
//! Peers of the same version must agree on every byte, and postcard does not describe itself. So where one of these
//! fails, a layout has changed: raise `WIRE_VERSION`, then take the new bytes over from the failure.

use turret_actors::protocol::{AdWrite, AdsChanged, ApplyAsk, EmbedAdsAsk, HandedOver, ReplayPage};
use turret_actors::protocol::{
    EmbedAsk, Embedded, EncodeAsk, Encoded, GateReport, NodeStatus, RefreshPageAsk, RefreshStarted, RefreshStatus,
    RefreshUsersAsk, RefreshedPage, RefreshedUsers, Refusal, RolloutStatus, SearchAsk, SearchReply, StateView, Trace,
    Traces, UserView, ViewAsk, WatchReport, WriteAsk, WriteReply,
};
use turret_actors::rollout::plan::{self, RolloutPlan};
use turret_actors::rollout::tally::Counts;
use turret_actors::wire::WIRE_VERSION;
use turret_index::{FoundAd, Plan};
use turret_index::{ShardAd, ShardChange, ShardContent};
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::crowding::Crowding;
use turret_retrieval::ids::{AdId, GenerationId, InterestId, ItemId};
use turret_retrieval::item::Interest;
use turret_retrieval::live_ad::{AdChange, LiveAd, Promoted};
use turret_retrieval::revision::Revision;
use turret_retrieval::state::Precision;
use turret_retrieval::topk::Hit;
use turret_store::{Appended, Change, Erasure, ErasureMark, Profile, StateProfile, Write, Written};

use crate::values::*;

mod frames;
mod values;

#[test]
fn the_version_is_the_one_that_the_bytes_are_of() {
    assert_eq!(WIRE_VERSION, 10, "take the bytes of the new version over, then raise this");
}

#[test]
fn messages_of_the_index() {
    let ask =
        |filter| SearchAsk { query: query(None), k: 200, filter, crowding: None, exact: false, remaining_us: 25_000 };
    golden(ask(None), "0a0e672d323032362d31312d32332e320200000000000080bf00c801000000a8c301");
    golden(
        SearchAsk { query: query(Some(vector())), exact: true, ..ask(None) },
        "0a0e672d323032362d31312d32332e320200000000000080bf010200000000000080bfc801000001a8c301",
    );
    golden(
        SearchAsk { crowding: Some(Crowding { field: "campaign_id".into(), max: 5 }), ..ask(Some(filter())) },
        "0a0e672d323032362d31312d32332e320200000000000080bf00c8010100020306737461747573010661637469766502010104076d696e5f6167650100000000000032400001000000000060504001010b63616d706169676e5f69640500a8c301",
    );
    let hit = |ad: &str, score| Hit { ad: AdId::new(ad).expect("an id"), score };
    let found = |hit, advertiser: Option<&str>, baseline_score| FoundAd {
        hit,
        advertiser: advertiser.map(Into::into),
        baseline_score,
        crowd: advertiser.map(|_| "c7".into()),
    };
    let reply = |plan, selectivity: Option<f64>| {
        let ads = vec![found(hit("ad901", 0.8125), Some("adv12"), Some(0.5)), found(hit("7", -0.5), None, None)];
        let (selectivity_near, list) =
            (selectivity.map(|share| share / 2.0), if selectivity.is_some() { 200 } else { 0 });
        let (early_stopped, compared) = (list > 0, if list > 0 { 0.5 } else { 1.0 });
        Ok::<_, Refusal>(SearchReply {
            ads,
            exhausted: true,
            plan,
            selectivity,
            selectivity_near,
            list,
            distances: 300,
            early_stopped,
            compared,
            verified: true,
        })
    };
    golden(
        reply(Plan::Exact, None),
        "0a00020561643930310000503f01056164763132010000003f010263370137000000bf0000000100000000ac0200000000000000f03f01",
    );
    golden(
        reply(Plan::ExactPostings, Some(0.25)),
        "0a00020561643930310000503f01056164763132010000003f010263370137000000bf000000010101000000000000d03f01000000000000c03fc801ac0201000000000000e03f01",
    );
    golden(
        reply(Plan::PostFilter, Some(0.5)),
        "0a00020561643930310000503f01056164763132010000003f010263370137000000bf000000010201000000000000e03f01000000000000d03fc801ac0201000000000000e03f01",
    );
    golden(
        reply(Plan::Graph, None),
        "0a00020561643930310000503f01056164763132010000003f010263370137000000bf0000000104000000ac0200000000000000f03f01",
    );
    golden(
        reply(Plan::NearestCells, Some(0.5)),
        "0a00020561643930310000503f01056164763132010000003f010263370137000000bf000000010501000000000000e03f01000000000000d03fc801ac0201000000000000e03f01",
    );
}

#[test]
fn messages_of_the_user_partitions() {
    golden(ViewAsk { user: user(), encoder: encoder() }, "0a02753106656e632d3431");
    let view = |state| Ok::<_, Refusal>(Some(UserView { demographics: demographics(), state }));
    let state = StateView { history: history(Precision::F16), made_at_ms: 1_767_571_200_000, is_current: true };
    golden(Ok::<Option<UserView>, Refusal>(None), "0a0000");
    golden(view(None), "0a0001011d010255530000");
    golden(view(Some(state)), "0a0001011d01025553000106656e632d3431020104003800c080e0a0b7f16601");
    let write = |change| WriteAsk { writes: vec![Write { user: user(), change }] };
    golden(
        write(Change::Append(events())),
        "0a0102753100040269310080e0a0b7f16601026531026932010100026933020000026934030200",
    );
    golden(write(Change::Describe(demographics())), "0a0102753101011d0102555300");
    golden(write(Change::Erase), "0a0102753102");
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
    golden(Ok::<_, Refusal>(WriteReply { outcomes }), "0a00040000ac020201000001ac020002ac020a020106656e632d3431010102");
    golden(Ok::<Option<Profile>, Refusal>(None), "0a0000");
    let profile = Profile {
        demographics: demographics(),
        events: 3,
        oldest_ms: Some(1),
        latest_ms: None,
        states: vec![StateProfile { encoder: encoder(), made_at_ms: 2, is_current: true, bytes: 128 }],
        erased: Some(ErasureMark { at_ms: 3, watermark_ms: 4 }),
    };
    golden(Ok::<_, Refusal>(Some(profile)), "0a0001011d0102555300030102000106656e632d343104018001010608");
    let trace = Trace { generation: generation(), published_at_ms: 1 };
    golden(
        Ok::<_, Refusal>(Traces { found: vec![trace], unknown: Some("x".to_owned()) }),
        "0a00010e672d323032362d31312d32332e3202010178",
    );
    golden(Ok::<_, Refusal>(Traces::default()), "0a000000");
    golden(Ok::<u64, Refusal>(300), "0a00ac02");
    golden(
        RefreshPageAsk { run: 7, by: by(), after: None, users_max: 16 },
        "0a070e672d323032362d31312d32332e3206656e632d34310010",
    );
    golden(
        RefreshPageAsk { run: 7, by: by(), after: Some(user()), users_max: 16 },
        "0a070e672d323032362d31312d32332e3206656e632d34310102753110",
    );
    golden(Ok::<_, Refusal>(RefreshedPage { refreshed: 16, next: Some(user()), is_whole: true }), "0a00100102753101");
    golden(Ok::<_, Refusal>(RefreshedPage { refreshed: 0, next: None, is_whole: false }), "0a00000000");
    golden(RefreshUsersAsk { by: by(), users: vec![user()] }, "0a0e672d323032362d31312d32332e3206656e632d343101027531");
    golden(Ok::<_, Refusal>(RefreshedUsers { refreshed: 1, lacking: vec![user()] }), "0a000101027531");
}

#[test]
fn messages_of_live_ads() {
    let promoted = || Promoted { ad: ad(), item: item() };
    let id = || ad().id;
    let write = |change| vec![AdWrite { id: id(), change }];
    golden(
        write(AdChange::Upsert(Box::new(promoted()))),
        "0a010361643100036164310269310309636f756e74726965730101025553076d696e5f6167650200000000000032400673746174757300066163746976650269310104616476310103612f620000003f010000004001076120636861697200",
    );
    golden(write(AdChange::Delete), "0a010361643101");
    golden(write(AdChange::Pause(true)), "0a01036164310201");
    let bits = Revision::from_bits;
    golden(Ok::<_, Refusal>(HandedOver { until: bits(2), latest: bits(300), changed: 7 }), "0a0002ac0207");
    golden(Ok::<_, Refusal>(AdsChanged { revision: Revision::from_bits(300), visible: true }), "0a00ac0201");
    let mut live = LiveAd::untouched(id());
    golden(Ok::<_, Refusal>(Some(live.clone())), "0a00010361643100000000");
    live.apply(AdChange::Upsert(Box::new(promoted())), Revision::from_bits(1));
    live.apply(AdChange::Pause(true), Revision::from_bits(2));
    golden(
        Ok::<_, Refusal>(vec![live]),
        "0a00010361643101036164310269310309636f756e74726965730101025553076d696e5f6167650200000000000032400673746174757300066163746976650269310104616476310103612f620000003f010000004001076120636861697200010102",
    );
    let change = |content| ShardChange {
        id: id(),
        content,
        content_at: Revision::from_bits(1),
        paused: true,
        paused_at: Revision::from_bits(2),
    };
    let is = ShardContent::Is(Box::new(ShardAd { ad: ad(), embedding: vector() }));
    let changes = vec![change(ShardContent::AsBuilt), change(is), change(ShardContent::Nothing)];
    golden(
        ApplyAsk { generation: generation(), changes: changes.clone() },
        "0a0e672d323032362d31312d32332e320303616431000101020361643101036164310269310309636f756e74726965730101025553076d696e5f6167650200000000000032400673746174757300066163746976650200000000000080bf0101020361643102010102",
    );
    golden(
        Ok::<_, Refusal>(ReplayPage { changes, until: Revision::from_bits(3), is_last: true }),
        "0a000303616431000101020361643101036164310269310309636f756e74726965730101025553076d696e5f6167650200000000000032400673746174757300066163746976650200000000000080bf01010203616431020101020301",
    );
    golden(
        EmbedAdsAsk { generation: generation(), items: vec![item()], remaining_us: 25_000 },
        "0a0e672d323032362d31312d32332e32010269310104616476310103612f620000003f010000004001076120636861697200a8c301",
    );
    golden(Ok::<_, Refusal>(vec![vector()]), "0a00010200000000000080bf");
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
    golden(ask(None, None), "0a0e672d323032362d31312d32332e320000011d010255530001a8c301");
    golden(
        ask(Some(history(Precision::F32)), Some(Context { subject: Some(subject), query: None })),
        "0a0e672d323032362d31312d32332e320106656e632d34310200080000003f000000c00101010770696e35353231010d7374796c652f76696e746167650000403f00011d010255530001a8c301",
    );
    golden(
        ask(None, Some(Context { subject: None, query: Some("armchair".to_owned()) })),
        "0a0e672d323032362d31312d32332e32000100010861726d6368616972011d010255530001a8c301",
    );
    let embedded = |without_context| Ok::<_, Refusal>(Embedded { query: query(without_context), context_used: true });
    golden(embedded(None), "0a000e672d323032362d31312d32332e320200000000000080bf0001");
    golden(embedded(Some(vector())), "0a000e672d323032362d31312d32332e320200000000000080bf010200000000000080bf01");
    golden(
        EncodeAsk {
            encoder: encoder(),
            histories: vec![events(), vec![]],
            precision: Precision::Int8,
            remaining_us: 300,
        },
        "0a06656e632d343102040269310080e0a0b7f166010265310269320101000269330200000269340302000002ac02",
    );
    let encoded = Encoded { states: vec![Some(sequence(Precision::Int8)), None], took_us: 300, is_asked: true };
    golden(Ok::<_, Refusal>(encoded), "0a0002010202060402813c208100ac0201");
}

#[test]
fn messages_of_the_admin_actors() {
    golden((), "0a");
    golden(node(), "0a0161");
    let status = |refresh, rollout| NodeStatus {
        node: node(),
        generation: generation(),
        ready: true,
        restarts: 300,
        shards: vec![0, 3],
        partitions: vec![1],
        refresh,
        rollout,
    };
    golden(status(None, None), "0a01610e672d323032362d31312d32332e3201ac0202000301010000");
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
    golden(
        status(Some(refresh), None),
        "0a01610e672d323032362d31312d32332e3201ac020200030101010201020001ac02e80703010400",
    );
    golden(Ok::<_, Refusal>(RefreshStarted { run: 2, started: false }), "0a000200");
    let mut plan = RolloutPlan::new(7, generation(), GenerationId::new("g-next").expect("an id"), 300);
    golden(Ok::<_, Refusal>(plan.clone()), "0a00070e672d323032362d31312d32332e3206672d6e65787400d804d8040000");
    let counts = |requests| Counts { requests, empty: 1, failed: 2, p99_us: Some(5) };
    let watch = WatchReport { before: counts(300), now: Counts::default(), remaining_ms: 4 };
    let gate = GateReport { name: "probes".into(), passed: true, detail: "all".to_owned() };
    let phases = [
        (plan::Event::Done, "0a01"),
        (plan::Event::Done, "0a02"),
        (plan::Event::Done, "0a03"),
        (plan::Event::RollBack, "0a0418616e206f70657261746f722061736b656420666f72206974"),
        (plan::Event::Done, "0a050218616e206f70657261746f722061736b656420666f72206974"),
        (plan::Event::Done, "0a060218616e206f70657261746f722061736b656420666f72206974"),
    ];
    for (event, bytes) in phases {
        plan.take(event, 301);
        golden(plan.phase.clone(), bytes);
    }
    plan.before = Some(counts(9));
    let rollout = RolloutStatus { plan: Some(plan), gates: vec![gate], watch: Some(watch) };
    golden(
        status(None, Some(rollout)),
        "0a01610e672d323032362d31312d32332e3201ac020200030101000101070e672d323032362d31312d32332e3206672d6e657874060218616e206f70657261746f722061736b656420666f72206974d804da0400010901020105010670726f6265730103616c6c01ac02010201050000000004",
    );
}

#[test]
fn every_refusal() {
    let refused = |refusal: Refusal| Err::<(), _>(refusal);
    golden(refused(Refusal::Unreadable("malformed message".to_owned())), "0a0100116d616c666f726d6564206d657373616765");
    golden(
        refused(Refusal::OtherVersion { serving: "g-1".to_owned(), asked: "g-2".to_owned() }),
        "0a010103672d3103672d32",
    );
    golden(refused(Refusal::Overloaded), "0a0102");
    golden(refused(Refusal::Expired), "0a0103");
    golden(refused(Refusal::Starting), "0a0104");
    golden(refused(Refusal::Failed("why".to_owned())), "0a010503776879");
    golden(refused(Refusal::Conflict("why".to_owned())), "0a010603776879");
    golden(refused(Refusal::Unreachable("why".to_owned())), "0a010703776879");
    golden(refused(Refusal::NotFinite), "0a0108");
}
