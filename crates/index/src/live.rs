//! A shard whose ads change while it serves: the index as it was built, and beside it what became of some ads since.
//!
//! Changed ads are scanned exactly, and what the built index has of them is hidden. Searches never wait: each takes the state
//! of the moment, and a change makes the next one beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::AttributeKind;
use turret_retrieval::revision::Revision;

use crate::rows::{RowsError, ShardAd, ShardRows};
use crate::shard::{Found, Search, SearchError, ShardIndex};

/// The most ads of one shard that are not as built: scanning more would cost more than a graph does.
pub const CHANGED_ADS_MAX: usize = 20_000;

/// What is to be shown of an ad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ShardContent {
    /// What the index was built with, if anything.
    AsBuilt,
    /// This.
    Is(Box<ShardAd>),
    /// Nothing.
    Nothing,
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

/// Why changes were not made; none of them was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// More ads than are scanned.
    #[error("{found} ads are not as built, the limit is {CHANGED_ADS_MAX}")]
    TooMany {
        /// How many there would be.
        found: usize,
    },
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
}

/// See the module. Any number of threads may search it while one changes it.
pub struct LiveShard {
    built: ShardIndex,
    /// Held while changes are made.
    changes: Mutex<BTreeMap<AdId, ShardChange>>,
    now: RwLock<Arc<Beside>>,
}

/// What stands beside the built index at one moment.
#[derive(Default)]
struct Beside {
    /// Rows of the built index that are not to be found.
    hidden: RoaringBitmap,
    /// Ads that are as a change made them.
    changed: Option<ShardIndex>,
}

impl LiveShard {
    /// A shard as it was built.
    pub fn new(built: ShardIndex) -> Self {
        Self { built, changes: Mutex::default(), now: RwLock::default() }
    }

    /// Takes changes over, in whatever order they come; what is known already changes nothing. From its return on, searches
    /// see them.
    ///
    /// # Errors
    /// When one of the ads cannot stand in this shard, or there are too many; then nothing is changed.
    pub fn apply(&self, changes: Vec<ShardChange>) -> Result<(), ChangeError> {
        // The map is replaced as a whole, so that a panic leaves the one before.
        let mut known = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = known.clone();
        for change in changes {
            match next.get_mut(&change.id) {
                Some(ad) => join(ad, change),
                None => drop(next.insert(change.id.clone(), change)),
            }
        }
        if next.len() > CHANGED_ADS_MAX {
            return Err(ChangeError::TooMany { found: next.len() });
        }
        let beside = self.beside(&next)?;
        *known = next;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(beside);
        Ok(())
    }

    fn beside(&self, changes: &BTreeMap<AdId, ShardChange>) -> Result<Beside, ChangeError> {
        let (mut hidden, mut ads) = (RoaringBitmap::new(), Vec::new());
        let kinds = self.built.attributes();
        for (id, change) in changes {
            if change.content != ShardContent::AsBuilt || change.paused {
                hidden.extend(self.built.row_of(id));
            }
            if let (ShardContent::Is(ad), false) = (&change.content, change.paused) {
                check_kinds(ad, &kinds)?;
                ads.push((**ad).clone());
            }
        }
        let changed = match ads.is_empty() {
            true => None,
            false => Some(ShardIndex::scanned(ShardRows::new(self.built.dimension(), ads)?)),
        };
        Ok(Beside { hidden, changed })
    }

    /// The best `k` ads of now that pass the filter.
    ///
    /// # Errors
    /// As [`ShardIndex::search`].
    pub fn search(&self, search: &Search<'_>) -> Result<Found, SearchError> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner).clone();
        let built = self.built.search_without(search, &now.hidden)?;
        let Some(index) = &now.changed else { return Ok(built) };
        let changed = index.search(search)?;
        let visible = self.built.len() - now.hidden.len() as usize;
        let exhausted = built.exhausted && changed.exhausted && built.ads.len() + changed.ads.len() < search.k;
        let passing = |found: &Found, of: usize| found.selectivity.map(|share| share * of as f64);
        let selectivity = passing(&built, visible)
            .zip(passing(&changed, index.len()))
            .map(|(a, b)| (a + b) / (visible + index.len()).max(1) as f64);
        let mut ads = built.ads;
        ads.extend(changed.ads);
        ads.sort_by(|a, b| a.hit.cmp(&b.hit));
        ads.truncate(search.k);
        Ok(Found { ads, exhausted, plan: built.plan, selectivity, distances: built.distances + changed.distances })
    }

    /// The index as it was built.
    pub fn built(&self) -> &ShardIndex {
        &self.built
    }

    /// How many ads are not as built.
    pub fn changed(&self) -> usize {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn join(ad: &mut ShardChange, other: ShardChange) {
    if other.content_at > ad.content_at {
        (ad.content, ad.content_at) = (other.content, other.content_at);
    }
    if other.paused_at > ad.paused_at {
        (ad.paused, ad.paused_at) = (other.paused, other.paused_at);
    }
}

fn check_kinds(ad: &ShardAd, kinds: &BTreeMap<Box<str>, AttributeKind>) -> Result<(), ChangeError> {
    for (name, value) in &ad.ad.attributes {
        let found = value.kind();
        if let Some(expected) = kinds.get(name).copied().filter(|expected| *expected != found) {
            return Err(ChangeError::Kind { ad: ad.ad.id.as_str().into(), attribute: name.clone(), expected, found });
        }
    }
    Ok(())
}

impl fmt::Debug for LiveShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveShard").field("built", &self.built).field("changed", &self.changed()).finish()
    }
}

#[cfg(test)]
mod tests;
