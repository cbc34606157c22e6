//! Laws of filters over random ones: the forms agree, print and read are inverse, and no text or JSON makes the readers panic.

use std::collections::BTreeMap;

use laws::{KINDS, check_text, kinds};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use turret_retrieval::filter::{End, Filter, NumberRange};
use turret_retrieval::item::{Attribute, AttributeKind};

mod laws;

fn word() -> impl Strategy<Value = Box<str>> {
    // Few different ones, so that they meet those of ads, and some of any sort.
    let any = any::<String>()
        .prop_map(|text| text.chars().take(30).collect::<String>())
        .prop_filter("empty", |text| !text.is_empty());
    prop_oneof![3 => "[a-c]", 1 => any].prop_map(Into::into)
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![3 => (-3..4i8).prop_map(f64::from), 1 => any::<f64>().prop_filter("not finite", |x| x.is_finite())]
}

fn comparison() -> impl Strategy<Value = Filter> {
    let words = (0..5usize, prop::collection::btree_set(word(), 1..4)).prop_map(|(field, values)| Filter::AnyOf {
        field: KINDS[field].0.into(),
        values: values.into_iter().collect(),
    });
    let numbers = (5..8usize, number(), 0..5).prop_map(|(field, number, operator)| {
        let (included, excluded) = (Some((number, End::Included)), Some((number, End::Excluded)));
        let range = match operator {
            0 => NumberRange { low: included, high: included },
            1 => NumberRange { low: included, high: None },
            2 => NumberRange { low: excluded, high: None },
            3 => NumberRange { low: None, high: included },
            _ => NumberRange { low: None, high: excluded },
        };
        Filter::Between { field: KINDS[field].0.into(), range }
    });
    prop_oneof![words, numbers]
}

/// Every shape that a reader makes.
fn filter() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![9 => comparison(), 1 => Just(Filter::And(vec![])), 1 => Just(Filter::Or(vec![]))];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..5).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 2..5).prop_map(Filter::Or),
            inner.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    })
}

fn ad() -> impl Strategy<Value = BTreeMap<Box<str>, Attribute>> {
    let value = |(name, kind): (&'static str, AttributeKind)| {
        let value = match kind {
            AttributeKind::Keyword => word().prop_map(Attribute::Keyword).boxed(),
            AttributeKind::Keywords => prop::collection::vec(word(), 0..3).prop_map(Attribute::Keywords).boxed(),
            AttributeKind::Number => number().prop_map(Attribute::Number).boxed(),
        };
        prop::option::of(value).prop_map(move |value| value.map(|value| (Box::from(name), value)))
    };
    KINDS.map(value).to_vec().prop_map(|values| values.into_iter().flatten().collect())
}

/// The JSON form, written by another hand than the one that reads it.
fn to_json(filter: &Filter) -> Value {
    let parts = |parts: &[Filter]| parts.iter().map(to_json).collect::<Vec<_>>();
    match filter {
        Filter::And(all) => json!({ "and": parts(all) }),
        Filter::Or(any) => json!({ "or": parts(any) }),
        Filter::Not(part) => json!({ "not": to_json(part) }),
        Filter::AnyOf { field, values } => json!({ "in": { (&**field): values } }),
        Filter::Between { field, range } => {
            let (operator, number) = match (range.low, range.high) {
                (Some((number, _)), Some(_)) => ("eq", number),
                (Some((number, End::Included)), None) => ("gte", number),
                (Some((number, End::Excluded)), None) => ("gt", number),
                (None, Some((number, End::Included))) => ("lte", number),
                (None, Some((number, End::Excluded))) => ("lt", number),
                (None, None) => unreachable!("no form says it"),
            };
            json!({ operator: { (&**field): number } })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_filter_printed_and_read_is_the_same(filter in filter()) {
        prop_assert_eq!(check_text(&filter.to_string()), Ok(filter));
    }

    #[test]
    fn both_forms_mean_the_same(filter in filter(), ads in prop::collection::vec(ad(), 8)) {
        let text = Filter::from_text(&filter.to_string(), &kinds()).unwrap();
        let json = Filter::from_json(&to_json(&filter), &kinds()).unwrap();
        prop_assert_eq!(&text, &json);
        for ad in &ads {
            prop_assert_eq!(text.matches(ad), filter.matches(ad));
        }
    }
}

/// What texts are made of, and what they are not.
const PIECES: &[&str] = &[
    "and",
    "OR",
    "not ",
    "has",
    " in [",
    "]",
    ",",
    "(",
    ")",
    "=",
    "!=",
    "<",
    "<=",
    ">",
    "'",
    "\"",
    "`",
    "\\",
    "\\u{e9}",
    "\\u{",
    "true",
    "status",
    "`or`",
    "countries",
    "min_age",
    "7",
    "1e999",
    "-0.5e-3",
    "NaN",
    " ",
    "\n",
    "\0",
    "é",
    "\u{2028}",
    "𝄞",
    "{",
    "}",
    ":",
    "[",
    "null",
    "\"and\":[",
    "{\"not\":",
    "{\"in\":{\"status\":[",
    "((((((((((((((((",
    "not not not not not not not not ",
];

/// Changes a text at a place of its characters.
#[derive(Clone, Debug)]
enum Mutation {
    Insert(Index, usize),
    Remove(Index, usize),
    Repeat(Index, usize),
    Swap(Index, Index),
    Put(Index, char),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<Index>(), 0..PIECES.len()).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        2 => (any::<Index>(), 1..20usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        1 => (any::<Index>(), 1..60usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        1 => (any::<Index>(), any::<char>()).prop_map(|(at, character)| Mutation::Put(at, character)),
    ]
}

fn mutated(text: &str, mutations: &[Mutation]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for mutation in mutations {
        let length = text.len();
        let span = |at: &Index, size: usize| {
            let start = at.index(length + 1);
            start..(start + size).min(length)
        };
        match mutation {
            Mutation::Insert(at, piece) => drop(text.splice(span(at, 0), PIECES[*piece].chars())),
            Mutation::Remove(at, size) => drop(text.drain(span(at, *size))),
            Mutation::Repeat(at, size) => {
                let copied = text[span(at, *size)].to_vec();
                drop(text.splice(span(at, 0), copied.repeat(20)));
            }
            Mutation::Swap(a, b) if length > 0 => text.swap(a.index(length), b.index(length)),
            Mutation::Put(at, character) if length > 0 => text[at.index(length)] = *character,
            Mutation::Swap(..) | Mutation::Put(..) => {}
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn a_text_changed_anywhere_is_read_or_refused(filter in filter(), mutations in prop::collection::vec(mutation(), 1..8)) {
        drop(check_text(&mutated(&filter.to_string(), &mutations)));
    }

    #[test]
    fn any_text_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(check_text(&String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn any_pieces_are_read_or_refused(pieces in prop::collection::vec(0..PIECES.len(), 0..40)) {
        drop(check_text(&pieces.into_iter().map(|piece| PIECES[piece]).collect::<Vec<_>>().join(" ")));
    }

    #[test]
    fn json_changed_anywhere_is_read_or_refused(filter in filter(), mutations in prop::collection::vec(mutation(), 1..8)) {
        let text = mutated(&to_json(&filter).to_string(), &mutations);
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            match Filter::from_json(&value, &kinds()) {
                Ok(filter) => prop_assert_eq!(Filter::from_json(&to_json(&filter), &kinds()), Ok(filter)),
                Err(error) => prop_assert!(error.field().starts_with("filter") && !error.rule.to_string().is_empty()),
            }
        }
    }
}
