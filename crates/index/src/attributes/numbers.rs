//! The numbers of one attribute.

use roaring::RoaringBitmap;
use turret_retrieval::filter::NumberRange;

/// How many bitmaps a number column keeps, at most: with 64, a range costs two of them and at most a 64th of the rows between.
const PREFIXES_MAX: usize = 64;
/// Fewer rows than this are gathered one by one anyway.
const PREFIX_ROWS_MIN: usize = 1_024;

/// The numbers of one attribute, ascending, with the rows of every `step`-th prefix as a bitmap.
///
/// Targeting by age or price passes a large part of a shard; gathering such a range row by row would cost more than
/// the search.
pub(super) struct Numbers {
    ascending: Vec<(f64, u32)>,
    step: usize,
    /// `prefixes[i]` holds the rows of the first `i * step` numbers.
    prefixes: Vec<RoaringBitmap>,
}

impl Numbers {
    /// Numbers with their rows, in any order.
    pub(super) fn new(numbers: impl Iterator<Item = (f64, u32)>) -> Self {
        let mut ascending: Vec<(f64, u32)> = numbers.collect();
        // Stable, because it takes what is in order already as it is: columns that are merged are.
        ascending.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let step = ascending.len().div_ceil(PREFIXES_MAX).max(PREFIX_ROWS_MIN);
        let mut prefixes = vec![RoaringBitmap::new()];
        let mut prefix = RoaringBitmap::new();
        for block in ascending.chunks_exact(step) {
            prefix.extend(block.iter().map(|(_, row)| *row));
            prefixes.push(prefix.clone());
        }
        Self { ascending, step, prefixes }
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
        size_of_val(&*self.ascending) + self.prefixes.iter().map(RoaringBitmap::serialized_size).sum::<usize>()
    }

    /// The rows whose number is in `range`.
    pub(super) fn rows(&self, range: &NumberRange) -> RoaringBitmap {
        // Each end alone is monotone over the ascending numbers, also where it is NaN and nothing passes.
        let (low, high) = (NumberRange { high: None, ..*range }, NumberRange { low: None, ..*range });
        let start = self.ascending.partition_point(|(number, _)| !low.contains(*number));
        let end = self.ascending.partition_point(|(number, _)| high.contains(*number));
        if start >= end {
            return RoaringBitmap::new();
        }
        if end - start <= self.step {
            return gathered(&self.ascending[start..end]);
        }
        let rows = self.first(end);
        if start == 0 { rows } else { rows - self.first(start) }
    }

    /// The rows of the first `count` numbers: those of the nearest prefix, and what lies between.
    fn first(&self, count: usize) -> RoaringBitmap {
        let nearest = ((count + self.step / 2) / self.step).min(self.prefixes.len() - 1);
        let (prefix, until) = (&self.prefixes[nearest], nearest * self.step);
        if until <= count {
            prefix | gathered(&self.ascending[until..count])
        } else {
            prefix - gathered(&self.ascending[count..until])
        }
    }
}

/// Bits for each row sought, up to which rows are gathered as bits.
const BITS_PER_ROW: usize = 1_024;

/// The rows of some numbers. One by one each would have to find its place: they are set in bits or sorted, whichever is less.
fn gathered(numbers: &[(f64, u32)]) -> RoaringBitmap {
    let Some(last) = numbers.iter().map(|(_, row)| *row as usize).max() else { return RoaringBitmap::new() };
    if last < numbers.len() * BITS_PER_ROW {
        let mut bits = vec![0u8; last / 8 + 1];
        numbers.iter().for_each(|(_, row)| bits[*row as usize / 8] |= 1 << (row % 8));
        return RoaringBitmap::from_lsb0_bytes(0, &bits);
    }
    let mut rows: Vec<u32> = numbers.iter().map(|(_, row)| *row).collect();
    rows.sort_unstable();
    rows.dedup();
    RoaringBitmap::from_sorted_iter(rows).expect("each row follows a lower one")
}
