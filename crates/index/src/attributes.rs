//! The postings of a shard: which rows have which attribute, and which rows pass a filter.

use std::collections::{BTreeMap, HashMap};

use roaring::{MultiOps, RoaringBitmap};
use turret_retrieval::filter::{Filter, NumberRange};
use turret_retrieval::item::{Ad, Attribute, AttributeKind};

/// How many bitmaps a number column keeps, at most: with 64, a range costs two of them and at most a 64th of the rows.
const PREFIXES_MAX: usize = 64;
/// Fewer rows than this are gathered one by one anyway.
const PREFIX_ROWS_MIN: usize = 1_024;

/// The attributes of all rows of a shard, by name.
pub(crate) struct Attributes {
    columns: BTreeMap<Box<str>, Column>,
    all: RoaringBitmap,
}

enum Column {
    /// Rows by word, for keyword and keywords attributes alike.
    Words(HashMap<Box<str>, RoaringBitmap>),
    Numbers(Numbers),
}

impl Attributes {
    /// Indexes `ads`; the position of an ad is its row. `kinds` names every attribute of theirs.
    pub(crate) fn new(ads: &[Ad], kinds: &BTreeMap<Box<str>, AttributeKind>) -> Self {
        let columns = kinds.iter().map(|(name, kind)| (name.clone(), column(ads, name, *kind))).collect();
        Self { columns, all: (0..ads.len() as u32).collect() }
    }

    /// The rows that pass `filter`: exactly those for which [`Filter::matches`] holds.
    pub(crate) fn rows(&self, filter: &Filter) -> RoaringBitmap {
        match filter {
            Filter::And(parts) => self.intersection(parts),
            Filter::Or(parts) => parts.iter().map(|part| self.rows(part)).union(),
            Filter::Not(part) => &self.all - self.rows(part),
            Filter::AnyOf { field, values } => match self.columns.get(field) {
                Some(Column::Words(rows)) => values.iter().filter_map(|word| rows.get(word)).union(),
                Some(Column::Numbers(_)) | None => RoaringBitmap::new(),
            },
            Filter::Between { field, range } => match self.columns.get(field) {
                Some(Column::Numbers(numbers)) => numbers.rows(range),
                Some(Column::Words(_)) | None => RoaringBitmap::new(),
            },
        }
    }

    fn intersection(&self, parts: &[Filter]) -> RoaringBitmap {
        let Some((first, rest)) = parts.split_first() else { return self.all.clone() };
        let mut rows = self.rows(first);
        for part in rest {
            if rows.is_empty() {
                break;
            }
            rows &= self.rows(part);
        }
        rows
    }

    /// Every row.
    pub(crate) fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// The memory that the postings take, in bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        let column_bytes = |column: &Column| match column {
            Column::Words(rows) => rows.iter().map(|(word, rows)| word.len() + rows.serialized_size()).sum(),
            Column::Numbers(numbers) => {
                size_of_val(&*numbers.ascending)
                    + numbers.prefixes.iter().map(RoaringBitmap::serialized_size).sum::<usize>()
            }
        };
        self.columns.values().map(column_bytes).sum()
    }
}

fn column(ads: &[Ad], name: &str, kind: AttributeKind) -> Column {
    let values = (0u32..).zip(ads).filter_map(|(row, ad)| ad.attributes.get(name).map(|value| (row, value)));
    match kind {
        AttributeKind::Keyword | AttributeKind::Keywords => {
            let mut rows: HashMap<Box<str>, RoaringBitmap> = HashMap::new();
            for (row, value) in values {
                for word in words(value) {
                    if let Some(rows) = rows.get_mut(word) {
                        rows.insert(row);
                    } else {
                        rows.insert(word.clone(), RoaringBitmap::from([row]));
                    }
                }
            }
            Column::Words(rows)
        }
        AttributeKind::Number => Column::Numbers(Numbers::new(values.filter_map(|(row, value)| match value {
            Attribute::Number(number) => Some((*number, row)),
            Attribute::Keyword(_) | Attribute::Keywords(_) => None,
        }))),
    }
}

fn words(value: &Attribute) -> &[Box<str>] {
    match value {
        Attribute::Keyword(word) => std::slice::from_ref(word),
        Attribute::Keywords(words) => words,
        Attribute::Number(_) => &[],
    }
}

/// The numbers of one attribute, ascending, with the rows of every `step`-th prefix as a bitmap.
///
/// Targeting by age or price passes a large part of a shard; gathering such a range row by row would cost more than
/// the search.
struct Numbers {
    ascending: Vec<(f64, u32)>,
    step: usize,
    /// `prefixes[i]` holds the rows of the first `i * step` numbers.
    prefixes: Vec<RoaringBitmap>,
}

impl Numbers {
    fn new(numbers: impl Iterator<Item = (f64, u32)>) -> Self {
        let mut ascending: Vec<(f64, u32)> = numbers.collect();
        ascending.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let step = ascending.len().div_ceil(PREFIXES_MAX).max(PREFIX_ROWS_MIN);
        let mut prefixes = vec![RoaringBitmap::new()];
        let mut prefix = RoaringBitmap::new();
        for block in ascending.chunks_exact(step) {
            prefix.extend(block.iter().map(|(_, row)| *row));
            prefixes.push(prefix.clone());
        }
        Self { ascending, step, prefixes }
    }

    fn rows(&self, range: &NumberRange) -> RoaringBitmap {
        // Each end alone is monotone over the ascending numbers, also where it is NaN and nothing passes.
        let (low, high) = (NumberRange { high: None, ..*range }, NumberRange { low: None, ..*range });
        let start = self.ascending.partition_point(|(number, _)| !low.contains(*number));
        let end = self.ascending.partition_point(|(number, _)| high.contains(*number));
        if start >= end {
            return RoaringBitmap::new();
        }
        if end - start <= self.step {
            return self.ascending[start..end].iter().map(|(_, row)| *row).collect();
        }
        let rows = self.first(end);
        if start == 0 { rows } else { rows - self.first(start) }
    }

    fn first(&self, count: usize) -> RoaringBitmap {
        let whole = count / self.step;
        let mut rows = self.prefixes[whole].clone();
        rows.extend(self.ascending[whole * self.step..count].iter().map(|(_, row)| *row));
        rows
    }
}

#[cfg(test)]
mod tests;
