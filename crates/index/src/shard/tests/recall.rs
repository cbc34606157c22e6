//! How much the graph finds of what a scan finds.

use std::sync::atomic::{AtomicBool, Ordering};

use turret_retrieval::calibration::{Calibration, ListPoint};
use turret_retrieval::revision::Revision;

use super::*;
use crate::Origin;
use crate::cells::Cells;
use crate::change::ShardContent;
use crate::row_set::RowSet;

const QUERIES: usize = 100;

/// The share of the exact hits that the graph finds, over [`QUERIES`] queries, and how many of them walked the graph.
///
/// Every hit must pass the filter, and no hit may be missing for another reason than the walk.
fn recall(k: usize, filter: Option<&Filter>) -> (f64, usize) {
    let (mut found, mut wanted, mut walked) = (0, 0, 0);
    for query in queries(QUERIES) {
        let exact = search(&EXACT, &query, k, filter);
        let answer = search(&GRAPH, &query, k, filter);
        assert_eq!((answer.ads.len(), answer.selectivity), (exact.ads.len(), exact.selectivity));
        for FoundAd { hit, .. } in &answer.ads {
            let row: usize = hit.ad.as_str().parse().unwrap();
            assert!(filter.is_none_or(|filter| filter.matches(&ADS[row].ad.attributes)), "{} does not pass", hit.ad);
        }
        walked += usize::from(matches!(answer.plan, Plan::Graph | Plan::PostFilter | Plan::AdaptiveList));
        wanted += exact.ads.len();
        found += exact.ads.iter().filter(|hit| answer.ads.contains(hit)).count();
    }
    (f64::from(found as u32) / f64::from(wanted as u32), walked)
}

#[test]
fn the_graph_finds_what_a_scan_finds() {
    for k in [10, 100] {
        let (recall, walked) = recall(k, None);
        println!("recall@{k} {recall:.4}, {walked} of {QUERIES} walked");
        assert!(recall >= 0.95, "recall@{k} is {recall}");
        assert_eq!(walked, QUERIES);
    }
    let distances: u64 = queries(QUERIES).iter().map(|query| search(&GRAPH, query, 10, None).distances).sum();
    assert!(distances < (QUERIES * ROWS / 4) as u64, "{distances} distances are no better than a scan");
}

#[test]
fn filters_that_say_nothing_of_the_place_keep_the_recall() {
    let mixed = Filter::And(vec![any_of("tenth", &["t2", "t6"]), between("fiftieth", 0.0, 24.0)]);
    let cases = [
        (10, any_of("half", &["yes"])),
        (100, any_of("half", &["yes"])),
        (100, Filter::Not(Box::new(any_of("tenth", &["t3"])))),
        (10, any_of("tenth", &["t3"])),
        (10, mixed),
        (5, between("fiftieth", 10.0, 12.0)),
    ];
    for (k, filter) in &cases {
        let share = search(&EXACT, &queries(1)[0], 1, Some(filter)).selectivity.unwrap();
        let (recall, walked) = recall(*k, Some(filter));
        println!("recall@{k} {recall:.4} at selectivity {share:.3}, {walked} of {QUERIES} walked");
        assert!(recall >= 0.95, "recall@{k} is {recall} at {share}");
        assert!(walked >= QUERIES * 9 / 10, "{walked} walked at {share}");
    }
}

#[test]
fn filters_that_say_where_an_ad_lies_keep_the_recall() {
    // Most queries lie in clusters that do not pass: what a walk around them meets by chance is not the nearest.
    for (k, last) in [(10, 3.0), (10, 9.0), (10, 19.0), (50, 19.0), (10, 38.0)] {
        let (recall, walked) = recall(k, Some(&between("cluster", 0.0, last)));
        println!("recall@{k} {recall:.4} of clusters 0..={last}, {walked} of {QUERIES} walked");
        assert!(recall >= 0.95, "recall@{k} is {recall} of clusters 0..={last}");
        assert!(walked > 0, "none walked of clusters 0..={last}");
    }
}

#[test]
fn a_list_too_short_for_the_filter_is_lengthened() {
    let mut index = walking(index(ADS.clone(), &settings(Backend::DiskAnn)));
    // Cells of what passes alone say that all near the query does.
    let filter = between("cluster", 10.0, 39.0);
    let view = index.view();
    let passing = view.postings.rows(&filter, &view.live);
    let cells = Some(Arc::new(Cells::of(&view.vectors, passing.bitmap(), 2)));
    index.publish(View { cells, ..(*view).clone() });
    // Queries 10 to 39 lie where ads pass, 0 to 9 where none do.
    let find = |index: &ShardIndex, query: &UnitVector| {
        let found = search(index, query, 10, Some(&filter));
        let exact = brute_force(&ADS, query, 10, Some(&filter));
        assert!(hits(&found).iter().filter(|hit| exact.contains(hit)).count() >= 8, "{found:?}");
        assert_eq!(found.selectivity_near, Some(1.0));
        found
    };
    let answers: Vec<Found> = queries(40).iter().map(|query| find(&index, query)).collect();
    let shortest = calibration_list(&index, 10);
    assert!(answers[..10].iter().all(|found| found.plan == Plan::AdaptiveList && found.list > 4 * shortest));
    assert!(answers[10..].iter().filter(|found| found.plan == Plan::PostFilter).count() >= 25);
    // Where walks are dear, the ads that pass are compared instead, and what was walked in vain is counted.
    index.planner.costs =
        Costs { distance: 6.0, posting: 1.0, unlinked: 1.0, masked: 0.0, look: 1e9, cell: 0.0, near: 0.0 };
    let dear: Vec<Found> = queries(10).iter().map(|query| find(&index, query)).collect();
    let scanned = dear.iter().filter(|found| found.plan == Plan::ExactPostings);
    assert!(scanned.clone().count() >= 2, "{dear:?}");
    assert!(scanned.clone().all(|found| (4_501..6_000).contains(&found.distances) && found.list > 0), "{dear:?}");
}

fn calibration_list(index: &ShardIndex, k: usize) -> u32 {
    index.calibration().and_then(|calibration| calibration.list(k)).unwrap() as u32
}

#[test]
fn a_list_is_the_shortest_that_reaches_the_target() {
    let of = |target_recall| {
        let sparse = IndexSettings { degree: 16, build_list: 30, ..settings(Backend::DiskAnn) };
        let index = index(ADS.clone(), &IndexSettings { target_recall, ..sparse });
        (index.calibration().unwrap(), index)
    };
    let ((low, loose), (high, strict)) = (of(0.8), of(0.95));
    for (calibration, index) in [(&low, &loose), (&high, &strict)] {
        calibration.check().unwrap();
        assert_eq!(calibration.points.iter().map(|point| point.k).collect::<Vec<_>>(), [10, 100, 1_000]);
        assert!(calibration.points.iter().all(|point| point.recall_low >= calibration.target_recall));
        // Other queries than those that it was measured with.
        for k in [10, 55, 100] {
            let found = queries(100).into_iter().map(|query| {
                let exact = brute_force(&ADS, &query, k, None);
                let found = search(index, &query, k, None);
                assert_eq!(found.list as usize, calibration.list(k).unwrap());
                hits(&found).iter().filter(|hit| exact.contains(hit)).count()
            });
            let recall = found.sum::<usize>() as f64 / (100 * k) as f64;
            println!("recall@{k} {recall:.4} for {}", calibration.target_recall);
            assert!(recall >= calibration.target_recall, "{recall} for {}", calibration.target_recall);
        }
    }
    assert!(low.points.iter().zip(&high.points).any(|(low, high)| low.list < high.list));
}

#[test]
fn lists_that_cost_much_more_than_a_scan_are_not_measured() {
    let (auto, walked) = (settings(Backend::Auto), settings(Backend::DiskAnn));
    let measured = |settings: &IndexSettings| index(ADS.clone(), settings).calibration().unwrap();
    let (chosen, asked_for) = (measured(&auto), measured(&walked));
    let is_dear = |point: &ListPoint| Planner::new(&auto).is_dear(point.distances, ROWS);
    chosen.check().unwrap();
    // Of the last one it is known that it is dear, and no more: nothing is walked with it, nor between it and the one before.
    let (dear, others) = chosen.points.split_last().unwrap();
    assert!(is_dear(dear) && dear.list == dear.k.max(16) && !others.iter().any(is_dear), "{chosen:?}");
    assert_eq!((chosen.list(dear.k as usize), chosen.list(2_000)), (None, None));
    // Whoever asks for the graph gets it at any cost.
    assert!(asked_for.points.len() == 3 && is_dear(&asked_for.points[2]) && asked_for.list(1_000).is_some());
    assert!(!Planner::new(&walked).is_dear(u64::MAX, ROWS));
    let fits =
        |settings: &IndexSettings| [&chosen, &asked_for].map(|calibration| calibrate::fits(calibration, settings));
    assert_eq!((fits(&auto), fits(&walked)), ([true, true], [false, true]));
}

#[test]
fn a_shard_is_measured_with_the_queries_it_is_built_with() {
    let build = |settings: &IndexSettings, queries: &[UnitVector]| {
        ShardIndex::build(DIMENSION, ADS[..1_500].to_vec(), settings, queries, &mut |_| ControlFlow::Continue(()))
    };
    let walked = settings(Backend::DiskAnn);
    let own = build(&walked, &queries(100)).unwrap().calibration().unwrap();
    assert_eq!((own.queries, own.ads), (100, 1_500));
    assert_eq!(build(&walked, &queries(300)).unwrap().calibration().unwrap().queries, 150, "every other one");
    let error = build(&walked, &[unit(&[1.0, 0.0])]).unwrap_err();
    assert_eq!(error.to_string(), "query to measure with: dimension 2 where 24 is expected");
    assert_eq!(build(&settings(Backend::Exact), &queries(3)).unwrap().calibration(), None);
}

#[test]
fn what_was_measured_is_used_by_whoever_opens_the_same_graph() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.shard");
    let settings = settings(Backend::DiskAnn);
    let mut go_on = |_| ControlFlow::Continue(());
    let index = ShardIndex::build(DIMENSION, ADS[..1_500].to_vec(), &settings, &queries(70), &mut go_on).unwrap();
    let origin = Origin { generation: "g", dimension: DIMENSION };
    let reopened = |index: &ShardIndex, settings: &IndexSettings| {
        index.snapshot(&path, "g", Revision::NONE).unwrap();
        ShardIndex::open(&path, &origin, settings, &|| queries(90), &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let own = index.calibration().unwrap();
    let same = reopened(&index, &settings);
    assert_eq!((own.queries, same.index.calibration(), same.measured_with), (70, Some(own.clone()), None));
    let changes: [fn(&mut IndexSettings); 4] = [
        |other| other.target_recall = 0.9,
        |other| other.degree = 16,
        |other| other.alpha = 1.3,
        |other| other.build_list = 60,
    ];
    for change in changes {
        let mut other = settings.clone();
        change(&mut other);
        let opened = reopened(&index, &other);
        let calibration = opened.index.calibration().unwrap();
        assert_eq!((opened.measured_with, calibration.queries), (Some(90), 90));
        let by = (calibration.target_recall, calibration.degree, calibration.alpha, calibration.build_list);
        assert_eq!(by, (other.target_recall, other.degree as u32, other.alpha, other.build_list as u32));
    }
    // Ads that came before it was written count for when it is measured again.
    let replace = |index: &ShardIndex, at: u64, count: usize| {
        let replaced = |row: usize| {
            let id = format!("{:07}", row % 1_500);
            let other = &ADS[(row + at as usize) % ROWS].embedding;
            live::change(&id, live::is(&id, "yes", other), at + row as u64)
        };
        for rows in (0..count).collect::<Vec<_>>().chunks(500) {
            index.apply(rows.iter().map(|row| replaced(*row)).collect()).unwrap();
        }
    };
    replace(&index, 1_000, 4_000);
    let index = reopened(&index, &settings).index;
    assert_eq!((index.calibration(), index.is_measure_due(&index.view())), (Some(own), false));
    replace(&index, 9_000, 97);
    assert!(index.is_measure_due(&index.view()), "{}", index.view().counts.born);
}

#[test]
fn an_ad_that_stays_where_it_is_does_not_count_as_new() {
    let index = index(ADS[..300].to_vec(), &settings(Backend::DiskAnn));
    let change = |content, at| {
        index.apply(vec![live::change("0000001", content, at)]).unwrap();
        index.view().counts.born
    };
    let patch = [("half".into(), Some(keyword("maybe")))].into();
    assert_eq!(change(ShardContent::Patched(patch), 1), 0);
    assert_eq!(change(live::is("0000001", "yes", &ADS[1].embedding), 2), 0);
    assert_eq!(change(live::is("0000001", "yes", &ADS[2].embedding), 3), 1);
    assert_eq!(change(ShardContent::Nothing, 4), 1);
    assert_eq!(change(live::is("0000001", "yes", &ADS[2].embedding), 5), 2);
}

#[test]
fn rows_that_die_while_lists_are_measured_are_no_misses() {
    let settings = settings(Backend::DiskAnn);
    let index = index(ADS[..2_000].to_vec(), &settings);
    let before = View { era: Arc::default(), ..(*index.view()).clone() };
    let died = (0..2_000).step_by(5).map(|row| live::change(&format!("{row:07}"), ShardContent::Nothing, 1));
    index.apply(died.collect()).unwrap();
    while index.maintain().unwrap().step {}
    let of = |live: &dyn Fn() -> Arc<RowSet>| {
        let measured = calibrate::measured(&before, &settings, &[], None, live).unwrap().unwrap();
        measured.calibration.points.iter().all(|point| point.recall_low >= settings.target_recall)
    };
    assert!(of(&|| index.view().live.clone()));
    // As if all that the walks missed were there.
    assert!(!of(&|| before.live.clone()));
}

#[test]
fn a_new_graph_comes_with_what_was_measured_of_it() {
    let (_, index) = live::built(1_500, &settings(Backend::DiskAnn));
    let more = clustered(4, 600, live::DIMENSION, 10);
    let more = (0..).zip(&more).map(|(row, vector)| {
        let id = format!("new{row}");
        live::change(&id, live::is(&id, "yes", vector), 1)
    });
    index.apply(more.collect()).unwrap();
    let before = index.view();
    let is_of_before = |view: &View| {
        let graph = Arc::ptr_eq(view.graph.as_ref().unwrap(), before.graph.as_ref().unwrap());
        (graph, Arc::ptr_eq(view.measured.as_ref().unwrap(), before.measured.as_ref().unwrap()))
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            index.overhaul(&mut |_| ControlFlow::Continue(())).unwrap();
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let (graph, measured) = is_of_before(&index.view());
            assert_eq!(graph, measured);
        }
    });
    assert_eq!(is_of_before(&index.view()), (false, false));
}

#[test]
fn lists_of_before_that_are_kept_leave_a_sound_calibration() {
    let mut known = calibrated(&[(10, 131, 9_000), (100, 1_066, 9_500)]);
    known.check().unwrap();
    let mut now = calibrated(&[(10, 20, 400), (100, 1_000, 12_000), (1_000, 1_000, 12_000)]);
    calibrate::keep_longer(&mut now.points, &known);
    now.check().unwrap();
    assert_eq!(now.points.iter().map(|point| point.list).collect::<Vec<_>>(), [131, 1_066, 1_066]);
    assert_eq!((now.list(10), now.list(500), now.list(1_000)), (Some(131), Some(1_066), Some(1_066)));
    // A first list that is lengthened much costs more than the next, which is not.
    known.points.truncate(1);
    let mut now = calibrated(&[(10, 20, 400), (100, 140, 1_000)]);
    calibrate::keep_longer(&mut now.points, &known);
    now.check().unwrap();
    assert_eq!(now.points.iter().map(|point| point.distances).collect::<Vec<_>>(), [2_620, 2_620]);
}

/// Of `k`, list and distances of each point.
fn calibrated(points: &[(u32, u32, u64)]) -> Calibration {
    let point = |&(k, list, distances)| ListPoint { k, list, recall: 0.99, recall_low: 0.98, distances };
    let points = points.iter().map(point).collect();
    Calibration {
        target_recall: 0.95,
        degree: 32,
        build_list: 100,
        alpha: 1.2,
        ads: 2_000,
        queries: 64,
        points,
        reach: None,
    }
}

#[test]
fn filters_that_few_pass_lose_nothing() {
    let filter = between("fiftieth", 7.0, 7.0);
    let index = index(ADS[..3_000].to_vec(), &settings(Backend::DiskAnn));
    for query in queries(10) {
        let found = search(&index, &query, 10, Some(&filter));
        assert_eq!(found.plan, Plan::ExactPostings);
        assert_eq!(hits(&found), brute_force(&ADS[..3_000], &query, 10, Some(&filter)));
    }
}
