use super::*;
use crate::fixtures::clustered;

#[test]
fn the_scan_finds_what_sorting_finds() {
    let vectors = clustered(1, 300, 12, 7);
    let flat: Vec<f32> = vectors.iter().flat_map(|vector| vector.as_slice().to_vec()).collect();
    let flat = Vectors::from_rows(12, &flat);
    for query in clustered(2, 20, 12, 7) {
        let mut sorted: Vec<ScoredRow> = (0..300u32)
            .map(|row| ScoredRow { score: dot(query.as_slice(), vectors[row as usize].as_slice()), row })
            .collect();
        sorted.sort();
        for k in [1, 10, 299, 300, 400] {
            let found = best(&flat, query.as_slice(), 0..300, k);
            assert_eq!(found, sorted[..k.min(300)], "k {k}");
            // Candidates of a graph come in any order.
            assert_eq!(best(&flat, query.as_slice(), (0..300).rev(), k), found, "k {k}, backwards");
        }
    }
}

#[test]
fn equal_scores_are_ordered_by_row() {
    let vectors = Vectors::from_rows(2, &[0.6, 0.8].repeat(9));
    let rows = |order: Vec<u32>| -> Vec<u32> {
        best(&vectors, &[1.0, 0.0], order.into_iter(), 4).iter().map(|scored| scored.row).collect()
    };
    assert_eq!(rows((0..9).collect()), [0, 1, 2, 3]);
    assert_eq!(rows((0..9).rev().collect()), [0, 1, 2, 3]);
    assert_eq!(rows(vec![8, 2, 5]), [2, 5, 8]);
}
