//! The rows of a block that are to be compared.

use std::ops::RangeInclusive;

use crate::bits::{Bits, words_of};
use crate::vectors::{BLOCK_ROWS, TILE_ROWS};

/// Tiles of a block.
pub(super) const TILES: usize = BLOCK_ROWS / TILE_ROWS;

/// The rows of a block, a bit each.
pub(super) type Mask = [u64; TILES];

/// A mask of nothing.
pub(super) const NONE: Mask = [0; TILES];

/// Those of `rows`, or of all, that lie in `block` and in `range`.
#[inline]
pub(super) fn mask_of(rows: Option<&Bits>, range: &RangeInclusive<u32>, block: usize) -> Mask {
    let (start, end) = (block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS - 1);
    let mask: Mask = rows.map_or([u64::MAX; _], |rows| rows.words(start / TILE_ROWS));
    let (first, last) = (*range.start() as usize, *range.end() as usize);
    if start >= first && end <= last {
        return mask;
    }
    let mut within = NONE;
    if first <= end && start <= last {
        let words = words_of(start.max(first) as u32..=end.min(last) as u32);
        words.for_each(|(word, bits)| within[word - start / TILE_ROWS] = bits & mask[word - start / TILE_ROWS]);
    }
    within
}

/// The blocks that have rows of `range`.
pub(super) fn blocks(range: &RangeInclusive<u32>) -> RangeInclusive<usize> {
    *range.start() as usize / BLOCK_ROWS..=*range.end() as usize / BLOCK_ROWS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roaring::RoaringBitmap;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn masks_have_the_rows_of_the_range(
            ranges in prop::collection::vec((0u32..5_000, 1u32..400), 0..30),
            (start, rows) in (0u32..6_000, 0u32..3_000),
        ) {
            let range = start..=start + rows;
            let bitmap: RoaringBitmap = ranges.iter().flat_map(|(start, rows)| *start..start + rows).collect();
            for (bits, expected) in [(None, (0..10_240).collect()), (Some(&Bits::of(&bitmap)), bitmap.clone())] {
                let found = |blocks: RangeInclusive<usize>| {
                    let has = |block, at: usize| mask_of(bits, &range, block)[at / TILE_ROWS] >> (at % TILE_ROWS) & 1 == 1;
                    let of_block = |block| (0..BLOCK_ROWS).filter(move |at| has(block, *at)).map(move |at| block * BLOCK_ROWS + at);
                    blocks.flat_map(of_block).map(|row| row as u32).collect::<Vec<_>>()
                };
                let expected = expected.range(range.clone()).collect::<Vec<_>>();
                prop_assert_eq!(&found(blocks(&range)), &expected);
                prop_assert_eq!(&found(0..=39), &expected, "others have none");
            }
        }
    }
}
