//! What is written while a shard serves, and opened again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use turret_retrieval::revision::Revision;

use super::live::{Model, built, change, check, is, pause, settle};
use super::*;
use crate::change::ShardContent;
use crate::{GraphOrigin, Opened, Origin};

const GENERATION: &str = "g-1";

fn open(path: &Path, dimension: usize, settings: &IndexSettings) -> Result<Opened, OpenError> {
    let origin = Origin { generation: GENERATION, dimension };
    ShardIndex::open(path, &origin, settings, &Vec::new, &mut |_| ControlFlow::Continue(()))
}

/// Written and opened.
pub(super) fn reopened(index: &ShardIndex, settings: &IndexSettings) -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    let written = index.snapshot(&path, GENERATION, Revision::from_bits(77)).unwrap();
    assert_eq!((written.bytes, written.ads), (std::fs::metadata(&path).unwrap().len(), index.len()));
    let opened = open(&path, index.dimension(), settings).unwrap();
    assert_eq!(opened.until, Revision::from_bits(77));
    opened
}

#[test]
fn an_opened_shard_answers_as_the_written_one() {
    for written in [&*EXACT, &*GRAPH] {
        let settings = settings(written.backend());
        let Opened { mut index, graph, .. } = reopened(written, &settings);
        assert_eq!(index.calibration(), written.calibration());
        // The costs of this process are no part of a shard.
        index.planner.costs = written.planner.costs;
        let has_graph = written.backend() == Backend::DiskAnn;
        assert_eq!(graph, if has_graph { GraphOrigin::Restored } else { GraphOrigin::Unneeded });
        assert_eq!((index.backend(), index.attributes()), (written.backend(), written.attributes()));
        let (stats, before) = (index.stats(), written.stats());
        assert_eq!((stats.ads, stats.unlinked, stats.dead), (before.ads, 0, 0));
        let (filter, many) = (any_of("half", &["no"]), any_of("tenth", &["t3"]));
        for query in queries(20) {
            assert_eq!(search(&index, &query, 10, None), search(written, &query, 10, None));
            assert_eq!(search(&index, &query, 50, Some(&filter)), search(written, &query, 50, Some(&filter)));
            assert_eq!(search(&index, &query, 50, Some(&many)), search(written, &query, 50, Some(&many)));
        }
    }
}

#[test]
fn a_graph_that_is_missing_or_was_made_otherwise_is_built() {
    let (ads, index) = built(300, &settings(Backend::DiskAnn));
    let model = Model::new(&ads);
    let wanted = IndexSettings { degree: 24, ..settings(Backend::DiskAnn) };
    let opened = reopened(&index, &wanted);
    let GraphOrigin::Built { why } = opened.graph else { panic!("{:?}", opened.graph) };
    assert!(why.contains("degree: 32") && why.contains("degree: 24"), "{why}");
    check(&opened.index, &model, 20);
    let (_, bare) = built(300, &settings(Backend::Exact));
    let opened = reopened(&bare, &settings(Backend::DiskAnn));
    assert_eq!(opened.graph, GraphOrigin::Built { why: "the file has none".to_owned() });
    check(&opened.index, &model, 20);
    let opened = reopened(&index, &settings(Backend::Exact));
    assert_eq!((opened.graph, opened.index.backend()), (GraphOrigin::Unneeded, Backend::Exact));
}

#[test]
fn what_is_older_than_a_snapshot_changes_nothing_and_the_deleted_stays_deleted() {
    let (ads, index) = built(40, &settings(Backend::DiskAnn));
    let mut model = Model::new(&ads);
    let vector = &ads[3].embedding;
    let early = vec![
        change("0000001", is("0000001", "yes", vector), 10),
        change("0000002", ShardContent::Nothing, 11),
        pause("0000003", true, 12),
        pause("later", true, 13),
    ];
    index.apply(early.clone()).unwrap();
    model.apply(&early);
    let index = reopened(&index, &settings(Backend::DiskAnn)).index;
    check(&index, &model, 50);
    let late = vec![
        change("0000001", is("0000001", "no", vector), 9),
        change("0000002", is("0000002", "yes", vector), 10),
        pause("0000003", false, 11),
        pause("later", false, 12),
        change("later", is("later", "yes", vector), 5),
    ];
    index.apply(late.clone()).unwrap();
    model.apply(&late);
    assert_eq!(model.now().len(), 38);
    check(&index, &model, 50);
    settle(&index);
    check(&index, &model, 50);
}

#[test]
fn a_row_that_the_graph_did_not_have_is_linked_by_upkeep() {
    let (ads, index) = built(200, &settings(Backend::DiskAnn));
    let mut model = Model::new(&ads);
    let born: Vec<_> = (0..50).map(|row| format!("new{row}")).collect();
    let changes: Vec<_> = born.iter().zip(&ads).map(|(id, ad)| change(id, is(id, "yes", &ad.embedding), 1)).collect();
    index.apply(changes.clone()).unwrap();
    model.apply(&changes);
    let died: Vec<_> = (0..40).map(|row| change(&format!("{row:07}"), ShardContent::Nothing, 2)).collect();
    index.apply(died.clone()).unwrap();
    model.apply(&died);
    let index = reopened(&index, &settings(Backend::DiskAnn)).index;
    assert_eq!((index.stats().unlinked, index.stats().dead, index.stats().rows), (50, 0, 210));
    check(&index, &model, 100);
    settle(&index);
    assert_eq!(index.stats().unlinked, 0);
    check(&index, &model, 100);
}

#[test]
fn a_row_that_is_linked_while_its_snapshot_is_written_is_compared_until_it_is_linked_again() {
    let settings = settings(Backend::DiskAnn);
    let (_, index) = built(1_200, &settings);
    let born = clustered(5, 50, live::DIMENSION, 10);
    let changes = (0..).zip(&born).map(|(row, vector)| {
        let id = format!("new{row}");
        change(&id, is(&id, "yes", vector), 1)
    });
    index.apply(changes.collect()).unwrap();
    let picture = index.picture().unwrap();
    settle(&index);
    assert_eq!(index.stats().unlinked, 0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    index.write(&picture, &path, GENERATION, Revision::NONE).unwrap();
    let opened = open(&path, live::DIMENSION, &settings).unwrap();
    assert_eq!((opened.graph, opened.index.stats().unlinked), (GraphOrigin::Restored, 50));
    let opened = walking(opened.index);
    for _ in 0..2 {
        for (row, vector) in born.iter().enumerate() {
            let found = search(&opened, vector, 1, None);
            assert_eq!((found.plan, found.ads[0].hit.ad.as_str()), (Plan::Graph, &*format!("new{row}")));
        }
        settle(&opened);
        assert_eq!(opened.stats().unlinked, 0);
    }
}

#[test]
fn a_graph_that_is_built_anew_need_not_be_as_good_as_that_of_the_file() {
    let (_, index) = built(3_000, &settings(Backend::DiskAnn));
    let poor = IndexSettings { degree: 2, build_list: 2, ..settings(Backend::DiskAnn) };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    index.snapshot(&path, GENERATION, Revision::NONE).unwrap();
    let opened = open(&path, live::DIMENSION, &poor).unwrap();
    assert!(matches!(opened.graph, GraphOrigin::Built { .. }));
}

#[test]
fn a_snapshot_of_the_midst_of_changes_has_all_of_before_and_the_rest_comes_after() {
    let settings = settings(Backend::DiskAnn);
    let (ads, index) = built(3_000, &settings);
    let vectors = clustered(9, 2_000, live::DIMENSION, 10);
    let changes: Vec<ShardChange> = (1..)
        .zip(&vectors)
        .map(|(at, vector)| {
            let id = format!("{:07}", at * 7 % 3_500);
            match at % 5 {
                0 => change(&id, ShardContent::Nothing, at),
                1 => pause(&id, at % 2 == 1, at),
                _ => change(&id, is(&id, "yes", vector), at),
            }
        })
        .collect();
    let (first, rest) = changes.split_at(500);
    index.apply(first.to_vec()).unwrap();
    let done = AtomicBool::new(false);
    let dir = tempfile::tempdir().unwrap();
    let mut snapshots = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in rest.chunks(10) {
                index.apply(batch.to_vec()).unwrap();
                drop(index.maintain());
            }
            index.overhaul(&mut |_| ControlFlow::Continue(())).unwrap();
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let path = dir.path().join(format!("{}.shard", snapshots.len()));
            index.snapshot(&path, GENERATION, Revision::from_bits(500)).unwrap();
            snapshots.push(path);
        }
    });
    assert!(snapshots.len() > 1);
    let mut model = Model::new(&ads);
    model.apply(&changes);
    for path in snapshots.iter().step_by(snapshots.len().div_ceil(4)).chain(snapshots.last()) {
        let opened = open(path, live::DIMENSION, &settings).unwrap();
        assert_eq!(opened.graph, GraphOrigin::Restored);
        opened.index.apply(rest.to_vec()).unwrap();
        check(&opened.index, &model, 100);
        settle(&opened.index);
        check(&opened.index, &model, 100);
    }
}

#[test]
fn a_snapshot_replaces_a_file_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    for rows in [30, 20] {
        built(rows, &settings(Backend::Exact)).1.snapshot(&path, GENERATION, Revision::NONE).unwrap();
        assert_eq!(open(&path, live::DIMENSION, &settings(Backend::Exact)).unwrap().index.len(), rows);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let nowhere = dir.path().join("nowhere").join("0.shard");
    let error = built(3, &settings(Backend::Exact)).1.snapshot(&nowhere, GENERATION, Revision::NONE).unwrap_err();
    assert!(error.to_string().starts_with(&nowhere.display().to_string()), "{error}");
}

#[test]
fn opening_can_be_broken_off_and_tells_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    built(500, &settings(Backend::Exact)).1.snapshot(&path, GENERATION, Revision::NONE).unwrap();
    let origin = Origin { generation: GENERATION, dimension: live::DIMENSION };
    let mut stages = Vec::new();
    let observe = &mut |progress: Progress| {
        assert!(progress.done <= progress.total);
        stages.push(progress.stage);
        ControlFlow::Continue(())
    };
    ShardIndex::open(&path, &origin, &settings(Backend::DiskAnn), &Vec::new, observe).unwrap();
    assert!(stages.contains(&Stage::Read) && stages.contains(&Stage::Graph));
    for (stage, expected) in [(Stage::Read, "reading was"), (Stage::Graph, "building the graph was")] {
        let stop = &mut |progress: Progress| match progress.stage == stage {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let error = ShardIndex::open(&path, &origin, &settings(Backend::DiskAnn), &Vec::new, stop).unwrap_err();
        assert!(error.to_string().ends_with(&format!("0.shard: {expected} broken off")), "{error}");
    }
}

#[test]
fn an_empty_shard_is_written_and_opened() {
    for backend in [Backend::Exact, Backend::DiskAnn] {
        let settings = settings(backend);
        let empty = index(vec![], &settings);
        let opened = reopened(&empty, &settings).index;
        assert_eq!((opened.len(), opened.dimension()), (0, 3));
        opened.apply(vec![change("a", is("a", "yes", &unit(&[1.0, 0.0, 0.0])), 1)]).unwrap();
        assert_eq!(opened.len(), 1);
    }
}

#[test]
fn the_name_of_the_library_is_that_of_the_manifest() {
    let (name, version) = crate::graph::LIBRARY.split_once(' ').unwrap();
    let manifest = include_str!("../../../../../Cargo.toml");
    assert!(manifest.contains(&format!("{name} = \"={version}\"")), "{name} {version}");
}
