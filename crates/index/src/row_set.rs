//! Sets of rows, as bitmaps or as bits: what a filter passes.
//!
//! Rows of words are bitmaps, which are small where rows are few. Rows of numbers are bits, unless they are very few, and so is what is
//! compared with queries: one is made of the other where it is asked for, and once.

use std::sync::OnceLock;

use roaring::RoaringBitmap;

use crate::bits::Bits;

/// Rows, as a bitmap, as bits, or both.
#[derive(Default)]
pub(crate) struct RowSet {
    rows: u64,
    bitmap: OnceLock<RoaringBitmap>,
    bits: OnceLock<Bits>,
}

/// Where fewer than one row of so many is there, they are looked up one by one in what is bits.
const FEW_ONE_IN: u64 = 64;

impl RowSet {
    /// The `rows` rows of some bits.
    pub(crate) fn of_bits(bits: Bits, rows: u64) -> Self {
        debug_assert_eq!(bits.len(), rows);
        Self { rows, bitmap: OnceLock::new(), bits: bits.into() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.rows
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether `row` is one of them.
    pub(crate) fn has(&self, row: u32) -> bool {
        self.bits.get().map_or_else(|| self.bitmap().contains(row), |bits| bits.has(row))
    }

    /// As bits.
    pub(crate) fn bits(&self) -> &Bits {
        self.bits.get_or_init(|| Bits::of(self.bitmap()))
    }

    /// As a bitmap.
    pub(crate) fn bitmap(&self) -> &RoaringBitmap {
        self.bitmap.get_or_init(|| self.bits.get().map_or_else(RoaringBitmap::new, Bits::to_bitmap))
    }

    /// All of them, ascending.
    pub(crate) fn to_vec(&self) -> Vec<u32> {
        match self.bitmap.get() {
            Some(bitmap) => bitmap.iter().collect(),
            None => self.bits().iter().collect(),
        }
    }

    /// The rows before which so many are, for `places` that ascend.
    pub(crate) fn select(&self, mut places: impl Iterator<Item = u64>) -> Vec<u32> {
        match self.bitmap.get() {
            Some(bitmap) => std::iter::from_fn(|| bitmap.select(u32::try_from(places.next()?).ok()?)).collect(),
            None => self.bits().select(places),
        }
    }

    /// Those of `other` among them.
    pub(crate) fn and(&self, other: &Self) -> Self {
        if let (Some(a), Some(b)) = (self.bitmap.get(), other.bitmap.get()) {
            return (a & b).into();
        }
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        match few.bitmap.get().filter(|few| few.len() * FEW_ONE_IN < many.len()) {
            Some(few) => few.iter().filter(|row| many.has(*row)).collect::<RoaringBitmap>().into(),
            None => self.bits().and(other.bits()).into(),
        }
    }

    /// They and `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        if self.bitmap.get().is_some() && other.bitmap.get().is_some() {
            return (self.into_bitmap() | other.into_bitmap()).into();
        }
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        match few.bitmap.get().filter(|few| few.len() * FEW_ONE_IN < many.len()) {
            Some(few) => {
                let mut bits = many.into_bits();
                few.iter().for_each(|row| bits.set(row));
                bits.into()
            }
            None => few.bits().or(many.bits()).into(),
        }
    }

    /// They without `other`.
    pub(crate) fn and_not(&self, other: &Self) -> Self {
        if let (Some(a), Some(b)) = (self.bitmap.get(), other.bitmap.get()) {
            return (a - b).into();
        }
        match other.bitmap.get().filter(|few| few.len() * FEW_ONE_IN < self.len()) {
            Some(few) => {
                let mut bits = self.bits().clone();
                few.iter().for_each(|row| bits.unset(row));
                bits.into()
            }
            None => self.bits().and_not(other.bits()).into(),
        }
    }

    /// One more, where it is not there.
    pub(crate) fn insert(&mut self, row: u32) {
        self.change(|rows| rows.insert(row));
    }

    /// One fewer, where it is there.
    pub(crate) fn remove(&mut self, row: u32) {
        self.change(|rows| rows.remove(row));
    }

    fn change(&mut self, change: impl FnOnce(&mut RoaringBitmap) -> bool) {
        let mut bitmap = std::mem::take(self).into_bitmap();
        change(&mut bitmap);
        *self = bitmap.into();
    }

    fn into_bits(self) -> Bits {
        self.bits();
        self.bits.into_inner().unwrap_or_default()
    }

    fn into_bitmap(self) -> RoaringBitmap {
        self.bitmap();
        self.bitmap.into_inner().unwrap_or_default()
    }
}

impl From<RoaringBitmap> for RowSet {
    fn from(bitmap: RoaringBitmap) -> Self {
        Self { rows: bitmap.len(), bitmap: bitmap.into(), bits: OnceLock::new() }
    }
}

impl From<Bits> for RowSet {
    fn from(bits: Bits) -> Self {
        let rows = bits.len();
        Self::of_bits(bits, rows)
    }
}

/// A clone is there to be changed, mostly: it has no bits yet.
impl Clone for RowSet {
    fn clone(&self) -> Self {
        self.bitmap().clone().into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl RowSet {
        /// The same rows in the same form.
        fn same(&self) -> Self {
            Self { rows: self.rows, bitmap: self.bitmap.clone(), bits: self.bits.clone() }
        }
    }

    /// The same rows, as each there may be.
    fn forms(rows: &RoaringBitmap) -> [RowSet; 3] {
        let both = RowSet::from(rows.clone());
        both.bits();
        [rows.clone().into(), Bits::of(rows).into(), both]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn sets_in_every_form_are_combined_alike(
            sets in prop::array::uniform2(prop::collection::vec((0u32..300_000, 1u32..3_000), 0..6)),
            few in prop::collection::btree_set(0u32..300_000, 0..20),
            is_few in any::<bool>(),
        ) {
            let [a, b] = sets.map(|ranges| ranges.iter().flat_map(|(start, rows)| *start..start + rows).collect());
            let a: RoaringBitmap = if is_few { few.into_iter().collect() } else { a };
            let b: RoaringBitmap = b;
            for a_in in forms(&a) {
                for b_in in forms(&b) {
                    for (found, expected) in [
                        (a_in.and(&b_in), &a & &b),
                        (b_in.and(&a_in), &a & &b),
                        (a_in.same().or(b_in.same()), &a | &b),
                        (a_in.and_not(&b_in), &a - &b),
                        (b_in.and_not(&a_in), &b - &a),
                    ] {
                        prop_assert_eq!(found.len(), expected.len());
                        prop_assert_eq!(found.to_vec(), expected.iter().collect::<Vec<_>>());
                        prop_assert_eq!(found.bits().to_bitmap(), expected.clone());
                        prop_assert_eq!(found.bitmap(), &expected);
                        let places = || (0..5).map(|at| at * found.len() / 4);
                        let selected: Vec<u32> = places().filter_map(|place| expected.select(place as u32)).collect();
                        prop_assert_eq!(found.select(places()), selected);
                    }
                }
            }
        }
    }

    #[test]
    fn rows_that_change_have_other_bits() {
        let mut rows = RowSet::from(RoaringBitmap::from([3]));
        assert!(rows.bits().has(3) && !rows.bits().has(70_000));
        rows.insert(70_000);
        assert!(rows.bits().has(3) && rows.bits().has(70_000));
        assert_eq!(rows.bits().words(1_092), [0, 1 << (70_000 % 64), 0, 0]);
        rows.remove(3);
        rows.remove(5);
        assert!(!rows.bits().has(3) && rows.len() == 1);
        assert_eq!(RowSet::default().bits().words(0), [0; 4]);
    }
}
