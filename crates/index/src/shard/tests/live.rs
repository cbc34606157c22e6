//! Ads that change: what is found is what sorting the ads of now finds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use turret_retrieval::ids::AdId;
use turret_retrieval::live_ad::patch_attributes;
use turret_retrieval::revision::Revision;

use super::snapshot::reopened;
use super::*;
use crate::change::ShardContent;
use crate::fixtures::ad;

pub(super) const DIMENSION: usize = 16;

/// A shard of `rows` ads whose `half` is yes for every other.
pub(super) fn built(rows: usize, settings: &IndexSettings) -> (Vec<ShardAd>, ShardIndex) {
    let vectors = clustered(1, rows, DIMENSION, 10);
    let ads = ads(&vectors, |row| {
        vec![
            ("half", keyword(if row.is_multiple_of(2) { "yes" } else { "no" })),
            ("age", Attribute::Number((row % 50) as f64)),
        ]
    });
    let index = ShardIndex::build(DIMENSION, ads.clone(), settings, &[], &mut |_| ControlFlow::Continue(())).unwrap();
    (ads, index)
}

pub(super) fn change(id: &str, content: ShardContent, at: u64) -> ShardChange {
    let (content_at, paused_at) = (Revision::from_bits(at), Revision::NONE);
    ShardChange { id: AdId::new(id).unwrap(), content, content_at, paused: false, paused_at }
}

pub(super) fn pause(id: &str, paused: bool, at: u64) -> ShardChange {
    let paused_at = Revision::from_bits(at);
    ShardChange { paused, paused_at, content_at: Revision::NONE, ..change(id, ShardContent::AsBuilt, 0) }
}

pub(super) fn is(id: &str, half: &str, embedding: &UnitVector) -> ShardContent {
    let ad = ad(id, &[("half", keyword(half)), ("age", Attribute::Number(half.len() as f64))]);
    ShardContent::Is(Box::new(ShardAd { ad, embedding: embedding.clone() }))
}

fn patch(name: &str, value: Option<Attribute>) -> ShardContent {
    ShardContent::Patched([(name.into(), value)].into())
}

pub(super) fn settle(index: &ShardIndex) {
    for _ in 0..1_000_000 {
        let due = index.maintain().unwrap();
        if due.overhaul {
            index.overhaul(&mut |_| ControlFlow::Continue(())).unwrap();
        } else if !due.step {
            assert!(!due.later, "{index:?}");
            return;
        }
    }
    panic!("upkeep has no end: {index:?}");
}

/// The ads of now, by hand.
#[derive(Clone, Default)]
pub(super) struct Model {
    ads: BTreeMap<AdId, (Option<ShardAd>, u64, bool, u64)>,
}

impl Model {
    pub(super) fn new(ads: &[ShardAd]) -> Self {
        Self { ads: ads.iter().map(|row| (row.ad.id.clone(), (Some(row.clone()), 0, false, 0))).collect() }
    }

    pub(super) fn apply(&mut self, changes: &[ShardChange]) {
        for change in changes {
            let (content, content_at, paused, paused_at) =
                self.ads.entry(change.id.clone()).or_insert((None, 0, false, 0));
            if change.paused_at.bits() > *paused_at {
                (*paused, *paused_at) = (change.paused, change.paused_at.bits());
            }
            if change.content != ShardContent::AsBuilt && change.content_at.bits() > *content_at {
                *content_at = change.content_at.bits();
                match &change.content {
                    ShardContent::Is(ad) => *content = Some((**ad).clone()),
                    ShardContent::Nothing | ShardContent::AsBuilt => *content = None,
                    ShardContent::Patched(patch) => {
                        content.iter_mut().for_each(|row| patch_attributes(&mut row.ad.attributes, patch));
                    }
                }
            }
        }
    }

    pub(super) fn now(&self) -> Vec<ShardAd> {
        self.ads.values().filter(|(_, _, paused, _)| !paused).filter_map(|(content, ..)| content.clone()).collect()
    }
}

pub(super) fn check(index: &ShardIndex, model: &Model, k: usize) {
    let now = model.now();
    let filters = [
        None,
        Some(any_of("half", &["yes"])),
        Some(any_of("half", &["neither"])),
        Some(Filter::Not(Box::new(any_of("half", &["no"])))),
        Some(between("age", 2.0, 20.0)),
    ];
    for query in clustered(2, 2, DIMENSION, 10) {
        for filter in &filters {
            let search =
                Search { vector: &query, baseline: None, crowding: None, k, filter: filter.as_ref(), exact: true };
            let found = index.search(&search).unwrap();
            assert_eq!(hits(&found), brute_force(&now, &query, k, filter.as_ref()), "{filter:?}");
            assert_eq!(found.exhausted, found.ads.len() < k);
            if let Some(filter) = filter {
                let passing = now.iter().filter(|row| filter.matches(&row.ad.attributes)).count();
                let share = passing as f64 / now.len().max(1) as f64;
                assert!((found.selectivity.unwrap() - share).abs() < 1e-9);
            }
            // However it is found: as many, and none that may not be.
            let found = index.search(&Search { exact: false, ..search }).unwrap();
            let passing = brute_force(&now, &query, now.len(), filter.as_ref());
            assert_eq!(found.ads.len(), passing.len().min(k));
            assert!(hits(&found).iter().all(|hit| passing.contains(hit)));
        }
    }
    let stats = index.stats();
    assert_eq!(stats.ads - stats.paused, now.len());
    check_rows(index, &stats);
}

/// Every row is of an ad, dead or free, and one of these only.
fn check_rows(index: &ShardIndex, stats: &IndexStats) {
    let (view, upkeep, writer) = (index.view(), index.upkeep().unwrap(), index.writer.lock().unwrap());
    let (present, free) = (&writer.present, &writer.free);
    let waiting = &upkeep.gone | &upkeep.held;
    let dead = waiting.len() as usize + writer.dying();
    assert_eq!((stats.ads, stats.dead, stats.rows), (present.len() as usize, dead, view.vectors.len()));
    assert_eq!(view.counts.free, free.len() as usize);
    assert_eq!(stats.ads + dead + view.counts.free, stats.rows);
    assert!(present.is_disjoint(free) && waiting.is_disjoint(present) && waiting.is_disjoint(free));
    assert!(view.live.bitmap().is_subset(present) && view.unlinked.is_subset(present));
    assert_eq!(view.cells.is_some(), view.graph.is_some());
    if let Some(cells) = &view.cells {
        let (query, k) = (&clustered(2, 1, DIMENSION, 10)[0], view.live.len() as usize + 1);
        let whole = (k, k, crate::cells::Look { share: 1.0, expected: 1.0, most: usize::MAX });
        let (around, query, live) = (cells.around(query.as_slice()), query.as_slice(), view.live.bits());
        let looked = around.nearest(&view.vectors, query, Some(live), whole, &|| false);
        assert_eq!(looked.best, view.scan(&[query], Some(&view.live), k, &|| false).best[0]);
        assert_eq!(looked.best.len(), k - 1, "every row is in a cell, and in one only");
    }
    if view.graph.is_some() {
        assert_eq!(&*view.unlinked, &(present - &upkeep.linked));
        assert!(upkeep.linked.is_disjoint(free));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_sequence_of_changes_and_upkeep_is_found_as_sorting_finds(
        steps in prop::collection::vec((0u8..12, prop::collection::vec((0usize..40, 0usize..60), 1..6)), 1..40),
        k in 1usize..60,
        has_graph in any::<bool>(),
    ) {
        // So small that slots run out and graphs are made anew.
        let settings = settings(if has_graph { Backend::DiskAnn } else { Backend::Exact });
        let (ads, mut index) = built(30, &settings);
        let mut model = Model::new(&ads);
        let vectors = clustered(3, 60, DIMENSION, 10);
        for (at, (kind, rows)) in (1..).zip(&steps) {
            let changes: Vec<_> = rows.iter().map(|(row, vector)| {
                let id = format!("{row:07}");
                match kind {
                    0 => change(&id, ShardContent::Nothing, at),
                    1 => pause(&id, true, at),
                    2 => pause(&id, false, at),
                    // Older than others, too.
                    3 => change(&id, is(&id, "no", &vectors[*vector]), at / 2),
                    10 => change(&id, patch("half", Some(keyword(if vector % 2 == 0 { "yes" } else { "no" }))), at),
                    11 => change(&id, patch("age", (vector % 3 > 0).then_some(Attribute::Number(*vector as f64))), at),
                    _ => change(&id, is(&id, if vector % 2 == 0 { "yes" } else { "no" }, &vectors[*vector]), at),
                }
            }).collect();
            match kind {
                7 => drop(index.maintain().unwrap()),
                8 => index.overhaul(&mut |_| ControlFlow::Continue(())).unwrap(),
                // What a shard knows, its snapshot does.
                9 => index = reopened(&index, &settings).index,
                _ => {
                    // In whichever order they come within one batch, the first of one revision counts.
                    index.apply(changes.clone()).unwrap();
                    model.apply(&changes);
                }
            }
            check(&index, &model, k);
        }
        settle(&index);
        check(&index, &model, k);
        prop_assert_eq!(index.stats().unlinked, 0);
    }

    #[test]
    fn changes_mean_the_same_in_any_order_and_twice(
        steps in prop::collection::vec((0usize..130, 0u8..5, any::<bool>()), 0..60),
        k in 1usize..150,
    ) {
        let (ads, index) = built(120, &settings(Backend::Exact));
        let others = clustered(3, 60, DIMENSION, 10);
        let mut changes = Vec::new();
        for (at, ((row, kind, half), vector)) in (1..).zip(steps.iter().zip(&others)) {
            let id = format!("{row:07}");
            changes.push(match kind {
                0 => change(&id, ShardContent::Nothing, at),
                1 => pause(&id, true, at),
                2 => pause(&id, false, at),
                _ => change(&id, is(&id, if *half { "yes" } else { "no" }, vector), at),
            });
        }
        let (early, late) = changes.split_at(changes.len() / 2);
        index.apply(late.to_vec()).unwrap();
        index.apply([early, late].concat()).unwrap();
        let mut model = Model::new(&ads);
        model.apply(&changes);
        check(&index, &model, k);
    }
}

#[test]
fn a_patch_is_made_of_what_an_ad_has_when_it_is_made() {
    let (ads, index) = built(40, &settings(Backend::Exact));
    let mut model = Model::new(&ads);
    let age = |age| patch("age", Some(Attribute::Number(age)));
    let patches = vec![change("0000001", age(3.0), 9), change("0000002", age(4.0), 9), change("0000003", age(5.0), 9)];
    let read = index.patched(&patches).unwrap();
    let between = vec![
        change("0000001", is("0000001", "neither", &ads[7].embedding), 5),
        change("0000002", ShardContent::Nothing, 5),
        change("0000004", is("0000004", "neither", &ads[8].embedding), 5),
    ];
    index.apply(between.clone()).unwrap();
    let next = index.writer.lock().unwrap().apply(&index.view(), patches.clone(), read).unwrap();
    index.publish(next.unwrap());
    model.apply(&between);
    model.apply(&patches);
    check(&index, &model, 40);
}

#[test]
fn a_graph_never_returns_what_is_hidden_and_fills_k_all_the_same() {
    let (ads, index) = built(3_000, &settings(Backend::DiskAnn));
    let mut model = Model::new(&ads);
    let query = clustered(2, 1, DIMENSION, 10).remove(0);
    let best = brute_force(&ads, &query, 200, None);
    // The nearest forty are paused, the next is replaced.
    let mut changes: Vec<_> = best[..40].iter().map(|hit| pause(hit.ad.as_str(), true, 1)).collect();
    let replaced = best[40].ad.as_str();
    changes.push(change(replaced, is(replaced, "yes", &query), 2));
    for change in &changes {
        index.apply(vec![change.clone()]).unwrap();
    }
    model.apply(&changes);
    for _ in 0..2 {
        let found = search(&index, &query, 50, None);
        assert_eq!((found.ads.len(), found.plan), (50, Plan::Graph));
        assert_eq!(found.ads[0].hit.ad, best[40].ad);
        assert!(found.ads.iter().all(|ad| !best[..40].iter().any(|hit| hit.ad == ad.hit.ad)));
        let exact = brute_force(&model.now(), &query, 50, None);
        let kept = exact.iter().filter(|hit| found.ads.iter().any(|ad| ad.hit.ad == hit.ad)).count();
        assert!(kept >= 45, "{kept} of 50");
        settle(&index);
    }
    index.apply(best[..40].iter().map(|hit| pause(hit.ad.as_str(), false, 3)).collect()).unwrap();
    assert_eq!(search(&index, &query, 1, None).ads[0].hit.ad, best[40].ad);
    assert!(search(&index, &query, 200, None).ads.iter().any(|ad| ad.hit.ad == best[0].ad));
}

#[test]
fn a_change_that_cannot_stand_is_refused_and_nothing_of_its_batch_is_made() {
    let (_, index) = built(20, &settings(Backend::Exact));
    let query = unit(&[1.0; DIMENSION]);
    let before = hits(&search(&index, &query, 20, None));
    let sound = change("0000003", ShardContent::Nothing, 1);
    let with =
        |name, value| ShardContent::Is(Box::new(ShardAd { ad: ad("new", &[(name, value)]), embedding: query.clone() }));
    let refused = |content, rule: &str| {
        let error = index.apply(vec![sound.clone(), change("new", content, 1)]).unwrap_err().to_string();
        assert!(error.contains(rule), "{error}");
        assert_eq!((hits(&search(&index, &query, 20, None)), index.len()), (before.clone(), 20));
        assert_eq!(index.attributes().len(), 2);
    };
    refused(with("half", Attribute::Number(1.0)), "attribute half of ad new is of kind Number");
    refused(with("age", Attribute::Number(f64::NAN)), "attribute age of ad new is not finite");
    refused(is("new", "yes", &unit(&[1.0; 3])), "dimension 3 where 16 is expected");
    // Two of one batch that do not agree on what neither finds in the index.
    let two = vec![change("a", with("fresh", keyword("x")), 1), change("b", with("fresh", Attribute::Number(1.0)), 1)];
    assert!(matches!(index.apply(two), Err(ChangeError::Kind { .. })));
}

#[test]
fn kinds_come_with_ads_and_go_with_the_last_that_has_them() {
    let (_, index) = built(20, &settings(Backend::Exact));
    let vector = unit(&[1.0; DIMENSION]);
    let with = |id: &str, value| {
        let ad = ad(id, &[("fresh", value)]);
        ShardContent::Is(Box::new(ShardAd { ad, embedding: vector.clone() }))
    };
    index.apply(vec![change("a", with("a", keyword("x")), 1)]).unwrap();
    assert_eq!(index.attributes()["fresh"], AttributeKind::Keyword);
    let number = || change("b", with("b", Attribute::Number(1.0)), 3);
    assert!(matches!(index.apply(vec![number()]), Err(ChangeError::Kind { .. })));
    let mut changes = vec![change("a", ShardContent::Nothing, 2)];
    // So many that the postings are written anew.
    for at in 0..300 {
        changes.push(change("0000001", is("0000001", "yes", &vector), 10 + at));
        index.apply(std::mem::take(&mut changes)).unwrap();
    }
    settle(&index);
    assert!(!index.attributes().contains_key("fresh"));
    index.apply(vec![number()]).unwrap();
    assert_eq!(index.attributes()["fresh"], AttributeKind::Number);
}

#[test]
fn what_is_not_there_is_remembered() {
    let (ads, index) = built(20, &settings(Backend::Exact));
    let vector = unit(&[1.0; DIMENSION]);
    let found = || hits(&search(&index, &vector, 50, None)).iter().filter(|hit| hit.ad.as_str() == "new").count();
    // Paused before it comes.
    index.apply(vec![pause("new", true, 5)]).unwrap();
    index.apply(vec![change("new", is("new", "yes", &vector), 3)]).unwrap();
    assert_eq!((found(), index.len(), index.stats().paused), (0, 21, 1));
    index.apply(vec![pause("new", false, 6)]).unwrap();
    assert_eq!(found(), 1);
    // Deleted, and an older change comes late.
    index.apply(vec![change("new", ShardContent::Nothing, 9)]).unwrap();
    index.apply(vec![change("new", is("new", "yes", &vector), 8), pause("new", true, 4)]).unwrap();
    assert_eq!((found(), index.len()), (0, ads.len()));
    index.apply(vec![change("new", is("new", "yes", &vector), 10)]).unwrap();
    assert_eq!(found(), 1);
    // What says nothing of the content leaves it, and what comes after it too.
    index.apply(vec![change("new", ShardContent::AsBuilt, 20)]).unwrap();
    assert_eq!(found(), 1);
    index.apply(vec![change("new", ShardContent::Nothing, 15)]).unwrap();
    assert_eq!(found(), 0);
}

#[test]
fn ads_of_one_score_are_in_the_order_of_ids_wherever_their_rows_are() {
    let vector = unit(&[0.6, 0.8, 0.0]);
    let same = ads(&vec![vector.clone(); 300], |_| vec![]);
    let index = index(same.clone(), &settings(Backend::Exact));
    let content = |row: usize| ShardContent::Is(Box::new(same[row].clone()));
    // Each gets another row, the last first.
    for (at, row) in (1..).zip((0..300).rev()) {
        index.apply(vec![change(&format!("{row:07}"), content(row), at)]).unwrap();
        settle(&index);
    }
    for k in [1, 7, 100, 299] {
        assert_eq!(hits(&search(&index, &vector, k, None)), brute_force(&same, &vector, k, None), "{k}");
    }
}

#[test]
fn a_panic_leaves_what_searches_see_and_no_more_is_taken() {
    let (ads, index) = built(50, &settings(Backend::Exact));
    std::thread::scope(|scope| {
        let broken = scope.spawn(|| {
            let _writer = index.writer.lock().unwrap();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(broken.join().is_err());
    });
    let query = &ads[3].embedding;
    assert_eq!(hits(&search(&index, query, 5, None)), brute_force(&ads, query, 5, None));
    assert!(matches!(index.apply(vec![pause("0000001", true, 1)]), Err(ChangeError::Broken)));
    assert_eq!(index.maintain(), Ok(Due::default()));
    assert_eq!(index.overhaul(&mut |_| ControlFlow::Continue(())), Ok(()));
    assert_eq!(hits(&search(&index, query, 5, None)), brute_force(&ads, query, 5, None));
}
