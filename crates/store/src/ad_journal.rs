//! The journal of live ads: what became of each ad since an index was built, in the order in which it happened.
//!
//! It keeps features and no embeddings, so that an ad is embedded by whichever ad tower serves. There is one entry an ad,
//! its last, so that the journal is as long as there are ads that changed, and not as there were changes. It is kept for good: the
//! data set that the next index is built from need not know of a change.

use std::collections::HashMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sled::Tree;
use turret_retrieval::ids::AdId;
use turret_retrieval::live_ad::{AdChange, LiveAd};
use turret_retrieval::revision::Revision;

use crate::disk::Disk;
use crate::partition::{OpenError, ReadError, WriteError};
use crate::record::{RecordError, decode, encode};

/// Its page cache: entries are small, and a start reads all of them once.
const CACHE_BYTES: u64 = 16 << 20;
/// The bytes of a revision before the ad in the keys of the order.
const REVISION_BYTES: usize = 8;

/// See the module. Any number of threads may read while one writes.
pub struct AdJournal {
    disk: Disk,
    /// Entries by ad.
    ads: Tree,
    /// Ads by the revision of their entry; what names another revision than the entry has is left over.
    order: Tree,
    /// The latest revision; held while entries are written.
    latest: Mutex<Revision>,
}

impl AdJournal {
    /// Opens the journal in `dir`, or makes it.
    ///
    /// # Errors
    /// When another process has it open, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let fail = |source| OpenError::of(dir, WriteError::Disk(source));
        let disk = Disk::open(dir, CACHE_BYTES).map_err(fail)?;
        let (ads, order) = (disk.db.open_tree("ads").map_err(fail)?, disk.db.open_tree("order").map_err(fail)?);
        let latest = order.last().map_err(fail)?.and_then(|(key, _)| revision_of(&key)).unwrap_or_default();
        Ok(Self { disk, ads, order, latest: Mutex::new(latest) })
    }

    /// Makes changes in their order, each at a revision of its own; acknowledged when this returns. What the ads are now, each
    /// once.
    ///
    /// # Errors
    /// When something cannot be read or written; changes before it may have been made.
    pub fn apply(&self, changes: Vec<(AdId, AdChange)>, now_ms: i64) -> Result<Vec<LiveAd>, WriteError> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let writing = self.disk.writing();
        let mut changed: HashMap<AdId, LiveAd> = HashMap::new();
        let mut order = Vec::new();
        for (id, change) in changes {
            let mut ad = match changed.remove(&id) {
                Some(ad) => ad,
                None => {
                    order.push(id.clone());
                    self.get(&id)?.unwrap_or_else(|| LiveAd::untouched(id.clone()))
                }
            };
            let before = ad.at();
            *latest = Revision::mint(now_ms, (*latest).max(before));
            ad.apply(change, *latest);
            if ad.at() == before {
                changed.insert(id, ad);
                continue;
            }
            // In this order a crash leaves a place in the order that its entry does not know, which is passed over.
            self.order.insert(key_of(&ad), &[])?;
            self.ads.insert(id.as_str(), encode(&ad))?;
            if before > Revision::NONE {
                self.order.remove(key(before, &id))?;
            }
            changed.insert(id, ad);
        }
        drop(writing);
        self.disk.flush()?;
        Ok(order.iter().filter_map(|id| changed.remove(id)).collect())
    }

    /// What is known of an ad; nothing where it is as built.
    ///
    /// # Errors
    /// When its entry cannot be read.
    pub fn get(&self, id: &AdId) -> Result<Option<LiveAd>, ReadError> {
        self.ads.get(id.as_str())?.map(|bytes| read(id.as_str().as_bytes(), &bytes)).transpose()
    }

    /// At most `limit` ads whose last change is above `after`, in the order of those changes.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn since(&self, after: Revision, limit: usize) -> Result<Vec<LiveAd>, ReadError> {
        let mut found = Vec::new();
        let start = after.bits().saturating_add(1).to_be_bytes();
        for entry in self.order.range::<&[u8], _>((Bound::Included(&start[..]), Bound::Unbounded)) {
            if found.len() >= limit {
                break;
            }
            let (key, _) = entry?;
            let (Some(at), Some(id)) = (revision_of(&key), key.get(REVISION_BYTES..)) else { continue };
            let Some(bytes) = self.ads.get(id)? else { continue };
            let ad = read(id, &bytes)?;
            if ad.at() == at {
                found.push(ad);
            }
        }
        Ok(found)
    }

    /// The revision of the last change.
    pub fn latest(&self) -> Revision {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many ads are not as built.
    pub fn len(&self) -> usize {
        self.ads.len()
    }

    /// Whether all ads are as built.
    pub fn is_empty(&self) -> bool {
        self.ads.is_empty()
    }
}

fn read(id: &[u8], bytes: &[u8]) -> Result<LiveAd, ReadError> {
    decode(bytes).map_err(|source: RecordError| ReadError::Ad { ad: String::from_utf8_lossy(id).into_owned(), source })
}

fn key_of(ad: &LiveAd) -> Vec<u8> {
    key(ad.at(), &ad.id)
}

fn key(at: Revision, id: &AdId) -> Vec<u8> {
    [&at.bits().to_be_bytes()[..], id.as_str().as_bytes()].concat()
}

fn revision_of(key: &[u8]) -> Option<Revision> {
    Some(Revision::from_bits(u64::from_be_bytes(*key.first_chunk::<REVISION_BYTES>()?)))
}

#[cfg(test)]
mod tests;
