//! Words of titles and queries, numbered.

use std::collections::HashMap;

use turret_retrieval::dataset::Dataset;

/// The words of all titles.
pub(super) struct Vocabulary {
    numbers: HashMap<String, u32>,
    /// By row of the item: its title's words, sorted, each once.
    of_items: Vec<Vec<u32>>,
}

impl Vocabulary {
    pub(super) fn new(data: &Dataset) -> Self {
        let mut vocabulary = Self { numbers: HashMap::new(), of_items: Vec::with_capacity(data.items.len()) };
        for item in data.items.iter() {
            let mut words: Vec<u32> = split(item.title.as_deref().unwrap_or_default())
                .map(|word| {
                    let next = vocabulary.numbers.len() as u32;
                    *vocabulary.numbers.entry(word).or_insert(next)
                })
                .collect();
            words.sort_unstable();
            words.dedup();
            vocabulary.of_items.push(words);
        }
        vocabulary
    }

    /// The words of an item's title, by the item's row.
    pub(super) fn of_item(&self, row: u32) -> &[u32] {
        &self.of_items[row as usize]
    }

    /// The words of a text, sorted, each once; those of no title count, though they are like nothing.
    pub(super) fn of_text(&self, text: &str) -> Vec<u32> {
        let mut words: Vec<u32> =
            split(text).map(|word| self.numbers.get(&word).copied().unwrap_or(u32::MAX)).collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    /// The cosine of two sets of words, in 0..=1; 0 where one is empty.
    pub(super) fn likeness(&self, own: &[u32], other: &[u32]) -> f64 {
        let common = own.iter().filter(|word| other.binary_search(word).is_ok()).count() as f64;
        common / ((own.len() * other.len()) as f64).sqrt().max(1.0)
    }
}

fn split(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use turret_retrieval::dataset::Clock;
    use turret_retrieval::ids::ItemId;
    use turret_retrieval::item::Item;

    use super::*;

    #[test]
    fn likeness_counts_common_words() {
        let item = |id, title: &str| Item {
            id: ItemId::from(id),
            advertiser: None,
            interests: vec![],
            price: None,
            title: Some(title.to_owned()),
            embedding: None,
        };
        let items = vec![item(0, "Nordic floor lamp"), item(1, "Soft floor  Lamp lamp"), item(2, "")];
        let words = Vocabulary::new(&Dataset::new(items, vec![], vec![], Clock::Order, vec![]));
        let like = |other: &[u32]| (100.0 * words.likeness(words.of_item(0), other)).round();
        assert_eq!((like(words.of_item(1)), like(words.of_item(2))), (67.0, 0.0));
        assert_eq!((like(&words.of_text("FLOOR lamp")), like(&words.of_text("lamp zebra"))), (82.0, 41.0));
    }
}
