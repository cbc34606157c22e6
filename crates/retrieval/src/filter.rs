//! Filters over ad attributes: the expression, its forms as JSON and as text, and what it means.
//!
//! An ad without the attribute fails every comparison on it, so `not` of that comparison holds for it.
//!
//! Both forms are read by their own grammar and checked by one checker: fields, kinds and bounds are the same, and what
//! one form says the other can say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::item::{Attribute, AttributeKind};

mod checker;
mod depth;
mod error;
mod json;
mod text;

pub use error::{FilterError, FilterRule, Place, pointer};

/// The deepest nesting accepted.
pub const DEPTH_MAX: usize = 16;
/// The most nodes in one expression.
pub const NODES_MAX: usize = 256;
/// The most different values in all of one expression's `in`.
pub const ALL_VALUES_MAX: usize = 4_000;
/// The most values in one `in`.
pub const VALUES_MAX: usize = 1_000;
/// The longest text form, in bytes: as long as the body of a request.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// A condition on an ad's attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Filter {
    /// All hold; true where empty.
    And(#[serde(deserialize_with = "depth::deeper")] Vec<Filter>),
    /// At least one holds; false where empty.
    Or(#[serde(deserialize_with = "depth::deeper")] Vec<Filter>),
    /// Does not hold.
    Not(#[serde(deserialize_with = "depth::deeper")] Box<Filter>),
    /// A keyword attribute equals one of these (`eq`, `in`), or a keywords attribute contains one of them (`has`,
    /// `in`).
    AnyOf {
        /// The attribute.
        field: Box<str>,
        /// At least one.
        values: Vec<Box<str>>,
    },
    /// A number attribute lies in a range.
    Between {
        /// The attribute.
        field: Box<str>,
        /// Its range.
        range: NumberRange,
    },
}

impl Filter {
    /// How many conditions and values it is made of: what it takes to keep one.
    pub fn size(&self) -> usize {
        1 + match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::size).sum(),
            Self::Not(part) => part.size(),
            Self::AnyOf { values, .. } => values.len(),
            Self::Between { .. } => 0,
        }
    }
}

/// A range of numbers; an absent end is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberRange {
    /// The least value, and whether it belongs to the range.
    pub low: Option<(f64, End)>,
    /// The greatest value, and whether it belongs to the range.
    pub high: Option<(f64, End)>,
}

/// Whether the end of a range belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It does.
    Included,
    /// It does not.
    Excluded,
}

impl NumberRange {
    /// Whether `number` lies in the range.
    pub fn contains(&self, number: f64) -> bool {
        let above = self.low.is_none_or(|(low, end)| number > low || (end == End::Included && number == low));
        let below = self.high.is_none_or(|(high, end)| number < high || (end == End::Included && number == high));
        above && below
    }
}

impl Filter {
    /// Whether the ad with these attributes passes.
    pub fn matches(&self, attributes: &BTreeMap<Box<str>, Attribute>) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.matches(attributes)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(attributes)),
            Self::Not(part) => !part.matches(attributes),
            Self::AnyOf { field, values } => match attributes.get(field) {
                Some(Attribute::Keyword(word)) => values.contains(word),
                Some(Attribute::Keywords(words)) => words.iter().any(|word| values.contains(word)),
                Some(Attribute::Number(_)) | None => false,
            },
            Self::Between { field, range } => match attributes.get(field) {
                Some(Attribute::Number(number)) => range.contains(*number),
                Some(Attribute::Keyword(_) | Attribute::Keywords(_)) | None => false,
            },
        }
    }

    /// Reads a filter that came in JSON: an object in the JSON form, such as
    /// `{"and": [{"eq": {"status": "active"}}, {"lte": {"min_age": 29}}]}`, or a string in the text form. Every field is
    /// checked against `attributes`.
    ///
    /// # Errors
    /// The place of the first offending part and the rule it broke.
    pub fn from_json(
        value: &serde_json::Value,
        attributes: &BTreeMap<Box<str>, AttributeKind>,
    ) -> Result<Self, FilterError> {
        match value.as_str() {
            Some(text) => Self::from_text(text, attributes),
            None => json::parse(value, attributes),
        }
    }

    /// Reads the text form, such as `status = "active" and min_age <= 29`, checking every field against `attributes`.
    ///
    /// The whole syntax is in `docs/filters.md`.
    ///
    /// # Errors
    /// The column of the first offending part and the rule it broke.
    pub fn from_text(text: &str, attributes: &BTreeMap<Box<str>, AttributeKind>) -> Result<Self, FilterError> {
        text::parse(text, attributes)
    }
}
