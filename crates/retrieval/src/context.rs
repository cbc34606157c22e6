//! What is known only at request time.

use serde::{Deserialize, Serialize};

use crate::ids::ItemId;
use crate::item::Interest;

/// Where the ad will be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// Beside a pin that the user is looking at.
    RelatedPins,
    /// Among search results.
    Search,
    /// The home feed: there is no subject.
    Home,
}

/// The subject pin, or a search query; or neither.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// What the user is looking at.
    #[serde(default)]
    pub subject: Option<Subject>,
    /// What the user searched for.
    #[serde(default)]
    pub query: Option<String>,
}

/// The pin that the user is looking at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The pin, where it has an id.
    #[serde(default)]
    pub item_id: Option<ItemId>,
    /// Its interests. Where empty and `item_id` is known to the model, the catalogue's are used.
    #[serde(default)]
    pub interests: Vec<Interest>,
}
