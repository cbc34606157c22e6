use super::*;
use crate::fixtures::{clustered, settings};
use crate::settings::Backend;

fn flat(seed: u64, rows: usize) -> Vec<f32> {
    clustered(seed, rows, 16, 10).iter().flat_map(|vector| vector.as_slice().to_vec()).collect()
}

fn build(vectors: &[f32], settings: &IndexSettings) -> Result<Graph, GraphError> {
    Graph::build(vectors, 16, settings, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn one_thread_builds_the_same_graph_every_time() {
    let vectors = flat(1, 1_500);
    let settings = IndexSettings { threads: 1, ..settings(Backend::DiskAnn) };
    let (first, second) = (build(&vectors, &settings).unwrap(), build(&vectors, &settings).unwrap());
    for query in clustered(2, 50, 16, 10) {
        let (a, b) = (first.search(query.as_slice(), 30).unwrap(), second.search(query.as_slice(), 30).unwrap());
        assert_eq!((a.rows, a.distances), (b.rows, b.distances));
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
        !candidates.rows.contains(row)
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
    let broken = Graph::build(&vectors, 16, &settings(Backend::DiskAnn), &mut |_| ControlFlow::Break(()));
    assert_eq!(broken.err(), Some(GraphError::Stopped));
    let mut reports = Vec::new();
    let observe = &mut |done| {
        reports.push(done);
        ControlFlow::Continue(())
    };
    Graph::build(&vectors, 16, &settings(Backend::DiskAnn), observe).unwrap();
    assert!(reports.is_sorted() && reports.last() == Some(&1_000), "{reports:?}");
}

#[test]
fn vectors_that_cancel_out_still_have_a_start() {
    let graph =
        Graph::build(&[1.0, 0.0, -1.0, 0.0], 2, &settings(Backend::DiskAnn), &mut |_| ControlFlow::Continue(()));
    assert_eq!(graph.unwrap().search(&[1.0, 0.0], 2).unwrap().rows.first(), Some(&0));
    assert_eq!(*middle(&[1.0, 0.0, -1.0, 0.0], 2), [1.0, 0.0]);
}

#[test]
fn a_future_that_waits_is_not_waited_for() {
    assert_eq!(ready(std::future::ready(7)), Some(7));
    assert_eq!(ready(std::future::pending::<()>()), None);
}

#[test]
fn the_reason_is_one_line() {
    let error = ANNError::message(NO_SLOT).context("insertion");
    assert_eq!(reason(&error), NO_SLOT);
    assert_eq!(reason(&ANNError::message("no mapping")), "no mapping");
}
