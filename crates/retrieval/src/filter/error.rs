//! Why a filter is refused, and where.

use std::fmt;

use super::{ALL_VALUES_MAX, DEPTH_MAX, NODES_MAX, TEXT_BYTES_MAX, VALUES_MAX};
use crate::ids::ID_BYTES_MAX;
use crate::item::AttributeKind;

/// Why a filter is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Where.
    pub place: Place,
    /// The rule that was broken.
    pub rule: FilterRule,
}

/// A place in a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the JSON form: the key path from the root, such as `filter.and[1].has`.
    Path(String),
    /// In the text form: the character, counted from 1.
    Column(usize),
}

impl FilterError {
    /// The field of the request that is wrong: `filter`, or a part of its JSON form.
    pub fn field(&self) -> &str {
        match &self.place {
            Place::Path(path) => path,
            Place::Column(_) => "filter",
        }
    }

    /// The column in the text form; absent for the JSON form.
    pub fn column(&self) -> Option<usize> {
        match self.place {
            Place::Path(_) => None,
            Place::Column(column) => Some(column),
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Path(path) => write!(f, "{path}: {}", self.rule),
            Place::Column(column) => write!(f, "filter: column {column}: {}", self.rule),
        }
    }
}

impl std::error::Error for FilterError {}

/// A rule that a filter can break, whatever its form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterRule {
    /// The text form is too long.
    #[error("{bytes} bytes long, the limit is {TEXT_BYTES_MAX}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// The form has something else here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What may stand here.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// A text that begins and does not end.
    #[error("text without its closing {0}")]
    Unclosed(char),
    /// A backslash that means nothing.
    #[error(r#"unknown escape; a backslash may be followed by ", ', \, n, r, t, or u and a code such as {{e9}}"#)]
    Escape,
    /// The JSON form has no such shape.
    #[error("{0}")]
    Shape(String),
    /// Too many conditions.
    #[error("more than {NODES_MAX} conditions")]
    Conditions,
    /// Too much nesting.
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
    /// A list of values that is empty or too long.
    #[error("must be a list of 1 to {VALUES_MAX} values")]
    List,
    /// Too many values in all lists.
    #[error("more than {ALL_VALUES_MAX} values in the whole filter")]
    Values,
    /// No ad of the generation has this attribute.
    #[error("unknown attribute `{name}`; {}", or_known(.nearest.as_deref(), .known))]
    Unknown {
        /// Its name, cut off where it is long.
        name: String,
        /// The name that it may be a misspelling of.
        nearest: Option<Box<str>>,
        /// All names, ascending.
        known: Vec<Box<str>>,
    },
    /// A comparison that the attribute does not have.
    #[error("`{name}` holds {}; use {instead}", .kind.what())]
    Comparison {
        /// The attribute.
        name: Box<str>,
        /// What it holds.
        kind: AttributeKind,
        /// The comparisons that it has.
        instead: &'static str,
    },
    /// A number attribute compared with something else.
    #[error("must be a number: `{name}` is one")]
    NotANumber {
        /// The attribute.
        name: Box<str>,
    },
    /// A word attribute compared with something else.
    #[error("must be a string of 1 to {ID_BYTES_MAX} bytes, or an integer: `{name}` holds words")]
    NotAWord {
        /// The attribute.
        name: Box<str>,
    },
}

fn or_known(nearest: Option<&str>, known: &[Box<str>]) -> String {
    match nearest {
        Some(nearest) => format!("is `{nearest}` meant?"),
        None if known.len() > NAMES_MAX => {
            format!("this generation has {} and {} more", known[..NAMES_MAX].join(", "), known.len() - NAMES_MAX)
        }
        None => format!("this generation has {}", known.join(", ")),
    }
}

/// The most names of attributes that an error lists.
const NAMES_MAX: usize = 24;

/// How much of a line is shown on either side of the column, in characters.
const AROUND: usize = 50;

/// The line of `text` that `column` is in and a caret below that column: two lines for people, without a line break at
/// the end. A long line is cut off.
pub fn pointer(text: &str, column: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    let at = column.saturating_sub(1).min(characters.len());
    let is_break = |character: &char| matches!(character, '\n' | '\r');
    let start = characters[..at].iter().rposition(is_break).map_or(0, |before| before + 1);
    let end = characters[at..].iter().position(is_break).map_or(characters.len(), |length| at + length);
    let (from, to) = (start.max(at.saturating_sub(AROUND)), end.min(at + AROUND));
    let (before, behind) = (if from > start { "…" } else { "" }, if to < end { "…" } else { "" });
    // A tab would shift the line, not the caret.
    let shown: String = characters[from..to].iter().map(|c| if c.is_control() { ' ' } else { *c }).collect();
    let indent = before.chars().count() + at - from;
    format!("{before}{shown}{behind}\n{:indent$}^", "")
}

#[cfg(test)]
mod tests {
    use super::pointer;

    #[test]
    fn a_caret_stands_below_the_column_of_a_line_that_is_not_too_long() {
        assert_eq!(pointer("a = é and b", 7), "a = é and b\n      ^");
        assert_eq!(pointer("a =\n\tb or c", 6), " b or c\n ^");
        assert_eq!(pointer("", 1), "\n^");
        assert_eq!(pointer("ab", 3), "ab\n  ^");
        assert_eq!(pointer("ab", usize::MAX), "ab\n  ^");
        let long = pointer(&"x".repeat(1_000), 500);
        let (line, caret) = long.split_once('\n').unwrap();
        assert_eq!((line.chars().count(), caret.len()), (102, 52));
    }
}
