use proptest::prelude::*;

use super::*;

fn rows(masks: Masks<'_>) -> Vec<u32> {
    let (mut rows, mut before) = (Vec::new(), None);
    for (block, mask) in masks {
        assert!(before < Some(block) && mask != [0; BLOCK_ROWS / TILE_ROWS], "{block}");
        before = Some(block);
        let has = |at: &usize| mask[at / TILE_ROWS] >> (at % TILE_ROWS) & 1 == 1;
        rows.extend((0..BLOCK_ROWS).filter(has).map(|at| (block * BLOCK_ROWS + at) as u32));
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn masks_have_the_rows_of_the_bitmap(
        ranges in prop::collection::vec((0u32..140_000, 1u32..400), 0..30),
        whole in prop::option::of(0u32..3),
        holes in prop::collection::vec(0u32..200_000, 0..20),
        is_in_runs in any::<bool>(),
    ) {
        let mut bitmap = RoaringBitmap::new();
        bitmap.extend(ranges.iter().flat_map(|(start, rows)| *start..start + rows));
        // Whole containers, as a run each.
        if let Some(containers) = whole {
            bitmap.insert_range(0..containers << 16);
        }
        bitmap -= holes.iter().collect::<RoaringBitmap>();
        if is_in_runs { bitmap.optimize() } else { bitmap.remove_run_compression() };
        prop_assert_eq!(rows(Masks::of(&bitmap)), bitmap.iter().collect::<Vec<_>>());
        let range = 1_000..=80_000;
        prop_assert_eq!(rows(Masks::of_range(Some(&bitmap), range.clone())), bitmap.range(range.clone()).collect::<Vec<_>>());
        prop_assert_eq!(rows(Masks::of_range(None, range.clone())), range.collect::<Vec<_>>());
    }
}

#[test]
fn the_masks_of_all_end_with_the_last() {
    for count in [0, 1, 255, 256, 257, 70_000] {
        assert_eq!(rows(Masks::of_all(count)), (0..count as u32).collect::<Vec<_>>());
    }
}
