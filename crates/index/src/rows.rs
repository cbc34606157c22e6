//! The ads of one shard with their embeddings, checked.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use turret_retrieval::hashing::stable_hash;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::{Ad, Attribute, AttributeKind, Attributes};
use turret_retrieval::vector::{UnitVector, VectorError};

use crate::cells::divide;
use crate::vectors::Vectors;

/// The most ads in one shard.
pub const ADS_MAX: usize = 1 << 30;
/// The longest embedding, as in the manifest of a generation.
pub const DIMENSION_MAX: usize = 4_096;

/// How far the length of an embedding may be from 1: room for `f32` rounding, not for vectors of another kind.
const LENGTH_TOLERANCE: f64 = 1e-3;

/// Of the order of cells.
const ORDER_SEED: u64 = 12;

/// One ad with its embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardAd {
    /// The ad.
    pub ad: Ad,
    /// Where it lies in the space of the generation.
    pub embedding: UnitVector,
}

/// Rows `0..count`.
pub(crate) fn first_rows(count: u32) -> RoaringBitmap {
    let mut rows = RoaringBitmap::new();
    rows.insert_range(0..count);
    // Runs would stay, and most work on runs is slow.
    rows.remove_run_compression();
    rows
}

/// The ads of one shard, in ascending order of their ids or by where they lie; a position in this order is a *row*.
///
/// Ids are unique, every embedding has length 1, and one attribute name has one kind in all ads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ShardRows {
    pub(crate) dimension: usize,
    pub(crate) vectors: Vec<f32>,
    pub(crate) ads: Vec<Ad>,
    pub(crate) kinds: BTreeMap<Box<str>, AttributeKind>,
    /// The rows of each cell, where rows are in the order of cells.
    pub(crate) cells: Option<Vec<Vec<u32>>>,
}

/// Why a vector is not a unit vector of the index's dimension.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// It has the wrong dimension, or is no direction at all.
    #[error(transparent)]
    Vector(#[from] VectorError),
    /// It is longer or shorter than 1.
    #[error("length {length} is not 1")]
    Length {
        /// Its Euclidean length.
        length: f64,
    },
}

/// Why ads cannot make up a shard.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RowsError {
    /// No index has this dimension.
    #[error("dimension {found} is not in 1..={DIMENSION_MAX}")]
    Dimension {
        /// What was asked for.
        found: usize,
    },
    /// More than [`ADS_MAX`].
    #[error("{found} ads, the limit is {ADS_MAX}")]
    TooMany {
        /// How many there were.
        found: usize,
    },
    /// Two ads have one id.
    #[error("ad {ad} is there twice")]
    Duplicate {
        /// Which.
        ad: Box<str>,
    },
    /// An embedding that cannot be compared.
    #[error("embedding of ad {ad}: {source}")]
    Embedding {
        /// Whose.
        ad: Box<str>,
        /// The rule it broke.
        source: UnitError,
    },
    /// An attribute that is a word in one ad and a number in another.
    #[error("attribute {attribute} of ad {ad} is of kind {found:?}, in an earlier ad it is of kind {expected:?}")]
    Kind {
        /// Whose.
        ad: Box<str>,
        /// Which.
        attribute: Box<str>,
        /// Its kind in the ads before.
        expected: AttributeKind,
        /// Its kind in this one.
        found: AttributeKind,
    },
    /// A number attribute that is NaN or infinite.
    #[error("attribute {attribute} of ad {ad} is not finite")]
    NotFinite {
        /// Whose.
        ad: Box<str>,
        /// Which.
        attribute: Box<str>,
    },
}

impl ShardRows {
    /// The same rows in another order: those of a cell follow each other, and cells follow in no order, so that a scan that is broken off
    /// has seen a fair part of them.
    pub(crate) fn arranged(self, threads: usize) -> Self {
        let Self { dimension, vectors, ads, kinds, .. } = self;
        let mut cells = divide(&Vectors::from_rows(dimension, &vectors), &first_rows(ads.len() as u32), threads);
        cells.sort_by_cached_key(|rows| stable_hash(ORDER_SEED, &rows[0].to_le_bytes()));
        let mut moved: Vec<Option<Ad>> = ads.into_iter().map(Some).collect();
        let (mut ads, mut arranged) = (Vec::with_capacity(moved.len()), Vec::with_capacity(vectors.len()));
        let rows = cells.iter_mut().flatten();
        for (arranged_row, row) in (0..).zip(rows) {
            let before = std::mem::replace(row, arranged_row) as usize;
            ads.extend(moved[before].take());
            arranged.extend_from_slice(&vectors[before * dimension..][..dimension]);
        }
        Self { dimension, vectors: arranged, ads, kinds, cells: Some(cells) }
    }

    /// Checks and sorts `ads`.
    ///
    /// # Errors
    /// The first ad that breaks a rule, in the order of their ids.
    pub(crate) fn new(dimension: usize, mut ads: Vec<ShardAd>) -> Result<Self, RowsError> {
        ads.sort_unstable_by(|a, b| a.ad.id.cmp(&b.ad.id));
        let kinds = check(dimension, ads.iter().map(|row| (&row.ad, row.embedding.as_slice())))?;
        let mut vectors = Vec::with_capacity(ads.len() * dimension);
        for row in &ads {
            vectors.extend_from_slice(row.embedding.as_slice());
        }
        Ok(Self { dimension, vectors, ads: ads.into_iter().map(|row| row.ad).collect(), kinds, cells: None })
    }
}

/// Checks rows in the order of their ids, and gathers the kind of every attribute.
fn check<'a>(
    dimension: usize,
    rows: impl ExactSizeIterator<Item = (&'a Ad, &'a [f32])>,
) -> Result<BTreeMap<Box<str>, AttributeKind>, RowsError> {
    check_dimension(dimension)?;
    if rows.len() > ADS_MAX {
        return Err(RowsError::TooMany { found: rows.len() });
    }
    let mut kinds = BTreeMap::new();
    let mut before: Option<&Ad> = None;
    for (ad, embedding) in rows {
        if before.is_some_and(|before| before.id == ad.id) {
            return Err(RowsError::Duplicate { ad: ad.id.as_str().into() });
        }
        before = Some(ad);
        check_unit(embedding, dimension)
            .map_err(|source| RowsError::Embedding { ad: ad.id.as_str().into(), source })?;
        check_attributes(&ad.id, &ad.attributes, &mut kinds)?;
    }
    Ok(kinds)
}

fn check_dimension(dimension: usize) -> Result<(), RowsError> {
    if (1..=DIMENSION_MAX).contains(&dimension) { Ok(()) } else { Err(RowsError::Dimension { found: dimension }) }
}

pub(crate) fn check_attributes(
    ad: &AdId,
    attributes: &Attributes,
    kinds: &mut BTreeMap<Box<str>, AttributeKind>,
) -> Result<(), RowsError> {
    for (name, value) in attributes {
        let found = value.kind();
        let expected = kinds.get(name).copied();
        if expected.is_none() {
            kinds.insert(name.clone(), found);
        }
        if let Some(expected) = expected
            && expected != found
        {
            return Err(RowsError::Kind { ad: ad.as_str().into(), attribute: name.clone(), expected, found });
        }
        if let Attribute::Number(number) = value
            && !number.is_finite()
        {
            return Err(RowsError::NotFinite { ad: ad.as_str().into(), attribute: name.clone() });
        }
    }
    Ok(())
}

/// Checks that `components` are `dimension` finite numbers of Euclidean length 1.
pub(crate) fn check_unit(components: &[f32], dimension: usize) -> Result<(), UnitError> {
    if components.len() != dimension {
        return Err(VectorError::Dimension { expected: dimension, found: components.len() }.into());
    }
    if let Some(position) = components.iter().position(|x| !x.is_finite()) {
        return Err(VectorError::NotFinite { position }.into());
    }
    let length = components.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length == 0.0 {
        return Err(VectorError::Zero.into());
    }
    if (length - 1.0).abs() > LENGTH_TOLERANCE {
        return Err(UnitError::Length { length });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
