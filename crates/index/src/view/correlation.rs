//! Whether a filter has to do with the query, told by a few rows: what passes such a one is sought near the query, and what passes another is
//! not worth a look there where it is little.

use super::View;
use crate::exact::scores_by_codes;
use crate::row_set::RowSet;

/// Rows that are looked at of those that pass, and of all; of all they are the same each time, and so at hand.
const OF_THOSE: u64 = 8;
const OF_ALL: u64 = 16;
/// By so many standard errors of the mean of all those that pass must score more. Few filters do that have nothing to do with the query,
/// one in twenty or so.
const ERRORS: f32 = 3.0;

impl View {
    /// Whether rows that pass score clearly more for the query than others do.
    pub(crate) fn correlates(&self, query: &[f32], passing: &RowSet) -> bool {
        let those: Vec<u32> = passing.select(places(OF_THOSE, passing.len()));
        // What is dead lies where something was alive.
        let all: Vec<u32> = places(OF_ALL, self.vectors.len() as u64).map(|row| row as u32).collect();
        let [those, all] = scores_by_codes(&self.vectors, query, [&those, &all]);
        let (mean, error) = mean_and_error(&all);
        !those.is_empty() && mean_and_error(&those).0 > mean + ERRORS * error
    }
}

/// So many places, in the middle of as many parts of `of`.
fn places(count: u64, of: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |at| (2 * at + 1) * of / (2 * count))
}

/// The mean of some numbers, and its standard error.
fn mean_and_error(numbers: &[f32]) -> (f32, f32) {
    let count = numbers.len().max(1) as f32;
    let mean = numbers.iter().sum::<f32>() / count;
    let squares = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f32>();
    (mean, (squares / count / (count - 1.0).max(1.0)).sqrt())
}
