//! Ads that are changed while an index serves: what is kept of each, and how two accounts of one ad become one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::AdId;
use crate::item::{Ad, Attribute, Attributes, Item};
use crate::revision::Revision;

/// A change of an ad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AdChange {
    /// The ad is this, whatever it was before.
    Upsert(Box<Promoted>),
    /// There is no such ad any more.
    Delete,
    /// It is not to be shown until further notice, or may be again. A later upsert does not change that.
    Pause(bool),
    /// Some of its attributes are these; all else stands, as whoever makes the change knows it. Of no ad, where it was deleted.
    Patch(AttributePatch),
}

/// Attributes with their new values, by name; absent where the ad is to have none of that name.
pub type AttributePatch = BTreeMap<Box<str>, Option<Attribute>>;

/// Changes `attributes` as `patch` says.
pub fn patch_attributes(attributes: &mut Attributes, patch: &AttributePatch) {
    for (name, value) in patch {
        match value {
            Some(value) => drop(attributes.insert(name.clone(), value.clone())),
            None => drop(attributes.remove(name)),
        }
    }
}

/// An ad with the item that it promotes: the features that an ad tower makes an embedding of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promoted {
    /// The ad; `ad.item` is `item.id`.
    pub ad: Ad,
    /// The item.
    pub item: Item,
}

/// What an ad is, where a change says so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// What the index was built with, if anything.
    #[default]
    AsBuilt,
    /// This.
    Is(Box<Promoted>),
    /// Nothing any more.
    Deleted,
    /// What the index was built with, but for these attributes.
    Patched(AttributePatch),
}

/// All that changes said of one ad: two registers, each of which the larger revision wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveAd {
    /// Which ad.
    pub id: AdId,
    /// What it is.
    pub content: Content,
    /// Since when; none where it is as built.
    pub content_at: Revision,
    /// Whether it is paused.
    pub paused: bool,
    /// Since when; none where nobody said.
    pub paused_at: Revision,
}

impl LiveAd {
    /// An ad of which no change is known.
    pub fn untouched(id: AdId) -> Self {
        Self { id, content: Content::AsBuilt, content_at: Revision::NONE, paused: false, paused_at: Revision::NONE }
    }

    /// The revision of its latest change.
    pub fn at(&self) -> Revision {
        self.content_at.max(self.paused_at)
    }

    /// Makes a change, at a revision above all that are known of the ad.
    pub fn apply(&mut self, change: AdChange, at: Revision) {
        match change {
            AdChange::Upsert(promoted) => (self.content, self.content_at) = (Content::Is(promoted), at),
            AdChange::Delete => (self.content, self.content_at) = (Content::Deleted, at),
            AdChange::Pause(paused) => (self.paused, self.paused_at) = (paused, at),
            AdChange::Patch(patch) => {
                match &mut self.content {
                    Content::Deleted => return,
                    Content::AsBuilt => self.content = Content::Patched(patch),
                    Content::Patched(before) => before.extend(patch),
                    Content::Is(promoted) => patch_attributes(&mut promoted.ad.attributes, &patch),
                }
                self.content_at = at;
            }
        }
    }

    /// Takes over what `other` knows better; in whatever order accounts are joined, the result is one. What is known of the content is
    /// taken as a whole: where each has a patch that the other lacks, the later one's patches are kept, and those of the other lost.
    pub fn join(&mut self, other: Self) {
        if other.content_at > self.content_at {
            (self.content, self.content_at) = (other.content, other.content_at);
        }
        if other.paused_at > self.paused_at {
            (self.paused, self.paused_at) = (other.paused, other.paused_at);
        }
    }

    /// Whether an index that contains all changes up to `until` must still be told of it.
    pub fn is_news_after(&self, until: Revision) -> bool {
        self.at() > until || self.paused
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(kind: u8) -> AdChange {
        let item = Item {
            id: 7.into(),
            advertiser: None,
            interests: vec![],
            price: Some(f32::from(kind)),
            title: None,
            embedding: None,
        };
        match kind % 4 {
            0 => AdChange::Delete,
            1 => AdChange::Pause(true),
            2 => AdChange::Pause(false),
            _ => AdChange::Upsert(Box::new(Promoted {
                ad: Ad { id: 1.into(), item: 7.into(), attributes: Default::default() },
                item,
            })),
        }
    }

    proptest! {
        #[test]
        fn accounts_that_saw_parts_in_any_order_become_one(
            kinds in prop::collection::vec((any::<u8>(), any::<bool>()), 0..12),
        ) {
            let mut whole = LiveAd::untouched(1.into());
            let mut parts = [whole.clone(), whole.clone()];
            for (at, (kind, side)) in (1..).zip(&kinds) {
                let at = Revision::from_bits(at);
                whole.apply(change(*kind), at);
                parts[usize::from(*side)].apply(change(*kind), at);
            }
            let [left, right] = parts;
            let joined = |mut a: LiveAd, b: LiveAd| { a.join(b); a };
            prop_assert_eq!(&joined(left.clone(), right.clone()), &whole);
            prop_assert_eq!(&joined(right.clone(), left.clone()), &whole);
            prop_assert_eq!(&joined(whole.clone(), left), &whole, "what is known already changes nothing");
            prop_assert_eq!(whole.at(), Revision::from_bits(kinds.len() as u64));
        }
    }

    #[test]
    fn a_patch_changes_some_attributes_of_what_is_there_and_brings_nothing_back() {
        let number = |number| Some(Attribute::Number(number));
        let patch = |name: &str, value| AdChange::Patch(BTreeMap::from([(name.into(), value)]));
        let mut ad = LiveAd::untouched(1.into());
        ad.apply(patch("bid", number(1.0)), Revision::from_bits(1));
        ad.apply(patch("note", None), Revision::from_bits(2));
        ad.apply(patch("bid", number(2.0)), Revision::from_bits(3));
        let both = BTreeMap::from([("bid".into(), number(2.0)), ("note".into(), None)]);
        assert_eq!((&ad.content, ad.content_at), (&Content::Patched(both), Revision::from_bits(3)));
        ad.apply(change(3), Revision::from_bits(4));
        ad.apply(patch("bid", number(3.0)), Revision::from_bits(5));
        let Content::Is(promoted) = &ad.content else { panic!("{ad:?}") };
        assert_eq!(promoted.ad.attributes, BTreeMap::from([("bid".into(), Attribute::Number(3.0))]));
        ad.apply(AdChange::Delete, Revision::from_bits(6));
        ad.apply(patch("bid", number(4.0)), Revision::from_bits(7));
        assert_eq!((ad.content, ad.content_at), (Content::Deleted, Revision::from_bits(6)));
    }

    #[test]
    fn a_pause_outlives_an_upsert_and_the_index_that_contains_it() {
        let mut ad = LiveAd::untouched(1.into());
        ad.apply(change(1), Revision::from_bits(1));
        ad.apply(change(3), Revision::from_bits(2));
        assert!(ad.paused && matches!(ad.content, Content::Is(_)));
        assert!(ad.is_news_after(Revision::from_bits(9)));
        ad.apply(change(2), Revision::from_bits(3));
        // A resume is news to who was told of the pause.
        assert!(ad.is_news_after(Revision::from_bits(2)) && !ad.is_news_after(Revision::from_bits(3)));
    }
}
