//! The text form of a filter: read by a grammar into a draft, which the checker of all forms makes a filter of.

use std::collections::BTreeMap;

use super::checker::{Checker, Form, Operator, all, any};
use super::{Filter, FilterError, FilterRule, Place, TEXT_BYTES_MAX};
use crate::item::AttributeKind;

mod grammar;
mod print;

use grammar::{Draft, Fault};

pub(super) fn parse(text: &str, attributes: &BTreeMap<Box<str>, AttributeKind>) -> Result<Filter, FilterError> {
    let read = || {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Fault { offset: 0, rule: FilterRule::TooLong { bytes: text.len() } });
        }
        let draft = grammar::draft(text)?;
        filter(&draft, 1, &mut Checker::new(attributes, Form::Text))
    };
    read().map_err(|Fault { offset, rule }| {
        let before = text.get(..offset).unwrap_or(text);
        FilterError { place: Place::Column(before.chars().count() + 1), rule }
    })
}

/// Puts the place to a broken rule.
fn at<T>(offset: usize, checked: Result<T, FilterRule>) -> Result<T, Fault> {
    checked.map_err(|rule| Fault { offset, rule })
}

/// What `draft` says, which stands at `depth`. The grammar bounds how deep this goes.
fn filter(draft: &Draft<'_>, depth: usize, checker: &mut Checker<'_>) -> Result<Filter, Fault> {
    at(draft.offset(), checker.enter(depth))?;
    match draft {
        Draft::All(_, parts) => {
            parts.iter().map(|part| filter(part, depth + 1, checker)).collect::<Result<_, _>>().map(all)
        }
        Draft::Any(_, parts) => {
            parts.iter().map(|part| filter(part, depth + 1, checker)).collect::<Result<_, _>>().map(any)
        }
        Draft::Not(_, part) => filter(part, depth + 1, checker).map(|part| Filter::Not(Box::new(part))),
        Draft::Compare { name, operator, value } => {
            let field = at(name.offset, checker.field(&name.what, *operator))?;
            at(value.offset, field.compare(&value.what))
        }
        Draft::In { name, list, values } => {
            let field = at(name.offset, checker.field(&name.what, Operator::In))?;
            at(*list, checker.check_list(values.len()))?;
            let words =
                values.iter().map(|value| at(value.offset, field.word(&value.what))).collect::<Result<_, _>>()?;
            at(*list, checker.any_of(&field, words))
        }
    }
}

#[cfg(test)]
mod tests;
