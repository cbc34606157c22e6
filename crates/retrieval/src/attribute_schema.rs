//! The rules of ads' attributes: which names have which kind everywhere, and what their values may be.
//!
//! Every other name is the caller's own, of the kind that its values have. Applied where ads come in: data sets, live ads
//! and publication.

use std::collections::BTreeMap;

use crate::ids::{ID_BYTES_MAX, IdError, check_id};
use crate::item::{Attribute, AttributeKind};

/// The most attributes of one ad, and of one data set.
pub const ATTRIBUTES_MAX: usize = 64;
/// The most words in one attribute.
pub const WORDS_MAX: usize = 1_024;
/// The greatest age, in years.
pub const AGE_MAX: f64 = 150.0;
/// The end of the year 9999, in seconds since 1970-01-01 UTC: a time in milliseconds would be later.
pub const TIME_MAX_S: f64 = 253_402_300_799.0;

/// What the values of a well-known attribute obey besides its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    Any,
    Age,
    Amount,
    Time,
}

/// The well-known attributes, by name.
const KNOWN: [(&str, AttributeKind, Range); 13] = [
    ("advertiser_id", AttributeKind::Keyword, Range::Any),
    ("bid", AttributeKind::Number, Range::Amount),
    ("campaign_id", AttributeKind::Keyword, Range::Any),
    ("categories", AttributeKind::Keywords, Range::Any),
    ("countries", AttributeKind::Keywords, Range::Any),
    ("ends_at", AttributeKind::Number, Range::Time),
    ("genders", AttributeKind::Keywords, Range::Any),
    ("languages", AttributeKind::Keywords, Range::Any),
    ("max_age", AttributeKind::Number, Range::Age),
    ("min_age", AttributeKind::Number, Range::Age),
    ("placements", AttributeKind::Keywords, Range::Any),
    ("starts_at", AttributeKind::Number, Range::Time),
    ("status", AttributeKind::Keyword, Range::Any),
];

/// Pairs of which the first must not be greater, where an ad has both.
const ORDERED: [(&str, &str); 2] = [("min_age", "max_age"), ("starts_at", "ends_at")];

/// An attribute that breaks a rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("attribute `{name}` {rule}")]
pub struct AttributeError {
    /// Its name.
    pub name: Box<str>,
    /// The rule.
    pub rule: AttributeRule,
}

/// A rule that an attribute can break.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AttributeRule {
    /// The name is empty, too long or holds what nobody can write in a filter.
    #[error("must have a name of 1 to {ID_BYTES_MAX} bytes without control characters and backticks")]
    Name,
    /// A value of a kind that the name does not have.
    #[error("must hold {}, holds {}", .expected.what(), .found.what())]
    Kind {
        /// What the name has everywhere, or in this generation.
        expected: AttributeKind,
        /// What came.
        found: AttributeKind,
    },
    /// A keyword that is none.
    #[error(transparent)]
    Word(#[from] IdError),
    /// One of several keywords that is none.
    #[error("word {position} {rule}")]
    Words {
        /// Which, from 0.
        position: usize,
        /// What it breaks.
        rule: IdError,
    },
    /// Too many keywords.
    #[error("has {found} words, the limit is {WORDS_MAX}")]
    TooManyWords {
        /// How many.
        found: usize,
    },
    /// NaN or infinite.
    #[error("{0} is not finite")]
    NotFinite(f64),
    /// A number that the name cannot have.
    #[error("{found} is not in 0..={max}")]
    Range {
        /// The number.
        found: f64,
        /// The greatest it may be.
        max: f64,
    },
    /// Less than nothing.
    #[error("{0} is negative")]
    Negative(f64),
    /// The first of two that must be in order is greater.
    #[error("{found} is above `{other}`, {limit}")]
    Above {
        /// Its value.
        found: f64,
        /// The attribute that it must not exceed.
        other: &'static str,
        /// The value of that.
        limit: f64,
    },
    /// An ad has too many.
    #[error("is one of {found}, the limit is {ATTRIBUTES_MAX}")]
    TooMany {
        /// How many.
        found: usize,
    },
}

impl AttributeRule {
    /// The error of an attribute that breaks this rule.
    pub fn of(self, name: &str) -> AttributeError {
        AttributeError { name: name.into(), rule: self }
    }
}

/// The well-known attributes and their kinds, by name.
pub fn well_known() -> impl Iterator<Item = (&'static str, AttributeKind)> {
    KNOWN.into_iter().map(|(name, kind, _)| (name, kind))
}

/// Numbers of which the first must not be above the second.
pub fn ordered_pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    ORDERED.into_iter()
}

/// The attribute that says whether an ad may be shown at all; see [`Ad::is_active`](crate::item::Ad::is_active).
pub const STATUS: &str = "status";

/// The kind that `name` has everywhere; absent where it is the caller's own.
pub fn kind_of(name: &str) -> Option<AttributeKind> {
    well_known().find(|(known, _)| *known == name).map(|(_, kind)| kind)
}

/// Checks a name that is to be given to an attribute.
///
/// # Errors
/// When it is empty, longer than [`ID_BYTES_MAX`], or holds a control character or a backtick.
pub fn check_name(name: &str) -> Result<(), AttributeRule> {
    let is_name = check_id(name).is_ok() && !name.contains('`');
    if is_name { Ok(()) } else { Err(AttributeRule::Name) }
}

/// Checks that `name` may hold values of the kind `found`.
///
/// # Errors
/// When it is a well-known name of another kind.
pub fn check_kind(name: &str, found: AttributeKind) -> Result<(), AttributeRule> {
    match kind_of(name) {
        Some(expected) if expected != found => Err(AttributeRule::Kind { expected, found }),
        Some(_) | None => Ok(()),
    }
}

/// Checks the kind and the value of one attribute.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_value(name: &str, value: &Attribute) -> Result<(), AttributeRule> {
    check_kind(name, value.kind())?;
    match value {
        Attribute::Keyword(word) => Ok(check_id(word)?),
        Attribute::Keywords(words) if words.len() > WORDS_MAX => {
            Err(AttributeRule::TooManyWords { found: words.len() })
        }
        Attribute::Keywords(words) => words
            .iter()
            .enumerate()
            .try_for_each(|(position, word)| check_id(word).map_err(|rule| AttributeRule::Words { position, rule })),
        Attribute::Number(number) => check_number(name, *number),
    }
}

fn check_number(name: &str, found: f64) -> Result<(), AttributeRule> {
    if !found.is_finite() {
        return Err(AttributeRule::NotFinite(found));
    }
    let within =
        |max: f64| if (0.0..=max).contains(&found) { Ok(()) } else { Err(AttributeRule::Range { found, max }) };
    match KNOWN.iter().find(|(known, _, _)| *known == name).map(|(_, _, range)| range) {
        Some(Range::Age) => within(AGE_MAX),
        Some(Range::Time) => within(TIME_MAX_S),
        Some(Range::Amount) if found < 0.0 => Err(AttributeRule::Negative(found)),
        Some(Range::Amount | Range::Any) | None => Ok(()),
    }
}

/// Checks what the attributes of one ad say together.
///
/// # Errors
/// When there are too many, or `min_age` is above `max_age`, or `starts_at` above `ends_at`.
pub fn check_together(attributes: &BTreeMap<Box<str>, Attribute>) -> Result<(), AttributeError> {
    if attributes.len() > ATTRIBUTES_MAX {
        let last = attributes.keys().next_back().map_or("", |name| name);
        return Err(AttributeRule::TooMany { found: attributes.len() }.of(last));
    }
    let number = |name: &str| match attributes.get(name) {
        Some(Attribute::Number(number)) => Some(*number),
        Some(Attribute::Keyword(_) | Attribute::Keywords(_)) | None => None,
    };
    for (name, other) in ORDERED {
        if let Some((found, limit)) = number(name).zip(number(other)).filter(|(found, limit)| found > limit) {
            return Err(AttributeRule::Above { found, other, limit }.of(name));
        }
    }
    Ok(())
}

/// Checks all attributes of an ad.
///
/// # Errors
/// The first attribute that breaks a rule, by name.
pub fn check(attributes: &BTreeMap<Box<str>, Attribute>) -> Result<(), AttributeError> {
    for (name, value) in attributes {
        check_name(name).and_then(|()| check_value(name, value)).map_err(|rule| rule.of(name))?;
    }
    check_together(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Attribute {
        Attribute::Keyword(text.into())
    }

    #[test]
    fn the_table_is_in_order_and_names_what_is_ordered() {
        assert!(KNOWN.is_sorted_by(|a, b| a.0 < b.0));
        for name in ORDERED.iter().flat_map(|(low, high)| [low, high]) {
            assert_eq!(kind_of(name), Some(AttributeKind::Number), "{name}");
        }
        assert_eq!(kind_of("placements"), Some(AttributeKind::Keywords));
        assert_eq!(kind_of("Status"), None);
    }

    #[test]
    fn an_attribute_that_breaks_a_rule_is_named_with_it() {
        let check = |name: &str, value: Attribute, expected: &str| {
            let error = check(&BTreeMap::from([(name.into(), value)])).unwrap_err();
            assert_eq!(error.to_string(), format!("attribute `{name}` {expected}"));
        };
        let number = Attribute::Number;
        check("countries", word("US"), "must hold several words, holds one word");
        check("status", Attribute::Keywords(vec![]), "must hold one word, holds several words");
        check("campaign_id", number(7.0), "must hold one word, holds a number");
        check("starts_at", word("today"), "must hold a number, holds one word");
        check("status", word(""), "must not be empty");
        check("tier", word("a\tb"), "must not contain control characters");
        check("languages", Attribute::Keywords(vec!["en".into(), "".into()]), "word 1 must not be empty");
        let long = "x".repeat(129).into();
        check("genders", Attribute::Keywords(vec![long]), "word 0 is 129 bytes long, the limit is 128");
        let many = vec!["a".into(); 1_025];
        check("tags", Attribute::Keywords(many), "has 1025 words, the limit is 1024");
        check("min_age", number(-1.0), "-1 is not in 0..=150");
        check("max_age", number(150.5), "150.5 is not in 0..=150");
        check("bid", number(-0.01), "-0.01 is negative");
        check("bid", number(f64::NAN), "NaN is not finite");
        check("margin", number(f64::INFINITY), "inf is not finite");
        // Milliseconds.
        check("ends_at", number(1_767_571_200_000.0), "1767571200000 is not in 0..=253402300799");
        let name = "must have a name of 1 to 128 bytes without control characters and backticks";
        for bad in ["", "a`b", "a\nb", &"x".repeat(129)] {
            check(bad, number(1.0), name);
        }
    }

    #[test]
    fn attributes_that_contradict_each_other_are_refused_and_sound_ones_are_not() {
        let both = |low: &str, a: f64, high: &str, b: f64| {
            BTreeMap::from([(low.into(), Attribute::Number(a)), (high.into(), Attribute::Number(b))])
        };
        let error = check(&both("starts_at", 5.0, "ends_at", 3.0)).unwrap_err();
        assert_eq!(error.to_string(), "attribute `starts_at` 5 is above `ends_at`, 3");
        assert!(check(&both("min_age", 30.0, "max_age", 29.0)).is_err());
        assert_eq!(check(&both("min_age", 30.0, "max_age", 30.0)), Ok(()));
        assert_eq!(check(&both("low", 5.0, "high", 3.0)), Ok(()));
        let many: BTreeMap<_, _> = (0..65).map(|i| (format!("a{i:02}").into(), word("x"))).collect();
        assert_eq!(check(&many).unwrap_err().to_string(), "attribute `a64` is one of 65, the limit is 64");
        let sound =
            [("status", word("whatever")), ("price level", Attribute::Number(-3.0)), ("bid", Attribute::Number(0.0))];
        assert_eq!(check(&sound.map(|(name, value)| (name.into(), value)).into()), Ok(()));
    }
}
