//! Whether a few rows tell that a filter has to do with the query.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use roaring::RoaringBitmap;

use super::*;

#[test]
fn a_few_rows_tell_what_passes_near_the_query_from_what_passes_elsewhere_and_anywhere() {
    let (view, random) = (GRAPH.view(), &mut ChaCha8Rng::seed_from_u64(3));
    let mut by_chance = 0;
    for query in &queries(40) {
        let query = query.as_slice();
        let mut rows: Vec<u32> = (0..ROWS as u32).collect();
        rows.sort_by(|a, b| dot(query, view.vectors.row(*b)).total_cmp(&dot(query, view.vectors.row(*a))));
        let correlates = |rows: &[u32]| view.correlates(query, &rows.iter().collect::<RoaringBitmap>().into());
        for count in [10, 60, 600] {
            assert!(correlates(&rows[..count]), "the nearest {count}");
            assert!(!correlates(&rows[ROWS - count..]), "the furthest {count}");
        }
        assert!(!correlates(&[]));
        for _ in 0..10 {
            let any: Vec<u32> = rows.iter().copied().filter(|_| random.random_bool(0.05)).collect();
            by_chance += u32::from(correlates(&any));
        }
    }
    // Of 400.
    assert!((8..40).contains(&by_chance), "{by_chance}");
}
