//! What holds for every text that a filter is read from, whoever made it up: a test and a fuzz target share it.

use std::collections::BTreeMap;

use turret_retrieval::filter::{Filter, FilterError, TEXT_BYTES_MAX, pointer};
use turret_retrieval::item::AttributeKind;

/// Attributes whose names need quotes among them.
pub(crate) const KINDS: [(&str, AttributeKind); 8] = [
    ("status", AttributeKind::Keyword),
    ("advertiser_id", AttributeKind::Keyword),
    ("or", AttributeKind::Keyword),
    ("countries", AttributeKind::Keywords),
    ("a \"b\" 'c'", AttributeKind::Keywords),
    ("min_age", AttributeKind::Number),
    ("7", AttributeKind::Number),
    ("größe", AttributeKind::Number),
];

pub(crate) fn kinds() -> BTreeMap<Box<str>, AttributeKind> {
    KINDS.map(|(name, kind)| (name.into(), kind)).into()
}

/// Reads `text` as a filter: what is read prints as a text that reads the same, and an error has a place and is short.
pub(crate) fn check_text(text: &str) -> Result<Filter, FilterError> {
    let kinds = kinds();
    let read = Filter::from_text(text, &kinds);
    match &read {
        Ok(filter) => {
            let printed = filter.to_string();
            if printed.len() <= TEXT_BYTES_MAX {
                assert_eq!(Filter::from_text(&printed, &kinds).as_ref(), Ok(filter), "{printed}");
            }
        }
        Err(error) => {
            let column = error.column().expect("an error in a text has a column");
            assert!((1..=text.chars().count() + 1).contains(&column), "{error}");
            assert!(error.to_string().len() < 2_000, "{error}");
            assert!(pointer(text, column).chars().count() < 300);
        }
    }
    read
}
