use super::*;
use crate::fixtures::settings;

fn planner(backend: Backend, exact_below_ads: usize) -> Planner {
    Planner::new(&IndexSettings { exact_below_ads, ..settings(backend) })
}

/// The plan of a shard with a graph of all its ads.
fn plan(planner: &Planner, ads: usize, passing: Option<usize>, k: usize) -> Step {
    planner.plan(Extent { ads, passing, walked: Some(ads) }, k)
}

#[test]
fn whether_there_is_a_graph_follows_the_size_of_the_shard() {
    let check = |backend, ads, expected| {
        assert_eq!(planner(backend, 20_000).wants_graph(ads), expected, "{backend:?} {ads}");
    };
    check(Backend::Auto, 19_999, false);
    check(Backend::Auto, 20_000, true);
    check(Backend::Exact, 1_000_000, false);
    check(Backend::DiskAnn, 5, true);
    check(Backend::DiskAnn, 0, false);
    assert!(!planner(Backend::Auto, 0).wants_graph(0));
}

#[test]
fn without_a_graph_nothing_is_walked() {
    let planner = planner(Backend::Auto, 0);
    let plan = |passing| planner.plan(Extent { ads: 1_000_000, passing, walked: None }, 10);
    assert_eq!(plan(None), Step::Exact);
    assert_eq!(plan(Some(500_000)), Step::ExactPostings);
    assert_eq!(plan(Some(1_000_000)), Step::Exact);
}

#[test]
fn without_a_filter_the_graph_is_walked_while_it_is_faster_than_a_scan() {
    let auto = planner(Backend::Auto, 20_000);
    assert_eq!(plan(&auto, 100_000, None, 10), Step::Graph { list: 100 });
    assert_eq!(plan(&auto, 100_000, None, 200), Step::Graph { list: 400 });
    assert_eq!(plan(&auto, 100_000, None, 1_000), Step::Exact);
    // Whoever asks for the graph gets it, unless its list would hold the shard.
    let graph = planner(Backend::DiskAnn, 20_000);
    assert_eq!(plan(&graph, 100_000, None, 1_000), Step::Graph { list: 2_000 });
    assert_eq!(plan(&graph, 2_000, None, 1_000), Step::Exact);
    // A filter that everything passes is none.
    assert_eq!(plan(&graph, 100_000, Some(100_000), 10), Step::Graph { list: 100 });
}

#[test]
fn a_filter_that_leaves_few_is_answered_from_its_postings() {
    let auto = planner(Backend::Auto, 20_000);
    assert_eq!(plan(&auto, 1_000_000, Some(0), 10), Step::ExactPostings);
    // Rows that are fetched one by one cost eight of a scan.
    let small = planner(Backend::Auto, 20_000);
    assert_eq!(plan(&small, 100_000, Some(2_500), 1), Step::ExactPostings);
    assert_eq!(plan(&small, 100_000, Some(2_501), 1), Step::InGraph { list: 100 });
    // So is one that leaves more, where the list would have to be longer.
    assert_eq!(plan(&auto, 1_000_000, Some(20_000), 10), Step::ExactPostings);
    assert_eq!(plan(&auto, 1_000_000, Some(20_000), 1), Step::InGraph { list: 100 });
    // No filter costs more than a scan of all.
    assert_eq!(plan(&small, 100_000, Some(90_000), 100), Step::InGraph { list: 300 });
    assert_eq!(plan(&small, 100_000, Some(90_000), 200), Step::ExactPostings);
    // One in a hundred of a larger shard.
    assert_eq!(plan(&auto, 10_000_000, Some(100_000), 1), Step::ExactPostings);
    assert_eq!(plan(&auto, 10_000_000, Some(100_001), 1), Step::InGraph { list: 200 });
}

#[test]
fn the_list_grows_with_what_the_filter_holds_back() {
    let graph = planner(Backend::DiskAnn, 0);
    assert_eq!(plan(&graph, 1_000_000, Some(900_000), 100), Step::InGraph { list: 300 });
    assert_eq!(plan(&graph, 1_000_000, Some(100_000), 100), Step::InGraph { list: 2_000 });
    assert_eq!(plan(&graph, 1_000_000, Some(20_000), 100), Step::InGraph { list: 10_000 });
    // Where the list would hold all that passes, the postings are the list.
    assert_eq!(plan(&graph, 10_000, Some(500), 100), Step::ExactPostings);
}

#[test]
fn the_list_grows_with_what_is_met_and_may_not_be_found() {
    let graph = planner(Backend::DiskAnn, 0);
    let plan = |walked| graph.plan(Extent { ads: 100_000, passing: None, walked: Some(walked) }, 100);
    assert_eq!(plan(90_000), Step::Graph { list: 200 });
    assert_eq!(plan(100_001), Step::Graph { list: 201 });
    assert_eq!(plan(150_000), Step::Graph { list: 300 });
    assert_eq!(plan(100_000_000), Step::Exact);
}

#[test]
fn a_list_is_lengthened_until_a_scan_is_faster() {
    let graph = planner(Backend::DiskAnn, 0);
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
