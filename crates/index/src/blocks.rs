//! What is kept of every row beside its embedding, in blocks that clones share until one of them changes.

use std::sync::Arc;

/// Rows of a block; the last one may have fewer.
const BLOCK_ROWS: usize = 256;

/// A value for each row. A clone shares every block and costs one pointer each.
#[derive(Clone, Default)]
pub(crate) struct Blocks<T> {
    rows: usize,
    blocks: Vec<Arc<Vec<T>>>,
}

impl<T> Blocks<T> {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }
}

impl<T: Clone> Blocks<T> {
    /// The value of `row`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub(crate) fn get(&self, row: u32) -> &T {
        let row = row as usize;
        &self.blocks[row / BLOCK_ROWS][row % BLOCK_ROWS]
    }

    /// Replaces the value of `row`, or adds it where it is the first that is not there.
    ///
    /// # Panics
    /// Where it is a later one.
    pub(crate) fn set(&mut self, row: u32, value: T) {
        let row = row as usize;
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        match self.blocks.get_mut(row / BLOCK_ROWS) {
            Some(block) => {
                let block = Arc::make_mut(block);
                match block.get_mut(row % BLOCK_ROWS) {
                    Some(old) => *old = value,
                    None => block.push(value),
                }
            }
            None => self.blocks.push(Arc::new(vec![value])),
        }
        self.rows = self.rows.max(row + 1);
    }
}

impl<T> FromIterator<T> for Blocks<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut values = values.into_iter();
        let (mut rows, mut blocks) = (0, Vec::new());
        loop {
            let block: Vec<T> = values.by_ref().take(BLOCK_ROWS).collect();
            if block.is_empty() {
                return Self { rows, blocks };
            }
            rows += block.len();
            blocks.push(Arc::new(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_had() {
        let mut blocks: Blocks<u32> = (0..600).collect();
        let before = blocks.clone();
        blocks.set(300, 7);
        blocks.set(600, 8);
        assert_eq!((0..600).map(|row| *before.get(row)).collect::<Vec<_>>(), (0..600).collect::<Vec<_>>());
        assert_eq!((*blocks.get(299), *blocks.get(300), *blocks.get(600)), (299, 7, 8));
        let shared = |at: usize| Arc::ptr_eq(&before.blocks[at], &blocks.blocks[at]);
        assert_eq!((shared(0), shared(1), shared(2)), (true, false, false));
        let mut grown: Blocks<u32> = std::iter::empty().collect();
        (0..513).for_each(|row| grown.set(row, row));
        assert_eq!((*grown.get(0), *grown.get(512), grown.blocks.len()), (0, 512, 3));
    }
}
