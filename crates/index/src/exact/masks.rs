//! Rows of a bitmap, block by block.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use crate::vectors::{BLOCK_ROWS, TILE_ROWS};

/// The rows of a block, a bit each.
pub(super) type Mask = [u64; BLOCK_ROWS / TILE_ROWS];

/// A bitmap of less than one in so many keeps its rows in lists, in which the end of a range takes longer to find than the next
/// row.
const RANGES_FROM_ONE_IN: u64 = 16;

/// The blocks that have some of the rows, ascending, each with them.
pub(super) struct Masks<'a> {
    /// What is left, but for `range`.
    rows: Option<roaring::bitmap::Iter<'a>>,
    is_dense: bool,
    range: Option<RangeInclusive<u32>>,
}

impl<'a> Masks<'a> {
    /// Of these rows.
    pub(super) fn of(rows: &'a RoaringBitmap) -> Self {
        let is_dense = rows.max().is_some_and(|last| rows.len() * RANGES_FROM_ONE_IN > u64::from(last));
        Self { rows: Some(rows.iter()), is_dense, range: None }
    }

    /// Of the first so many.
    pub(super) fn of_all(rows: usize) -> Self {
        Self { rows: None, is_dense: true, range: rows.checked_sub(1).map(|last| 0..=last as u32) }
    }

    // Not `next_many`: that of roaring 0.12 passes over a run of a whole container.
    fn next_range(&mut self) -> Option<RangeInclusive<u32>> {
        if self.range.is_some() {
            return self.range.take();
        }
        let rows = self.rows.as_mut()?;
        if self.is_dense { rows.next_range() } else { rows.next().map(|row| row..=row) }
    }
}

impl Iterator for Masks<'_> {
    type Item = (usize, Mask);

    fn next(&mut self) -> Option<Self::Item> {
        let mut range = self.next_range()?;
        let block = *range.start() as usize / BLOCK_ROWS;
        let (first, last) = ((block * BLOCK_ROWS) as u32, (block * BLOCK_ROWS + BLOCK_ROWS - 1) as u32);
        let mut mask = [0; BLOCK_ROWS / TILE_ROWS];
        loop {
            let (start, end) = range.into_inner();
            if start > last {
                self.range = Some(start..=end);
                break;
            }
            fill(&mut mask, (start - first) as usize, (end.min(last) - first) as usize);
            if end > last {
                self.range = Some(last + 1..=end);
                break;
            }
            match self.next_range() {
                Some(next) => range = next,
                None => break,
            }
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
