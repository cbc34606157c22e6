//! A reader over TOML that gathers every fault instead of stopping at the first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::rc::Rc;

use toml::{Table, Value};

/// All that is wrong with a file, each with its key path: `nodes[1].http: 127.0.0.1:7101 is already used by node a`.
#[derive(Clone, Default)]
pub(super) struct Faults(Rc<RefCell<Vec<String>>>);

impl Faults {
    pub(super) fn add(&self, path: &str, rule: impl Display) {
        self.0.borrow_mut().push(format!("{path}: {rule}"));
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

/// One table of the file. Every key must be asked for; [`finish`](Section::finish) reports the others.
///
/// An answer is always a usable value: where the file is wrong the fault is noted and the default stands in, so that
/// reading goes on.
pub(super) struct Section<'a> {
    path: String,
    table: Option<&'a Table>,
    asked: RefCell<BTreeSet<&'static str>>,
    faults: Faults,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a Table, faults: Faults) -> Self {
        Self { path: String::new(), table: Some(table), asked: RefCell::default(), faults }
    }

    /// Whether the file has this table at all.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn fault(&self, key: &str, rule: impl Display) {
        self.faults.add(&self.key(key), rule);
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        self.table?.get(key)
    }

    /// A table below this one; it may be absent.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let table = match self.value(key) {
            None => None,
            Some(Value::Table(table)) => Some(table),
            Some(other) => {
                self.fault(key, format_args!("must be a table, is {}", kind(other)));
                None
            }
        };
        Section { path: self.key(key), table, asked: RefCell::default(), faults: self.faults.clone() }
    }

    /// An array of tables, such as `[[nodes]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let entries = match self.value(key) {
            None => &[][..],
            Some(Value::Array(entries)) => entries,
            Some(other) => {
                self.fault(key, format_args!("must be an array of tables, is {}", kind(other)));
                &[]
            }
        };
        let section = |(i, entry): (usize, &'a Value)| {
            let path = format!("{}[{i}]", self.key(key));
            if !entry.is_table() {
                self.faults.add(&path, format_args!("must be a table, is {}", kind(entry)));
            }
            Section { path, table: entry.as_table(), asked: RefCell::default(), faults: self.faults.clone() }
        };
        entries.iter().enumerate().map(section).collect()
    }

    pub(super) fn integer(&self, key: &'static str, default: i64, range: RangeInclusive<i64>) -> i64 {
        match self.value(key) {
            None => default,
            Some(Value::Integer(number)) if range.contains(number) => *number,
            Some(Value::Integer(number)) => {
                self.fault(key, format_args!("{number} is not in {}..={}", range.start(), range.end()));
                default
            }
            Some(other) => self.wrong(key, "an integer", other, default),
        }
    }

    /// [`integer`](Section::integer), for sizes.
    pub(super) fn size(&self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        self.integer(key, default as i64, *range.start() as i64..=*range.end() as i64) as usize
    }

    pub(super) fn number(&self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let number = match self.value(key) {
            None => return default,
            Some(Value::Float(number)) => *number,
            Some(Value::Integer(number)) => *number as f64,
            Some(other) => return self.wrong(key, "a number", other, default),
        };
        if range.contains(&number) {
            return number;
        }
        self.fault(key, format_args!("{number} is not in {}..={}", range.start(), range.end()));
        default
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        match self.value(key) {
            None => default,
            Some(Value::Boolean(flag)) => *flag,
            Some(other) => self.wrong(key, "true or false", other, default),
        }
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        match self.value(key)? {
            Value::String(text) => Some(text),
            other @ (Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_)) => self.wrong(key, "a string", other, None),
        }
    }

    /// A string that must be there.
    pub(super) fn required_text(&self, key: &'static str) -> &'a str {
        if self.table.is_some_and(|table| !table.contains_key(key)) {
            self.asked.borrow_mut().insert(key);
            self.fault(key, "is required");
            return "";
        }
        self.text(key).unwrap_or("")
    }

    pub(super) fn choice<T: Clone>(&self, key: &'static str, default: T, options: &[(&str, T)]) -> T {
        let Some(text) = self.text(key) else { return default };
        match options.iter().find(|(name, _)| *name == text) {
            Some((_, option)) => option.clone(),
            None => {
                let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
                self.fault(key, format_args!("`{text}` is not one of {}", names.join(", ")));
                default
            }
        }
    }

    /// An array, each of whose values `read` understands or else must be `wanted`.
    pub(super) fn list<T: Clone>(
        &self,
        key: &'static str,
        default: &[T],
        wanted: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Vec<T> {
        let values = match self.value(key) {
            None => return default.to_vec(),
            Some(Value::Array(values)) => values,
            Some(other) => return self.wrong(key, "an array", other, default.to_vec()),
        };
        let entry = |(i, value): (usize, &Value)| {
            let entry = read(value);
            if entry.is_none() {
                self.fault(&format!("{key}[{i}]"), format_args!("must be {wanted}, is {value}"));
            }
            entry
        };
        values.iter().enumerate().filter_map(entry).collect()
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.table.into_iter().flat_map(Table::keys).filter(|key| !asked.contains(key.as_str())) {
            let known: Vec<&str> = asked.iter().copied().collect();
            self.fault(key, format_args!("unknown key; known here are {}", known.join(", ")));
        }
    }

    fn wrong<T>(&self, key: &str, wanted: &str, found: &Value, default: T) -> T {
        self.fault(key, format_args!("must be {wanted}, is {}", kind(found)));
        default
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}
