use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use turret_retrieval::ids::{AdvertiserId, InterestId, ItemId};
use turret_retrieval::item::{Ad, Attribute, Interest, Item};
use turret_retrieval::live_ad::{Content, Promoted};

use super::*;

fn open(dir: &Path) -> AdJournal {
    AdJournal::open(dir).unwrap()
}

fn upsert(id: u64, price: f32) -> AdChange {
    let item = Item {
        id: ItemId::from(id),
        advertiser: Some(AdvertiserId::from(1)),
        interests: vec![Interest { id: InterestId::new("a/b").unwrap(), confidence: 0.5 }],
        price: Some(price),
        title: Some("a chair".to_owned()),
        embedding: None,
    };
    let attributes = BTreeMap::from([("status".into(), Attribute::Keyword("active".into()))]);
    AdChange::Upsert(Box::new(Promoted { ad: Ad { id: AdId::from(id), item: ItemId::from(id), attributes }, item }))
}

fn ids(ads: &[LiveAd]) -> Vec<&str> {
    ads.iter().map(|ad| ad.id.as_str()).collect()
}

#[test]
fn the_last_change_of_each_ad_is_told_in_the_order_of_the_changes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let of = |id: u64, change| (AdId::from(id), change);
    let changed =
        journal.apply(vec![of(1, upsert(1, 1.0)), of(2, upsert(2, 1.0)), of(1, AdChange::Pause(true))], 1_000).unwrap();
    assert_eq!(ids(&changed), ["1", "2"]);
    assert!(changed[0].paused && matches!(changed[0].content, Content::Is(_)));
    let before = journal.latest();
    // The clock was put back; revisions grow all the same.
    journal.apply(vec![of(3, AdChange::Delete)], 5).unwrap();
    journal.apply(vec![of(2, upsert(2, 2.0))], 6).unwrap();
    assert_eq!(ids(&journal.since(Revision::NONE, 9).unwrap()), ["1", "3", "2"]);
    assert_eq!(ids(&journal.since(Revision::NONE, 2).unwrap()), ["1", "3"]);
    assert_eq!(ids(&journal.since(before, 9).unwrap()), ["3", "2"]);
    assert_eq!(journal.since(journal.latest(), 9).unwrap(), []);
    let latest = journal.latest();
    drop(journal);
    let journal = open(dir.path());
    assert_eq!((journal.latest(), journal.len()), (latest, 3));
    assert_eq!(ids(&journal.since(before, 9).unwrap()), ["3", "2"]);
}

#[test]
fn a_place_in_the_order_that_a_crash_left_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let ad = AdId::from(1);
    journal.apply(vec![(ad.clone(), upsert(1, 1.0))], 1_000).unwrap();
    // Written before the entry that it is of.
    journal.order.insert(key(Revision::mint(2_000, Revision::NONE), &ad), &[]).unwrap();
    journal.order.insert(key(Revision::mint(2_000, Revision::NONE), &AdId::from(9)), &[]).unwrap();
    assert_eq!(ids(&journal.since(Revision::NONE, 9).unwrap()), ["1"]);
    drop(journal);
    let journal = open(dir.path());
    let changed = journal.apply(vec![(ad, AdChange::Delete)], 1_500).unwrap();
    assert!(changed[0].at() > Revision::mint(2_000, Revision::NONE));
    assert_eq!(journal.since(Revision::NONE, 9).unwrap(), changed);
}

#[test]
fn an_entry_keeps_its_layout_and_a_damaged_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let mut ad = LiveAd::untouched(AdId::from(7));
    ad.apply(upsert(7, 2.0), Revision::from_bits(300));
    ad.apply(AdChange::Pause(true), Revision::from_bits(301));
    let hex: String = encode(&ad).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "030137010137013701067374617475730006616374697665013701013101\
         03612f620000003f010000004001076120636861697200ac0201ad02"
    );
    journal.ads.insert("7", &[3, 9, 9]).unwrap();
    let error = journal.get(&AdId::from(7)).unwrap_err().to_string();
    assert_eq!(error, "ad 7: a malformed record");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_journal_that_is_opened_again_tells_what_it_acknowledged(
        changes in prop::collection::vec((0u64..5, 0u8..5), 1..20),
        cut in 0usize..20,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let mut model: BTreeMap<u64, LiveAd> = BTreeMap::new();
        for (number, (id, kind)) in changes.into_iter().enumerate() {
            let change = match kind {
                0 => AdChange::Delete,
                1 => AdChange::Pause(true),
                2 => AdChange::Pause(false),
                3 => AdChange::Patch([("bid".into(), Some(Attribute::Number(number as f64)))].into()),
                _ => upsert(id, number as f32),
            };
            let changed = journal.apply(vec![(AdId::from(id), change.clone())], 1_000).unwrap();
            let ad = model.entry(id).or_insert_with(|| LiveAd::untouched(AdId::from(id)));
            ad.apply(change, journal.latest());
            prop_assert_eq!(&changed[..], std::slice::from_ref(&*ad));
            if number == cut {
                drop(journal);
                journal = open(dir.path());
            }
        }
        let mut expected: Vec<LiveAd> = model.into_values().collect();
        expected.sort_by_key(LiveAd::at);
        prop_assert_eq!(journal.since(Revision::NONE, 100).unwrap(), expected);
    }
}
