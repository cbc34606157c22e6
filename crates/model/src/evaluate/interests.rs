//! What items are about, as vectors that can be compared: no arm learns here.

use std::collections::HashMap;

use turret_retrieval::dataset::Dataset;
use turret_retrieval::ids::InterestId;
use turret_retrieval::item::Interest;

/// Interests by number, with weights.
pub(super) type Weighted = Vec<(u32, f32)>;

/// The confidence-weighted interests of every item, as vectors of length 1.
pub(super) struct InterestVectors<'a> {
    numbers: HashMap<&'a InterestId, u32>,
    items: Vec<Weighted>,
    // By interest: the items that have it, with its component of theirs.
    postings: Vec<Weighted>,
}

impl<'a> InterestVectors<'a> {
    pub(super) fn of(data: &'a Dataset) -> Self {
        let mut vectors = Self { numbers: HashMap::new(), items: Vec::new(), postings: Vec::new() };
        for (number, item) in (0..).zip(data.items.iter()) {
            for interest in &item.interests {
                let next = vectors.numbers.len() as u32;
                vectors.numbers.entry(&interest.id).or_insert(next);
            }
            vectors.postings.resize_with(vectors.numbers.len(), Vec::new);
            let own = vectors.vector(&item.interests);
            own.iter().for_each(|(interest, weight)| vectors.postings[*interest as usize].push((number, *weight)));
            vectors.items.push(own);
        }
        vectors
    }

    /// Whether any item has interests.
    pub(super) fn are_known(&self) -> bool {
        !self.postings.is_empty()
    }

    /// The vector of an item; empty where it has no interests.
    pub(super) fn item(&self, number: u32) -> &[(u32, f32)] {
        &self.items[number as usize]
    }

    /// The vector of `interests`, of length 1 where any of them is one of an item's.
    pub(super) fn vector(&self, interests: &[Interest]) -> Weighted {
        let known = interests.iter().filter_map(|i| self.numbers.get(&i.id).map(|number| (*number, i.confidence)));
        let mut vector: Weighted = known.collect();
        vector.sort_by_key(|(number, _)| *number);
        vector.dedup_by_key(|(number, _)| *number);
        let length = vector.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|(_, weight)| *weight /= length);
        vector
    }

    /// The items that have an interest of `subject`, each once for each of those, with its part of the cosine.
    pub(super) fn sharing(&self, subject: &[(u32, f32)]) -> impl Iterator<Item = (u32, f32)> {
        let postings = subject.iter().map(|(interest, weight)| (&self.postings[*interest as usize], *weight));
        postings.flat_map(|(items, weight)| items.iter().map(move |(item, own)| (*item, own * weight)))
    }
}

/// The cosine of two vectors; 0 where one of them is empty.
pub(super) fn cosine(a: &[(u32, f32)], b: &[(u32, f32)]) -> f32 {
    let same = |interest: u32| b.iter().find(|(other, _)| *other == interest);
    let products = a.iter().filter_map(|(interest, weight)| same(*interest).map(|(_, other)| weight * other));
    // A sum of no floats would be -0.
    products.fold(0.0, |sum, product| sum + product)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_those_of_a_hand_count_and_nothing_shared_is_plain_zero() {
        assert_eq!(cosine(&[(1, 0.6), (2, 0.8)], &[(2, 1.0)]), 0.8);
        assert_eq!(cosine(&[(1, 1.0)], &[(2, 1.0)]).to_bits(), 0f32.to_bits());
        assert_eq!(cosine(&[], &[(2, 1.0)]).to_bits(), 0f32.to_bits());
    }
}
