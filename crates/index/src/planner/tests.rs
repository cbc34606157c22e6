use super::*;
use crate::fixtures::settings;
use turret_retrieval::calibration::{ListPoint, Reach, ReachPoint};

fn planner(backend: Backend) -> Planner {
    Planner {
        costs: Costs { distance: 20.0, posting: 8.0, unlinked: 10.0, masked: 0.0, look: 30.0, cell: 1.0, near: 5.0 },
        ..Planner::new(&settings(backend))
    }
}

/// A list of `k` and a tenth, each entry for 20 distances.
fn calibration() -> Calibration {
    let point = |k, list| ListPoint { k, list, recall: 0.97, recall_low: 0.96, distances: u64::from(list) * 20 };
    let points = vec![point(10, 20), point(100, 110), point(1_000, 1_100)];
    let (target_recall, degree, build_list, alpha) = (0.95, 32, 100, 1.2);
    Calibration { target_recall, degree, build_list, alpha, ads: 100_000, queries: 64, points, reach: None }
}

fn extent(calibration: &Calibration, ads: usize, passing: Option<usize>, k: usize) -> Extent<'_> {
    let graph = Some(Walked { rows: ads, unlinked: 0, calibration });
    Extent { ads, passing, k, nearer: 0, graph }
}

const ALWAYS: fn() -> bool = || true;
const NOBODY: fn() -> Near = || panic!("nobody has to ask");

#[test]
fn whether_there_is_a_graph_follows_the_size_of_the_shard() {
    let check = |backend, ads, expected| {
        let settings = IndexSettings { exact_below_ads: 20_000, ..settings(backend) };
        assert_eq!(Planner::new(&settings).wants_graph(ads), expected, "{backend:?} {ads}");
    };
    check(Backend::Auto, 19_999, false);
    check(Backend::Auto, 20_000, true);
    check(Backend::Exact, 1_000_000, false);
    check(Backend::DiskAnn, 5, true);
    check(Backend::DiskAnn, 0, false);
}

#[test]
fn without_a_measured_graph_nothing_is_walked() {
    let extent = Extent { ads: 1_000_000, passing: None, k: 10, nearer: 0, graph: None };
    assert_eq!(planner(Backend::DiskAnn).plan(&extent, ALWAYS, NOBODY), Step::Scan);
    let bare = Calibration { points: vec![], ..calibration() };
    assert_eq!(
        planner(Backend::DiskAnn).plan(&super::tests::extent(&bare, 1_000_000, None, 10), ALWAYS, NOBODY),
        Step::Scan
    );
}

#[test]
fn without_a_filter_the_graph_is_walked_while_it_costs_less_than_a_scan() {
    let calibration = calibration();
    let plan = |backend, ads, k| planner(backend).plan(&extent(&calibration, ads, None, k), ALWAYS, NOBODY);
    assert_eq!(plan(Backend::Auto, 100_000, 10), Step::Walk { list: 20 });
    assert_eq!(plan(Backend::Auto, 100_000, 100), Step::Walk { list: 110 });
    assert_eq!(plan(Backend::Auto, 100_000, 1_000), Step::Scan);
    assert_eq!(plan(Backend::Auto, 7_900, 10), Step::Scan);
    // Whoever asks for the graph gets it, unless its list would hold the shard.
    assert_eq!(plan(Backend::DiskAnn, 100_000, 1_000), Step::Walk { list: 1_100 });
    assert_eq!(plan(Backend::DiskAnn, 1_100, 1_000), Step::Scan);
}

#[test]
fn no_walk_takes_a_list_longer_than_any_that_is_measured() {
    let calibration = calibration();
    let plan = |k| planner(Backend::DiskAnn).plan(&extent(&calibration, 1_000_000, None, k), ALWAYS, NOBODY);
    assert_eq!((plan(14_894), plan(14_895)), (Step::Walk { list: 16_384 }, Step::Scan));
    let after = |list| {
        let met = Met { list, distances: 1, wanted: 1_000, passing: 1, rank: None };
        planner(Backend::DiskAnn).after(&extent(&calibration, 1_000_000, None, 1_000), met)
    };
    assert_eq!((after(14), after(15)), (Next::Longer { list: 15_400 }, Next::Scan));
}

#[test]
fn what_the_graph_cannot_reach_is_scanned() {
    let mut short = calibration();
    short.points[1].recall_low = 0.9;
    let plan = |k| planner(Backend::DiskAnn).plan(&extent(&short, 100_000, None, k), ALWAYS, NOBODY);
    assert_eq!((plan(10), plan(11), plan(100)), (Step::Walk { list: 20 }, Step::Scan, Step::Scan));
}

#[test]
fn a_filter_is_walked_for_where_enough_passes_near_the_query() {
    let calibration = calibration();
    let plan = |ads, passing, near: u32| {
        planner(Backend::Auto)
            .plan(&extent(&calibration, ads, Some(passing), 100), ALWAYS, || Near { rows: 32, passing: near })
    };
    // As overall, so near the query: twice the rank, and what that may vary by.
    assert_eq!(plan(1_000_000, 500_000, 16), Step::Walk { list: 245 });
    assert_eq!(plan(1_000_000, 500_000, 13), Step::Walk { list: 245 });
    // All that is near passes.
    assert_eq!(plan(1_000_000, 50_000, 32), Step::Walk { list: 110 });
    // Less passes near the query than elsewhere, or nothing.
    let Step::Walk { list } = plan(1_000_000, 500_000, 8) else { panic!("it is worth it") };
    assert!((600..900).contains(&list), "{list}");
    assert_eq!(plan(1_000_000, 500_000, 1), Step::Scan);
    assert_eq!(plan(1_000_000, 900_000, 0), Step::Scan);
    // What few pass, or the walk would cost as much for, is scanned.
    assert_eq!(plan(1_000_000, 50_000, 2), Step::Scan);
}

#[test]
fn cells_are_looked_into_where_that_costs_less_than_a_walk_and_a_scan() {
    let point = |k, share, cells| ReachPoint { k, share, recall: 0.97, recall_low: 0.96, cells, rows: cells * 50 };
    let points = vec![point(100, 0.25, 10), point(1_000, 0.5, 100)];
    let calibration = Calibration { reach: Some(Reach { cells: 2_000, points }), ..calibration() };
    calibration.check().unwrap();
    let plan = |passing, near| {
        let extent = extent(&calibration, 100_000, Some(passing), 100);
        let of_200 = Near { rows: 200, passing: near };
        (planner(Backend::Auto).plan(&extent, ALWAYS, || of_200), planner(Backend::Auto).instead(&extent, of_200))
    };
    // All that is near passes: 2,000 for the cells, 30 for each looked into, 50 for its rows. A walk costs 44,000.
    let (Step::Look(all), instead) = plan(10_000, 200) else { panic!("it is worth it") };
    assert_eq!(instead, Step::Look(all));
    assert_eq!(all, Look { share: 0.25, expected: 10.0, most: 64 });
    // A tenth does, as elsewhere: rank 1,143. No more cells than 80,000 for all that passes are worth.
    let (Step::Look(ten), _) = plan(10_000, 20) else { panic!("it is worth it") };
    assert!(ten.share == 0.5 && (113.0..116.0).contains(&ten.expected), "{ten:?}");
    assert!((ten.expected * 3.9..ten.expected * 4.1).contains(&(ten.most as f64)), "{ten:?}");
    // Nothing near passes, or less than anything was measured for.
    assert_eq!(plan(10_000, 0), (Step::Scan, Step::Scan));
    assert_eq!(plan(10_000, 4), (Step::Scan, Step::Scan));
    // To count what passes near the query, all cells are gone through: where that costs half of the scan, nobody is asked.
    let many = Calibration {
        reach: Some(Reach { cells: 500_000, points: vec![point(100, 0.25, 10)] }),
        ..calibration.clone()
    };
    let plan_of_many = |ads| planner(Backend::Auto).plan(&self::extent(&many, ads, Some(ads / 2), 100), ALWAYS, NOBODY);
    assert_eq!(plan_of_many(600_000), Step::Scan);
    // Less than elsewhere passes, but not much less: they are sought further away.
    let few = Near { rows: 2_000, passing: 150 };
    let Step::Look(less) =
        planner(Backend::Auto).plan(&extent(&calibration, 100_000, Some(10_000), 100), ALWAYS, || few)
    else {
        panic!("it is worth it")
    };
    assert!(less.expected > ten.expected * 1.3, "{less:?}");
}

#[test]
fn a_filter_of_few_is_looked_at_near_the_query_only_where_it_correlates() {
    let point = |k, cells| ReachPoint { k, share: 0.2, recall: 0.97, recall_low: 0.96, cells, rows: cells * 50 };
    let reach = Reach { cells: 2_000, points: vec![point(10, 2), point(1_000, 100)] };
    let calibration = Calibration { reach: Some(reach), ..calibration() };
    let plan = |passing, correlates| {
        let extent = extent(&calibration, 100_000, Some(passing), 10);
        let mut has_asked = [false; 2];
        let [of_rows, of_near] = &mut has_asked;
        let rows = || {
            *of_rows = true;
            correlates
        };
        let near = || {
            *of_near = true;
            Near { rows: 200, passing: 200 }
        };
        let step = planner(Backend::Auto).plan(&extent, rows, near);
        (matches!(step, Step::Look(_)), has_asked)
    };
    // Of 600 that pass the ten best are among 2,500 or so, which is dearer than the 4,800 of a scan, but for what correlates with the query.
    assert_eq!(plan(600, true), (true, [true, true]));
    assert_eq!(plan(600, false), (false, [true, false]));
    // Of a tenth they are found in any case, and a scan of few costs less than the cells.
    assert_eq!(plan(10_000, false), (true, [false, true]));
    assert_eq!(plan(200, true), (false, [false, false]));
    // What passes near the query is counted in eight cells, 5 for each, beside 2,000 for all and 2 that are looked into, 30 and 50 for each;
    // at least half of the scan is to be saved.
    let border = ((2_000 + 8 * 5 + 2 * 80_usize) * 2).div_ceil(8);
    assert_eq!((plan(border, true), plan(border - 1, true)), ((true, [true, true]), (false, [false, false])));
}

#[test]
fn without_a_filter_too_cells_are_looked_into_where_that_costs_less() {
    let point = |k, cells| ReachPoint { k, share: 0.2, recall: 0.97, recall_low: 0.96, cells, rows: cells * 50 };
    let of = |cells| {
        let reach = Reach { cells, points: vec![point(10, 2), point(1_000, 100)] };
        Calibration { reach: Some(reach), ..calibration() }
    };
    let plan = |backend, cells, k| planner(backend).plan(&extent(&of(cells), 100_000, None, k), ALWAYS, NOBODY);
    // A walk costs 8,000, a look what there are and some hundred.
    let Step::Look(look) = plan(Backend::Auto, 2_000, 10) else { panic!("it is worth it") };
    assert!((2.0..5.0).contains(&look.expected) && look.most == 64, "{look:?}");
    assert_eq!(plan(Backend::Auto, 9_000, 10), Step::Walk { list: 20 });
    // Whoever asks for the graph gets it.
    assert_eq!(plan(Backend::DiskAnn, 2_000, 10), Step::Walk { list: 20 });
    // A walk of 400,000 costs more than the scan.
    assert!(matches!(plan(Backend::Auto, 2_000, 1_000), Step::Look(_)));
    // In vain: then the graph is walked where that costs less than a scan, and with a filter half as much, by what passes near the query.
    let near = |passing: Option<usize>| passing.map(|passing| Near { rows: 1_000, passing: passing as u32 / 100 });
    let after = |passing, k| planner(Backend::Auto).after_look(&extent(&of(2_000), 100_000, passing, k), near(passing));
    assert_eq!((after(None, 10), after(None, 1_000)), (Step::Walk { list: 20 }, Step::Scan));
    assert!(matches!(after(Some(90_000), 10), Step::Walk { list } if list > 20));
    assert_eq!((after(Some(1_000), 10), after(Some(90_000), 1_000)), (Step::Scan, Step::Scan));
}

#[test]
fn a_filter_that_leaves_few_is_scanned_without_looking() {
    let calibration = calibration();
    let plan =
        |passing| planner(Backend::DiskAnn).plan(&extent(&calibration, 1_000_000, Some(passing), 100), ALWAYS, NOBODY);
    assert_eq!((plan(0), plan(1), plan(6_000)), (Step::Scan, Step::Scan, Step::Scan));
}

#[test]
fn the_list_grows_with_what_is_met_and_may_not_be_found() {
    let calibration = calibration();
    let plan = |walked, nearer| {
        let graph = Some(Walked { rows: walked, unlinked: 0, calibration: &calibration });
        let extent = Extent { ads: 100_000, passing: None, k: 100, nearer, graph };
        planner(Backend::DiskAnn).plan(&extent, ALWAYS, NOBODY)
    };
    assert_eq!(plan(90_000, 0), Step::Walk { list: 110 });
    assert_eq!(plan(200_000, 0), Step::Walk { list: 245 });
    assert_eq!(plan(90_000, 100), Step::Walk { list: 220 });
}

#[test]
fn fewer_near_a_query_are_a_matter_of_doubt_until_they_are_many_fewer() {
    let is_doubtful = |passing| Near { rows: 500, passing }.is_doubtful(0.1);
    // 50 are expected, give or take 6.7.
    let doubtful: Vec<u32> = (0..200).filter(|passing| is_doubtful(*passing)).collect();
    assert_eq!(doubtful, (20..=33).collect::<Vec<_>>());
    assert!(!Near::default().is_doubtful(0.0) && !Near { rows: 500, passing: 500 }.is_doubtful(1.0));
}

#[test]
fn ads_that_the_graph_does_not_have_make_a_walk_dear() {
    let calibration = calibration();
    let plan = |unlinked| {
        let graph = Some(Walked { rows: 60_000, unlinked, calibration: &calibration });
        planner(Backend::Auto).plan(&Extent { ads: 60_000, passing: None, k: 100, nearer: 0, graph }, ALWAYS, NOBODY)
    };
    assert_eq!((plan(0), plan(1_599), plan(1_601)), (Step::Walk { list: 110 }, Step::Walk { list: 110 }, Step::Scan));
}

#[test]
fn a_walk_is_enough_when_the_last_hit_lies_well_inside() {
    let calibration = calibration();
    let after = |list, distances, passing, rank| {
        let met = Met { list, distances, wanted: 100, passing, rank };
        planner(Backend::Auto).after(&extent(&calibration, 1_000_000, Some(500_000), 100), met)
    };
    assert_eq!(after(220, 4_400, 110, Some(200)), Next::Enough);
    assert_eq!(after(220, 4_400, 100, Some(201)), Next::Longer { list: 248 });
    assert_eq!(after(220, 4_400, 50, None), Next::Longer { list: 484 });
    // All walks together may cost what the scan does.
    assert_eq!(after(220, 4_400, 12, None), Next::Longer { list: 2_018 });
    assert_eq!(after(220, 10_000, 12, None), Next::Scan);
    assert_eq!(after(220, 4_400, 0, None), Next::Scan);
}

#[test]
fn plans_are_written_in_snake_case() {
    let plans =
        [Plan::Exact, Plan::ExactPostings, Plan::PostFilter, Plan::AdaptiveList, Plan::Graph, Plan::NearestCells];
    let expected = ["exact", "exact_postings", "post_filter", "adaptive_list", "graph", "nearest_cells"];
    for (plan, name) in plans.into_iter().zip(expected) {
        let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
        assert_eq!(Plan::deserialize(deserializer).unwrap(), plan);
    }
}
