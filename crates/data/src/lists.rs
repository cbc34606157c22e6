//! Columns whose rows are lists.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray};
use arrow::datatypes::DataType;

/// The type of the elements of lists of type `found`, if it is one.
pub(crate) fn element(found: &DataType) -> Option<&DataType> {
    if let DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) = found {
        Some(field.data_type())
    } else {
        None
    }
}

/// Rows that are ranges of one array of elements.
pub(crate) enum Lists {
    Small(ListArray),
    Large(LargeListArray),
    Fixed(FixedSizeListArray),
}

impl Lists {
    /// Wraps a column whose type has an [`element`].
    pub(crate) fn new(array: &dyn Array) -> Self {
        if let Some(lists) = array.as_list_opt::<i32>() {
            Self::Small(lists.clone())
        } else if let Some(lists) = array.as_list_opt::<i64>() {
            Self::Large(lists.clone())
        } else {
            Self::Fixed(array.as_fixed_size_list().clone())
        }
    }

    /// The elements of all rows.
    pub(crate) fn elements(&self) -> &ArrayRef {
        match self {
            Self::Small(lists) => lists.values(),
            Self::Large(lists) => lists.values(),
            Self::Fixed(lists) => lists.values(),
        }
    }

    /// Which of the [`elements`](Self::elements) `row` has; `None` where the list is null.
    pub(crate) fn get(&self, row: usize) -> Option<Range<usize>> {
        match self {
            Self::Small(lists) => lists
                .is_valid(row)
                .then(|| lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize),
            Self::Large(lists) => lists
                .is_valid(row)
                .then(|| lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize),
            Self::Fixed(lists) => lists.is_valid(row).then(|| {
                let length = lists.value_length() as usize;
                row * length..(row + 1) * length
            }),
        }
    }
}
