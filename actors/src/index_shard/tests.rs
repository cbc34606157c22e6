use std::cell::Cell;
use std::ops::ControlFlow;

use turret_index::{Backend, IndexSettings, ShardAd};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::Ad;
use turret_retrieval::vector::UnitVector;

use super::*;
use crate::protocol::QueryEmbedding;

#[test]
fn a_search_whose_time_is_up_answers_with_the_best_so_far() {
    let settings = IndexSettings { backend: Backend::Exact, ..IndexSettings::default() };
    let vector = |angle: f32| UnitVector::normalize(vec![angle.cos(), angle.sin()]).unwrap();
    let ad = |at: u64| ShardAd {
        ad: Ad { id: AdId::new(&format!("{at:05}")).unwrap(), item: 1.into(), attributes: Default::default() },
        embedding: vector(at as f32 / 10_000.0),
    };
    let index = ShardIndex::build(2, (0..10_000).map(ad).collect(), &settings, &[], &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let generation = GenerationId::new("g-1").unwrap();
    // The best is the last.
    let query = QueryEmbedding { generation, vector: vector(1.0), without_context: None };
    let ask = SearchAsk { query, k: 3, filter: None, crowding: None, exact: false, remaining_us: 1 };
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    let stopped = run(&index, &ask, true, &stop).unwrap();
    assert!(stopped.early_stopped && !stopped.exhausted && stopped.verified);
    assert_eq!((stopped.distances, stopped.compared), (31 * 256, 0.7936));
    assert_eq!(stopped.ads[0].hit.ad.as_str(), "07935");
    let whole = run(&index, &ask, true, &|| false).unwrap();
    assert!(!whole.early_stopped && whole.compared == 1.0);
    // Or one that rounding makes as good.
    assert!(whole.ads[0].hit.ad.as_str() > "09900", "{:?}", whole.ads);
}
