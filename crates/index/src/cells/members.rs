//! The rows of one cell.

use std::ops::RangeInclusive;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::rows::rows_in;

/// See the module. A clone shares them.
#[derive(Clone)]
pub(super) enum Members {
    /// They follow each other, as in a shard that was built and not changed since: they are found faster then.
    Run(RangeInclusive<u32>),
    /// They lie anywhere.
    Any(Arc<RoaringBitmap>),
}

impl FromIterator<u32> for Members {
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> Self {
        Self::of(rows.into_iter().collect())
    }
}

impl Members {
    fn of(rows: RoaringBitmap) -> Self {
        match rows.min().zip(rows.max()) {
            Some((first, last)) if u64::from(last - first) + 1 == rows.len() => Self::Run(first..=last),
            Some(_) | None => Self::Any(Arc::new(rows)),
        }
    }

    /// All of them.
    pub(super) fn rows(&self) -> RoaringBitmap {
        match self {
            Self::Run(run) => rows_in(run.clone()),
            Self::Any(rows) => RoaringBitmap::clone(rows),
        }
    }

    /// The same and `row`.
    pub(super) fn with(&self, row: u32) -> Self {
        let mut rows = self.rows();
        rows.insert(row);
        Self::of(rows)
    }

    /// The same but `row`.
    pub(super) fn without(&self, row: u32) -> Self {
        let mut rows = self.rows();
        rows.remove(row);
        Self::of(rows)
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Run(run) => u64::from(run.end() - run.start()) + 1,
            Self::Any(rows) => rows.len(),
        }
    }

    /// How many of `rows` they are.
    pub(super) fn among(&self, rows: &RoaringBitmap) -> u64 {
        match self {
            Self::Run(run) => rows.range_cardinality(run.clone()),
            Self::Any(own) => rows.intersection_len(own),
        }
    }

    /// The memory that they take beside themselves, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Run(_) => 0,
            Self::Any(rows) => size_of::<RoaringBitmap>() + 64 + rows.serialized_size(),
        }
    }
}
