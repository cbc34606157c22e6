//! The postings of a shard: which rows have which attribute, and which rows pass a filter.
//!
//! They stand in segments that never change: what the shard was built with, and beside it what came later, merged now and then
//! so that there are few. Every row is in one segment. What is in no more use is left in until segments are merged, and masked
//! until then.

use std::sync::Arc;

use roaring::{MultiOps, RoaringBitmap};
use turret_retrieval::filter::Filter;

mod forward;
mod numbers;
mod segment;

pub(crate) use segment::Segment;
use segment::WordsOfRows;

use crate::row_set::RowSet;

/// A segment has so many times the rows of the next, or they are merged: a filter looks into few, and a row is merged
/// seldom.
const RATIO: u64 = 4;

/// The attributes of all rows of a shard. A clone shares every segment.
#[derive(Clone, Default)]
pub(crate) struct Postings {
    segments: Vec<Arc<Segment>>,
}

/// The words of one attribute.
pub(crate) struct Words<'a> {
    /// The rows of each segment, and their words.
    parts: Vec<(&'a RoaringBitmap, &'a WordsOfRows)>,
}

impl<'a> Words<'a> {
    /// The word of a row; one of them where it has more.
    pub(crate) fn of(&self, row: u32) -> Option<&'a str> {
        self.parts.iter().find(|(rows, _)| rows.contains(row))?.1.of(row)
    }
}

impl Postings {
    /// The postings of these segments, which have no row in common.
    pub(crate) fn new(segments: impl IntoIterator<Item = Segment>) -> Self {
        Self { segments: segments.into_iter().map(Arc::new).collect() }
    }

    /// The rows of `all` that pass `filter`: exactly those for which [`Filter::matches`] holds.
    pub(crate) fn rows(&self, filter: &Filter, all: &RowSet) -> RowSet {
        let passing = self.passing(filter, all);
        // Each is of a segment: where so many are there, no segment has another.
        let (first, others) = self.sizes();
        if all.len() == first + others { passing } else { passing.and(all) }
    }

    /// The same, and perhaps rows that are not of `all`.
    fn passing(&self, filter: &Filter, all: &RowSet) -> RowSet {
        match filter {
            Filter::And(parts) => self.intersection(parts, all),
            Filter::Or(parts) => {
                parts.iter().map(|part| self.passing(part, all)).reduce(RowSet::or).unwrap_or_default()
            }
            Filter::Not(part) => all.and_not(&self.passing(part, all)),
            Filter::AnyOf { field, values } => {
                self.segments.iter().flat_map(|segment| segment.any_of(field, values)).union().into()
            }
            Filter::Between { field, range } => {
                let of_segments = self.segments.iter().filter_map(|segment| segment.between(field, range));
                of_segments.reduce(RowSet::or).unwrap_or_default()
            }
        }
    }

    fn intersection(&self, parts: &[Filter], all: &RowSet) -> RowSet {
        let Some((first, rest)) = parts.split_first() else { return all.clone() };
        let mut rows = self.passing(first, all);
        for part in rest {
            if rows.is_empty() {
                break;
            }
            rows = rows.and(&self.passing(part, all));
        }
        rows
    }

    /// Adds a segment of rows that are in no other.
    pub(crate) fn push(&mut self, segment: Segment) {
        self.segments.push(Arc::new(segment));
    }

    /// Merges segments of much the same size, none of the first `kept`, into such of at most `rows_max` rows.
    pub(crate) fn merge(&mut self, kept: usize, rows_max: u64) {
        let is_due = |pair: &[Arc<Segment>]| {
            let (former, latter) = (pair[0].rows(), pair[1].rows());
            former < RATIO * latter && former + latter <= rows_max
        };
        while let Some(at) = self.segments.get(kept..).and_then(|tail| tail.windows(2).rposition(is_due)) {
            let at = kept + at;
            let merged = Segment::merged(&self.segments[at..at + 2], &RoaringBitmap::new());
            self.segments.splice(at..at + 2, [Arc::new(merged)]);
        }
    }

    /// One segment of all rows but those of `gone`.
    pub(crate) fn merged(&self, gone: &RoaringBitmap) -> Segment {
        Segment::merged(&self.segments, gone)
    }

    /// Has `whole` in place of the first `segments` segments.
    pub(crate) fn replace(&mut self, segments: usize, whole: Segment) {
        self.segments.splice(..segments, [Arc::new(whole)]);
    }

    /// How many segments there are.
    pub(crate) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Rows of the first segment, and of all others.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let mut rows = self.segments.iter().map(|segment| segment.rows());
        (rows.next().unwrap_or(0), rows.sum())
    }

    /// The words of an attribute, by row. They are gathered at the first call, and kept.
    pub(crate) fn words(&self, name: &str) -> Words<'_> {
        Words { parts: self.segments.iter().filter_map(|segment| segment.words(name)).collect() }
    }

    /// Whether any row has an attribute of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| segment.has(name))
    }

    /// The memory that the postings take, in bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes()).sum()
    }
}

#[cfg(test)]
mod tests;
