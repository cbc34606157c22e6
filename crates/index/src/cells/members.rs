//! The rows of one cell.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::bits::Bits;

/// See the module. A clone shares them.
#[derive(Clone)]
pub(super) enum Members {
    /// They follow each other, as in a shard that was built and not changed since: they are found faster then.
    Run(RangeInclusive<u32>),
    /// They lie anywhere; ascending.
    Any(Arc<[u32]>),
}

impl FromIterator<u32> for Members {
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> Self {
        let mut rows: Vec<u32> = rows.into_iter().collect();
        rows.sort_unstable();
        rows.dedup();
        Self::of(rows)
    }
}

impl Members {
    fn of(rows: Vec<u32>) -> Self {
        match (rows.first(), rows.last()) {
            (Some(first), Some(last)) if (last - first) as usize + 1 == rows.len() => Self::Run(*first..=*last),
            _ => Self::Any(rows.into()),
        }
    }

    /// All of them, ascending.
    pub(super) fn rows(&self) -> Vec<u32> {
        match self {
            Self::Run(run) => run.clone().collect(),
            Self::Any(rows) => rows.to_vec(),
        }
    }

    /// The same and `row`.
    pub(super) fn with(&self, row: u32) -> Self {
        let mut rows = self.rows();
        if let Err(at) = rows.binary_search(&row) {
            rows.insert(at, row);
        }
        Self::of(rows)
    }

    /// The same but `row`.
    pub(super) fn without(&self, row: u32) -> Self {
        let mut rows = self.rows();
        if let Ok(at) = rows.binary_search(&row) {
            rows.remove(at);
        }
        Self::of(rows)
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Run(run) => u64::from(run.end() - run.start()) + 1,
            Self::Any(rows) => rows.len() as u64,
        }
    }

    /// How many of `rows` they are.
    pub(super) fn among(&self, rows: &Bits) -> u64 {
        match self {
            Self::Run(run) => rows.count(run.clone()),
            Self::Any(own) => own.iter().filter(|row| rows.has(**row)).count() as u64,
        }
    }

    /// The memory that they take beside themselves, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Run(_) => 0,
            Self::Any(rows) => size_of_val(&**rows) + 2 * size_of::<usize>(),
        }
    }
}
