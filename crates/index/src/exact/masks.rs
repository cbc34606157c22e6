//! Rows of a bitmap, block by block.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use crate::vectors::{BLOCK_ROWS, TILE_ROWS};

/// The rows of a block, a bit each.
pub(super) type Mask = [u64; BLOCK_ROWS / TILE_ROWS];

/// Rows are taken by ranges where so many of a hundred are there: short ranges cost more than their rows.
const RANGES_FROM_PERCENT: u64 = 80;

/// The blocks that have some of the rows, ascending, each with them.
pub(super) struct Masks<'a> {
    /// What is left, but for `range`.
    rows: Option<roaring::bitmap::Iter<'a>>,
    /// The last row that is asked for.
    last: u32,
    by_ranges: bool,
    range: Option<RangeInclusive<u32>>,
}

impl<'a> Masks<'a> {
    /// Of these rows.
    pub(super) fn of(rows: &'a RoaringBitmap) -> Self {
        let span = rows.min().zip(rows.max()).map_or(0, |(first, last)| u64::from(last - first) + 1);
        let by_ranges = rows.len() * 100 >= span * RANGES_FROM_PERCENT;
        Self { rows: Some(rows.iter()), last: u32::MAX, by_ranges, range: None }
    }

    /// Of those, or all, that lie in a short range.
    pub(super) fn of_range(rows: Option<&'a RoaringBitmap>, range: RangeInclusive<u32>) -> Self {
        match rows {
            Some(rows) => {
                // Not `range`, which looks for the end as well.
                let mut rows = rows.iter();
                rows.advance_to(*range.start());
                Self { rows: Some(rows), last: *range.end(), by_ranges: false, range: None }
            }
            None => Self { rows: None, last: u32::MAX, by_ranges: true, range: Some(range) },
        }
    }

    /// Of the first so many.
    pub(super) fn of_all(rows: usize) -> Self {
        Self { rows: None, last: u32::MAX, by_ranges: true, range: rows.checked_sub(1).map(|last| 0..=last as u32) }
    }

    // Not `next_many`: that of roaring 0.12 passes over a run of a whole container.
    fn next_range(&mut self) -> Option<RangeInclusive<u32>> {
        let rows = &mut self.rows;
        self.range.take().or_else(|| rows.as_mut()?.next_range())
    }

    /// Sets the bits of the rows up to `last`, and of `range`, that are in the block that begins with `first`.
    fn fill_by_ranges(&mut self, mask: &mut Mask, mut range: RangeInclusive<u32>, first: u32, last: u32) {
        loop {
            let (start, end) = range.into_inner();
            if start > last {
                self.range = Some(start..=end);
                break;
            }
            fill(mask, (start - first) as usize, (end.min(last) - first) as usize);
            if end > last {
                self.range = Some(last + 1..=end);
                break;
            }
            match self.next_range() {
                Some(next) => range = next,
                None => break,
            }
        }
    }

    /// The same, where a range is a row.
    fn fill_by_rows(&mut self, mask: &mut Mask, row: u32, first: u32, last: u32) {
        let mut set = |row: u32| mask[(row - first) as usize / TILE_ROWS] |= 1 << (row as usize % TILE_ROWS);
        set(row);
        for row in self.rows.iter_mut().flatten() {
            if row > last {
                self.range = Some(row..=row).filter(|_| row <= self.last);
                break;
            }
            set(row);
        }
    }
}

impl Iterator for Masks<'_> {
    type Item = (usize, Mask);

    fn next(&mut self) -> Option<Self::Item> {
        let range = if self.by_ranges || self.range.is_some() {
            self.next_range()?
        } else {
            let last = self.last;
            self.rows.as_mut()?.next().filter(|row| *row <= last).map(|row| row..=row)?
        };
        let block = *range.start() as usize / BLOCK_ROWS;
        let first = (block * BLOCK_ROWS) as u32;
        let last = (first + BLOCK_ROWS as u32 - 1).min(self.last);
        let mut mask = [0; BLOCK_ROWS / TILE_ROWS];
        if self.by_ranges {
            self.fill_by_ranges(&mut mask, range, first, last);
        } else {
            self.fill_by_rows(&mut mask, *range.start(), first, last);
        }
        Some((block, mask))
    }
}

/// Sets the bits from `low` to `high`, both of them too.
fn fill(mask: &mut Mask, low: usize, high: usize) {
    for (tile, rows) in mask.iter_mut().enumerate().take(high / TILE_ROWS + 1).skip(low / TILE_ROWS) {
        let from = low.saturating_sub(tile * TILE_ROWS);
        let to = (high - tile * TILE_ROWS).min(TILE_ROWS - 1);
        *rows |= u64::MAX << from & u64::MAX >> (TILE_ROWS - 1 - to);
    }
}

#[cfg(test)]
mod tests;
