//! Rows with their scores, and their order.

use std::cmp::Ordering;

/// A row with its score; best first, and of one score the lowest row first. That says nothing of the ads' ids: a row is taken by one
/// ad after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScoredRow {
    pub(crate) score: f32,
    pub(crate) row: u32,
}

impl Ord for ScoredRow {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for ScoredRow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ScoredRow {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ScoredRow {}

/// A number for a row, the smaller the better it is: what numbers are sorted by is compared faster than two of them.
pub(super) fn key(score: f32, row: u32) -> u64 {
    let bits = score.to_bits();
    let rising = if score.is_sign_negative() { !bits } else { bits | SIGN };
    u64::from(!rising) << 32 | u64::from(row)
}

/// The row of a [`key`].
pub(super) fn of_key(key: u64) -> ScoredRow {
    let rising = !((key >> 32) as u32);
    let bits = if rising & SIGN == 0 { !rising } else { rising & !SIGN };
    ScoredRow { score: f32::from_bits(bits), row: key as u32 }
}

/// Of an `f32`.
const SIGN: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_rows_and_tell_them() {
        let scores = [-1.0, -0.5, -f32::MIN_POSITIVE, -0.0, 0.0, f32::MIN_POSITIVE, 0.5, 1.0];
        let rows = scores.iter().flat_map(|score| [0, 7, u32::MAX].map(|row| ScoredRow { score: *score, row }));
        let mut rows: Vec<ScoredRow> = rows.collect();
        let mut keys: Vec<u64> = rows.iter().map(|row| key(row.score, row.row)).collect();
        rows.sort();
        keys.sort_unstable();
        let bits = |row: &ScoredRow| (row.score.to_bits(), row.row);
        let found: Vec<ScoredRow> = keys.into_iter().map(of_key).collect();
        assert_eq!(found.iter().map(bits).collect::<Vec<_>>(), rows.iter().map(bits).collect::<Vec<_>>());
    }
}
