//! The items as the model sees them: by row number while training, by id while serving.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use turret_retrieval::ids::ItemId;
use turret_retrieval::item::Item;

use crate::features::Features;
use crate::ops::Bags;

/// The features of one item, as rows of the embedding table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ItemFeatures {
    /// The two rows of its hashed id; none where training never saw the item: what those rows say is of others.
    pub(crate) id: Option<[u32; 2]>,
    /// The rows of its interests with their confidences.
    pub(crate) interests: Vec<(u32, f32)>,
    /// The row of its advertiser.
    pub(crate) advertiser: Option<u32>,
    /// The row of its price bucket, which may be the unknown one.
    pub(crate) price: u32,
    /// Its content embedding, where the model uses them; empty where it has none.
    pub(crate) content: Vec<f32>,
}

impl ItemFeatures {
    /// What `features` sees of `item`; unknown interests are left out.
    pub(crate) fn of(item: &Item, features: &Features) -> Self {
        let interests = item.interests.iter();
        let content = item.embedding.as_deref().unwrap_or(&[]);
        let uses_content = content.len() == features.schema.content_dimension();
        Self {
            id: Some(features.id(&item.id)),
            interests: interests.filter_map(|i| features.interest(&i.id).map(|row| (row, i.confidence))).collect(),
            advertiser: item.advertiser.as_ref().map(|id| features.advertiser(id)),
            price: features.price(item.price),
            content: if uses_content { content.to_vec() } else { Vec::new() },
        }
    }

    /// What is known of an item that is not in the catalogue: nothing.
    pub(crate) fn of_unknown(features: &Features) -> Self {
        Self { id: None, interests: Vec::new(), advertiser: None, price: features.price(None), content: Vec::new() }
    }

    /// Whether every row is one of the table, as those of [`of`](Self::of) are.
    pub(crate) fn fits(&self, features: &Features) -> bool {
        let rows = self
            .interests
            .iter()
            .map(|(row, _)| row)
            .chain(self.id.iter().flatten())
            .chain(&self.advertiser)
            .chain([&self.price]);
        let content = [0, features.schema.content_dimension()].contains(&self.content.len());
        let confidences = self.interests.iter().all(|(_, confidence)| *confidence > 0.0 && *confidence <= 1.0);
        content && confidences && rows.into_iter().all(|row| (*row as usize) < features.rows())
    }

    /// Adds the item's rows to the open bag of `bags`, those of its id only if `with_id`.
    pub(crate) fn push(&self, with_id: bool, bags: &mut Bags) {
        if with_id {
            self.id.iter().flatten().for_each(|row| bags.push(*row, 1.0));
        }
        push_mean(&self.interests, bags);
        if let Some(row) = self.advertiser {
            bags.push(row, 1.0);
        }
        bags.push(self.price, 1.0);
    }
}

/// Adds the confidence-weighted mean of `interests` (rows, confidences) to the open bag of `bags`.
pub(crate) fn push_mean(interests: &[(u32, f32)], bags: &mut Bags) {
    let total: f32 = interests.iter().map(|(_, confidence)| confidence).sum();
    if total > 0.0 {
        interests.iter().for_each(|(row, confidence)| bags.push(*row, confidence / total));
    }
}

/// Every item that the model was trained with, by id.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    /// In the order of the data set.
    pub(crate) items: Vec<(ItemId, ItemFeatures)>,
    numbers: HashMap<ItemId, u32>,
}

impl Catalogue {
    /// Prepares look-ups; of two items with one id, the later one counts.
    pub(crate) fn new(items: Vec<(ItemId, ItemFeatures)>) -> Self {
        let numbers = items.iter().map(|(id, _)| id.clone()).zip(0..).collect();
        Self { items, numbers }
    }

    /// What `features` sees of `items`.
    pub(crate) fn of(items: &[Item], features: &Features) -> Self {
        Self::new(items.iter().map(|item| (item.id.clone(), ItemFeatures::of(item, features))).collect())
    }

    /// Drops the ids of the items that training never saw: `seen` says which it did, by number.
    pub(crate) fn keep_ids(&mut self, seen: &[bool]) {
        let unseen = self.items.iter_mut().zip(seen).filter(|(_, seen)| !**seen);
        unseen.for_each(|((_, item), _)| item.id = None);
    }

    /// The items as files keep them, and as digests read them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.items).expect("features hold nothing that postcard refuses")
    }

    /// The features of item `number` of the data set.
    pub(crate) fn item(&self, number: u32) -> &ItemFeatures {
        &self.items[number as usize].1
    }

    /// The features of an item by id, where it is known.
    pub(crate) fn find(&self, id: &ItemId) -> Option<&ItemFeatures> {
        self.numbers.get(id).map(|number| self.item(*number))
    }
}
