//! Events: what a user did, to which item, and when.

use serde::{Deserialize, Serialize};

use crate::ids::{EventId, ItemId};

/// What a user did. Data sets map their own names to these four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EventType {
    /// Looked at an item; also a click or a rating.
    View,
    /// Put it into a cart or a list of favourites.
    AddToCart,
    /// Bought it.
    Checkout,
    /// Signed up with its advertiser.
    Signup,
}

impl EventType {
    /// Every kind, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::View, Self::AddToCart, Self::Checkout, Self::Signup];

    /// The name used in files, requests and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::AddToCart => "add_to_cart",
            Self::Checkout => "checkout",
            Self::Signup => "signup",
        }
    }

    /// The kind called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One event of one user, as it is sent and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The item acted on.
    pub item_id: ItemId,
    /// What was done.
    pub event_type: EventType,
    /// When: milliseconds since 1970-01-01 UTC, or the position in an order without times.
    pub timestamp_ms: i64,
    /// The caller's id; when absent, the fields themselves identify the event.
    #[serde(default)]
    pub event_id: Option<EventId>,
}
