//! How many ads near a query pass a filter, by a sample of the shard.

use roaring::RoaringBitmap;
use turret_retrieval::calibration::Calibration;
use turret_retrieval::hashing::{reduce, stable_hash};

use crate::exact::scan;
use crate::planner::Near;
use crate::vectors::Vectors;

/// Rows of a sample; a smaller shard has one row in [`ONE_IN`].
const SAMPLE_ROWS: usize = 4_096;
const ONE_IN: usize = 8;
/// Of the rows that are taken.
const SEED: u64 = 12;
/// Of them, the nearest that are looked at: 1 in 128 of a large shard.
const NEAR_ROWS: usize = 32;
/// Nearest ones that are found, some of which may have changed.
const FOUND_ROWS: usize = 48;

/// What was measured of a shard and its graph.
pub(crate) struct Measured {
    pub(crate) calibration: Calibration,
    pub(crate) sample: Sample,
    /// Ads that had come into the shard then, as [`Counts`](crate::view::Counts) counts them.
    pub(crate) born: u64,
}

/// A copy of some rows of a shard, close together: comparing all of them costs a few microseconds.
pub(crate) struct Sample {
    vectors: Vectors,
    /// Where each is in the shard.
    rows: Vec<u32>,
}

impl Sample {
    /// Of `rows` of `vectors`, spread evenly.
    pub(crate) fn of(vectors: &Vectors, rows: &RoaringBitmap) -> Self {
        let every = (rows.len() as usize).div_ceil(SAMPLE_ROWS).max(ONE_IN) as u32;
        // One of each so many, and not the first of each: ids may follow some period.
        let of = |first: u32| {
            let left = every.min(rows.len() as u32 - first);
            rows.select(first + reduce(stable_hash(SEED, &first.to_le_bytes()), left))
        };
        let rows: Vec<u32> = (0..rows.len() as u32).step_by(every as usize).filter_map(of).collect();
        let flat: Vec<f32> = rows.iter().flat_map(|row| vectors.row(*row)).copied().collect();
        Self { vectors: Vectors::from_rows(vectors.dimension(), &flat), rows }
    }

    /// How many of the rows nearest to `query` are among `passing`. Rows that are not what they were, or not `live`, do not
    /// count.
    pub(crate) fn near(&self, query: &[f32], passing: &RoaringBitmap, live: &RoaringBitmap, vectors: &Vectors) -> Near {
        let found = scan(&self.vectors, &[query], None, FOUND_ROWS).pop().unwrap_or_default();
        let rows = found.iter().map(|found| (found.row, self.rows[found.row as usize]));
        let is_there = |(at, row): &(u32, u32)| live.contains(*row) && vectors.row(*row) == self.vectors.row(*at);
        let rows: Vec<u32> = rows.filter(is_there).map(|(_, row)| row).take(NEAR_ROWS).collect();
        let passing = rows.iter().filter(|row| passing.contains(**row)).count();
        Near { rows: rows.len() as u32, passing: passing as u32 }
    }

    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.vectors.bytes() + self.rows.len() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::clustered;

    #[test]
    fn a_sample_tells_what_passes_near_a_query() {
        let rows = clustered(1, 8_000, 16, 10);
        let flat: Vec<f32> = rows.iter().flat_map(|row| row.as_slice().to_vec()).collect();
        let mut vectors = Vectors::from_rows(16, &flat);
        let all: RoaringBitmap = (0..8_000).collect();
        let sample = Sample::of(&vectors, &all);
        assert_eq!(sample.rows.len(), 1_000);
        // Row r is of cluster r % 10, and so is the query.
        let query = clustered(2, 4, 16, 10).pop().unwrap();
        let query = query.as_slice();
        let of = |clusters: &[u32]| all.iter().filter(|row| clusters.contains(&(row % 10))).collect::<RoaringBitmap>();
        assert_eq!(sample.near(query, &of(&[3]), &all, &vectors), Near { rows: 32, passing: 32 });
        assert_eq!(sample.near(query, &of(&[2, 4, 6]), &all, &vectors), Near { rows: 32, passing: 0 });
        let half = sample.near(query, &all.iter().filter(|row| row % 16 < 8).collect(), &all, &vectors);
        assert!((8..=24).contains(&half.passing), "{half:?}");
        // What has changed since says nothing.
        for row in of(&[3]) {
            vectors.set(row, rows[0].as_slice());
        }
        assert_eq!(sample.near(query, &of(&[3]), &all, &vectors).passing, 0);
        assert_eq!(sample.near(query, &all, &of(&[]), &vectors), Near { rows: 0, passing: 0 });
    }
}
