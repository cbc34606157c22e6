use super::*;
use crate::fixtures::clustered;

fn flat(seed: u64, rows: usize, dimension: usize) -> Vec<f32> {
    clustered(seed, rows, dimension, 5).iter().flat_map(|vector| vector.as_slice().to_vec()).collect()
}

fn check(vectors: &Vectors, expected: &[f32], dimension: usize) {
    assert_eq!((vectors.len(), vectors.dimension()), (expected.len() / dimension, dimension));
    let rows: Vec<&[f32]> = expected.chunks_exact(dimension).collect();
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(vectors.row(at as u32), *row, "row {at}");
    }
    assert_eq!(vectors.blocks.len(), rows.len().div_ceil(BLOCK_ROWS));
    assert!(vectors.bytes() >= size_of_val(expected));
}

#[test]
fn rows_are_found_on_both_sides_of_every_block() {
    for rows in [0, 1, 255, 256, 257, 511, 512, 600] {
        let flat = flat(1, rows, 3);
        check(&Vectors::from_rows(3, &flat), &flat, 3);
    }
}

#[test]
fn rows_are_added_one_by_one() {
    let flat = flat(2, 520, 5);
    let mut vectors = Vectors::from_rows(5, &[]);
    for (row, vector) in flat.chunks_exact(5).enumerate() {
        vectors.set(row as u32, vector);
    }
    check(&vectors, &flat, 5);
}

#[test]
fn a_clone_keeps_what_it_had() {
    let (mut old, dimension) = (flat(3, 700, 4), 4);
    let mut vectors = Vectors::from_rows(dimension, &old);
    let clone = vectors.clone();
    let before = old.clone();
    for (row, vector) in [0u32, 255, 256, 699].into_iter().zip(flat(4, 4, dimension).chunks_exact(dimension)) {
        vectors.set(row, vector);
        old[row as usize * dimension..][..dimension].copy_from_slice(vector);
    }
    vectors.set(700, &before[..dimension]);
    old.extend_from_slice(&before[..dimension]);
    check(&vectors, &old, dimension);
    check(&clone, &before, dimension);
    let shared = |a: &Vectors, b: &Vectors| a.blocks.iter().zip(&b.blocks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
    assert_eq!(shared(&vectors, &clone), 0);
    let mut once = clone.clone();
    once.set(300, &before[..dimension]);
    assert_eq!(shared(&once, &clone), 2);
}

#[test]
fn a_block_that_grows_takes_no_more_than_a_whole_one() {
    let flat = flat(5, 200, 64);
    let whole = Vectors::from_rows(64, &[0.5; 64 * BLOCK_ROWS]).bytes();
    let mut vectors = Vectors::from_rows(64, &flat[..64]);
    for (row, vector) in flat.chunks_exact(64).enumerate().skip(1) {
        // As searches have it, now and then.
        let seen = (row % 7 == 0).then(|| vectors.clone());
        vectors.set(row as u32, vector);
        drop(seen);
        assert!(vectors.bytes() <= whole, "{row}: {} of {whole}", vectors.bytes());
    }
}
