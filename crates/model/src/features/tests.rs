use turret_retrieval::dataset::{Clock, Dataset};

use super::*;
use crate::planted::{self, schema, world};
use crate::settings::ModelKind;

fn features() -> Features {
    Features::new(schema(&world(20, Clock::Milliseconds), &planted::model(ModelKind::Contextual)))
}

#[test]
fn every_kind_of_feature_has_rows_of_its_own() {
    let features = features();
    let facts = |age: Option<u8>, country: &str, gender: &str| Demographics {
        age,
        country: Some(country.into()),
        gender: Some(gender.into()),
    };
    let mut rows: Vec<u32> = Vec::new();
    rows.push(features.advertiser(&AdvertiserId::from(1)));
    rows.extend((0..features.interest_count()).map(|number| features.interest_row(number)));
    rows.extend([None, Some(0.0), Some(1e9)].map(|price| features.price(price)));
    rows.extend(EventType::ALL.map(|kind| features.kind(kind)));
    rows.extend([None, Some(0), Some(3_000), Some(i64::MAX)].map(|gap| features.gap(gap)));
    rows.extend([0, 1, 19].map(|back| features.position(back)));
    rows.extend(features.demographics(&facts(Some(17), "BR", "female")));
    rows.extend(features.demographics(&facts(Some(120), "US", "male")));
    rows.extend([features.unknown_demographics()[0], features.unknown_demographics()[2]]);
    let count = rows.len();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), count, "two features share a row");
    assert!(rows.iter().all(|row| (*row as usize) < features.rows()));
    assert!(rows.iter().all(|row| *row >= 512), "and none is an item's");
    let ids = features.id(&ItemId::from(5));
    assert!(ids.iter().all(|row| *row < 512) && ids[0] != ids[1]);
}

#[test]
fn what_is_not_known_has_the_row_for_that() {
    let features = features();
    assert_eq!(features.demographics(&Demographics::default()), features.unknown_demographics());
    let elsewhere = Demographics { age: None, country: Some("XX".into()), gender: Some("?".into()) };
    assert_eq!(features.demographics(&elsewhere), features.unknown_demographics());
    assert_eq!(features.interest(&InterestId::new("never/seen").unwrap()), None);
    assert_eq!(features.price(Some(f32::NAN)), features.price(None));
    assert_eq!(features.gap(Some(-5)), features.gap(Some(0)));
    assert_eq!(features.position(10_000), features.position(19));
}

#[test]
fn buckets_begin_where_they_say() {
    let features = features();
    let age = |years| features.demographics(&Demographics { age: Some(years), ..Demographics::default() })[0];
    assert_eq!(age(0), age(17));
    assert_ne!(age(17), age(18));
    assert_eq!(age(65), age(120));
    assert_eq!(features.gap(Some(999)), features.gap(Some(0)));
    assert_ne!(features.gap(Some(1_000)), features.gap(Some(0)));
}

#[test]
fn another_vocabulary_is_another_schema() {
    let settings = planted::model(ModelKind::Contextual);
    let digest = |data: &Dataset, settings: &ModelSettings| schema(data, settings).digest();
    let data = world(20, Clock::Milliseconds);
    assert_eq!(digest(&data, &settings), digest(&world(20, Clock::Order), &settings));
    assert_ne!(digest(&data, &settings), digest(&data, &ModelSettings { id_buckets: 1_024, ..settings.clone() }));
    assert_ne!(digest(&data, &settings), digest(&data, &ModelSettings { content_embedding: true, ..settings.clone() }));
    let other = world(20, Clock::Milliseconds);
    let other = Dataset::new(&other.items[..90], vec![], vec![], Clock::Order, vec![]);
    assert_eq!(schema(&other, &settings).countries.len(), 0);
    assert_ne!(digest(&data, &settings), digest(&other, &settings));
}
