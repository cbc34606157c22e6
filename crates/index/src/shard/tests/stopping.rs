//! Searches that run out of time.

use std::cell::Cell;

use turret_retrieval::crowding::Crowding;

use super::*;
use crate::change::ShardContent;

/// Says that time is up from the `after`-th time on that it is asked.
fn after(after: u32) -> impl Fn() -> bool {
    let asked = Cell::new(0);
    move || {
        asked.set(asked.get() + 1);
        asked.get() > after
    }
}

fn find<'a>(vector: &'a UnitVector, k: usize, filter: Option<&'a Filter>) -> Search<'a> {
    Search { vector, baseline: None, crowding: None, k, filter, exact: false }
}

#[test]
fn a_scan_that_runs_out_of_time_has_the_best_of_what_it_compared() {
    let vectors = clustered(1, 20_000, 8, 10);
    let all = ads(&vectors, |row| vec![("third", keyword(if row % 3 == 0 { "yes" } else { "no" }))]);
    let index = index(all.clone(), &settings(Backend::Exact));
    let query = &clustered(2, 1, 8, 10)[0];
    let filter = any_of("third", &["yes"]);
    for (stop, rows) in [(0, 15 * 256), (1, 31 * 256), (3, 63 * 256)] {
        for filter in [None, Some(&filter)] {
            let found = index.search_until(&find(query, 50, filter), &after(stop)).unwrap();
            let passing =
                all.iter().take(rows).filter(|ad| filter.is_none_or(|f| f.matches(&ad.ad.attributes))).count();
            let whole = all.iter().filter(|ad| filter.is_none_or(|f| f.matches(&ad.ad.attributes))).count();
            assert!(found.early_stopped && !found.exhausted);
            assert_eq!(hits(&found), brute_force(&all[..rows], query, 50, filter));
            assert_eq!((found.distances, found.compared), (passing as u64, passing as f64 / whole as f64));
        }
    }
    let found = index.search_until(&find(query, 50, None), &after(100)).unwrap();
    assert_eq!((found.early_stopped, found.compared), (false, 1.0));
    assert_eq!(found, search(&index, query, 50, None));
}

#[test]
fn a_walk_that_would_be_lengthened_is_not_when_time_is_up() {
    // The nearest sixty are paused: the first list holds nothing else.
    let index = walking(index(ADS.clone(), &settings(Backend::DiskAnn)));
    let query = &queries(1)[0];
    let nearest = brute_force(&ADS, query, 60, None);
    let pause = nearest.iter().map(|hit| live::pause(hit.ad.as_str(), true, 1)).collect();
    index.apply(pause).unwrap();
    let whole = search(&index, query, 20, None);
    assert!(whole.ads.len() == 20 && !whole.early_stopped);
    let found = index.search_until(&find(query, 20, None), &after(0)).unwrap();
    assert!(found.early_stopped && !found.exhausted && found.ads.len() < 20 && found.list < whole.list, "{found:?}");
    assert_eq!(found.compared, found.ads.len() as f64 / 20.0);
    assert!(hits(&found).iter().all(|hit| !nearest.contains(hit)));
    // One walk that is enough asks nobody.
    let other = &queries(2)[1];
    assert_eq!(index.search_until(&find(other, 20, None), &after(0)).unwrap(), search(&index, other, 20, None));
}

#[test]
fn a_crowding_that_runs_out_of_time_keeps_what_it_has() {
    let index = index(ADS.clone(), &settings(Backend::Exact));
    let query = &queries(1)[0];
    let crowding = Crowding { field: "advertiser_id".into(), max: 8 };
    let search = Search { crowding: Some(&crowding), ..find(query, 50, None) };
    let whole = index.search(&search).unwrap();
    assert!(whole.ads.len() == 50 && !whole.early_stopped);
    // A first round asks once: 24 blocks are compared.
    let found = index.search_until(&search, &after(1)).unwrap();
    assert!(found.early_stopped && !found.ads.is_empty() && found.ads.len() < 50, "{found:?}");
    assert!(found.ads.iter().all(|ad| whole.ads.contains(ad)));
    assert!(found.compared < 1.0 && found.compared > 0.0);
}

#[test]
fn a_crowding_that_runs_out_of_time_later_says_how_much_of_the_answer_it_has() {
    let index = index(ADS.clone(), &settings(Backend::Exact));
    let query = &queries(1)[0];
    let crowding = Crowding { field: "advertiser_id".into(), max: 8 };
    let search = Search { crowding: Some(&crowding), ..find(query, 50, None) };
    let stopped = (2..100).map(|stop| index.search_until(&search, &after(stop)).unwrap());
    let stopped: Vec<Found> = stopped.take_while(|found| found.early_stopped).collect();
    assert!(!stopped.is_empty());
    for found in stopped {
        assert_eq!(found.compared, found.ads.len() as f64 / 50.0);
    }
}

#[test]
fn ties_that_there_was_no_time_to_put_in_order_are_told_of() {
    // Rows are in the order of ids, and changed ones are not: of one score, those of the smallest ids are wanted.
    let vectors = vec![unit(&[1.0, 0.0, 0.0]); 9_000];
    let mut all = ads(&vectors, |_| vec![]);
    let index = index(all.split_off(100), &settings(Backend::Exact));
    let born = all.iter().map(|row| live::change(row.ad.id.as_str(), ShardContent::Is(Box::new(row.clone())), 1));
    index.apply(born.collect()).unwrap();
    let whole = search(&index, &vectors[0], 10, None);
    assert_eq!(whole.ads[0].hit.ad.as_str(), "0000000");
    let mut early = Vec::new();
    for stop in 0..200 {
        let found = index.search_until(&find(&vectors[0], 10, None), &after(stop)).unwrap();
        assert!(found.early_stopped || found.ads == whole.ads, "{stop}");
        early.extend(found.early_stopped.then_some(found.compared));
    }
    assert!(early.contains(&1.0) && early.len() < 200, "{early:?}");
}
