//! What the messages are made of, and what is asked of their bytes.

use std::fmt::Debug;

use ractor::BytesConvertable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use turret_actors::protocol::{EncodedHistory, EncoderOf, QueryEmbedding};
use turret_actors::wire::{WIRE_VERSION, Wire, WireError};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::filter::{End, Filter, NumberRange};
use turret_retrieval::ids::{AdId, AdvertiserId, InterestId};
use turret_retrieval::ids::{EncoderVersion, EventId, GenerationId, ItemId, NodeName, UserId};
use turret_retrieval::item::{Ad, Attribute, Interest, Item};
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::UnitVector;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Holds `value` to its bytes, and every damaged form of them to an error value.
pub(crate) fn golden<T: Clone + Debug + PartialEq + Serialize + DeserializeOwned>(value: T, expected: &str) {
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

pub(crate) fn user() -> UserId {
    UserId::new("u1").expect("an id")
}

pub(crate) fn generation() -> GenerationId {
    GenerationId::new("g-2026-11-23.2").expect("an id")
}

pub(crate) fn encoder() -> EncoderVersion {
    EncoderVersion::new("enc-41").expect("an id")
}

pub(crate) fn node() -> NodeName {
    NodeName::new("a").expect("an id")
}

pub(crate) fn vector() -> UnitVector {
    UnitVector::normalize(vec![0.0, -1.0]).expect("it has a direction")
}

pub(crate) fn sequence(precision: Precision) -> SequenceState {
    SequenceState::new(&[0.5, -2.0], 2, precision).expect("a state")
}

pub(crate) fn events() -> Vec<Event> {
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

pub(crate) fn query(without_context: Option<UnitVector>) -> QueryEmbedding {
    QueryEmbedding { generation: generation(), vector: vector(), without_context }
}

pub(crate) fn history(precision: Precision) -> EncodedHistory {
    EncodedHistory::new(encoder(), sequence(precision))
}

pub(crate) fn by() -> EncoderOf {
    EncoderOf { generation: generation(), encoder: encoder() }
}

pub(crate) fn demographics() -> Demographics {
    Demographics { age: Some(29), country: Some("US".into()), gender: None }
}

/// Every kind of condition.
pub(crate) fn filter() -> Filter {
    let range = NumberRange { low: Some((18.0, End::Included)), high: Some((65.5, End::Excluded)) };
    Filter::And(vec![
        Filter::AnyOf { field: "status".into(), values: vec!["active".into()] },
        Filter::Not(Box::new(Filter::Or(vec![Filter::Between { field: "min_age".into(), range }]))),
    ])
}

pub(crate) fn item() -> Item {
    let interest = Interest { id: InterestId::new("a/b").expect("an id"), confidence: 0.5 };
    Item {
        id: ItemId::new("i1").expect("an id"),
        advertiser: Some(AdvertiserId::new("adv1").expect("an id")),
        interests: vec![interest],
        price: Some(2.0),
        title: Some("a chair".to_owned()),
        embedding: None,
    }
}

/// With an attribute of every kind.
pub(crate) fn ad() -> Ad {
    let attributes = [
        ("countries", Attribute::Keywords(vec!["US".into()])),
        ("min_age", Attribute::Number(18.0)),
        ("status", Attribute::Keyword("active".into())),
    ];
    let attributes = attributes.map(|(name, value)| (name.into(), value)).into();
    Ad { id: AdId::new("ad1").expect("an id"), item: item().id, attributes }
}
