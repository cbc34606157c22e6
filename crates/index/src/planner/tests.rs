use super::*;
use crate::fixtures::settings;

fn planner(backend: Backend, exact_below_ads: usize, ads: usize) -> Planner {
    Planner::new(&IndexSettings { exact_below_ads, ..settings(backend) }, ads)
}

#[test]
fn the_backend_follows_the_size_of_the_shard() {
    let check = |backend, ads, expected| {
        assert_eq!(planner(backend, 20_000, ads).backend(), expected, "{backend:?} {ads}");
    };
    check(Backend::Auto, 19_999, Backend::Exact);
    check(Backend::Auto, 20_000, Backend::DiskAnn);
    check(Backend::Exact, 1_000_000, Backend::Exact);
    check(Backend::DiskAnn, 5, Backend::DiskAnn);
    check(Backend::DiskAnn, 0, Backend::Exact);
    assert_eq!(planner(Backend::Auto, 0, 0).backend(), Backend::Exact);
}

#[test]
fn an_exact_backend_never_walks() {
    let planner = planner(Backend::Exact, 0, 1_000_000);
    assert_eq!(planner.plan(1_000_000, None, 10), Step::Exact);
    assert_eq!(planner.plan(1_000_000, Some(500_000), 10), Step::ExactPostings);
    assert_eq!(planner.plan(1_000_000, Some(1_000_000), 10), Step::Exact);
}

#[test]
fn without_a_filter_the_graph_is_walked_while_it_is_faster_than_a_scan() {
    let auto = planner(Backend::Auto, 20_000, 100_000);
    assert_eq!(auto.plan(100_000, None, 10), Step::Graph { list: 100 });
    assert_eq!(auto.plan(100_000, None, 200), Step::Graph { list: 400 });
    assert_eq!(auto.plan(100_000, None, 1_000), Step::Exact);
    // Whoever asks for the graph gets it, unless its list would hold the shard.
    let graph = planner(Backend::DiskAnn, 20_000, 100_000);
    assert_eq!(graph.plan(100_000, None, 1_000), Step::Graph { list: 2_000 });
    assert_eq!(graph.plan(2_000, None, 1_000), Step::Exact);
    // A filter that everything passes is none.
    assert_eq!(graph.plan(100_000, Some(100_000), 10), Step::Graph { list: 100 });
}

#[test]
fn a_filter_that_leaves_few_is_answered_from_its_postings() {
    let auto = planner(Backend::Auto, 20_000, 1_000_000);
    assert_eq!(auto.plan(1_000_000, Some(0), 10), Step::ExactPostings);
    // Rows that are fetched one by one cost eight of a scan.
    let small = planner(Backend::Auto, 20_000, 100_000);
    assert_eq!(small.plan(100_000, Some(2_500), 1), Step::ExactPostings);
    assert_eq!(small.plan(100_000, Some(2_501), 1), Step::InGraph { list: 100 });
    // So is one that leaves more, where the list would have to be longer.
    assert_eq!(auto.plan(1_000_000, Some(20_000), 10), Step::ExactPostings);
    assert_eq!(auto.plan(1_000_000, Some(20_000), 1), Step::InGraph { list: 100 });
    // No filter costs more than a scan of all.
    assert_eq!(small.plan(100_000, Some(90_000), 100), Step::InGraph { list: 300 });
    assert_eq!(small.plan(100_000, Some(90_000), 200), Step::ExactPostings);
    // One in a hundred of a larger shard.
    assert_eq!(auto.plan(10_000_000, Some(100_000), 1), Step::ExactPostings);
    assert_eq!(auto.plan(10_000_000, Some(100_001), 1), Step::InGraph { list: 200 });
}

#[test]
fn the_list_grows_with_what_the_filter_holds_back() {
    let graph = planner(Backend::DiskAnn, 0, 1_000_000);
    assert_eq!(graph.plan(1_000_000, Some(900_000), 100), Step::InGraph { list: 300 });
    assert_eq!(graph.plan(1_000_000, Some(100_000), 100), Step::InGraph { list: 2_000 });
    assert_eq!(graph.plan(1_000_000, Some(20_000), 100), Step::InGraph { list: 10_000 });
    // Where the list would hold all that passes, the postings are the list.
    assert_eq!(graph.plan(10_000, Some(500), 100), Step::ExactPostings);
}

#[test]
fn a_list_is_lengthened_until_a_scan_is_faster() {
    let graph = planner(Backend::DiskAnn, 0, 1_000_000);
    assert_eq!(graph.longer(100, 1_000_000, Some(500_000)), Some(400));
    assert_eq!(graph.longer(400, 1_000_000, Some(500_000)), Some(1_600));
    assert_eq!(graph.longer(1_600, 1_000_000, Some(500_000)), None);
    assert_eq!(graph.longer(100, 1_000_000, Some(20_000)), None);
    assert_eq!(graph.longer(usize::MAX, usize::MAX, None), None);
}

#[test]
fn plans_are_written_in_snake_case() {
    let plans = [Plan::Exact, Plan::ExactPostings, Plan::InGraph, Plan::Graph];
    let expected = ["exact", "exact_postings", "in_graph", "graph"];
    for (plan, name) in plans.into_iter().zip(expected) {
        let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
        assert_eq!(Plan::deserialize(deserializer).unwrap(), plan);
    }
}
