//! Typed access to the columns of a batch, whatever width or encoding the file chose.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, LargeStringArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};

use crate::fault::{Faults, ReadError};
use crate::intern::RawId;
use crate::table::Cells;

/// What a column must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Strings, or integers of any width.
    Id,
    /// Strings.
    Text,
    /// Numbers of any width.
    Number,
    /// Whole numbers of any width.
    Whole,
    /// Whole numbers, or Arrow timestamps.
    Time,
    /// See [`crate::interests`].
    Interests,
    /// Lists of numbers.
    Vector,
    /// Lists of strings.
    Words,
    /// Lists of strings, or of integers.
    Ids,
    /// Strings, or booleans.
    Word,
    /// What a targeting attribute can be.
    Attribute,
}

impl Kind {
    pub(crate) fn accepts(self, found: &DataType) -> bool {
        match self {
            Self::Id => is_id(found),
            Self::Text => is_text(found),
            Self::Number | Self::Whole => is_number(found),
            Self::Time => is_number(found) || matches!(found, DataType::Timestamp(_, _)),
            Self::Interests => crate::interests::accepts(found),
            Self::Vector => crate::lists::element(found).is_some_and(is_number),
            Self::Words => crate::lists::element(found).is_some_and(is_text),
            Self::Ids => crate::lists::element(found).is_some_and(is_id),
            Self::Word => is_text(found) || *found == DataType::Boolean,
            Self::Attribute => [Self::Word, Self::Words, Self::Number].into_iter().any(|kind| kind.accepts(found)),
        }
    }

    /// What it accepts, in words.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Id => "a string or an integer",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Whole => "a whole number",
            Self::Time => "a whole number or a timestamp",
            Self::Interests => {
                "a list of structs of id and confidence, a list of strings or integers, a string or an integer"
            }
            Self::Vector => "a list of numbers",
            Self::Words => "a list of strings",
            Self::Ids => "a list of strings or integers",
            Self::Word => "a string or a boolean",
            Self::Attribute => "a string, a boolean, a list of strings or a number",
        }
    }
}

fn is_text(found: &DataType) -> bool {
    matches!(plain(found), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

pub(crate) fn is_id(found: &DataType) -> bool {
    is_text(found) || plain(found).is_integer()
}

pub(crate) fn is_number(found: &DataType) -> bool {
    plain(found).is_numeric()
}

/// The type of the values, where they are encoded by a dictionary.
fn plain(found: &DataType) -> &DataType {
    if let DataType::Dictionary(_, values) = found { values } else { found }
}

fn to(array: &dyn Array, target: &DataType) -> ArrayRef {
    cast(array, target).expect("a column is read only where its kind accepts its type, and those all convert")
}

/// Strings, or integers of any width.
pub(crate) enum IdArray {
    Signed(Int64Array),
    Unsigned(UInt64Array),
    Text(LargeStringArray),
}

impl IdArray {
    pub(crate) fn new(array: &dyn Array) -> Self {
        let values = plain(array.data_type());
        if *values == DataType::UInt64 {
            Self::Unsigned(to(array, &DataType::UInt64).as_primitive().clone())
        } else if values.is_integer() {
            Self::Signed(to(array, &DataType::Int64).as_primitive().clone())
        } else {
            Self::Text(to(array, &DataType::LargeUtf8).as_string().clone())
        }
    }

    /// The id in `row`; `None` where it is null.
    pub(crate) fn get(&self, row: usize) -> Option<RawId<'_>> {
        match self {
            Self::Signed(array) => array.is_valid(row).then(|| RawId::Integer(array.value(row))),
            Self::Unsigned(array) => array.is_valid(row).then(|| {
                let number = array.value(row);
                i64::try_from(number).map_or(RawId::Large(number), RawId::Integer)
            }),
            Self::Text(array) => array.is_valid(row).then(|| RawId::Text(array.value(row))),
        }
    }

    /// The text in `row`, of a column of strings.
    pub(crate) fn text(&self, row: usize) -> Option<&str> {
        match self.get(row) {
            Some(RawId::Text(text)) => Some(text),
            Some(RawId::Integer(_) | RawId::Large(_)) | None => None,
        }
    }
}

impl Cells<'_, IdArray> {
    /// The id in `row`, which must not be null.
    pub(crate) fn required(&self, row: usize, faults: &mut Faults) -> Result<Option<RawId<'_>>, ReadError> {
        let id = self.array.get(row);
        if id.is_none() {
            faults.add(self.at(row), "must not be null")?;
        }
        Ok(id)
    }

    /// A typed id made of the one in `row`; `None` where that is null, or faulty.
    pub(crate) fn optional<I, E: std::fmt::Display>(
        &self,
        row: usize,
        make: fn(&str) -> Result<I, E>,
        faults: &mut Faults,
    ) -> Result<Option<I>, ReadError> {
        let Some(id) = self.array.get(row) else { return Ok(None) };
        match make(&id.text()) {
            Ok(id) => Ok(Some(id)),
            Err(rule) => {
                faults.add(self.at(row), rule)?;
                Ok(None)
            }
        }
    }
}

/// Numbers of any width, as `f64`.
pub(crate) struct NumberArray(Float64Array);

impl NumberArray {
    pub(crate) fn new(array: &dyn Array) -> Self {
        Self(to(array, &DataType::Float64).as_primitive().clone())
    }

    pub(crate) fn get(&self, row: usize) -> Option<f64> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

/// Whole numbers of any width, or timestamps as milliseconds.
pub(crate) enum WholeArray {
    Signed(Int64Array),
    Unsigned(UInt64Array),
    Real(Float64Array),
}

/// The number that is not a whole one, or none that fits 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a whole number of 64 bits")]
pub(crate) struct NotWhole(f64);

impl WholeArray {
    pub(crate) fn new(array: &dyn Array) -> Self {
        let values = plain(array.data_type());
        if let DataType::Timestamp(_, zone) = values {
            let milliseconds = to(array, &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()));
            Self::Signed(to(&milliseconds, &DataType::Int64).as_primitive().clone())
        } else if *values == DataType::UInt64 {
            Self::Unsigned(to(array, &DataType::UInt64).as_primitive().clone())
        } else if values.is_integer() {
            Self::Signed(to(array, &DataType::Int64).as_primitive().clone())
        } else {
            Self::Real(to(array, &DataType::Float64).as_primitive().clone())
        }
    }

    /// The number in `row`; `None` where it is null.
    pub(crate) fn get(&self, row: usize) -> Result<Option<i64>, NotWhole> {
        match self {
            Self::Signed(array) => Ok(array.is_valid(row).then(|| array.value(row))),
            Self::Unsigned(array) => array
                .is_valid(row)
                .then(|| i64::try_from(array.value(row)).map_err(|_| NotWhole(array.value(row) as f64)))
                .transpose(),
            Self::Real(array) => array.is_valid(row).then(|| whole(array.value(row))).transpose(),
        }
    }
}

fn whole(number: f64) -> Result<i64, NotWhole> {
    // Below 2^53 every whole number is exact, and NaN fails every comparison.
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        Ok(number as i64)
    } else {
        Err(NotWhole(number))
    }
}

impl Cells<'_, WholeArray> {
    /// The number in `row`, where `fits` says that it is one of `range`.
    pub(crate) fn within(
        &self,
        row: usize,
        range: std::ops::RangeInclusive<i64>,
        faults: &mut Faults,
    ) -> Result<Option<i64>, ReadError> {
        match self.array.get(row) {
            Ok(None) => Ok(None),
            Ok(Some(number)) if range.contains(&number) => Ok(Some(number)),
            Ok(Some(number)) => {
                faults.add(self.at(row), format_args!("{number} is not in {}..={}", range.start(), range.end()))?;
                Ok(None)
            }
            Err(rule) => {
                faults.add(self.at(row), rule)?;
                Ok(None)
            }
        }
    }
}
