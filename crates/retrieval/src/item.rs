//! Items, and the ads that promote them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{AdId, AdvertiserId, InterestId, ItemId};

/// The most interests that one item or subject may carry.
pub const INTERESTS_MAX: usize = 32;

/// One interest of an item or a subject, with how sure we are of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interest {
    /// The category of the taxonomy.
    pub id: InterestId,
    /// In (0, 1].
    pub confidence: f32,
}

/// Checks interests that came from outside: their number, and that every confidence is in (0, 1].
///
/// # Errors
/// The position of the first bad interest (or the number of them) and the rule it broke.
pub fn check_interests(interests: &[Interest]) -> Result<(), InterestsError> {
    if interests.len() > INTERESTS_MAX {
        return Err(InterestsError::TooMany { found: interests.len() });
    }
    for (position, interest) in interests.iter().enumerate() {
        // Written so that NaN fails too.
        if !(interest.confidence > 0.0 && interest.confidence <= 1.0) {
            return Err(InterestsError::Confidence { position, found: interest.confidence });
        }
    }
    Ok(())
}

/// Why a list of interests is refused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InterestsError {
    /// More than [`INTERESTS_MAX`].
    #[error("{found} interests, the limit is {INTERESTS_MAX}")]
    TooMany {
        /// How many there were.
        found: usize,
    },
    /// A confidence that is not in (0, 1].
    #[error("confidence {found} of interest {position} is not in (0, 1]")]
    Confidence {
        /// Which one, from 0.
        position: usize,
        /// Its value.
        found: f32,
    },
}

/// A catalogue product with the features that the model sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its id.
    pub id: ItemId,
    /// Who sells it, where known.
    pub advertiser: Option<AdvertiserId>,
    /// Its interests; may be empty.
    pub interests: Vec<Interest>,
    /// In the catalogue's currency; finite and not negative.
    pub price: Option<f32>,
    /// What a person would read.
    pub title: Option<String>,
    /// A content embedding; all items of a data set that have one have the same length.
    pub embedding: Option<Vec<f32>>,
}

/// The value of one targeting attribute of an ad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Attribute {
    /// One word, such as `status = "active"`.
    Keyword(Box<str>),
    /// Several words, such as `countries`.
    Keywords(Vec<Box<str>>),
    /// A finite number, such as `min_age`.
    Number(f64),
}

/// The attributes of one ad, by name.
pub type Attributes = BTreeMap<Box<str>, Attribute>;

/// The advertiser that attributes name.
pub fn advertiser_of(attributes: &Attributes) -> Option<&str> {
    match attributes.get("advertiser_id") {
        Some(Attribute::Keyword(advertiser)) => Some(advertiser),
        Some(Attribute::Keywords(_) | Attribute::Number(_)) | None => None,
    }
}

/// The kind of an attribute; every ad of a generation uses the same kind for one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributeKind {
    /// See [`Attribute::Keyword`].
    Keyword,
    /// See [`Attribute::Keywords`].
    Keywords,
    /// See [`Attribute::Number`].
    Number,
}

impl AttributeKind {
    /// What it is, in words.
    pub fn what(self) -> &'static str {
        match self {
            Self::Keyword => "one word",
            Self::Keywords => "several words",
            Self::Number => "a number",
        }
    }
}

impl Attribute {
    /// The kind of this value.
    pub fn kind(&self) -> AttributeKind {
        match self {
            Self::Keyword(_) => AttributeKind::Keyword,
            Self::Keywords(_) => AttributeKind::Keywords,
            Self::Number(_) => AttributeKind::Number,
        }
    }
}

/// A promoted item. `advertiser_id` and `status` are attributes like every other, so that filters see them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ad {
    /// Its id.
    pub id: AdId,
    /// The item it promotes.
    pub item: ItemId,
    /// Targeting attributes by name.
    pub attributes: BTreeMap<Box<str>, Attribute>,
}

impl Ad {
    /// The advertiser, where the ad names one.
    pub fn advertiser(&self) -> Option<&str> {
        advertiser_of(&self.attributes)
    }

    /// Whether the ad may be shown at all: its status is `active`, or it has none.
    pub fn is_active(&self) -> bool {
        match self.attributes.get("status") {
            None => true,
            Some(Attribute::Keyword(status)) => &**status == "active",
            Some(Attribute::Keywords(_) | Attribute::Number(_)) => false,
        }
    }
}
