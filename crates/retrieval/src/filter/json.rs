//! The JSON form of a filter.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::checker::{Checker, Form, Operand, Operator, all, any};
use super::{Filter, FilterError, FilterRule, Place};
use crate::item::AttributeKind;

const OPERATORS: &str = "one of and, or, not, eq, in, has, lt, lte, gt, gte";

pub(super) fn parse(value: &Value, attributes: &BTreeMap<Box<str>, AttributeKind>) -> Result<Filter, FilterError> {
    Parser(Checker::new(attributes, Form::Json)).node(value, "filter", 1)
}

struct Parser<'a>(Checker<'a>);

/// Puts the place to a broken rule.
fn at<T>(path: &str, checked: Result<T, FilterRule>) -> Result<T, FilterError> {
    checked.map_err(|rule| FilterError { place: Place::Path(path.to_owned()), rule })
}

fn shape<T>(path: &str, rule: impl Into<String>) -> Result<T, FilterError> {
    at(path, Err(FilterRule::Shape(rule.into())))
}

/// The one entry of an object that must have exactly one.
fn only<'v>(value: &'v Value, path: &str, wanted: &str) -> Result<(&'v str, &'v Value), FilterError> {
    let mut entries = value.as_object().into_iter().flatten();
    match (entries.next(), entries.next()) {
        (Some((key, inner)), None) => Ok((key, inner)),
        _ => shape(path, format!("must be an object with exactly one key, {wanted}")),
    }
}

impl Parser<'_> {
    fn node(&mut self, value: &Value, path: &str, depth: usize) -> Result<Filter, FilterError> {
        at(path, self.0.enter(depth))?;
        let (operator, inner) = only(value, path, OPERATORS)?;
        let path = format!("{path}.{operator}");
        let operator = match operator {
            "and" => return Ok(all(self.list(inner, &path, depth)?)),
            "or" => return Ok(any(self.list(inner, &path, depth)?)),
            "not" => return Ok(Filter::Not(Box::new(self.node(inner, &path, depth + 1)?))),
            "in" => return self.any_of(inner, &path),
            "eq" => Operator::Equal,
            "has" => Operator::Has,
            "lt" => Operator::Less,
            "lte" => Operator::LessOrEqual,
            "gt" => Operator::Greater,
            "gte" => Operator::GreaterOrEqual,
            _ => return shape(&path, format!("unknown operator; {OPERATORS}")),
        };
        let (name, value) = only(inner, &path, "the name of an attribute")?;
        at(&path, self.0.field(name, operator).and_then(|field| field.compare(&operand(value))))
    }

    fn list(&mut self, value: &Value, path: &str, depth: usize) -> Result<Vec<Filter>, FilterError> {
        let Some(parts) = value.as_array() else {
            return shape(path, "must be a list of conditions");
        };
        parts.iter().enumerate().map(|(i, part)| self.node(part, &format!("{path}[{i}]"), depth + 1)).collect()
    }

    fn any_of(&mut self, value: &Value, path: &str) -> Result<Filter, FilterError> {
        let (name, list) = only(value, path, "the name of an attribute")?;
        let field = at(path, self.0.field(name, Operator::In))?;
        let list = list.as_array().map_or(&[][..], Vec::as_slice);
        at(path, self.0.check_list(list.len()))?;
        let words = list.iter().map(|value| field.word(&operand(value))).collect::<Result<_, _>>();
        at(path, words.and_then(|words| self.0.any_of(&field, words)))
    }
}

fn operand(value: &Value) -> Operand<'_> {
    match value {
        Value::String(text) => Operand::Quoted(Cow::Borrowed(text)),
        Value::Number(number) => Operand::Bare(Cow::Owned(number.to_string())),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Operand::Neither,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::item::Attribute;

    fn kinds() -> BTreeMap<Box<str>, AttributeKind> {
        [
            ("status", AttributeKind::Keyword),
            ("advertiser_id", AttributeKind::Keyword),
            ("countries", AttributeKind::Keywords),
            ("min_age", AttributeKind::Number),
        ]
        .into_iter()
        .map(|(name, kind)| (name.into(), kind))
        .collect()
    }

    fn ad() -> BTreeMap<Box<str>, Attribute> {
        [
            ("status", Attribute::Keyword("active".into())),
            ("countries", Attribute::Keywords(vec!["US".into(), "BR".into()])),
            ("min_age", Attribute::Number(21.0)),
        ]
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect()
    }

    #[test]
    fn conditions_mean_what_they_say() {
        let check = |json: Value, passes: bool| {
            assert_eq!(parse(&json, &kinds()).unwrap().matches(&ad()), passes, "{json}");
        };
        check(json!({"eq": {"status": "active"}}), true);
        check(json!({"has": {"countries": "BR"}}), true);
        check(json!({"has": {"countries": "DE"}}), false);
        check(json!({"in": {"countries": ["DE", "US"]}}), true);
        check(json!({"lte": {"min_age": 21}}), true);
        check(json!({"lt": {"min_age": 21}}), false);
        check(json!({"gt": {"min_age": 20.5}}), true);
        check(json!({"gte": {"min_age": 22}}), false);
        check(json!({"eq": {"min_age": 21}}), true);
        check(json!({"and": []}), true);
        check(json!({"or": []}), false);
        // The ad names no advertiser.
        check(json!({"in": {"advertiser_id": [77]}}), false);
        check(json!({"not": {"in": {"advertiser_id": [77]}}}), true);
        check(json!({"and": [{"eq": {"status": "active"}}, {"or": [{"has": {"countries": "US"}}]}]}), true);
    }

    #[test]
    fn a_bad_filter_names_the_place_and_the_rule() {
        let check = |json: Value, path: &str, rule: &str| {
            let error = parse(&json, &kinds()).unwrap_err();
            assert_eq!(error.field(), path, "{json}");
            assert!(error.rule.to_string().contains(rule), "{json}: {error}");
        };
        check(json!([]), "filter", "exactly one key");
        check(json!({"and": [{"eq": {"status": "active"}}, {"is": {}}]}), "filter.and[1].is", "unknown operator");
        check(json!({"has": {"country": "US"}}), "filter.has", "unknown attribute `country`");
        check(json!({"has": {"status": "active"}}), "filter.has", "use `eq`");
        check(json!({"eq": {"countries": "US"}}), "filter.eq", "use `has`");
        check(json!({"lte": {"min_age": "29"}}), "filter.lte", "must be a number");
        check(json!({"in": {"status": []}}), "filter.in", "1 to 1000 values");
        check(json!({"not": 5}), "filter.not", "exactly one key");
        let deep = (0..40).fold(json!({"eq": {"status": "active"}}), |inner, _| json!({"not": inner}));
        let error = parse(&deep, &kinds()).unwrap_err();
        assert_eq!(error.rule, FilterRule::Depth);
        let wide = json!({"or": vec![json!({"eq": {"status": "active"}}); 300]});
        assert_eq!(parse(&wide, &kinds()).unwrap_err().rule, FilterRule::Conditions);
    }
}
