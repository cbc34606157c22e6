//! Crowding: at most so many ads of one value of an attribute, such as one advertiser's, in one answer.
//!
//! The best first, each ad that would be one too many of its value is passed over. Done by every shard to its own ads and once more
//! where their answers are merged, the whole is exact: an ad that is among the best `k` of all under the cap has fewer than
//! `k` before it in its shard, since each of those has one of its value before it in all.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::ids::ID_BYTES_MAX;
use crate::item::AttributeKind;
use crate::topk::K_MAX;

/// At most [`max`](Self::max) ads of one value of [`field`](Self::field). Ads without the attribute crowd nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crowding {
    /// A keyword attribute.
    pub field: Box<str>,
    /// 1 to [`K_MAX`].
    pub max: u32,
}

/// Why a crowding is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrowdingError {
    /// A cap that admits nothing, or no cap.
    #[error("{found} is not in 1..={K_MAX}")]
    Max {
        /// What was asked for.
        found: u32,
    },
    /// An attribute that no ad has.
    #[error("no ad has an attribute `{}`", shown(field))]
    Unknown {
        /// Its name.
        field: Box<str>,
    },
    /// An attribute of which an ad has not one value.
    #[error("`{field}` holds {}, must hold {}", found.what(), AttributeKind::Keyword.what())]
    Kind {
        /// Its name.
        field: Box<str>,
        /// Its kind.
        found: AttributeKind,
    },
}

/// A name that came from outside, cut to what an id may have.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(ID_BYTES_MAX).collect();
    if short.len() < name.len() { short + "…" } else { short }
}

impl CrowdingError {
    /// The offending field of a request.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Max { .. } => "crowding.max",
            Self::Unknown { .. } | Self::Kind { .. } => "crowding.field",
        }
    }
}

impl Crowding {
    /// Checks what holds whatever attributes ads have.
    ///
    /// # Errors
    /// [`CrowdingError::Max`].
    pub fn check_max(&self) -> Result<(), CrowdingError> {
        if (1..=K_MAX as u32).contains(&self.max) { Ok(()) } else { Err(CrowdingError::Max { found: self.max }) }
    }

    /// Checks it against the attributes that ads have.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, attributes: &BTreeMap<Box<str>, AttributeKind>) -> Result<(), CrowdingError> {
        self.check_max()?;
        let field = || self.field.clone();
        match attributes.get(&self.field) {
            Some(AttributeKind::Keyword) => Ok(()),
            Some(found @ (AttributeKind::Keywords | AttributeKind::Number)) => {
                Err(CrowdingError::Kind { field: field(), found: *found })
            }
            None => Err(CrowdingError::Unknown { field: field() }),
        }
    }
}

/// How many of each value were taken.
#[derive(Debug)]
pub struct Taken {
    max: u32,
    of: HashMap<Box<str>, u32>,
}

impl Taken {
    /// Before the first, where at most `max` of one value are taken.
    pub fn new(max: u32) -> Self {
        Self { max, of: HashMap::new() }
    }

    /// Takes an ad with this value, unless it is one too many.
    pub fn admits(&mut self, value: Option<&str>) -> bool {
        let Some(value) = value else { return true };
        let taken = match self.of.get_mut(value) {
            Some(taken) => taken,
            None => self.of.entry(value.into()).or_default(),
        };
        *taken += 1;
        *taken <= self.max
    }

    /// Whether no ad with this value is admitted any more.
    pub fn is_full(&self, value: &str) -> bool {
        self.of.get(value).is_some_and(|taken| *taken >= self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::AdId;
    use crate::merge::{merge, merge_within};
    use crate::topk::Hit;

    type Row = (Hit, Option<Box<str>>);

    fn capped(rows: &[Row], k: usize, max: u32) -> Vec<Row> {
        let mut taken = Taken::new(max);
        merge_within(&[rows.to_vec()], k, |value| taken.admits(value.as_deref()))
    }

    proptest! {
        #[test]
        fn a_cap_per_shard_and_in_the_merge_is_the_cap_of_the_whole(
            ads in prop::collection::vec((0u32..4, 0i8..12, prop::option::of(0u8..4)), 0..60),
            k in 1usize..12,
            max in 1u32..4,
        ) {
            let row = |(id, (_, score, value)): (u64, &(u32, i8, Option<u8>))| -> Row {
                (Hit { ad: AdId::from(id), score: f32::from(*score) }, value.map(|value| value.to_string().into()))
            };
            let all: Vec<Row> = (0..).zip(&ads).map(row).collect();
            let of_shard = |shard: u32| -> Vec<Row> {
                all.iter().zip(&ads).filter(|(_, ad)| ad.0 == shard).map(|(row, _)| row.clone()).collect()
            };
            let lists: Vec<Vec<Row>> = (0..4).map(|shard| capped(&of_shard(shard), k, max)).collect();
            let mut taken = Taken::new(max);
            let merged = merge_within(&lists, k, |value| taken.admits(value.as_deref()));

            // By brute force: all in order, one after the other.
            let mut expected: Vec<Row> = Vec::new();
            for row in merge(&[all], ads.len()) {
                let same = expected.iter().filter(|taken| row.1.is_some() && taken.1 == row.1).count();
                if same < max as usize && expected.len() < k {
                    expected.push(row);
                }
            }
            prop_assert_eq!(merged, expected);
        }
    }

    #[test]
    fn a_crowding_that_cannot_be_meant_is_refused() {
        let kinds =
            BTreeMap::from([("campaign_id".into(), AttributeKind::Keyword), ("bid".into(), AttributeKind::Number)]);
        let check = |field: &str, max| {
            Crowding { field: field.into(), max }.check(&kinds).map_err(|e| format!("{}: {e}", e.field()))
        };
        assert_eq!(check("campaign_id", 1), Ok(()));
        assert_eq!(check("campaign_id", 0), Err(format!("crowding.max: 0 is not in 1..={K_MAX}")));
        assert_eq!(check("bid", 1), Err("crowding.field: `bid` holds a number, must hold one word".to_owned()));
        assert_eq!(check("colour", 1), Err("crowding.field: no ad has an attribute `colour`".to_owned()));
    }
}
