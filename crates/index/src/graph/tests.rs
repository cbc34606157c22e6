use super::*;
use crate::fixtures::{clustered, settings};
use crate::settings::Backend;

fn flat(seed: u64, rows: usize) -> Vec<f32> {
    clustered(seed, rows, 16, 10).iter().flat_map(|vector| vector.as_slice().to_vec()).collect()
}

fn build(vectors: &[f32], settings: &IndexSettings) -> Result<Graph, GraphError> {
    build_of(vectors, 16, settings, &mut |_| ControlFlow::Continue(()))
}

fn build_of(
    vectors: &[f32],
    dimension: usize,
    settings: &IndexSettings,
    observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Graph, GraphError> {
    let vectors = Vectors::from_rows(dimension, vectors);
    let rows = (0..vectors.len() as u32).collect();
    Graph::build(&vectors, &rows, Graph::capacity_for(vectors.len()), settings, observe)
}

#[test]
fn one_thread_builds_the_same_graph_every_time() {
    let vectors = flat(1, 1_500);
    let settings = IndexSettings { threads: 1, ..settings(Backend::DiskAnn) };
    let (first, second) = (build(&vectors, &settings).unwrap(), build(&vectors, &settings).unwrap());
    for query in clustered(2, 50, 16, 10) {
        let (a, b) = (first.search(query.as_slice(), 30).unwrap(), second.search(query.as_slice(), 30).unwrap());
        let rows = |found: &Candidates| found.rows.iter().map(|met| met.row).collect::<Vec<_>>();
        assert_eq!((rows(&a), a.distances), (rows(&b), b.distances));
    }
}

#[test]
fn every_row_is_found_by_its_own_vector() {
    let vectors = flat(1, 1_500);
    // One thread, because how threads interleave may cost a row.
    let graph = build(&vectors, &IndexSettings { threads: 1, ..settings(Backend::DiskAnn) }).unwrap();
    let lost = vectors.chunks_exact(16).zip(0u32..).filter(|(vector, row)| {
        let candidates = graph.search(vector, 50).unwrap();
        assert!(candidates.distances >= candidates.rows.len() as u64);
        !candidates.rows.iter().any(|met| met.row == *row)
    });
    assert_eq!(lost.count(), 0);
}

#[test]
fn settings_that_make_no_graph_are_refused() {
    let vectors = flat(1, 20);
    let good = settings(Backend::DiskAnn);
    let check = |settings: IndexSettings, expected: &str| {
        let error = build(&vectors, &settings).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("graph settings: ") && error.contains(expected), "{error}, expected {expected}");
    };
    check(IndexSettings { alpha: 0.5, ..good.clone() }, "alpha 0.5 is not at least 1");
    check(IndexSettings { alpha: f32::NAN, ..good.clone() }, "alpha NaN is not at least 1");
    check(IndexSettings { degree: 0, ..good.clone() }, "degree");
    check(IndexSettings { build_list: 0, ..good.clone() }, "l_build");
    check(IndexSettings { degree: usize::MAX, ..good }, "is above 1024");
}

#[test]
fn building_can_be_broken_off() {
    let vectors = flat(1, 1_000);
    let broken = build_of(&vectors, 16, &settings(Backend::DiskAnn), &mut |_| ControlFlow::Break(()));
    assert_eq!(broken.err(), Some(GraphError::Stopped));
    let mut reports = Vec::new();
    let observe = &mut |done| {
        reports.push(done);
        ControlFlow::Continue(())
    };
    build_of(&vectors, 16, &settings(Backend::DiskAnn), observe).unwrap();
    assert!(reports.is_sorted() && reports.last() == Some(&1_000), "{reports:?}");
}

#[test]
fn vectors_that_cancel_out_still_have_a_start() {
    let graph = build_of(&[1.0, 0.0, -1.0, 0.0], 2, &settings(Backend::DiskAnn), &mut |_| ControlFlow::Continue(()));
    assert_eq!(graph.unwrap().search(&[1.0, 0.0], 2).unwrap().rows.first().map(|met| met.row), Some(0));
    let vectors = Vectors::from_rows(2, &[1.0, 0.0, -1.0, 0.0]);
    assert_eq!(*middle(&vectors, &(0..2).collect()), [1.0, 0.0]);
}

#[test]
fn a_future_that_waits_is_not_waited_for() {
    assert_eq!(ready(std::future::ready(7)), Some(7));
    assert_eq!(ready(std::future::pending::<()>()), None);
}

#[test]
fn the_reason_is_one_line_and_no_more_is_asked_for() {
    let without_slot = ANNError::message(NO_SLOT).context("insertion");
    assert!(is_without_slot(&without_slot) && is_without_slot(&ANNError::message(NO_SLOT)));
    assert_eq!(reason(&without_slot), "insertion");
    let other = ANNError::message("no mapping");
    assert!(!is_without_slot(&other));
    assert_eq!(reason(&other), "no mapping");
    assert_eq!(reason(&ANNError::message("")), "no reason");
    // An end that comes in two parts, and one that never does.
    let until = |end| {
        let mut until = Until { text: String::new(), end };
        let outcome = write!(until, "{}", ANNError::message("zwölf Reihen"));
        (until.text, outcome.is_ok())
    };
    assert_eq!(until("eihen -- ("), ("ANNError\n\nzwölf Reihen -- (".to_owned(), false));
    assert!(until("not there").0.contains("zwölf Reihen -- (") && until("not there").1);
}

#[test]
fn rows_come_and_go_and_what_is_gone_is_not_met() {
    let vectors = Vectors::from_rows(16, &flat(1, 3_000));
    let first = (0..2_000).collect();
    let graph = Graph::build(&vectors, &first, 2_500, &settings(Backend::DiskAnn), &mut |_| ControlFlow::Continue(()));
    let graph = graph.unwrap();
    // All of it is replaced, in slots that are taken again.
    for row in 0..2_000 {
        graph.remove(row).unwrap();
        let new = 2_000 + row % 1_000;
        if row >= 1_000 {
            graph.remove(new).unwrap();
        }
        assert_eq!(graph.insert(new, vectors.row(new), 1_000).unwrap(), Linked::Yes);
    }
    let mut lost = 0;
    for row in 2_000..3_000 {
        let met: Vec<u32> = graph.search(vectors.row(row), 50).unwrap().rows.iter().map(|met| met.row).collect();
        assert!(met.iter().all(|met| (2_000..3_000).contains(met)), "{met:?}");
        lost += usize::from(!met.contains(&row));
    }
    assert!(lost <= 10, "{lost} of 1000 are not met");
    assert!(matches!(graph.remove(5), Ok(())), "what is not there need not be taken out");
}

#[test]
fn a_full_graph_says_so_and_goes_on() {
    let vectors = Vectors::from_rows(16, &flat(1, 40));
    let first = (0..20).collect();
    let graph = Graph::build(&vectors, &first, 20, &settings(Backend::DiskAnn), &mut |_| ControlFlow::Continue(()));
    let graph = graph.unwrap();
    assert_eq!(graph.insert(20, vectors.row(20), 3).unwrap(), Linked::NoRoom);
    assert_eq!(graph.search(vectors.row(7), 20).unwrap().rows[0].row, 7);
    graph.remove(7).unwrap();
    assert_eq!(graph.insert(20, vectors.row(20), 1_000).unwrap(), Linked::Yes);
    assert_eq!(graph.search(vectors.row(20), 20).unwrap().rows[0].row, 20);
}
