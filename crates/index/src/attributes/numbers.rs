//! The numbers of one attribute.

use roaring::RoaringBitmap;
use turret_retrieval::filter::NumberRange;

use crate::bits::Bits;
use crate::row_set::RowSet;

/// How many sets of bits a number column keeps, at most: with 64, a range costs two of them and at most a 64th of the rows between.
const PREFIXES_MAX: usize = 64;
/// Fewer rows than this are gathered one by one anyway.
const PREFIX_ROWS_MIN: usize = 1_024;
/// What they take, in bytes for each number: a column of a few rows, which lie anywhere, keeps fewer.
const PREFIX_BYTES_MAX: usize = 16;
/// Where fewer than one row of so many has a number that is asked for, they are no bits.
const FEW_ONE_IN: usize = 1_024;

/// The numbers of one attribute, ascending, with the rows of every `step`-th prefix as bits.
///
/// Targeting by age or price passes a large part of a shard; gathering such a range row by row would cost more than
/// the search.
pub(super) struct Numbers {
    ascending: Vec<(f64, u32)>,
    /// Rows up to the last one that has a number.
    rows: usize,
    step: usize,
    /// `prefixes[i]` holds the rows of the first `i * step` numbers.
    prefixes: Vec<Bits>,
}

impl Numbers {
    /// Numbers with their rows, in any order.
    pub(super) fn new(numbers: impl Iterator<Item = (f64, u32)>) -> Self {
        let mut ascending: Vec<(f64, u32)> = numbers.collect();
        // Stable, because it takes what is in order already as it is: columns that are merged are.
        ascending.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let rows = ascending.iter().map(|(_, row)| *row as usize + 1).max().unwrap_or(0);
        let affordable = (ascending.len() * PREFIX_BYTES_MAX / Bits::bytes_of(rows).max(1)).min(PREFIXES_MAX);
        let step = match affordable {
            0 => ascending.len() + 1,
            prefixes => ascending.len().div_ceil(prefixes).max(PREFIX_ROWS_MIN),
        };
        let mut prefix = Bits::default();
        let mut prefixes = vec![prefix.clone()];
        for block in ascending.chunks_exact(step) {
            block.iter().for_each(|(_, row)| prefix.set(*row));
            prefixes.push(prefix.clone());
        }
        Self { ascending, rows, step, prefixes }
    }

    /// The numbers of all `parts`, but those of the rows of `gone`.
    pub(super) fn merged(parts: &[&Self], gone: &RoaringBitmap) -> Self {
        let all = parts.iter().flat_map(|part| &part.ascending).copied();
        Self::new(all.filter(|(_, row)| !gone.contains(*row)))
    }

    /// All of them, ascending, with their rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (f64, u32)> {
        self.ascending.iter().copied()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.ascending.is_empty()
    }

    /// The memory that they take, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.ascending) + self.prefixes.iter().map(Bits::bytes).sum::<usize>()
    }

    /// The rows whose number is in `range`.
    pub(super) fn rows(&self, range: &NumberRange) -> RowSet {
        // Each end alone is monotone over the ascending numbers, also where it is NaN and nothing passes.
        let (low, high) = (NumberRange { high: None, ..*range }, NumberRange { low: None, ..*range });
        let start = self.ascending.partition_point(|(number, _)| !low.contains(*number));
        let end = self.ascending.partition_point(|(number, _)| high.contains(*number));
        if start >= end {
            return RowSet::default();
        }
        let within = &self.ascending[start..end];
        if within.len() * FEW_ONE_IN < self.rows {
            return within.iter().map(|(_, row)| *row).collect::<RoaringBitmap>().into();
        }
        // Every row has one number.
        RowSet::of_bits(self.between(start, end), within.len() as u64)
    }

    /// The rows of the numbers from the `start`-th to before the `end`-th: what the nearest prefixes say, and what lies between.
    fn between(&self, start: usize, end: usize) -> Bits {
        let (from, to) = (self.nearest(start), self.nearest(end));
        let rows = |numbers: std::ops::Range<usize>| self.ascending[numbers].iter().map(|(_, row)| *row);
        if from == to {
            let mut bits = Bits::none(self.rows);
            rows(start..end).for_each(|row| bits.set(row));
            return bits;
        }
        let mut bits = self.prefixes[to].and_not(&self.prefixes[from]);
        let (from, to) = (from * self.step, to * self.step);
        rows(start.min(from)..from).for_each(|row| bits.set(row));
        rows(from..start.max(from)).for_each(|row| bits.unset(row));
        rows(to..end.max(to)).for_each(|row| bits.set(row));
        rows(end.min(to)..to).for_each(|row| bits.unset(row));
        bits
    }

    /// The prefix of about so many numbers.
    fn nearest(&self, count: usize) -> usize {
        ((count + self.step / 2) / self.step).min(self.prefixes.len() - 1)
    }
}
