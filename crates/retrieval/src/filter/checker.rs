//! The rules of filters, which know nothing of the form that a filter is written in.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{ALL_VALUES_MAX, DEPTH_MAX, End, Filter, FilterRule, NODES_MAX, NumberRange, VALUES_MAX};
use crate::ids::ID_BYTES_MAX;
use crate::item::AttributeKind;

/// The form that errors speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Text,
}

/// How an attribute is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Has,
    In,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value as it is written.
#[derive(Clone, Debug)]
pub(super) enum Operand<'a> {
    /// In quotes: a word.
    Quoted(Cow<'a, str>),
    /// Without: a number, or a word.
    Bare(Cow<'a, str>),
    /// No value, such as `null` or a list.
    Neither,
}

/// Counts what a filter holds, and makes its parts.
pub(super) struct Checker<'a> {
    attributes: &'a BTreeMap<Box<str>, AttributeKind>,
    form: Form,
    conditions: usize,
    values: usize,
}

/// An attribute that has the comparison asked.
pub(super) struct Field<'a> {
    name: &'a str,
    kind: AttributeKind,
    operator: Operator,
}

impl<'a> Checker<'a> {
    pub(super) fn new(attributes: &'a BTreeMap<Box<str>, AttributeKind>, form: Form) -> Self {
        Self { attributes, form, conditions: 0, values: 0 }
    }

    /// Counts one more condition, which stands at `depth`; the root at 1.
    pub(super) fn enter(&mut self, depth: usize) -> Result<(), FilterRule> {
        self.conditions += 1;
        if self.conditions > NODES_MAX {
            return Err(FilterRule::Conditions);
        }
        check_depth(depth)
    }

    /// The attribute `name`, which is to be compared by `operator`.
    pub(super) fn field<'n>(&self, name: &'n str, operator: Operator) -> Result<Field<'n>, FilterRule> {
        let kind = *self.attributes.get(name).ok_or_else(|| self.unknown(name))?;
        let has_it = match operator {
            Operator::Equal => kind != AttributeKind::Keywords,
            Operator::Has => kind == AttributeKind::Keywords,
            Operator::In => kind != AttributeKind::Number,
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                kind == AttributeKind::Number
            }
        };
        match has_it {
            true => Ok(Field { name, kind, operator }),
            false => Err(FilterRule::Comparison { name: name.into(), kind, instead: self.instead(kind) }),
        }
    }

    fn instead(&self, kind: AttributeKind) -> &'static str {
        match (kind, self.form) {
            (AttributeKind::Keyword, Form::Json) => "`eq` or `in`",
            (AttributeKind::Keyword, Form::Text) => "`=`, `!=` or `in`",
            (AttributeKind::Keywords, Form::Json | Form::Text) => "`has` or `in`",
            (AttributeKind::Number, Form::Json) => "`eq`, `lt`, `lte`, `gt` or `gte`",
            (AttributeKind::Number, Form::Text) => "`=`, `!=`, `<`, `<=`, `>` or `>=`",
        }
    }

    fn unknown(&self, name: &str) -> FilterRule {
        let known: Vec<Box<str>> = self.attributes.keys().cloned().collect();
        let is_short = name.len() <= ID_BYTES_MAX;
        let nearest = known
            .iter()
            .filter(|_| is_short)
            .map(|known| (strsim::osa_distance(&known.to_lowercase(), &name.to_lowercase()), known))
            .filter(|(distance, known)| 3 * distance <= known.chars().count().max(3))
            .min()
            .map(|(_, known)| known.clone());
        let shown: String = name.chars().take(ID_BYTES_MAX).collect();
        let name = if shown.len() < name.len() { shown + "…" } else { shown };
        FilterRule::Unknown { name, nearest, known }
    }

    /// That a list of `length` values is neither empty nor too long.
    pub(super) fn check_list(&self, length: usize) -> Result<(), FilterRule> {
        if (1..=VALUES_MAX).contains(&length) { Ok(()) } else { Err(FilterRule::List) }
    }

    /// That `field` holds one of `words`.
    pub(super) fn any_of(&mut self, field: &Field<'_>, mut words: Vec<Box<str>>) -> Result<Filter, FilterRule> {
        words.sort_unstable();
        words.dedup();
        self.values += words.len();
        if self.values > ALL_VALUES_MAX {
            return Err(FilterRule::Values);
        }
        Ok(Filter::AnyOf { field: field.name.into(), values: words })
    }
}

/// That nothing stands deeper than `depth` may be.
pub(super) fn check_depth(depth: usize) -> Result<(), FilterRule> {
    if depth > DEPTH_MAX { Err(FilterRule::Depth) } else { Ok(()) }
}

/// That all `parts` hold. Of one part it is that part, so that one filter has one shape in both forms.
pub(super) fn all(parts: Vec<Filter>) -> Filter {
    alone(parts).unwrap_or_else(Filter::And)
}

/// That one of `parts` holds, as [`all`].
pub(super) fn any(parts: Vec<Filter>) -> Filter {
    alone(parts).unwrap_or_else(Filter::Or)
}

fn alone(parts: Vec<Filter>) -> Result<Filter, Vec<Filter>> {
    <[Filter; 1]>::try_from(parts).map(|[part]| part)
}

impl Field<'_> {
    /// That it compares with `operand` as was asked.
    pub(super) fn compare(&self, operand: &Operand<'_>) -> Result<Filter, FilterRule> {
        let field = self.name.into();
        if self.kind != AttributeKind::Number {
            return Ok(Filter::AnyOf { field, values: vec![self.word(operand)?] });
        }
        let number = number(operand).ok_or_else(|| FilterRule::NotANumber { name: self.name.into() })?;
        let (included, excluded) = (Some((number, End::Included)), Some((number, End::Excluded)));
        let (low, high) = match self.operator {
            Operator::Equal | Operator::Has | Operator::In => (included, included),
            Operator::Less => (None, excluded),
            Operator::LessOrEqual => (None, included),
            Operator::Greater => (excluded, None),
            Operator::GreaterOrEqual => (included, None),
        };
        Ok(Filter::Between { field, range: NumberRange { low, high } })
    }

    /// The word that `operand` is; ids may be written as integers.
    pub(super) fn word(&self, operand: &Operand<'_>) -> Result<Box<str>, FilterRule> {
        let is_whole = |text: &str| text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
        let word = match operand {
            Operand::Quoted(text) => Some(text),
            Operand::Bare(text) => Some(text).filter(|text| number(operand).is_none() || is_whole(text)),
            Operand::Neither => None,
        };
        let fits = word.filter(|word| (1..=ID_BYTES_MAX).contains(&word.len()));
        fits.map(|word| Box::from(&**word)).ok_or_else(|| FilterRule::NotAWord { name: self.name.into() })
    }
}

fn number(operand: &Operand<'_>) -> Option<f64> {
    match operand {
        Operand::Bare(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        Operand::Quoted(_) | Operand::Neither => None,
    }
}
