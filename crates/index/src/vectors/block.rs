//! Some rows of a shard, together.

use super::BLOCK_ROWS;

/// Up to [`BLOCK_ROWS`] embeddings.
#[derive(Clone)]
pub(crate) struct Block {
    dimension: usize,
    /// `[rows, dimension]`, row-major.
    rows: Vec<f32>,
}

impl Block {
    /// The block of `rows`, `[1..=BLOCK_ROWS, dimension]`, row-major.
    pub(super) fn new(dimension: usize, rows: &[f32]) -> Self {
        debug_assert!((1..=BLOCK_ROWS * dimension).contains(&rows.len()));
        Self { dimension, rows: rows.to_vec() }
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() / self.dimension
    }

    /// The embedding at `at`, counted from the first of the block.
    pub(crate) fn row(&self, at: usize) -> &[f32] {
        &self.rows[at * self.dimension..(at + 1) * self.dimension]
    }

    /// Replaces the row at `at`, or adds it where `at` is [`len`](Self::len).
    pub(super) fn set(&mut self, at: usize, vector: &[f32]) {
        if at == self.len() {
            self.rows.extend_from_slice(vector);
        } else {
            self.rows[at * self.dimension..(at + 1) * self.dimension].copy_from_slice(vector);
        }
    }

    /// The memory of the block.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.rows)
    }
}
