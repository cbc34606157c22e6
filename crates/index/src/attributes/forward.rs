//! Postings the other way round: what each row has.

use std::collections::{BTreeMap, BTreeSet};

use roaring::{MultiOps, RoaringBitmap};
use turret_retrieval::item::{Attribute, AttributeKind, Attributes};

use super::Postings;

impl Postings {
    /// The attributes of `rows`, of the kinds that `kinds` says; a row that has none is left out.
    ///
    /// As they were given, but that the words of a list are a set: in the order of their bytes, each once, and an empty list is
    /// no attribute. Takes the memory of what it returns, and a look at every word of the shard: for many rows, some at a time.
    pub(crate) fn attributes(
        &self,
        rows: &RoaringBitmap,
        kinds: &BTreeMap<Box<str>, AttributeKind>,
    ) -> BTreeMap<u32, Attributes> {
        let mut all: BTreeMap<u32, Attributes> = BTreeMap::new();
        for (name, kind) in kinds {
            if *kind == AttributeKind::Number {
                for (number, row) in self.numbers(name).filter(|(_, row)| rows.contains(*row)) {
                    all.entry(row).or_default().insert(name.clone(), Attribute::Number(number));
                }
                continue;
            }
            let mut words: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
            for (word, of_word) in self.segments.iter().flat_map(|segment| segment.each_word(name)) {
                for row in of_word & rows {
                    words.entry(row).or_default().insert(word);
                }
            }
            for (row, words) in words {
                let mut words = words.into_iter().map(Box::from);
                let value = match kind {
                    // It has one.
                    AttributeKind::Keyword => words.next().map(Attribute::Keyword),
                    AttributeKind::Keywords => Some(Attribute::Keywords(words.collect())),
                    AttributeKind::Number => None,
                };
                all.entry(row).or_default().extend(value.map(|value| (name.clone(), value)));
            }
        }
        all
    }

    /// The words of an attribute, in their order.
    pub(crate) fn words_of(&self, name: &str) -> BTreeSet<&str> {
        self.segments.iter().flat_map(|segment| segment.each_word(name)).map(|(word, _)| word).collect()
    }

    /// The rows that have a word, and perhaps rows that are in no more use.
    pub(crate) fn with_word(&self, name: &str, word: &str) -> RoaringBitmap {
        self.segments.iter().filter_map(|segment| segment.with_word(name, word)).union()
    }

    /// The numbers of an attribute with their rows; some of these may be in no more use.
    pub(crate) fn numbers(&self, name: &str) -> impl Iterator<Item = (f64, u32)> {
        self.segments.iter().flat_map(|segment| segment.each_number(name))
    }
}
