//! The attributes of some rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;
use turret_retrieval::filter::NumberRange;
use turret_retrieval::item::{Attribute, Attributes};

use super::numbers::Numbers;
use crate::row_set::RowSet;
use crate::rows::first_rows;

/// See the module above. Never changes.
#[derive(Default)]
pub(crate) struct Segment {
    /// Keyword and keywords attributes alike, by name.
    words: BTreeMap<Box<str>, Column>,
    numbers: BTreeMap<Box<str>, Numbers>,
    rows: RoaringBitmap,
    bytes: usize,
}

/// The words of one attribute.
#[derive(Default)]
struct Column {
    rows: HashMap<Box<str>, RoaringBitmap>,
    /// The other way round, where it was asked for.
    of_rows: OnceLock<WordsOfRows>,
}

/// The words of an attribute by row: eight bytes a row.
pub(super) struct WordsOfRows {
    words: Vec<Box<str>>,
    /// Rows, ascending, with the places of their words.
    rows: Vec<(u32, u32)>,
}

impl Segment {
    /// Indexes the attributes of rows.
    pub(crate) fn new<'a>(of_rows: impl IntoIterator<Item = (u32, &'a Attributes)>) -> Self {
        let mut segment = Self::default();
        let mut numbers: BTreeMap<&str, Vec<(f64, u32)>> = BTreeMap::new();
        for (row, attributes) in of_rows {
            segment.rows.insert(row);
            for (name, value) in attributes {
                match value {
                    Attribute::Keyword(word) => segment.add(name, std::slice::from_ref(word), row),
                    Attribute::Keywords(words) => segment.add(name, words, row),
                    Attribute::Number(number) => numbers.entry(name).or_default().push((*number, row)),
                }
            }
        }
        segment.numbers =
            numbers.into_iter().map(|(name, numbers)| (name.into(), Numbers::new(numbers.into_iter()))).collect();
        segment.weighed()
    }

    /// The segment of rows `0..rows`, of columns that are made already: the rows of each word, and numbers with their rows.
    pub(crate) fn of_columns(
        rows: u32,
        words: BTreeMap<Box<str>, HashMap<Box<str>, RoaringBitmap>>,
        numbers: BTreeMap<Box<str>, Vec<(f64, u32)>>,
    ) -> Self {
        let column = |rows| Column { rows, of_rows: OnceLock::new() };
        let segment = Self {
            words: words.into_iter().map(|(name, rows)| (name, column(rows))).collect(),
            numbers: numbers.into_iter().map(|(name, column)| (name, Numbers::new(column.into_iter()))).collect(),
            rows: first_rows(rows),
            bytes: 0,
        };
        segment.weighed()
    }

    fn add(&mut self, name: &str, words: &[Box<str>], row: u32) {
        if !self.words.contains_key(name) {
            self.words.insert(name.into(), Column::default());
        }
        let Some(column) = self.words.get_mut(name) else { return };
        for word in words {
            match column.rows.get_mut(word) {
                Some(rows) => drop(rows.insert(row)),
                None => drop(column.rows.insert(word.clone(), RoaringBitmap::from([row]))),
            }
        }
    }

    /// What all of `segments` hold, but the rows of `gone`.
    pub(super) fn merged(segments: &[Arc<Self>], gone: &RoaringBitmap) -> Self {
        let mut merged = Self::default();
        let mut numbers: BTreeMap<&str, Vec<&Numbers>> = BTreeMap::new();
        for segment in segments {
            merged.rows |= &segment.rows;
            for (name, column) in &segment.words {
                let whole = merged.words.entry(name.clone()).or_default();
                for (word, rows) in &column.rows {
                    let rows = if gone.is_empty() { rows.clone() } else { rows - gone };
                    match whole.rows.get_mut(word) {
                        Some(whole) => *whole |= rows,
                        None if rows.is_empty() => {}
                        None => drop(whole.rows.insert(word.clone(), rows)),
                    }
                }
            }
            for (name, column) in &segment.numbers {
                numbers.entry(name).or_default().push(column);
            }
        }
        merged.rows -= gone;
        merged.words.retain(|_, column| !column.rows.is_empty());
        let numbers = numbers.into_iter().map(|(name, parts)| (name, Numbers::merged(&parts, gone)));
        let numbers = numbers.filter(|(_, numbers)| !numbers.is_empty());
        merged.numbers = numbers.map(|(name, numbers)| (name.into(), numbers)).collect();
        merged.weighed()
    }

    fn weighed(mut self) -> Self {
        let words =
            self.words.values().flat_map(|column| &column.rows).map(|(word, rows)| word.len() + rows.serialized_size());
        let numbers = self.numbers.values().map(Numbers::bytes);
        self.bytes = words.sum::<usize>() + numbers.sum::<usize>() + self.rows.serialized_size();
        self
    }

    /// The rows of each of `values` that is there.
    pub(super) fn any_of<'a>(
        &'a self,
        field: &str,
        values: &'a [Box<str>],
    ) -> impl Iterator<Item = &'a RoaringBitmap> + use<'a> {
        let column = self.words.get(field);
        values.iter().filter_map(move |word| column?.rows.get(word))
    }

    /// The rows whose number is in `range`; absent where no row has the attribute.
    pub(super) fn between(&self, field: &str, range: &NumberRange) -> Option<RowSet> {
        self.numbers.get(field).map(|numbers| numbers.rows(range))
    }

    /// The words of an attribute with their rows, in no order.
    pub(super) fn each_word(&self, field: &str) -> impl Iterator<Item = (&str, &RoaringBitmap)> {
        self.words.get(field).into_iter().flat_map(|column| &column.rows).map(|(word, rows)| (&**word, rows))
    }

    /// The rows of a word.
    pub(super) fn with_word(&self, field: &str, word: &str) -> Option<&RoaringBitmap> {
        self.words.get(field)?.rows.get(word)
    }

    /// The numbers of an attribute, ascending, with their rows.
    pub(super) fn each_number(&self, field: &str) -> impl Iterator<Item = (f64, u32)> {
        self.numbers.get(field).into_iter().flat_map(Numbers::iter)
    }

    /// All rows, and the words of those that have this attribute, if any has.
    pub(super) fn words(&self, field: &str) -> Option<(&RoaringBitmap, &WordsOfRows)> {
        let column = self.words.get(field)?;
        Some((&self.rows, column.of_rows.get_or_init(|| WordsOfRows::new(&column.rows))))
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> u64 {
        self.rows.len()
    }

    /// Whether any row has an attribute of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.words.contains_key(name) || self.numbers.contains_key(name)
    }

    /// The memory that it takes, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let of_rows = self.words.values().filter_map(|column| column.of_rows.get());
        self.bytes + of_rows.map(WordsOfRows::bytes).sum::<usize>()
    }
}

impl WordsOfRows {
    fn new(column: &HashMap<Box<str>, RoaringBitmap>) -> Self {
        let (mut words, mut rows) = (Vec::with_capacity(column.len()), Vec::new());
        for (place, (word, of_word)) in (0u32..).zip(column) {
            words.push(word.clone());
            rows.extend(of_word.iter().map(|row| (row, place)));
        }
        rows.sort_unstable();
        Self { words, rows }
    }

    /// The word of a row; one of them where it has more.
    pub(super) fn of(&self, row: u32) -> Option<&str> {
        let at = self.rows.binary_search_by_key(&row, |(row, _)| *row).ok()?;
        Some(&self.words[self.rows[at].1 as usize])
    }

    fn bytes(&self) -> usize {
        let words = self.words.iter().map(|word| size_of_val(word) + word.len());
        words.sum::<usize>() + size_of_val(&*self.rows)
    }
}
