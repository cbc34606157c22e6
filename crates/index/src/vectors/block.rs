//! Some rows of a shard, together.

use super::BLOCK_ROWS;
use super::codes::Codes;

/// Up to [`BLOCK_ROWS`] embeddings.
pub(crate) struct Block {
    dimension: usize,
    /// `[rows, dimension]`, row-major.
    rows: Vec<f32>,
    codes: Codes,
}

/// Whoever clones a block sets a row of it, and perhaps more rows: there is room for all.
impl Clone for Block {
    fn clone(&self) -> Self {
        let mut rows = Vec::with_capacity(BLOCK_ROWS * self.dimension);
        rows.extend_from_slice(&self.rows);
        Self { dimension: self.dimension, rows, codes: self.codes.clone() }
    }
}

impl Block {
    /// The block of `rows`, `[1..=BLOCK_ROWS, dimension]`, row-major.
    pub(super) fn new(dimension: usize, rows: &[f32]) -> Self {
        debug_assert!((1..=BLOCK_ROWS * dimension).contains(&rows.len()));
        let mut codes = Codes::new(dimension);
        rows.chunks_exact(dimension).enumerate().for_each(|(at, row)| codes.set(at, row));
        Self { dimension, rows: rows.to_vec(), codes }
    }

    /// The embedding at `at`, counted from the first of the block.
    pub(crate) fn row(&self, at: usize) -> &[f32] {
        &self.rows[at * self.dimension..(at + 1) * self.dimension]
    }

    /// The same rows as codes.
    pub(crate) fn codes(&self) -> &Codes {
        &self.codes
    }

    /// Replaces the row at `at`, or adds it where `at` is the first that is not there.
    pub(super) fn set(&mut self, at: usize, vector: &[f32]) {
        let start = at * self.dimension;
        if start == self.rows.len() {
            self.rows.reserve_exact(BLOCK_ROWS * self.dimension - start);
            self.rows.extend_from_slice(vector);
        } else {
            self.rows[start..start + self.dimension].copy_from_slice(vector);
        }
        self.codes.set(at, vector);
    }

    /// The memory of the block, with room for rows that are not there.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<f32>() + self.codes.bytes()
    }
}
