//! Ads of which some attributes are changed: what they come to be.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use turret_retrieval::attribute_schema;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::Attributes;
use turret_retrieval::live_ad::patch_attributes;
use turret_retrieval::revision::Revision;

use super::{Content, Next, Row};
use crate::change::ChangeError;
use crate::view::View;

/// What ads that are patched had, each with its row then and when that was made.
#[derive(Default)]
pub(crate) struct Patched {
    by_id: BTreeMap<AdId, (u32, Revision, Attributes)>,
}

impl Patched {
    /// Of the rows of `view` that hold these ads, made at these revisions.
    pub(crate) fn read(view: &View, ads: Vec<(AdId, u32, Revision)>) -> Self {
        let mut of_rows = view.postings.attributes(&ads.iter().map(|(_, row, _)| *row).collect(), &view.kinds);
        let of_ad = |(id, row, at)| (id, (row, at, of_rows.remove(&row).unwrap_or_default()));
        // One that is patched twice is there once.
        let mut by_id = BTreeMap::new();
        for (id, of) in ads.into_iter().map(of_ad) {
            by_id.entry(id).or_insert(of);
        }
        Self { by_id }
    }

    /// What an ad has that lies in `row`, where nothing has changed it since.
    fn take(&mut self, id: &AdId, row: u32, at: Revision) -> Option<Attributes> {
        self.by_id.remove(id).filter(|(of, made, _)| (*of, *made) == (row, at)).map(|(_, _, attributes)| attributes)
    }

    /// Makes of the patches of ads that are there what these come to be: a row of its own each, for its attributes are where others
    /// look for it. All rows together, as every word of the shard is looked at for the attributes of one.
    pub(super) fn make(mut self, view: &View, ads: &mut BTreeMap<AdId, Next>) -> Result<(), ChangeError> {
        let mut known = BTreeMap::new();
        let mut others = RoaringBitmap::new();
        for (id, next) in &*ads {
            let (Content::Patched(_), Some(row)) = (&next.content, next.row) else { continue };
            match self.take(id, row, next.before.content_at) {
                Some(attributes) => drop(known.insert(row, attributes)),
                None => drop(others.insert(row)),
            }
        }
        if !others.is_empty() {
            known.extend(view.postings.attributes(&others, &view.kinds));
        }
        for (id, next) in ads {
            let (Content::Patched(patch), Some(row)) = (&next.content, next.row) else { continue };
            let mut attributes = known.remove(&row).unwrap_or_default();
            patch_attributes(&mut attributes, patch);
            attribute_schema::check(&attributes)
                .map_err(|source| ChangeError::Patched { ad: id.as_str().into(), source })?;
            next.content = Content::Is(Row { attributes, embedding: view.vectors.row(row).into() });
        }
        Ok(())
    }
}
