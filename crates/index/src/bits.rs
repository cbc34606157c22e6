//! Rows as bits: what a search that compares rows asks of a bitmap, again and again.
//!
//! A roaring bitmap tells its rows one by one, which takes longer than comparing them.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

const WORD_BITS: usize = u64::BITS as usize;
/// Rows of a container, and the words that they take.
const CONTAINER_BITS: usize = 1 << 16;
const CONTAINER_WORDS: usize = CONTAINER_BITS / WORD_BITS;

/// Words whose rows are counted together on the way to one of them.
const COUNTED_TOGETHER: usize = 64;

/// A bit for each row, up to the last one that is there.
#[derive(Clone, Default)]
pub(crate) struct Bits {
    /// Of whole containers.
    words: Vec<u64>,
}

impl Bits {
    /// None is set; there is room for `rows`.
    pub(crate) fn none(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(CONTAINER_BITS) * CONTAINER_WORDS] }
    }

    /// Of the rows of a bitmap.
    ///
    /// Whole containers are to be had in one way only: as bytes of the [format](https://github.com/RoaringBitmap/RoaringFormatSpec) that
    /// all implementations share.
    pub(crate) fn of(rows: &RoaringBitmap) -> Self {
        let Self { mut words } = Self::none(rows.max().map_or(0, |last| last as usize + 1));
        let mut bytes = Vec::with_capacity(rows.serialized_size());
        let is_read = rows.serialize_into(&mut bytes).is_ok() && Serialised { bytes: &bytes }.set(&mut words).is_some();
        debug_assert!(is_read, "the format is as it is specified");
        if !is_read {
            words.fill(0);
            rows.iter().for_each(|row| words[row as usize / WORD_BITS] |= 1 << (row as usize % WORD_BITS));
        }
        Self { words }
    }

    /// Whether `row` is there.
    pub(crate) fn has(&self, row: u32) -> bool {
        let row = row as usize;
        self.word(row / WORD_BITS) >> (row % WORD_BITS) & 1 == 1
    }

    /// Has `row`.
    pub(crate) fn set(&mut self, row: u32) {
        let (at, bit) = (row as usize / WORD_BITS, 1 << (row as usize % WORD_BITS));
        match self.words.get_mut(at) {
            Some(word) => *word |= bit,
            None => {
                self.words.resize((at / CONTAINER_WORDS + 1) * CONTAINER_WORDS, 0);
                self.words[at] |= bit;
            }
        }
    }

    /// No longer has `row`.
    pub(crate) fn unset(&mut self, row: u32) {
        if let Some(word) = self.words.get_mut(row as usize / WORD_BITS) {
            *word &= !(1 << (row as usize % WORD_BITS));
        }
    }

    /// `N` words from the `at`-th on, a multiple of `N`, of 64 rows each; nothing is there beyond the last.
    pub(crate) fn words<const N: usize>(&self, at: usize) -> [u64; N] {
        const { assert!(CONTAINER_WORDS.is_multiple_of(N)) }
        debug_assert!(at.is_multiple_of(N));
        self.words.get(at..).and_then(<[u64]>::first_chunk).copied().unwrap_or([0; N])
    }

    /// The word of the 64 rows from `64 * at` on.
    pub(crate) fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }

    /// The rows of both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self { words: self.words.iter().zip(&other.words).map(|(a, b)| a & b).collect() }
    }

    /// The rows of either.
    pub(crate) fn or(&self, other: &Self) -> Self {
        let (short, long) = if self.words.len() <= other.words.len() { (self, other) } else { (other, self) };
        let mut words = long.words.clone();
        words.iter_mut().zip(&short.words).for_each(|(word, other)| *word |= other);
        Self { words }
    }

    /// The rows that `other` does not have.
    pub(crate) fn and_not(&self, other: &Self) -> Self {
        let mut words = self.words.clone();
        words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
        Self { words }
    }

    /// The memory that bits of `rows` take.
    pub(crate) fn bytes_of(rows: usize) -> usize {
        rows.div_ceil(CONTAINER_BITS) * CONTAINER_BITS / 8
    }

    /// The memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// How many rows are there.
    pub(crate) fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Every row, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let words = self.words.iter().zip((0..).step_by(WORD_BITS)).filter(|(word, _)| **word != 0);
        words.flat_map(|(word, first)| ones(*word).map(move |at| first + at))
    }

    /// The rows before which so many are, for `places` that ascend; of those beyond the last, none.
    pub(crate) fn select(&self, places: impl Iterator<Item = u64>) -> Vec<u32> {
        let mut places = places.peekable();
        let count = |words: &[u64]| words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        let (mut rows, mut before) = (Vec::new(), 0);
        for (words, first) in self.words.chunks(COUNTED_TOGETHER).zip((0..).step_by(COUNTED_TOGETHER)) {
            let until = before + count(words);
            while let Some(place) = places.next_if(|place| *place < until) {
                let (mut at, mut left) = (0, place - before);
                while let Some(more) = left.checked_sub(count(&words[at..=at])) {
                    (at, left) = (at + 1, more);
                }
                let word = (0..left).fold(words[at], |word, _| word & (word - 1));
                rows.push(((first + at) * WORD_BITS) as u32 + word.trailing_zeros());
            }
            before = until;
        }
        rows
    }

    /// As a bitmap.
    pub(crate) fn to_bitmap(&self) -> RoaringBitmap {
        self.words.chunks(CONTAINER_WORDS).zip((0..).step_by(CONTAINER_BITS)).fold(
            RoaringBitmap::new(),
            |mut rows, (words, first)| {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                rows |= RoaringBitmap::from_lsb0_bytes(first, &bytes);
                rows
            },
        )
    }

    /// How many rows of `range` are there.
    pub(crate) fn count(&self, range: RangeInclusive<u32>) -> u64 {
        words_of(range).map(|(at, word)| u64::from((self.word(at) & word).count_ones())).sum()
    }
}

/// The places of the bits of a word that are set, ascending.
pub(crate) fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let at = (word != 0).then_some(word.trailing_zeros())?;
        word &= word - 1;
        Some(at)
    })
}

/// The words that have rows of `range`, ascending, each with those bits set.
pub(crate) fn words_of(range: RangeInclusive<u32>) -> impl Iterator<Item = (usize, u64)> {
    let (first, last) = (*range.start() as usize, *range.end() as usize);
    (first / WORD_BITS..=last / WORD_BITS).map(move |at| {
        let start = at * WORD_BITS;
        let (from, to) = (first.saturating_sub(start), (last - start).min(WORD_BITS - 1));
        (at, u64::MAX << from & u64::MAX >> (WORD_BITS - 1 - to))
    })
}

/// What is left of a bitmap in its format.
struct Serialised<'a> {
    bytes: &'a [u8],
}

/// The first number, of a bitmap without runs and of one with some.
const WITHOUT_RUNS: u32 = 12_346;
const WITH_RUNS: u32 = 12_347;
/// With runs and fewer containers than this, it does not say where these begin.
const OFFSETS_FROM: usize = 4;
/// A container of more rows than this is bits.
const ARRAY_ROWS_MAX: usize = 4_096;

impl<'a> Serialised<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let taken;
        (taken, self.bytes) = self.bytes.split_at_checked(bytes)?;
        Some(taken)
    }

    fn pairs(&mut self, count: usize) -> Option<&'a [[u8; 2]]> {
        self.take(count * 2).map(|bytes| bytes.as_chunks().0)
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// Sets the bit of each row; absent where it ends too early or too late.
    fn set(mut self, words: &mut [u64]) -> Option<()> {
        let cookie = self.number()?;
        let (count, runs) = if cookie & 0xffff == WITH_RUNS {
            let count = (cookie >> 16) as usize + 1;
            (count, self.take(count.div_ceil(8))?)
        } else {
            debug_assert_eq!(cookie, WITHOUT_RUNS);
            (self.number()? as usize, [].as_slice())
        };
        let heads = self.pairs(count * 2)?;
        if runs.is_empty() || count >= OFFSETS_FROM {
            self.take(count * 4)?;
        }
        for (at, head) in heads.as_chunks().0.iter().enumerate() {
            let [key, others] = head.map(|bytes| usize::from(u16::from_le_bytes(bytes)));
            let words = words.get_mut(key * CONTAINER_WORDS..)?.first_chunk_mut::<CONTAINER_WORDS>()?;
            if runs.get(at / 8).is_some_and(|runs| runs >> (at % 8) & 1 == 1) {
                let runs = usize::from(u16::from_le_bytes(*self.pairs(1)?.first()?));
                for run in self.pairs(runs * 2)?.as_chunks().0 {
                    let [first, others] = run.map(|bytes| u32::from(u16::from_le_bytes(bytes)));
                    words_of(first..=first + others).for_each(|(at, word)| words[at] |= word);
                }
            } else if others < ARRAY_ROWS_MAX {
                // Rows of one word follow each other: it is written once, for whoever reads what was just written waits.
                let (mut at, mut word) = (0, 0);
                for row in self.pairs(others + 1)? {
                    let row = usize::from(u16::from_le_bytes(*row));
                    if row / WORD_BITS != at {
                        words[at] = word;
                        (at, word) = (row / WORD_BITS, 0);
                    }
                    word |= 1 << (row % WORD_BITS);
                }
                words[at] = word;
            } else {
                let bits = self.take(CONTAINER_BITS / 8)?.as_chunks().0;
                words.iter_mut().zip(bits).for_each(|(word, bits)| *word = u64::from_le_bytes(*bits));
            }
        }
        self.bytes.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn bits_are_those_of_the_bitmap(
            ranges in prop::collection::vec((0u32..400_000, 1u32..400), 0..30),
            whole in prop::option::of(0u32..3),
            one_in in prop_oneof![Just(2u32), Just(15), Just(17), Just(1_000)],
            holes in prop::collection::vec(0u32..200_000, 0..20),
            is_in_runs in any::<bool>(),
            (start, rows) in (0u32..500_000, 0u32..200_000),
        ) {
            let mut bitmap = RoaringBitmap::new();
            bitmap.extend(ranges.iter().flat_map(|(start, rows)| *start..start + rows));
            // Arrays and bits, as one row of 16 is where a container becomes the other.
            bitmap.extend((0..70_000 / one_in).map(|row| 131_072 + row * one_in));
            // Whole containers, as a run each.
            if let Some(containers) = whole {
                bitmap.insert_range(0..containers << 16);
            }
            bitmap -= holes.iter().collect::<RoaringBitmap>();
            if is_in_runs { bitmap.optimize() } else { bitmap.remove_run_compression() };
            let bits = Bits::of(&bitmap);
            let has: Vec<u32> = (0..500_000).filter(|row| bits.has(*row)).collect();
            prop_assert_eq!(has, bitmap.iter().collect::<Vec<_>>());
            let words = (0..2_000).flat_map(|at| bits.words::<4>(at * 4));
            prop_assert_eq!(words.map(|word| u64::from(word.count_ones())).sum::<u64>(), bitmap.len());
            let range = start..=start + rows;
            prop_assert_eq!(bits.count(range.clone()), bitmap.range_cardinality(range));
            prop_assert_eq!(bits.len(), bitmap.len());
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), bitmap.iter().collect::<Vec<_>>());
            prop_assert_eq!(&bits.to_bitmap(), &bitmap);
            let places = || (0..10).map(|at| at * bitmap.len() / 9);
            let selected: Vec<u32> = places().filter_map(|place| bitmap.select(place as u32)).collect();
            prop_assert_eq!(bits.select(places()), selected);
        }
    }

    #[test]
    fn containers_of_every_kind_are_read() {
        // As many rows as an array has at most, and one more; all but one, and all.
        for rows in [1, 4_095, 4_096, 4_097, 65_535, 65_536] {
            for containers in 1..=6 {
                for is_in_runs in [false, true] {
                    let mut bitmap = RoaringBitmap::new();
                    // Every other one as far as there is room, and some that are not there between containers.
                    let step = if rows <= 32_768 { 2 } else { 1 };
                    (0..containers).for_each(|at| bitmap.extend((0..rows).map(|row| ((at * 2) << 16) + row * step)));
                    // So that there are runs at all.
                    bitmap.insert_range(20 << 16..(20 << 16) + 1_000);
                    if is_in_runs {
                        bitmap.optimize()
                    } else {
                        bitmap.remove_run_compression()
                    };
                    let bits = Bits::of(&bitmap);
                    let case = format!("{rows} rows, {containers} containers, runs {is_in_runs}");
                    assert!(bitmap.iter().all(|row| bits.has(row)), "{case}");
                    assert_eq!(bits.count(0..=22 << 16), bitmap.len(), "{case}");
                }
            }
        }
    }
}
