use proptest::prelude::*;
use turret_retrieval::filter::End;

use super::*;
use crate::fixtures::{ad, any_of, keyword};

fn words_of(words: &[&str]) -> Attribute {
    Attribute::Keywords(words.iter().map(|word| (*word).into()).collect())
}

fn index(ads: &[Ad]) -> Attributes {
    let mut kinds = BTreeMap::new();
    for (name, value) in ads.iter().flat_map(|ad| &ad.attributes) {
        kinds.insert(name.clone(), value.kind());
    }
    Attributes::new(ads, &kinds)
}

fn check(ads: &[Ad], filter: &Filter) {
    let expected: Vec<u32> =
        (0u32..).zip(ads).filter(|(_, ad)| filter.matches(&ad.attributes)).map(|(row, _)| row).collect();
    let found: Vec<u32> = index(ads).rows(filter).iter().collect();
    assert_eq!(found, expected, "{filter:?}");
}

#[test]
fn an_ad_without_the_attribute_passes_only_its_negation() {
    let ads = [ad("a", &[("status", keyword("active"))]), ad("b", &[]), ad("c", &[("age", Attribute::Number(1.0))])];
    let active = any_of("status", &["active"]);
    let rows: Vec<u32> = index(&ads).rows(&Filter::Not(Box::new(active.clone()))).iter().collect();
    assert_eq!(rows, [1, 2]);
    check(&ads, &active);
    check(&ads, &any_of("nothing", &["active"]));
    check(&ads, &Filter::And(vec![]));
    check(&ads, &Filter::Or(vec![]));
}

#[test]
fn long_number_columns_answer_every_range() {
    // Enough rows for many prefixes; few enough values for ties at their borders.
    let number = |row: u32| f64::from(row.wrapping_mul(2_654_435_761) >> 8 & 0x3ff) - 300.0;
    let ads: Vec<Ad> = (0..9_000).map(|row| ad(&row.to_string(), &[("x", Attribute::Number(number(row)))])).collect();
    let attributes = index(&ads);
    for (low, high) in [(-301.0, 800.0), (-300.0, -300.0), (-100.0, 5.5), (0.0, 400.0), (5.0, 4.0), (722.0, 800.0)] {
        for end in [End::Included, End::Excluded] {
            for range in [
                NumberRange { low: Some((low, end)), high: Some((high, end)) },
                NumberRange { low: None, high: Some((high, end)) },
                NumberRange { low: Some((low, end)), high: None },
            ] {
                let rows: Vec<u32> = attributes.rows(&Filter::Between { field: "x".into(), range }).iter().collect();
                let expected: Vec<u32> = (0..9_000).filter(|row| range.contains(number(*row))).collect();
                assert_eq!(rows, expected, "{range:?}");
            }
        }
    }
    assert!(attributes.bytes() > 9_000 * 16);
}

const WORDS: [&str; 5] = ["red", "green", "blue", "", "gold"];
const NUMBERS: [f64; 7] = [-2.5, -0.0, 0.0, 1.0, 18.0, 1e300, f64::MIN_POSITIVE];

/// One word, several words and a number, each where there.
type Values = (Option<&'static str>, Option<Vec<&'static str>>, Option<f64>);

fn ads() -> impl Strategy<Value = Vec<Ad>> {
    let word = proptest::sample::select(&WORDS[..]);
    let row = (
        proptest::option::of(word.clone()),
        proptest::option::of(proptest::collection::vec(word, 0..4)),
        proptest::option::of(proptest::sample::select(&NUMBERS[..])),
    );
    proptest::collection::vec(row, 0..40).prop_map(|rows| {
        let make = |(row, (one, many, number)): (usize, Values)| {
            let mut attributes = Vec::new();
            attributes.extend(one.map(|word| ("one", keyword(word))));
            attributes.extend(many.map(|words| ("many", words_of(&words))));
            attributes.extend(number.map(|number| ("number", Attribute::Number(number))));
            ad(&format!("{row:02}"), &attributes)
        };
        rows.into_iter().enumerate().map(make).collect()
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    let field = || proptest::sample::select(&["one", "many", "number", "other"][..]);
    let words = proptest::collection::vec(proptest::sample::select(&WORDS[..]), 1..4);
    let end = || {
        let number = prop_oneof![proptest::sample::select(&NUMBERS[..]), Just(f64::NAN), Just(f64::INFINITY)];
        let end = prop_oneof![Just(End::Included), Just(End::Excluded)];
        proptest::option::of((number, end))
    };
    let leaf = prop_oneof![
        (field(), words).prop_map(|(field, words)| any_of(field, &words)),
        (field(), end(), end())
            .prop_map(|(field, low, high)| Filter::Between { field: field.into(), range: NumberRange { low, high } }),
    ];
    leaf.prop_recursive(4, 24, 4, |part| {
        prop_oneof![
            proptest::collection::vec(part.clone(), 0..4).prop_map(Filter::And),
            proptest::collection::vec(part.clone(), 0..4).prop_map(Filter::Or),
            part.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    })
}

proptest! {
    #[test]
    fn the_bitmap_holds_exactly_the_rows_that_match(ads in ads(), filter in filters()) {
        check(&ads, &filter);
    }
}
