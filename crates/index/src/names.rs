//! The ids and advertisers of ads, by row, in blocks that clones share until one of them changes.
//!
//! The names of a block stand in one piece. As two strings each, they would be two more lines to wait for in an answer, and leave holes in
//! memory as ads come and go.

use std::hint::black_box;
use std::sync::Arc;

/// Rows of a block; the last one may have fewer.
const BLOCK_ROWS: usize = 256;
/// A block that grows gets room for so much of its length: the next names are as long, about.
const ROOM_ONE_IN: usize = 8;

/// What an ad is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    pub(crate) id: &'a str,
    /// Who pays for it; a word is never empty.
    pub(crate) advertiser: Option<&'a str>,
}

/// A name for each row. A clone shares every block and costs one pointer each.
#[derive(Clone, Default)]
pub(crate) struct Names {
    rows: usize,
    blocks: Vec<Arc<Block>>,
}

#[derive(Clone, Default)]
struct Block {
    /// Where the id of each row ends in `text`, and where its advertiser does, which follows.
    ends: Vec<[u32; 2]>,
    text: String,
}

impl Names {
    /// The name of `row`.
    ///
    /// # Panics
    /// Where there is no such row.
    pub(crate) fn get(&self, row: u32) -> Name<'_> {
        let row = row as usize;
        self.blocks[row / BLOCK_ROWS].get(row % BLOCK_ROWS)
    }

    /// Replaces the name of `row`, or adds it where it is the first that is not there.
    ///
    /// # Panics
    /// Where it is a later one.
    pub(crate) fn set(&mut self, row: u32, name: Name<'_>) {
        let row = row as usize;
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        if row / BLOCK_ROWS == self.blocks.len() {
            self.blocks.push(Arc::default());
        }
        Arc::make_mut(&mut self.blocks[row / BLOCK_ROWS]).set(row % BLOCK_ROWS, name);
        self.rows = self.rows.max(row + 1);
    }

    /// Brings the names of rows near: all are waited for at once, and not one after the other.
    pub(crate) fn fetch(&self, rows: impl Iterator<Item = u32> + Clone) {
        let of = |row: u32| (&*self.blocks[row as usize / BLOCK_ROWS], row as usize % BLOCK_ROWS);
        black_box(rows.clone().map(of).fold(0u32, |sum, (block, at)| sum.wrapping_add(block.ends[at][0])));
        let first = |(block, at): (&Block, usize)| block.get(at).id.as_bytes().first().copied().unwrap_or_default();
        black_box(rows.map(of).fold(0u8, |sum, row| sum.wrapping_add(first(row))));
    }

    /// The memory of all blocks, those that clones share too.
    pub(crate) fn bytes(&self) -> usize {
        let block = |block: &Arc<Block>| {
            size_of::<Block>() + block.text.capacity() + block.ends.capacity() * size_of::<[u32; 2]>()
        };
        self.blocks.iter().map(block).sum()
    }
}

impl Block {
    fn start(&self, at: usize) -> u32 {
        at.checked_sub(1).map_or(0, |before| self.ends[before][1])
    }

    fn get(&self, at: usize) -> Name<'_> {
        let (start, [id_end, end]) = (self.start(at) as usize, self.ends[at].map(|end| end as usize));
        let advertiser = Some(&self.text[id_end..end]).filter(|advertiser| !advertiser.is_empty());
        Name { id: &self.text[start..id_end], advertiser }
    }

    fn set(&mut self, at: usize, Name { id, advertiser }: Name<'_>) {
        let (start, advertiser) = (self.start(at), advertiser.unwrap_or_default());
        if at == self.ends.len() {
            self.ends.push([start; 2]);
        }
        let before = self.ends[at][1];
        let id_end = start + id.len() as u32;
        let end = id_end + advertiser.len() as u32;
        let more = end.saturating_sub(before) as usize;
        if self.text.len() + more > self.text.capacity() {
            self.text.reserve_exact(more.max(self.text.len() / ROOM_ONE_IN));
        }
        self.text.replace_range(start as usize..before as usize, id);
        self.text.insert_str(id_end as usize, advertiser);
        self.ends[at] = [id_end, end];
        self.ends[at + 1..].as_flattened_mut().iter_mut().for_each(|later| *later = *later - before + end);
    }
}

impl<'a> FromIterator<Name<'a>> for Names {
    fn from_iter<I: IntoIterator<Item = Name<'a>>>(names: I) -> Self {
        let mut all = Self::default();
        (0..).zip(names).for_each(|(row, name)| all.set(row, name));
        all.blocks.iter_mut().map(Arc::make_mut).for_each(|block| {
            block.ends.shrink_to_fit();
            block.text.shrink_to_fit();
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clone_keeps_what_it_had() {
        let texts: Vec<String> = (0..600).map(|row| format!("ad{row}")).collect();
        let mut names: Names = texts.iter().map(|id| Name { id, advertiser: Some("a") }).collect();
        let before = names.clone();
        names.set(300, Name { id: "other", advertiser: None });
        let id = |names: &Names, row| names.get(row).id.to_owned();
        assert_eq!((0..600).map(|row| id(&before, row)).collect::<Vec<_>>(), texts);
        assert_eq!(
            (id(&names, 299), id(&names, 300), id(&names, 301)),
            ("ad299".into(), "other".into(), "ad301".into())
        );
        let shared = |at: usize| Arc::ptr_eq(&before.blocks[at], &names.blocks[at]);
        assert_eq!((shared(0), shared(1), shared(2)), (true, false, true));
    }

    proptest! {
        #[test]
        fn each_row_has_the_name_that_it_was_given_last(
            rows in 1usize..600,
            changes in proptest::collection::vec((0u32..600, "[a-zé]{1,9}", proptest::option::of("[a-zé]{1,5}")), 0..60),
        ) {
            let mut expected: Vec<(String, Option<String>)> = (0..rows).map(|row| (format!("ad{row}"), None)).collect();
            let mut names: Names =
                expected.iter().map(|(id, advertiser)| Name { id, advertiser: advertiser.as_deref() }).collect();
            for (row, id, advertiser) in changes {
                let row = row as usize % (expected.len() + 1);
                names.set(row as u32, Name { id: &id, advertiser: advertiser.as_deref() });
                if row == expected.len() {
                    expected.push((id, advertiser));
                } else {
                    expected[row] = (id, advertiser);
                }
            }
            prop_assert_eq!(names.rows, expected.len());
            for (row, (id, advertiser)) in (0..).zip(&expected) {
                prop_assert_eq!(names.get(row), Name { id, advertiser: advertiser.as_deref() });
            }
        }
    }
}
