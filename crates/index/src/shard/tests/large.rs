//! Shards of more rows than one container of a bitmap has: 65,536.

use turret_retrieval::crowding::Crowding;

use super::live::{change, pause};
use super::*;
use crate::change::ShardContent;

const ROWS: usize = 70_000;

/// Ads of dimension 4, of which every hundredth is `rare`, and of which one advertiser has all but these.
fn rows() -> Vec<ShardAd> {
    let advertiser = |row: usize| if row.is_multiple_of(100) { format!("adv{row}") } else { "all".to_owned() };
    let rare = |row: usize| keyword(if row.is_multiple_of(100) { "yes" } else { "no" });
    ads(&clustered(1, ROWS, 4, 10), |row| vec![("rare", rare(row)), ("advertiser_id", keyword(&advertiser(row)))])
}

#[test]
fn a_scan_leaves_out_no_container_that_is_full() {
    let (mut all, query) = (rows(), &clustered(2, 1, 4, 10)[0]);
    let index = index(all.clone(), &settings(Backend::Exact));
    let exact = Search { vector: query, baseline: None, crowding: None, k: 50, filter: None, exact: true };
    let find = |search: &Search<'_>| hits(&index.search(search).unwrap());
    assert_eq!(find(&exact), brute_force(&all, query, 50, None));
    // From here on not all rows may be found: first for the last, then for one in the middle.
    for (at, row) in [(1, ROWS - 1), (2, 66_000)] {
        let id = format!("{row:07}");
        index.apply(vec![if at == 1 { pause(&id, true, at) } else { change(&id, ShardContent::Nothing, at) }]).unwrap();
        all.remove(row);
        assert_eq!(find(&exact), brute_force(&all, query, 50, None));
        for filter in [any_of("rare", &["yes"]), Filter::Not(Box::new(any_of("rare", &["yes"])))] {
            let filter = Some(&filter);
            assert_eq!(find(&Search { filter, ..exact }), brute_force(&all, query, 50, filter));
        }
    }
    // The first round fills one value up; the second is of what is left.
    let crowding = Crowding { field: "advertiser_id".into(), max: 1 };
    let found = find(&Search { crowding: Some(&crowding), ..exact });
    assert_eq!(found, super::crowding::thinned(&all, query, 50, None, &crowding));
}
