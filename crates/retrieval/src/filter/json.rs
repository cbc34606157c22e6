//! The JSON form of a filter.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ALL_VALUES_MAX, DEPTH_MAX, End, Filter, NODES_MAX, NumberRange, VALUES_MAX};
use crate::ids::ID_BYTES_MAX;
use crate::item::AttributeKind;

/// Why a filter is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {rule}")]
pub struct FilterError {
    /// The key path from the root of the filter, such as `filter.and[1].has`.
    pub path: String,
    /// The rule it broke.
    pub rule: String,
}

struct Parser<'a> {
    attributes: &'a BTreeMap<Box<str>, AttributeKind>,
    nodes: usize,
    values: usize,
}

pub(super) fn parse(value: &Value, attributes: &BTreeMap<Box<str>, AttributeKind>) -> Result<Filter, FilterError> {
    Parser { attributes, nodes: 0, values: 0 }.node(value, "filter", 1)
}

fn fail<T>(path: &str, rule: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError { path: path.to_owned(), rule: rule.into() })
}

/// The one entry of an object that must have exactly one.
fn only<'v>(value: &'v Value, path: &str, wanted: &str) -> Result<(&'v str, &'v Value), FilterError> {
    let mut entries = value.as_object().into_iter().flatten();
    match (entries.next(), entries.next()) {
        (Some((key, inner)), None) => Ok((key, inner)),
        _ => fail(path, format!("must be an object with exactly one key, {wanted}")),
    }
}

impl Parser<'_> {
    fn node(&mut self, value: &Value, path: &str, depth: usize) -> Result<Filter, FilterError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return fail(path, format!("more than {NODES_MAX} conditions"));
        }
        if depth > DEPTH_MAX {
            return fail(path, format!("nested deeper than {DEPTH_MAX}"));
        }
        const OPERATORS: &str = "one of and, or, not, eq, in, has, lt, lte, gt, gte";
        let (operator, inner) = only(value, path, OPERATORS)?;
        let path = format!("{path}.{operator}");
        match operator {
            "and" => Ok(Filter::And(self.list(inner, &path, depth)?)),
            "or" => Ok(Filter::Or(self.list(inner, &path, depth)?)),
            "not" => Ok(Filter::Not(Box::new(self.node(inner, &path, depth + 1)?))),
            "eq" | "has" => self.equals(operator, inner, &path),
            "in" => self.any_of(inner, &path),
            "lt" => self.between(inner, &path, |x| NumberRange { low: None, high: Some((x, End::Excluded)) }),
            "lte" => self.between(inner, &path, |x| NumberRange { low: None, high: Some((x, End::Included)) }),
            "gt" => self.between(inner, &path, |x| NumberRange { low: Some((x, End::Excluded)), high: None }),
            "gte" => self.between(inner, &path, |x| NumberRange { low: Some((x, End::Included)), high: None }),
            _ => fail(&path, format!("unknown operator; {OPERATORS}")),
        }
    }

    fn list(&mut self, value: &Value, path: &str, depth: usize) -> Result<Vec<Filter>, FilterError> {
        let Some(parts) = value.as_array() else {
            return fail(path, "must be a list of conditions");
        };
        parts.iter().enumerate().map(|(i, part)| self.node(part, &format!("{path}[{i}]"), depth + 1)).collect()
    }

    fn field<'v>(&self, value: &'v Value, path: &str) -> Result<(&'v str, AttributeKind, &'v Value), FilterError> {
        let (field, inner) = only(value, path, "the name of an attribute")?;
        let Some(kind) = self.attributes.get(field) else {
            let known: Vec<&str> = self.attributes.keys().map(|name| &**name).collect();
            return fail(path, format!("unknown attribute `{field}`; this generation has {}", known.join(", ")));
        };
        Ok((field, *kind, inner))
    }

    fn equals(&self, operator: &str, value: &Value, path: &str) -> Result<Filter, FilterError> {
        let (field, kind, inner) = self.field(value, path)?;
        match (operator, kind) {
            ("eq", AttributeKind::Number) => {
                let x = number(inner, path)?;
                let range = NumberRange { low: Some((x, End::Included)), high: Some((x, End::Included)) };
                Ok(Filter::Between { field: field.into(), range })
            }
            ("eq", AttributeKind::Keyword) | ("has", AttributeKind::Keywords) => {
                Ok(Filter::AnyOf { field: field.into(), values: vec![word(inner, path)?] })
            }
            ("eq", _) => fail(path, format!("`{field}` holds several words; use `has`")),
            _ => fail(path, format!("`{field}` holds one value; use `eq`")),
        }
    }

    fn any_of(&mut self, value: &Value, path: &str) -> Result<Filter, FilterError> {
        let (field, kind, inner) = self.field(value, path)?;
        if kind == AttributeKind::Number {
            return fail(path, format!("`{field}` is a number; use eq, lt, lte, gt or gte"));
        }
        match inner.as_array() {
            Some(list) if (1..=VALUES_MAX).contains(&list.len()) => {
                let mut values: Vec<Box<str>> = list.iter().map(|item| word(item, path)).collect::<Result<_, _>>()?;
                values.sort_unstable();
                values.dedup();
                self.values += values.len();
                if self.values > ALL_VALUES_MAX {
                    return fail(path, format!("more than {ALL_VALUES_MAX} values in the whole filter"));
                }
                Ok(Filter::AnyOf { field: field.into(), values })
            }
            _ => fail(path, format!("must be a list of 1 to {VALUES_MAX} values")),
        }
    }

    fn between(&self, value: &Value, path: &str, range: impl Fn(f64) -> NumberRange) -> Result<Filter, FilterError> {
        let (field, kind, inner) = self.field(value, path)?;
        if kind != AttributeKind::Number {
            return fail(path, format!("`{field}` is not a number"));
        }
        Ok(Filter::Between { field: field.into(), range: range(number(inner, path)?) })
    }
}

fn number(value: &Value, path: &str) -> Result<f64, FilterError> {
    match value.as_f64() {
        Some(x) if x.is_finite() => Ok(x),
        _ => fail(path, "must be a number"),
    }
}

/// A word; ids may be written as integers.
fn word(value: &Value, path: &str) -> Result<Box<str>, FilterError> {
    match value {
        Value::String(text) if (1..=ID_BYTES_MAX).contains(&text.len()) => Ok(text.as_str().into()),
        Value::Number(integer) if integer.is_i64() || integer.is_u64() => Ok(integer.to_string().into()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            fail(path, format!("must be a string of 1 to {ID_BYTES_MAX} bytes, or an integer"))
        }
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
            assert_eq!(error.path, path, "{json}");
            assert!(error.rule.contains(rule), "{json}: {}", error.rule);
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
        assert!(error.rule.contains("deeper than 16"), "{error}");
        let wide = json!({"or": vec![json!({"eq": {"status": "active"}}); 300]});
        assert!(parse(&wide, &kinds()).unwrap_err().rule.contains("more than 256"));
    }
}
