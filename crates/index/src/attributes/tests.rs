use std::collections::BTreeMap;

use proptest::prelude::*;
use turret_retrieval::filter::{End, NumberRange};
use turret_retrieval::item::{Ad, Attribute, Attributes};

use super::*;
use crate::fixtures::{ad, any_of, keyword};
use crate::rows::first_rows;

fn words_of(words: &[&str]) -> Attribute {
    Attribute::Keywords(words.iter().map(|word| (*word).into()).collect())
}

fn segment<'a>(ads: impl IntoIterator<Item = (u32, &'a Ad)>) -> Segment {
    Segment::new(ads.into_iter().map(|(row, ad)| (row, &ad.attributes)))
}

fn postings(ads: &[Ad]) -> Postings {
    Postings::new([segment((0..).zip(ads))])
}

fn all(ads: &[Ad]) -> RowSet {
    first_rows(ads.len() as u32).into()
}

fn check(ads: &[Ad], filter: &Filter) {
    let expected: Vec<u32> =
        (0u32..).zip(ads).filter(|(_, ad)| filter.matches(&ad.attributes)).map(|(row, _)| row).collect();
    let found = postings(ads).rows(filter, &all(ads)).to_vec();
    assert_eq!(found, expected, "{filter:?}");
}

#[test]
fn an_ad_without_the_attribute_passes_only_its_negation() {
    let ads = [ad("a", &[("status", keyword("active"))]), ad("b", &[]), ad("c", &[("age", Attribute::Number(1.0))])];
    let active = any_of("status", &["active"]);
    let rows = postings(&ads).rows(&Filter::Not(Box::new(active.clone())), &all(&ads)).to_vec();
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
    let (attributes, all) = (postings(&ads), all(&ads));
    for (low, high) in [(-301.0, 800.0), (-300.0, -300.0), (-100.0, 5.5), (0.0, 400.0), (5.0, 4.0), (722.0, 800.0)] {
        for end in [End::Included, End::Excluded] {
            for range in [
                NumberRange { low: Some((low, end)), high: Some((high, end)) },
                NumberRange { low: None, high: Some((high, end)) },
                NumberRange { low: Some((low, end)), high: None },
            ] {
                let between = Filter::Between { field: "x".into(), range };
                let rows = attributes.rows(&between, &all).to_vec();
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

/// An ad's attributes as postings keep them.
fn kept(ad: &Ad) -> Attributes {
    let mut kept = ad.attributes.clone();
    for value in kept.values_mut() {
        if let Attribute::Keywords(words) = value {
            words.sort();
            words.dedup();
        }
    }
    kept.retain(|_, value| !matches!(value, Attribute::Keywords(words) if words.is_empty()));
    kept
}

proptest! {
    #[test]
    fn postings_say_of_each_row_what_they_were_made_of(
        ads in ads(),
        cut in 0usize..40,
        asked in proptest::collection::btree_set(0u32..45, 0..40),
    ) {
        let numbered: Vec<(u32, &Ad)> = (0..).zip(&ads).collect();
        let (first, second) = numbered.split_at(cut.min(ads.len()));
        let parts = Postings::new([segment(first.iter().copied()), segment(second.iter().copied())]);
        let kinds = ads.iter().flat_map(|ad| &ad.attributes).map(|(name, value)| (name.clone(), value.kind())).collect();
        let found = parts.attributes(&asked.iter().copied().collect(), &kinds);
        let expected: BTreeMap<u32, Attributes> = numbered
            .iter()
            .filter(|(row, _)| asked.contains(row))
            .map(|(row, ad)| (*row, kept(ad)))
            .filter(|(_, attributes)| !attributes.is_empty())
            .collect();
        // Zeros of both signs are equal, and not the same.
        prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        // And forth again: the same postings.
        let again: Vec<Ad> = numbered.iter().map(|(row, ad)| {
            let attributes = parts.attributes(&RoaringBitmap::from([*row]), &kinds).remove(row).unwrap_or_default();
            Ad { attributes, ..(*ad).clone() }
        }).collect();
        let again = postings(&again);
        for (name, kind) in &kinds {
            prop_assert_eq!(again.words_of(name), parts.words_of(name));
            for word in parts.words_of(name) {
                prop_assert_eq!(again.with_word(name, word), parts.with_word(name, word));
            }
            let mut numbers: Vec<_> = parts.numbers(name).map(|(number, row)| (row, number.to_bits())).collect();
            let mut expected: Vec<_> = again.numbers(name).map(|(number, row)| (row, number.to_bits())).collect();
            numbers.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!((kind, numbers), (kind, expected));
        }
    }

    #[test]
    fn segments_say_the_same_in_parts_merged_and_without_what_is_gone(
        ads in ads(),
        filter in filters(),
        cuts in proptest::collection::vec(0usize..40, 0..6),
        gone in proptest::collection::btree_set(0u32..40, 0..20),
        rows_max in 0u64..40,
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (ads.len() + 1)).chain([0, ads.len()]).collect();
        cuts.sort_unstable();
        let numbered: Vec<(u32, &Ad)> = (0..).zip(&ads).collect();
        let mut parts = Postings::default();
        for pair in cuts.windows(2) {
            parts.push(segment(numbered[pair[0]..pair[1]].iter().copied()));
        }
        let rows = postings(&ads).rows(&filter, &all(&ads)).to_vec();
        prop_assert_eq!(&parts.rows(&filter, &all(&ads)).to_vec(), &rows);
        let (kept, before) = (usize::from(rows_max.is_multiple_of(2)), parts.segments());
        parts.merge(kept, rows_max);
        prop_assert!(parts.segments() <= before);
        prop_assert_eq!(&parts.rows(&filter, &all(&ads)).to_vec(), &rows);
        let gone: RoaringBitmap = gone.into_iter().collect();
        let live = RowSet::from(all(&ads).bitmap() - &gone);
        // Masked first, and then not there at all.
        let left = parts.rows(&filter, &live).to_vec();
        let whole = parts.merged(&gone);
        prop_assert_eq!(whole.rows(), live.len());
        parts.replace(parts.segments(), whole);
        prop_assert_eq!(parts.segments(), 1);
        prop_assert_eq!(&parts.rows(&filter, &live).to_vec(), &left);
        let others: Vec<_> = numbered.iter().copied().filter(|(row, _)| live.has(*row)).collect();
        prop_assert_eq!(&Postings::new([segment(others)]).rows(&filter, &live).to_vec(), &left);
        let named = ads.iter().zip(0..).filter(|(_, row)| live.has(*row)).flat_map(|(ad, _)| &ad.attributes);
        // Keywords may be an empty list.
        let named = named.filter(|(_, value)| !matches!(value, Attribute::Keywords(words) if words.is_empty()));
        let names: std::collections::BTreeSet<&str> = named.map(|(name, _)| &**name).collect();
        for name in ["one", "many", "number", "other"] {
            prop_assert_eq!(parts.has(name), names.contains(name), "{}", name);
        }
        // What a row is that is taken again is not what it was.
        if let Some(row) = gone.iter().find(|row| (*row as usize) < ads.len()) {
            let ad = ad("new", &[("one", keyword("new"))]);
            parts.push(segment([(row, &ad)]));
            prop_assert_eq!(parts.rows(&any_of("one", &["new"]), &all(&ads)).to_vec(), [row]);
            let was = parts.rows(&Filter::Or(WORDS.iter().map(|word| any_of("many", &[word])).collect()), &all(&ads));
            prop_assert!(!was.has(row));
        }
    }
}

#[test]
fn segments_are_few_whatever_comes() {
    let ad = ad("a", &[("one", keyword("red"))]);
    let mut postings = Postings::default();
    let mut most = 0;
    for row in 0..4_000 {
        postings.push(segment([(row, &ad)]));
        postings.merge(0, u64::MAX);
        most = most.max(postings.segments());
    }
    assert_eq!(postings.rows(&any_of("one", &["red"]), &first_rows(4_000).into()).len(), 4_000);
    assert!(most <= 8, "{most}");
}

proptest! {
    #[test]
    fn the_bitmap_holds_exactly_the_rows_that_match(ads in ads(), filter in filters()) {
        check(&ads, &filter);
    }
}
