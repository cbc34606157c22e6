//! How requests reach a peer, and what becomes of bytes that are none.

use ractor::message::SerializedMessage;
use ractor::{Message, RpcReplyPort};
use turret_actors::protocol::{
    AdminRequest, EmbedAsk, EncodeAsk, IndexRequest, InferenceRequest, RefreshPageAsk, RefreshUsersAsk, SearchAsk,
    UserRequest, ViewAsk, WriteAsk,
};
use turret_actors::protocol::{AdsRequest, ApplyAsk, EmbedAdsAsk, ReplayAsk};
use turret_actors::wire::{WIRE_VERSION, Wire, WireError};
use turret_retrieval::ids::{AdId, ShardId};
use turret_retrieval::revision::Revision;
use turret_retrieval::state::Precision;
use turret_retrieval::user::Demographics;

use crate::values::*;

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
    let refresh = RefreshPageAsk { run: 7, by: by(), after: None, users_max: 16 };
    check(framed(AdminRequest::Ping(Wire::new(()), port())), "Ping", "00000000000000010a");
    check(framed(AdminRequest::Status(Wire::new(()), port())), "Status", "00000000000000010a");
    check(framed(AdminRequest::Refresh(Wire::new(()), port())), "Refresh", "00000000000000010a");
    check(framed(AdminRequest::RollBack(Wire::new(()), port())), "RollBack", "00000000000000010a");
    check(
        framed(AdminRequest::Publish(Wire::new(generation()), port())),
        "Publish",
        "00000000000000100a0e672d323032362d31312d32332e32",
    );
    let users = RefreshUsersAsk { by: by(), users: vec![] };
    check(
        framed(UserRequest::RefreshUsers(Wire::new(users), port())),
        "RefreshUsers",
        "00000000000000180a0e672d323032362d31312d32332e3206656e632d343100",
    );
    check(
        framed(UserRequest::Import(Wire::new(generation()), port())),
        "Import",
        "00000000000000100a0e672d323032362d31312d32332e32",
    );
    check(
        framed(UserRequest::RefreshPage(Wire::new(refresh), port())),
        "RefreshPage",
        "000000000000001a0a070e672d323032362d31312d32332e3206656e632d34310010",
    );
    let view = ViewAsk { user: user(), encoder: encoder() };
    check(framed(UserRequest::View(Wire::new(view), port())), "View", "000000000000000b0a02753106656e632d3431");
    check(
        framed(UserRequest::CountDirty(Wire::new(encoder()), port())),
        "CountDirty",
        "00000000000000080a06656e632d3431",
    );
    let write = WriteAsk { writes: vec![] };
    check(framed(UserRequest::Write(Wire::new(write), port())), "Write", "00000000000000020a00");
    check(framed(UserRequest::Profile(Wire::new(user()), port())), "Profile", "00000000000000040a027531");
    check(framed(UserRequest::Traces(Wire::new(user()), port())), "Traces", "00000000000000040a027531");
    let encode = EncodeAsk { encoder: encoder(), histories: vec![], precision: Precision::F32, remaining_us: 1 };
    check(
        framed(InferenceRequest::Encode(Wire::new(encode), port())),
        "Encode",
        "000000000000000b0a06656e632d3431000001",
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
        "00000000000000170a0e672d323032362d31312d32332e3200000000000001",
    );
    let apply = ApplyAsk { generation: generation(), changes: vec![] };
    check(
        framed(IndexRequest::Apply(Wire::new(apply), port())),
        "Apply",
        "00000000000000110a0e672d323032362d31312d32332e3200",
    );
    let embed_ads = EmbedAdsAsk { generation: generation(), items: vec![], remaining_us: 25_000 };
    check(
        framed(InferenceRequest::EmbedAds(Wire::new(embed_ads), port())),
        "EmbedAds",
        "00000000000000140a0e672d323032362d31312d32332e3200a8c301",
    );
    let ad = || AdId::new("ad1").expect("an id");
    let after = Revision::from_bits(300);
    let replay = ReplayAsk { generation: generation(), shard: ShardId(1), after };
    check(
        framed(AdsRequest::Replay(Wire::new(replay), port())),
        "Replay",
        "00000000000000130a0e672d323032362d31312d32332e3201ac02",
    );
    check(framed(AdsRequest::Change(Wire::new(vec![]), port())), "Change", "00000000000000020a00");
    check(framed(AdsRequest::Get(Wire::new(ad()), port())), "Get", "00000000000000050a03616431");
    check(framed(AdsRequest::Since(Wire::new(after), port())), "Since", "00000000000000030aac02");
    let search = SearchAsk { query: query(None), k: 1, filter: None, crowding: None, exact: false, remaining_us: 1 };
    check(
        framed(IndexRequest::Search(Wire::new(search), port())),
        "Search",
        "000000000000001f0a0e672d323032362d31312d32332e320200000000000080bf000100000001",
    );
}

#[tokio::test]
async fn a_damaged_request_reaches_its_actor_as_a_value() {
    let Ok(SerializedMessage::Call { variant, metadata, reply, mut args }) =
        AdminRequest::Ping(Wire::new(()), port()).serialize()
    else {
        panic!("a request waits for its reply")
    };
    *args.last_mut().expect("the version at least") = 200;
    let read = AdminRequest::deserialize(SerializedMessage::Call { variant, metadata, reply, args });
    match read {
        Ok(AdminRequest::Ping(ping, _)) => assert_eq!(ping.open(), Err(WireError::Version { found: 200 })),
        Ok(_) | Err(_) => panic!("another request came out"),
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
            Ok(IndexRequest::Apply(..)) | Err(_) => panic!("nobody would answer {content:?}"),
        }
    };
    check(&[], WireError::Malformed);
    check(&[WIRE_VERSION], WireError::Malformed);
    check(&[WIRE_VERSION, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], WireError::Malformed);
    check(&[WIRE_VERSION + 1, 1, 2, 3], WireError::Version { found: WIRE_VERSION + 1 });
    check(b"GET / HTTP/1.1", WireError::Version { found: b'G' });
}
