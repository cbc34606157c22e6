use proptest::prelude::*;

use turret_retrieval::calibration::Calibration;

use super::*;
use crate::bits::Bits;
use crate::exact::ScoredRow;
use crate::fixtures::clustered;

const DIMENSION: usize = 16;

/// `rows` rows around 40 centres, and some queries.
fn world(seed: u64, rows: usize) -> (Vectors, Vec<Vec<f32>>) {
    let flat = |seed, rows| clustered(seed, rows, DIMENSION, 40);
    let vectors: Vec<f32> = flat(seed, rows).iter().flat_map(|row| row.as_slice().to_vec()).collect();
    let queries = flat(seed + 1, 60).iter().map(|query| query.as_slice().to_vec()).collect();
    (Vectors::from_rows(DIMENSION, &vectors), queries)
}

fn all(rows: usize) -> RoaringBitmap {
    (0..rows as u32).collect()
}

fn nearest(cells: &Cells, vectors: &Vectors, query: &[f32], passing: &RoaringBitmap, k: usize, share: f32) -> Looked {
    cells.around(query).nearest(
        vectors,
        query,
        Some(&Bits::of(passing)),
        (k, k, Look { share, expected: 3.0, most: usize::MAX }),
        &|| false,
    )
}

fn best(vectors: &Vectors, query: &[f32], passing: &RoaringBitmap, k: usize) -> Vec<ScoredRow> {
    scan(vectors, &[query], Some(&Bits::of(passing)), k).pop().unwrap()
}

#[test]
fn every_row_is_in_one_cell_with_others_near_it() {
    let (vectors, _) = world(1, 5_000);
    let rows: RoaringBitmap = (0..5_000).filter(|row| row % 7 > 0).collect();
    let divided = divide(&vectors, &rows, 1);
    assert!(divided.iter().all(|cell| cell.is_sorted() && !cell.is_empty()));
    assert_eq!(divided.iter().flatten().copied().collect::<RoaringBitmap>(), rows);
    assert_eq!(divided.iter().map(Vec::len).sum::<usize>() as u64, rows.len());
    // Row r is of centre r % 40.
    let centres = |cell: &Vec<u32>| cell.iter().map(|row| row % 40).collect::<RoaringBitmap>().len();
    let of_one = divided.iter().filter(|cell| centres(cell) == 1).map(Vec::len).sum::<usize>();
    assert!(of_one * 10 >= rows.len() as usize * 9, "{of_one} of {}", rows.len());
    assert_eq!(divide(&vectors, &rows, 3), divided, "whoever finds them");
    assert!(divide(&vectors, &RoaringBitmap::new(), 2).is_empty());
    let alike = Vectors::from_rows(2, &[0.6, 0.8].repeat(1_000));
    assert_eq!(divide(&alike, &all(1_000), 2).iter().map(Vec::len).sum::<usize>(), 1_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn with_the_whole_radius_nothing_is_missed_however_rows_come_and_move(
        seed in 1u64..1_000,
        rows in 1usize..600,
        moves in prop::collection::vec((0usize..700, 0usize..60), 0..60),
        share in prop_oneof![Just(0.02), Just(0.3), Just(1.0)],
        k in prop_oneof![Just(1usize), Just(10), Just(200)],
    ) {
        let (mut vectors, others) = world(seed, rows);
        let mut cells = Cells::of(&vectors, &all(rows), 1);
        for (row, other) in moves {
            let row = row.min(vectors.len()) as u32;
            vectors.set(row, &others[other]);
            cells.settle(row, &others[other]);
        }
        let mut counted = RoaringBitmap::new();
        for (cell, members) in (0..cells.len() as u32).map(|cell| (cell, cells.members.get(cell))) {
            let rows: RoaringBitmap = members.rows().into_iter().collect();
            prop_assert!(counted.is_disjoint(&rows));
            prop_assert!(rows.iter().all(|row| cells.of_row(row) == cell));
            prop_assert_eq!(members.len(), rows.len());
            counted |= rows;
        }
        prop_assert_eq!(&counted, &all(vectors.len()));
        let passing: RoaringBitmap = all(vectors.len()).iter().filter(|row| f64::from(row % 50) < share * 50.0).collect();
        for query in &others[..5] {
            let looked = nearest(&cells, &vectors, query, &passing, k, 1.0);
            prop_assert_eq!(&looked.best, &best(&vectors, query, &passing, k));
            prop_assert!(looked.compared <= passing.len() && looked.end == LookEnd::Enough);
            // Those wanted are the best, whatever is kept beside them.
            let (wanted, look) = (k.div_ceil(3), Look { share: 1.0, expected: 3.0, most: usize::MAX });
            let fewer = cells.around(query).nearest(&vectors, query, Some(&Bits::of(&passing)), (wanted, k, look), &|| false);
            let wanted = wanted.min(looked.best.len());
            prop_assert_eq!(&fewer.best[..wanted], &looked.best[..wanted]);
            prop_assert!(fewer.compared <= looked.compared);
        }
        // As whoever reads them from a file has them.
        let again = Cells::from_parts(cells.parts_of(&(0..vectors.len() as u32).collect::<Vec<_>>()), DIMENSION);
        for share in [0.1, 1.0] {
            let [of, of_again] = [&cells, &again].map(|cells| nearest(cells, &vectors, &others[0], &passing, k, share));
            prop_assert_eq!((of.best, of.compared), (of_again.best, of_again.compared));
        }
        let queries: Vec<&[f32]> = others.iter().map(Vec::as_slice).collect();
        let exact = scan(&vectors, &queries, None, vectors.len() / 2);
        let Some(reach) = measure(&cells, &queries, &exact, 0.9, None) else { return Ok(()) };
        let calibration = Calibration {
            target_recall: 0.9, degree: 32, build_list: 100, alpha: 1.2, ads: 600, queries: 60, points: vec![], reach: Some(reach),
        };
        prop_assert_eq!(calibration.check(), Ok(()));
    }
}

#[test]
fn the_share_that_is_measured_finds_what_it_promises_in_few_cells() {
    let (vectors, queries) = world(7, 20_000);
    let cells = Cells::of(&vectors, &all(20_000), 2);
    let exact = |queries: &[&[f32]]| scan(&vectors, queries, None, 1_000);
    let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    let (asked, others) = queries.split_at(40);
    let reach = measure(&cells, asked, &exact(asked), 0.95, None).unwrap();
    assert_eq!(reach.points.iter().map(|point| point.k).collect::<Vec<_>>(), [10, 30, 100, 300, 1_000]);
    for point in &reach.points {
        let k = point.k as usize;
        let (mut found, mut compared) = (0, 0);
        for query in others {
            let looked = nearest(&cells, &vectors, query, &all(20_000), k, point.share);
            let wanted = best(&vectors, query, &all(20_000), k);
            found += looked.best.iter().filter(|row| wanted.contains(row)).count();
            compared += looked.compared;
        }
        let (recall, compared) = (found as f64 / (k * others.len()) as f64, compared / others.len() as u64);
        println!("{point:?}: {recall:.4}, {compared} compared");
        assert!(point.recall_low >= 0.95 && recall >= 0.94, "{recall} by {point:?}");
        assert!(compared <= 6 * k as u64 + 600, "{compared} by {point:?}");
    }
    // Where there are fewer, less is measured; of nothing nothing.
    let few = exact(asked).into_iter().map(|best| best[..50].to_vec()).collect::<Vec<_>>();
    let of_few = measure(&cells, asked, &few, 0.95, None).unwrap();
    assert_eq!(of_few.points.len(), 2);
    assert_eq!(measure(&cells, &[], &[], 0.95, None), None);
    // What was wide before stays so, at its cost.
    let mut wide = of_few.clone();
    wide.points[0].share = 0.9;
    let again = measure(&cells, asked, &few, 0.95, Some(&wide)).unwrap();
    assert_eq!((again.points[0].share, again.points[1].share), (0.9, of_few.points[1].share));
    assert!(again.points[0].cells > of_few.points[0].cells);
}

#[test]
fn what_passes_near_a_query_is_counted() {
    let (vectors, _) = world(3, 8_000);
    let cells = Cells::of(&vectors, &all(8_000), 2);
    let query = clustered(4, 4, DIMENSION, 40).pop().unwrap();
    let near_if = |passing: &RoaringBitmap, live: &RoaringBitmap, overall: f64| {
        cells.around(query.as_slice()).near(&Bits::of(passing), Some(&Bits::of(live)), overall)
    };
    let near = |passing: &RoaringBitmap, live: &RoaringBitmap| near_if(passing, live, 0.0);
    let of = |centres: &[u32]| all(8_000).iter().filter(|row| centres.contains(&(row % 40))).collect::<RoaringBitmap>();
    // The query is of centre 3, which has 200 rows.
    let (own, none) = (near(&of(&[3]), &all(8_000)), near(&of(&[]), &all(8_000)));
    assert!(own.passing >= 180 && (180..700).contains(&own.rows), "{own:?}");
    assert_eq!(none, crate::planner::Near { rows: own.rows, passing: 0 });
    assert_eq!(near(&of(&[3]), &of(&[])).rows, 0);
    // Somewhat fewer than elsewhere may be chance: more rows are asked. Many fewer are not.
    let thirds = all(8_000).iter().filter(|row| row % 3 == 0).collect();
    let share = f64::from(near(&thirds, &all(8_000)).passing) / f64::from(own.rows);
    let asked = |deviations: f64| {
        let overall = share + deviations * (share * (1.0 - share) / f64::from(own.rows)).sqrt();
        near_if(&thirds, &all(8_000), overall).rows
    };
    assert!(asked(3.0) > 2 * own.rows, "{} of {own:?}", asked(3.0));
    assert_eq!((asked(-3.0), asked(1.0), asked(8.0)), (own.rows, own.rows, own.rows));
}

#[test]
fn a_look_ends_when_time_is_up_or_too_many_cells_are_in_question() {
    let (vectors, queries) = world(5, 20_000);
    let (cells, query) = (Cells::of(&vectors, &all(20_000), 2), &queries[0]);
    let of = |passing: &RoaringBitmap, k, most, stop: bool| {
        cells.around(query).nearest(
            &vectors,
            query,
            Some(&Bits::of(passing)),
            (k, k, Look { share: 1.0, expected: 3.0, most }),
            &|| stop,
        )
    };
    let stopped = of(&all(20_000), 1_000, usize::MAX, true);
    let LookEnd::Stopped(share) = stopped.end else { panic!("{:?}", stopped.end) };
    // 31 cells, of all that can hold one better than the thousandth of those.
    assert!(share >= 31.0 / cells.len() as f64 && share < 1.0, "{share} of {}", cells.len());
    assert!(stopped.compared > 0 && !stopped.best.is_empty());
    // Nothing that passes is found: every cell is in question.
    let none = of(&all(0), 10, usize::MAX, true);
    assert_eq!(none.end, LookEnd::Stopped(31.0 / cells.len() as f64));
    let many = of(&all(20_000), 1_000, 20, false);
    assert_eq!(many.end, LookEnd::TooMany);
    assert_eq!(of(&all(20_000), 1_000, usize::MAX, false).end, LookEnd::Enough);
}
