//! The embeddings of a shard, in blocks that clones share until one of them changes.

use std::hint::black_box;
use std::sync::Arc;

mod block;
mod codes;

pub(crate) use block::Block;
pub(crate) use codes::{
    CodesOfRow, LINE_ROWS, Limits, Line, OFFSET, ROW_LINE, RowLine, TILE_LINES, TILE_ROWS, WORD, quantise,
};

/// Rows of a block; the last one may have fewer.
pub(crate) const BLOCK_ROWS: usize = 256;
/// Bytes of a line of the cache.
const CACHE_LINE: usize = 64;

/// The embeddings of a shard, by row.
///
/// A clone shares every block and costs one pointer each; a row that is set copies its block where a clone still holds it,
/// so that searches go on with what they have.
#[derive(Clone)]
pub(crate) struct Vectors {
    dimension: usize,
    rows: usize,
    blocks: Vec<Arc<Block>>,
    limits: Limits,
}

/// Has a line of memory brought near, without waiting for it.
#[inline(always)]
pub(crate) fn prefetch<T>(line: &T) {
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it reads nothing.
        #[expect(unsafe_code, reason = "a hint, which takes an address")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast());
        }
    }
}

impl Vectors {
    /// The rows of `flat`, `[rows, dimension]`, row-major; `dimension` is at least 1.
    pub(crate) fn from_rows(dimension: usize, flat: &[f32]) -> Self {
        debug_assert_eq!(flat.len() % dimension, 0);
        let blocks = flat.chunks(BLOCK_ROWS * dimension).map(|rows| Arc::new(Block::new(dimension, rows)));
        let blocks: Vec<Arc<Block>> = blocks.collect();
        let limits = blocks.iter().fold(Limits::default(), |limits, block| limits.and(block.codes().limits()));
        Self { dimension, rows: flat.len() / dimension, blocks, limits }
    }

    /// The embedding of `row`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub(crate) fn row(&self, row: u32) -> &[f32] {
        let row = row as usize;
        self.blocks[row / BLOCK_ROWS].row(row % BLOCK_ROWS)
    }

    /// Brings rows near: where many are read one after the other, all of them are waited for at once, and not one after the other.
    pub(crate) fn fetch(&self, rows: &[u32]) {
        // One number of each line.
        let lines = |row: &u32| {
            let row = self.row(*row);
            let (each, last) = (row.iter().step_by(CACHE_LINE / size_of::<f32>()), row.last());
            each.chain(last).fold(0u32, |sum, x| sum.wrapping_add(x.to_bits()))
        };
        black_box(rows.iter().map(lines).fold(0, u32::wrapping_add));
    }

    /// The codes of `row`, by itself, which are asked for from memory and not waited for.
    ///
    /// # Panics
    /// Where there is no row of its tile; of others that are not there the scale is NaN.
    #[inline]
    pub(crate) fn codes_soon(&self, row: u32) -> CodesOfRow<'_> {
        let row = row as usize;
        self.blocks[row / BLOCK_ROWS].codes().row_soon(row % BLOCK_ROWS)
    }

    /// Replaces the embedding of `row`, or adds it where it is the first that is not there.
    ///
    /// # Panics
    /// Where it is a later one, or `vector` is of another dimension.
    pub(crate) fn set(&mut self, row: u32, vector: &[f32]) {
        let row = row as usize;
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        assert_eq!(vector.len(), self.dimension, "dimension");
        match self.blocks.get_mut(row / BLOCK_ROWS) {
            Some(block) => Arc::make_mut(block).set(row % BLOCK_ROWS, vector),
            None => self.blocks.push(Arc::new(Block::new(self.dimension, vector))),
        }
        self.limits = self.limits.and(self.blocks[row / BLOCK_ROWS].codes().limits());
        self.rows = self.rows.max(row + 1);
    }

    /// What no row exceeds.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// The length of an embedding.
    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    /// The memory of all blocks, those that clones share too.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes()).sum()
    }

    /// The block at `at`, where there is one.
    pub(crate) fn get_block(&self, at: usize) -> Option<&Block> {
        self.blocks.get(at).map(|block| &**block)
    }

    /// The block at `at`, counted from the first.
    ///
    /// # Panics
    /// Where there is no such block.
    pub(crate) fn block(&self, at: usize) -> &Block {
        &self.blocks[at]
    }
}

#[cfg(test)]
mod tests;
