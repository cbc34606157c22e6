//! Shards of which everything changes: what the graph finds, what memory is taken, and what threads see meanwhile.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::live::{DIMENSION, Model, built, change, is, pause, settle};
use super::*;
use crate::change::ShardContent;
use crate::graph::Linked;

fn replacement(row: usize, vectors: &[UnitVector], at: u64) -> ShardChange {
    let id = format!("{row:07}");
    change(&id, is(&id, "yes", &vectors[row]), at)
}

/// The share of the best `k` of `now` that is found, over 50 queries.
fn recall(index: &ShardIndex, now: &[ShardAd], k: usize) -> f64 {
    let queries = clustered(2, 50, DIMENSION, 10);
    let found = queries.iter().map(|query| {
        let found: HashSet<_> = hits(&search(index, query, k, None)).into_iter().map(|hit| hit.ad).collect();
        assert_eq!(found.len(), k);
        brute_force(now, query, k, None).iter().filter(|hit| found.contains(&hit.ad)).count()
    });
    found.sum::<usize>() as f64 / (k * queries.len()) as f64
}

#[test]
fn a_shard_that_was_replaced_three_times_finds_what_a_new_one_does() {
    const ROWS: usize = 3_000;
    let settings = IndexSettings { threads: 1, ..settings(Backend::DiskAnn) };
    let (ads, index) = built(ROWS, &settings);
    let mut model = Model::new(&ads);
    let before = index.stats();
    for round in 1..=3 {
        let vectors = clustered(10 + round, ROWS, DIMENSION, 10);
        for batch in (0..ROWS).collect::<Vec<_>>().chunks(50) {
            let changes: Vec<_> = batch.iter().map(|row| replacement(*row, &vectors, round)).collect();
            index.apply(changes.clone()).unwrap();
            model.apply(&changes);
            settle(&index);
        }
    }
    let (now, stats) = (model.now(), index.stats());
    assert_eq!((stats.ads, stats.unlinked, stats.backend), (ROWS, 0, Backend::DiskAnn));
    assert!(stats.rows < ROWS + ROWS / 8 && stats.segments < 8, "{stats:?}");
    assert!(stats.bytes_per_ad() < before.bytes_per_ad() * 1.1, "{stats:?}, before {before:?}");
    let fresh = super::index(now.clone(), &settings);
    for k in [10, 100] {
        let (churned, fresh) = (recall(&index, &now, k), recall(&fresh, &now, k));
        println!("recall@{k} {churned:.4}, of a new one {fresh:.4}");
        assert!(churned >= fresh - 0.01, "recall@{k} {churned}, of a new one {fresh}");
    }
}

#[test]
fn a_shard_grows_out_of_its_graph_and_shrinks_again() {
    let settings = IndexSettings { exact_below_ads: 500, target_recall: 0.95, ..settings(Backend::Auto) };
    let (ads, index) = built(100, &settings);
    let mut model = Model::new(&ads);
    assert_eq!(index.backend(), Backend::Exact);
    let vectors = clustered(7, 6_000, DIMENSION, 10);
    let grow = |model: &mut Model, rows: std::ops::Range<usize>| {
        for batch in rows.collect::<Vec<_>>().chunks(100) {
            let changes: Vec<_> = batch.iter().map(|row| replacement(*row, &vectors, 1)).collect();
            index.apply(changes.clone()).unwrap();
            model.apply(&changes);
            settle(&index);
        }
    };
    grow(&mut model, 0..400);
    assert_eq!(index.backend(), Backend::Exact);
    grow(&mut model, 400..6_000);
    let large = index.stats();
    assert_eq!((large.ads, large.backend, large.unlinked), (6_000, Backend::DiskAnn, 0));
    assert!(recall(&index, &model.now(), 10) >= 0.95);
    // Most go, and their memory with them.
    let gone: Vec<_> = (500..6_000).map(|row| change(&format!("{row:07}"), ShardContent::Nothing, 2)).collect();
    index.apply(gone.clone()).unwrap();
    model.apply(&gone);
    assert_eq!(index.len(), 500);
    settle(&index);
    let small = index.stats();
    assert!(small.ads == 500 && small.dead <= 256, "{small:?}");
    assert!(small.graph_bytes < large.graph_bytes / 4, "{small:?}");
    assert!(recall(&index, &model.now(), 10) >= 0.95);
}

#[test]
fn changes_that_nobody_keeps_up_with_do_it_themselves() {
    const ROWS: usize = 6_000;
    let (_, index) = built(300, &settings(Backend::DiskAnn));
    let vectors = clustered(8, ROWS, DIMENSION, 10);
    let rows: Vec<usize> = (0..ROWS).collect();
    for batch in rows.chunks(500) {
        index.apply(batch.iter().map(|row| replacement(*row, &vectors, 1)).collect()).unwrap();
        // As many as are scanned at most.
        assert!(index.stats().unlinked <= 4_096, "{:?}", index.stats());
    }
    assert_eq!(index.len(), ROWS);
    for at in 2..4 {
        for batch in rows[..4_000].chunks(500) {
            index.apply(batch.iter().map(|row| replacement(*row, &vectors, at)).collect()).unwrap();
            assert!(index.stats().dead <= 4_096 + 500, "{:?}", index.stats());
        }
    }
    assert!(index.stats().rows < ROWS + 5_000, "{:?}", index.stats());
}

#[test]
fn a_row_that_a_search_still_sees_is_not_taken_out_of_the_graph() {
    let (ads, index) = built(1_000, &settings(Backend::DiskAnn));
    let query = &ads[7].embedding;
    let view = index.view();
    let vectors = clustered(9, 1_000, DIMENSION, 10);
    index.apply(vec![replacement(7, &vectors, 1), change("0000008", ShardContent::Nothing, 1)]).unwrap();
    index.apply(vec![replacement(9, &vectors, 1)]).unwrap();
    let due = loop {
        let due = index.maintain().unwrap();
        if !due.step {
            break due;
        }
    };
    assert!(due.later);
    let search = Search { vector: query, baseline: None, crowding: None, k: 1, filter: None, exact: false };
    let old = view.search(&index.planner, &search, &|| false).unwrap();
    assert_eq!((old.ads[0].hit.ad.as_str(), old.plan), ("0000007", Plan::Graph));
    drop(view);
    settle(&index);
    assert_eq!(index.upkeep().unwrap().linked.len(), 999);
}

#[test]
fn a_graph_that_is_full_leaves_what_it_has_no_slot_for_to_be_compared() {
    let (ads, index) = built(200, &settings(Backend::DiskAnn));
    let mut model = Model::new(&ads);
    let vectors = clustered(8, 2_000, DIMENSION, 10);
    let changes: Vec<_> = (200..1_500).map(|row| replacement(row, &vectors, 1)).collect();
    index.apply(changes.clone()).unwrap();
    model.apply(&changes);
    // Nobody overhauls it.
    for _ in 0..200 {
        index.maintain().unwrap();
    }
    let stats = index.stats();
    assert!(stats.unlinked > 1_000, "{stats:?}");
    assert!(recall(&index, &model.now(), 10) >= 0.95);
    let due = index.maintain().unwrap();
    assert_eq!((due.step, due.later, due.overhaul), (false, true, true));
    settle(&index);
    assert_eq!(index.stats().unlinked, 0);
    assert!(recall(&index, &model.now(), 10) >= 0.95);
}

#[test]
fn a_row_that_the_graph_refuses_holds_up_no_other() {
    let (ads, index) = built(300, &settings(Backend::DiskAnn));
    let mut model = Model::new(&ads);
    let vectors = clustered(8, 400, DIMENSION, 10);
    // It will not take what it has already: all of the first step, and the second of the next.
    let graph = index.view().graph.clone().unwrap();
    for row in [300, 301, 302, 303, 304, 305, 306, 307, 309] {
        assert_eq!(graph.insert(row, vectors[row as usize].as_slice(), 16).unwrap(), Linked::Yes);
    }
    let mut changes: Vec<_> = (300..330).map(|row| replacement(row, &vectors, 1)).collect();
    changes.extend((0..30).map(|row| change(&format!("{row:07}"), ShardContent::Nothing, 1)));
    index.apply(changes.clone()).unwrap();
    model.apply(&changes);
    let refused = |row: u32, unlinked: usize| {
        let Err(Refused { error: GraphError::Insert { row: first, .. }, due }) = index.maintain() else {
            panic!("{index:?}");
        };
        assert_eq!((first, due.step, due.later, index.stats().unlinked), (row, false, true, unlinked));
        // What stands behind the graph is done all the same.
        assert_eq!(index.view().counts.linked, index.upkeep().unwrap().linked.len() as usize);
    };
    refused(300, 30);
    assert_eq!(index.view().counts.linked, 300 - 8);
    refused(309, 30 - 7);
    // Others come first again, and then those, which were taken back.
    index.maintain().unwrap();
    assert_eq!(index.view().unlinked.iter().collect::<Vec<_>>()[..9], [300, 301, 302, 303, 304, 305, 306, 307, 309]);
    settle(&index);
    assert_eq!((index.stats().unlinked, index.view().counts.linked), (0, 300));
    assert!(recall(&index, &model.now(), 10) >= 0.95);
}

#[test]
fn rows_that_were_taken_out_of_the_graph_are_not_counted_in_it() {
    let (_, index) = built(300, &settings(Backend::DiskAnn));
    index.apply((0..100).map(|row| change(&format!("{row:07}"), ShardContent::Nothing, 1)).collect()).unwrap();
    settle(&index);
    assert_eq!(index.view().counts.linked, 200);
}

#[test]
fn an_overhaul_can_be_broken_off_and_done_again() {
    let (_, index) = built(200, &settings(Backend::DiskAnn));
    let vectors = clustered(8, 2_000, DIMENSION, 10);
    index.apply((200..1_500).map(|row| replacement(row, &vectors, 1)).collect()).unwrap();
    assert_eq!(index.overhaul(&mut |_| ControlFlow::Break(())), Err(GraphError::Stopped));
    assert!(index.upkeep().unwrap().pinned.is_none());
    settle(&index);
    assert_eq!(index.stats().unlinked, 0);
}

/// Ends what goes on until this is so.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Ads of which each version lies elsewhere, so that a score tells the version.
#[test]
fn threads_that_search_see_each_ad_once_and_never_one_that_is_gone() {
    const ROWS: usize = 2_000;
    let versions: Vec<Vec<UnitVector>> = (0..4).map(|round| clustered(20 + round, ROWS, DIMENSION, 10)).collect();
    let (_, index) = built(ROWS, &settings(Backend::DiskAnn));
    let write = |round: usize, rows: std::ops::Range<usize>| {
        index.apply(rows.map(|row| replacement(row, &versions[round], round as u64 + 1)).collect()).unwrap();
    };
    write(0, 0..ROWS);
    settle(&index);
    // Rows below are of a version at least, and paused or deleted below another bound, before a search begins.
    let (round_of, hidden, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let queries = clustered(2, 40, DIMENSION, 10);
    let filter = any_of("half", &["yes"]);
    let read = |reader: usize| {
        let mut searches = 0;
        for query in queries.iter().cycle().skip(reader * 7) {
            if over.load(Ordering::Acquire) {
                break;
            }
            let (round, hidden) = (round_of.load(Ordering::Acquire), hidden.load(Ordering::Acquire));
            let filter = (searches % 2 == 1).then_some(&filter);
            let search =
                Search { vector: query, baseline: None, crowding: None, k: 30, filter, exact: searches % 5 == 4 };
            let found = index.search(&search).unwrap();
            let mut ids = HashSet::new();
            assert_eq!(found.ads.len(), 30);
            for hit in found.ads.iter().map(|ad| &ad.hit) {
                let row: usize = hit.ad.as_str().parse().unwrap();
                assert!(ids.insert(row), "{row} is there twice");
                assert!(row >= hidden, "{row} is not to be found since before {hidden}");
                let is = |vectors: &Vec<UnitVector>| dot(query.as_slice(), vectors[row].as_slice()) == hit.score;
                assert!(versions[round..].iter().any(is), "{row} is of a version before {round}");
            }
            searches += 1;
        }
        searches
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|reader| scope.spawn(move || read(reader))).collect();
        let upkeep = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                if index.maintain().unwrap().overhaul {
                    index.overhaul(&mut |_| ControlFlow::Continue(())).unwrap();
                }
                std::thread::yield_now();
            }
        });
        // A panic here must not leave the others to search for ever.
        let _end = OnDrop(&over);
        for round in 1..4 {
            for row in (0..ROWS).step_by(20) {
                write(round, row..row + 20);
            }
            round_of.store(round, Ordering::Release);
        }
        for row in 0..ROWS / 2 {
            let id = format!("{row:07}");
            let gone = change(&id, ShardContent::Nothing, 9);
            index.apply(vec![if row % 2 == 0 { pause(&id, true, 9) } else { gone }]).unwrap();
            hidden.store(row + 1, Ordering::Release);
        }
        over.store(true, Ordering::Release);
        upkeep.join().unwrap();
        let searches: Vec<usize> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert!(searches.iter().all(|searches| *searches > 0), "{searches:?}");
    });
    settle(&index);
}
