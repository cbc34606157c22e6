use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use roaring::RoaringBitmap;

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
            assert_eq!(scan(&flat, &[query.as_slice()], None, k), [found], "k {k}, by codes");
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

#[test]
fn nothing_is_found_where_nothing_is_wanted_or_there() {
    let vectors = Vectors::from_rows(2, &[0.6, 0.8].repeat(600));
    assert!(scan(&vectors, &[], None, 3).is_empty());
    assert_eq!(scan(&vectors, &[&[1.0, 0.0]], None, 0), [vec![]]);
    assert_eq!(scan(&vectors, &[&[1.0, 0.0]], Some(&Bits::of(&RoaringBitmap::new())), 3), [vec![]]);
    assert_eq!(scan(&Vectors::from_rows(2, &[]), &[&[1.0, 0.0]], None, 3), [vec![]]);
}

/// What rows are like.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Anywhere.
    Apart,
    /// A few vectors, again and again.
    Repeated,
    /// Around one vector, closer to each other than codes can tell.
    Near,
    /// Of the same codes, with rests that lie along the query or against it as far as rests go.
    Misleading,
    /// One component each.
    Axes,
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    if length > 0.0 { vector } else { unit(vec![1.0; vector.len()]) }
}

/// Rows and queries.
fn world(kind: Kind, random: &mut ChaCha8Rng, dimension: usize, rows: usize, queries: usize) -> [Vec<Vec<f32>>; 2] {
    let any =
        |random: &mut ChaCha8Rng| -> Vec<f32> { (0..dimension).map(|_| random.random_range(-1.0..1.0)).collect() };
    let centre = any(random);
    // Whole numbers, the first as large as codes get, so that they are the codes of whatever is less than half away.
    let whole: Vec<f32> =
        (0..dimension).map(|at| if at == 0 { 127.0 } else { random.random_range(-100..100) as f32 }).collect();
    let row = |random: &mut ChaCha8Rng, of: &[f32], along: &[f32]| {
        let vector = match kind {
            Kind::Apart => any(random),
            Kind::Repeated => of.iter().map(|x| x * [1.0, -1.0, 0.5][random.random_range(0..3)]).collect(),
            Kind::Near => of.iter().map(|x| x + random.random_range(-1e-6..1e-6)).collect(),
            Kind::Misleading => {
                let far = random.random_range(-0.49..0.49);
                let rest = |(at, x): (usize, &f32)| if at == 0 { *x } else { x + along[at].signum() * far };
                of.iter().enumerate().map(rest).collect()
            }
            Kind::Axes => {
                let mut axis = vec![0.0; dimension];
                axis[random.random_range(0..dimension)] = [1.0, -1.0][random.random_range(0..2)];
                axis
            }
        };
        unit(vector)
    };
    let of = if let Kind::Misleading = kind { whole } else { centre.clone() };
    let rows = (0..rows).map(|_| row(random, &of, &centre)).collect();
    let queries =
        (0..queries).map(|at| if at == 0 { unit(centre.clone()) } else { row(random, &centre, &of) }).collect();
    [rows, queries]
}

/// The scan against scoring every row, to the bit.
fn check(vectors: &Vectors, queries: &[Vec<f32>], rows: Option<&RoaringBitmap>, k: usize) {
    let bits = |found: &[ScoredRow]| found.iter().map(|row| (row.row, row.score.to_bits())).collect::<Vec<_>>();
    let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    let all = (0..vectors.len() as u32).collect();
    let expected: Vec<_> =
        queries.iter().map(|query| bits(&best(vectors, query, rows.unwrap_or(&all).iter(), k))).collect();
    if let Some(rows) = rows {
        let found = scan_list_until(vectors, &queries, &rows.iter().collect::<Vec<_>>(), k, &|| false);
        assert_eq!(found.stopped_at, None);
        assert_eq!(found.best.iter().map(|found| bits(found)).collect::<Vec<_>>(), expected, "of a list");
    }
    let rows = rows.map(Bits::of);
    for processor in Processor::all() {
        let found: Vec<_> = scan_by(processor, vectors, &queries, rows.as_ref(), k, &|| false)
            .best
            .iter()
            .map(|found| bits(found))
            .collect();
        assert_eq!(found, expected, "{processor:?}");
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Apart), Just(Kind::Repeated), Just(Kind::Near), Just(Kind::Misleading), Just(Kind::Axes)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_scan_by_codes_is_that_of_every_row(
        kind in kinds(),
        dimension in prop_oneof![Just(1usize), Just(2), Just(3), Just(17), Just(63), Just(64), Just(100), Just(128)],
        count in 1usize..1_200,
        queries in 1usize..10,
        k in prop_oneof![Just(1usize), Just(10), Just(100), Just(2_000)],
        share in prop_oneof![Just(0.01), Just(0.1), Just(0.5), Just(1.0)],
        seed: u64,
    ) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let [rows, queries] = world(kind, &mut random, dimension, count, queries);
        let mut vectors = Vectors::from_rows(dimension, &rows.concat());
        check(&vectors, &queries, None, k);
        let some: RoaringBitmap = (0..count as u32).filter(|_| random.random_bool(share)).collect();
        check(&vectors, &queries, Some(&some), k);
        // One block, or part of it: all of its tiles, and no other.
        check(&vectors, &queries, Some(&(0..count.min(300) as u32).collect()), k);
        let searched = vectors.clone();
        for at in 0..20 {
            let row = random.random_range(0..=vectors.len());
            vectors.set(row as u32, if at % 2 == 0 { &rows[random.random_range(0..count)] } else { &queries[0] });
        }
        for rows in [None, Some(&some)] {
            check(&vectors, &queries, rows, k);
            check(&searched, &queries, rows, k);
        }
    }
}

#[test]
fn the_longest_embeddings_are_scanned_too() {
    for kind in [Kind::Apart, Kind::Near, Kind::Misleading] {
        let [rows, queries] = world(kind, &mut ChaCha8Rng::seed_from_u64(5), 4_096, 300, 5);
        let vectors = Vectors::from_rows(4_096, &rows.concat());
        check(&vectors, &queries, None, 10);
    }
}

#[test]
fn a_scan_of_a_list_stops_between_its_rows() {
    let vectors = Vectors::from_rows(2, &[0.6, 0.8].repeat(5_000));
    let list: Vec<u32> = (0..5_000).step_by(2).collect();
    let asked = std::cell::Cell::new(0);
    let stop = |after: usize| {
        asked.set(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() == after
        };
        let scanned = scan_list_until(&vectors, &[&[1.0, 0.0]], &list, 3_000, &stop);
        (scanned.best[0].len(), scanned.stopped_at)
    };
    assert_eq!((stop(1), stop(2)), ((1_024, Some(1_024)), (2_048, Some(2_048))));
    assert_eq!(stop(3), (2_500, None), "there is nobody left to ask");
}

#[test]
fn codes_by_themselves_tell_scores_about() {
    for dimension in [3, 64, 100] {
        let rows = clustered(1, 300, dimension, 7);
        let flat: Vec<f32> = rows.iter().flat_map(|row| row.as_slice().to_vec()).collect();
        let (vectors, query) = (Vectors::from_rows(dimension, &flat), &clustered(2, 1, dimension, 7)[0]);
        let some = [299, 0, 64, 255, 256];
        let [scores, none] = scores_by_codes(&vectors, query.as_slice(), [&some, &[]]);
        assert_eq!((scores.len(), none.len()), (5, 0));
        for (row, score) in some.into_iter().zip(scores) {
            let exact = dot(query.as_slice(), vectors.row(row));
            assert!((score - exact).abs() < 0.02, "{row}: {score}, not {exact}");
        }
    }
}

#[test]
fn few_rows_are_scored_of_many() {
    let flat: Vec<f32> = clustered(1, 20_000, 64, 200).iter().flat_map(|vector| vector.as_slice().to_vec()).collect();
    let vectors = Vectors::from_rows(64, &flat);
    let query = &clustered(2, 1, 64, 200)[0];
    let some: Vec<u32> = (0..20_000).step_by(30).collect();
    for rows in [None, Some(&some)] {
        let scored = std::cell::Cell::new(0);
        let mut scan = Scan::new(&vectors, &[query.as_slice()], 10);
        match rows {
            None => assert_eq!(scan.over(None, &|| false), None),
            Some(rows) => assert_eq!(scan.over_list(None, rows), 667),
        }
        scan.compare_single();
        let wanted = scan.wanted.pop().unwrap();
        assert!(wanted.sieve.top.threshold().is_none(), "none was scored on the way");
        let found = wanted.sieve.finish(
            |_| {},
            |row| {
                scored.set(scored.get() + 1);
                dot(query.as_slice(), vectors.row(row))
            },
        );
        let all = || rows.cloned().unwrap_or_else(|| (0..20_000).collect());
        assert_eq!(found, best(&vectors, query.as_slice(), all().into_iter(), 10));
        assert!((10..50).contains(&scored.get()), "{}", scored.get());
    }
}
