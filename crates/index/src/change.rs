//! What becomes of the ads of a shard while it serves.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use turret_retrieval::attribute_schema::AttributeError;
use turret_retrieval::hashing::{reduce, stable_hash};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::AttributeKind;
use turret_retrieval::live_ad::AttributePatch;
use turret_retrieval::revision::Revision;

use crate::rows::{RowsError, ShardAd};

/// What is to be shown of an ad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ShardContent {
    /// What the index was built with, if anything. Says nothing of the content: whatever another change made of it stands,
    /// whichever came first.
    AsBuilt,
    /// This.
    Is(Box<ShardAd>),
    /// Nothing.
    Nothing,
    /// What there is, but for these attributes: all that were ever changed of an ad that is as built else. Of no ad, where there
    /// is none.
    Patched(AttributePatch),
}

/// What became of an ad: two registers, each of which the larger revision wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardChange {
    /// Which ad.
    pub id: AdId,
    /// What it is.
    pub content: ShardContent,
    /// Since when.
    pub content_at: Revision,
    /// Whether it is paused.
    pub paused: bool,
    /// Since when.
    pub paused_at: Revision,
}

impl ShardChange {
    pub(crate) fn is_patch(&self) -> bool {
        matches!(self.content, ShardContent::Patched(_))
    }
}

/// Why changes were not made; none of them was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// An attribute that is of another kind in the ads of the index.
    #[error("attribute {attribute} of ad {ad} is of kind {found:?}, in the index it is of kind {expected:?}")]
    Kind {
        /// Whose.
        ad: Box<str>,
        /// Which.
        attribute: Box<str>,
        /// Its kind in the index.
        expected: AttributeKind,
        /// Its kind in this ad.
        found: AttributeKind,
    },
    /// An ad that cannot stand in a shard.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A patch makes of an ad what none may be.
    #[error("ad {ad}, as patched: {source}")]
    Patched {
        /// Which.
        ad: Box<str>,
        /// The rule it broke.
        source: AttributeError,
    },
    /// Changes panicked before: the shard answers searches as it did then, and takes no more.
    #[error("an earlier change panicked, the shard must be loaded anew")]
    Broken,
}

/// Since when an ad is what it is, and whether it is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) content_at: Revision,
    pub(crate) paused: bool,
    pub(crate) paused_at: Revision,
}

impl Registers {
    fn at(&self) -> Revision {
        self.content_at.max(self.paused_at)
    }
}

/// The registers of ads that the shard does not have: deleted, or paused before they came.
///
/// Without them an older change that comes late would bring a deleted ad back. Beyond [`ABSENT_ADS_MAX`] the older half is
/// forgotten, and a change of an unknown ad that is as old as what was forgotten is taken for one that came late.
///
/// They lie in parts that clones share until one of them changes, so that a snapshot holds up no writer.
#[derive(Clone)]
pub(crate) struct Absent {
    parts: Vec<Arc<HashMap<AdId, Registers>>>,
    len: usize,
    floor: Revision,
}

/// Some 25 MB.
pub(crate) const ABSENT_ADS_MAX: usize = 1 << 18;
/// So that a part that must be copied has a thousand ads at most, about.
const PARTS: u32 = 256;
const PART_SEED: u64 = 5;

impl Default for Absent {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Arc::default()).collect(), len: 0, floor: Revision::NONE }
    }
}

impl Absent {
    /// None, and what is as old as `floor` is forgotten.
    pub(crate) fn since(floor: Revision) -> Self {
        Self { floor, ..Self::default() }
    }

    pub(crate) fn get(&self, id: &AdId) -> Option<Registers> {
        self.parts[part_of(id)].get(id).copied()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is as old is forgotten.
    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&AdId, &Registers)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// Whether a change of this ad, of which nothing is known, comes too late.
    pub(crate) fn is_late(&self, change: &ShardChange) -> bool {
        change.content_at.max(change.paused_at) <= self.floor
    }

    pub(crate) fn insert(&mut self, id: AdId, registers: Registers) {
        self.put(id, registers);
        self.bound(ABSENT_ADS_MAX);
    }

    fn put(&mut self, id: AdId, registers: Registers) {
        let before = Arc::make_mut(&mut self.parts[part_of(&id)]).insert(id, registers);
        self.len += usize::from(before.is_none());
    }

    pub(crate) fn remove(&mut self, id: &AdId) {
        let part = &mut self.parts[part_of(id)];
        if part.contains_key(id) {
            Arc::make_mut(part).remove(id);
            self.len -= 1;
        }
    }

    fn bound(&mut self, ads_max: usize) {
        if self.len <= ads_max {
            return;
        }
        let mut ages: Vec<Revision> = self.iter().map(|(_, registers)| registers.at()).collect();
        let (_, middle, _) = ages.select_nth_unstable(ads_max / 2);
        self.floor = self.floor.max(*middle);
        let floor = self.floor;
        self.parts.iter_mut().for_each(|part| Arc::make_mut(part).retain(|_, registers| registers.at() > floor));
        self.len = self.parts.iter().map(|part| part.len()).sum();
    }
}

fn part_of(id: &AdId) -> usize {
    reduce(stable_hash(PART_SEED, id.as_str().as_bytes()), PARTS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_absent_ads_the_older_half_is_forgotten_and_nothing_so_old_is_news() {
        let mut absent = Absent::default();
        let registers = |at| Registers { content_at: Revision::from_bits(at), ..Registers::default() };
        for at in 1..=11 {
            absent.put(AdId::from(at), registers(at));
        }
        absent.bound(11);
        assert_eq!((absent.len(), absent.floor), (11, Revision::NONE));
        absent.bound(10);
        assert_eq!((absent.len(), absent.floor), (5, Revision::from_bits(6)));
        assert_eq!(absent.get(&AdId::from(7)), Some(registers(7)));
        let change = |content_at, paused_at| ShardChange {
            id: AdId::from(99),
            content: ShardContent::Nothing,
            content_at: Revision::from_bits(content_at),
            paused: false,
            paused_at: Revision::from_bits(paused_at),
        };
        assert!(absent.is_late(&change(6, 0)) && !absent.is_late(&change(7, 0)));
        // Its content is old, but it was paused since: it comes as late as that.
        assert!(!absent.is_late(&change(1, 7)));
    }
}
