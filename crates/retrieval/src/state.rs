//! The encoder's output for one user, as it is kept and sent.

use std::fmt;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The most bytes of one state: some of them, the reply to one encode job, fit into a message.
pub const STATE_BYTES_MAX: usize = 60 << 10;
/// The longest row.
pub const STATE_DIMENSION_MAX: usize = 4_096;

/// How exactly the values of a state are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As computed: 4 bytes a value.
    F32,
    /// Half precision: 2 bytes a value, relative error at most 2^-11; values beyond 65,504 are refused.
    F16,
    /// A byte a value, and a scale of 4 bytes for each row: error at most 1/254 of the row's largest value.
    Int8,
}

impl Precision {
    /// Every precision, the most exact first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The bytes of one row of `dimension` values.
    pub fn row_bytes(self, dimension: usize) -> usize {
        match self {
            Self::F32 => 4 * dimension,
            Self::F16 => 2 * dimension,
            Self::Int8 => SCALE_BYTES + dimension,
        }
    }

    /// The name in files and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// The precision called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }

    /// Checks that states of `rows` rows can be kept.
    ///
    /// # Errors
    /// With the figures, where such a state is larger than [`STATE_BYTES_MAX`].
    pub fn check_fits(self, rows: usize, dimension: usize) -> Result<(), StateError> {
        let bytes = rows.saturating_mul(self.row_bytes(dimension));
        if bytes <= STATE_BYTES_MAX {
            return Ok(());
        }
        Err(StateError::TooLarge { rows, dimension, precision: self, bytes })
    }
}

/// The scale before the values of a row of [`Precision::Int8`].
const SCALE_BYTES: usize = size_of::<f32>();

/// The encoder's output for one user: `[rows, dimension]`, row-major, at least one row.
///
/// One row where only the last state counts; with cross-attention a row for each encoded event, oldest first. Rows lie
/// one after the other, little-endian; those of [`Precision::Int8`] begin with their scale. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Parts")]
pub struct SequenceState {
    dimension: u32,
    precision: Precision,
    bytes: Arc<[u8]>,
}

/// Why values, or bytes, are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// No rows are so long.
    #[error("dimension {found} is not in 1..={STATE_DIMENSION_MAX}")]
    Dimension {
        /// What was given.
        found: usize,
    },
    /// Not whole rows, or none.
    #[error("{found} {unit} are not one or more rows of {row}")]
    Rows {
        /// How many there are.
        found: usize,
        /// Of what.
        unit: &'static str,
        /// How many a row has.
        row: usize,
    },
    /// More than is kept of a user.
    #[error("{rows} rows of {dimension} values at {} are {bytes} bytes, the limit is {STATE_BYTES_MAX}", precision.name())]
    TooLarge {
        /// Its rows.
        rows: usize,
        /// The values of each.
        dimension: usize,
        /// How they would be kept.
        precision: Precision,
        /// What that takes.
        bytes: usize,
    },
    /// A value is NaN, infinite, or beyond the precision.
    #[error("value {position} is not finite at {}", precision.name())]
    NotFinite {
        /// Which one, from 0.
        position: usize,
        /// How it would be kept.
        precision: Precision,
    },
}

impl SequenceState {
    /// Keeps `values`, `[rows, dimension]`, row-major, at `precision`.
    ///
    /// # Errors
    /// When they are not whole rows, too many, or not finite.
    pub fn new(values: &[f32], dimension: usize, precision: Precision) -> Result<Self, StateError> {
        check_rows(values.len(), "values", dimension, dimension)?;
        precision.check_fits(values.len() / dimension, dimension)?;
        let mut bytes = Vec::with_capacity(values.len() / dimension * precision.row_bytes(dimension));
        let refused = match precision {
            Precision::F32 => {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                values.iter().position(|value| !value.is_finite())
            }
            Precision::F16 => {
                let halves = || values.iter().map(|value| f16::from_f32(*value));
                bytes.extend(halves().flat_map(f16::to_le_bytes));
                halves().position(|half| !half.is_finite())
            }
            Precision::Int8 => {
                values.chunks_exact(dimension).for_each(|row| push_quantized(row, &mut bytes));
                values.iter().position(|value| !value.is_finite())
            }
        };
        match refused {
            Some(position) => Err(StateError::NotFinite { position, precision }),
            None => Ok(Self { dimension: dimension as u32, precision, bytes: bytes.into() }),
        }
    }

    /// The state that `bytes` hold. Whether its values are finite is left to who computes with them.
    ///
    /// # Errors
    /// When they are not whole rows, or too many.
    pub fn from_bytes(bytes: Arc<[u8]>, dimension: usize, precision: Precision) -> Result<Self, StateError> {
        check_rows(bytes.len(), "bytes", precision.row_bytes(dimension), dimension)?;
        precision.check_fits(bytes.len() / precision.row_bytes(dimension), dimension)?;
        Ok(Self { dimension: dimension as u32, precision, bytes })
    }

    /// The values of a row.
    pub fn dimension(&self) -> usize {
        self.dimension as usize
    }

    /// How many rows there are, 1 or more.
    pub fn rows(&self) -> usize {
        self.bytes.len() / self.precision.row_bytes(self.dimension())
    }

    /// How its values are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What is kept.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its values, `[rows, dimension]`, row-major.
    pub fn values(&self) -> Vec<f32> {
        match self.precision {
            Precision::F32 => self.bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            Precision::F16 => {
                let halves: Vec<f16> = self.bytes.as_chunks().0.iter().map(|half| f16::from_le_bytes(*half)).collect();
                halves.to_f32_vec()
            }
            Precision::Int8 => {
                let mut values = Vec::with_capacity(self.rows() * self.dimension());
                for row in self.bytes.chunks_exact(self.precision.row_bytes(self.dimension())) {
                    let (scale, row) = row.split_first_chunk().expect("a row begins with its scale");
                    let scale = f32::from_le_bytes(*scale);
                    values.extend(row.iter().map(|value| f32::from(value.cast_signed()) * scale));
                }
                values
            }
        }
    }
}

/// Appends the scale of `row` and its values in steps of it, -127..=127.
fn push_quantized(row: &[f32], bytes: &mut Vec<u8>) {
    let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    bytes.extend(scale.to_le_bytes());
    // A row of zeros has no step; NaN, what it would come to, is 0 as a byte.
    bytes.extend(row.iter().map(|value| ((value / scale).round() as i8).cast_unsigned()));
}

fn check_rows(found: usize, unit: &'static str, row: usize, dimension: usize) -> Result<(), StateError> {
    if !(1..=STATE_DIMENSION_MAX).contains(&dimension) {
        return Err(StateError::Dimension { found: dimension });
    }
    if found == 0 || !found.is_multiple_of(row) {
        return Err(StateError::Rows { found, unit, row });
    }
    Ok(())
}

impl fmt::Debug for SequenceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequenceState([{}, {}] {})", self.rows(), self.dimension, self.precision.name())
    }
}

/// A state while it is read.
#[derive(Deserialize)]
struct Parts {
    dimension: u32,
    precision: Precision,
    #[serde(deserialize_with = "read_bytes")]
    bytes: Arc<[u8]>,
}

impl TryFrom<Parts> for SequenceState {
    type Error = StateError;

    fn try_from(parts: Parts) -> Result<Self, StateError> {
        Self::from_bytes(parts.bytes, parts.dimension as usize, parts.precision)
    }
}

impl Serialize for SequenceState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            dimension: u32,
            precision: Precision,
            #[serde(serialize_with = "write_bytes")]
            bytes: &'a [u8],
        }
        let Self { dimension, precision, bytes } = self;
        Written { dimension: *dimension, precision: *precision, bytes }.serialize(serializer)
    }
}

/// Copied at once; serde takes a list of bytes one by one.
fn write_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn read_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = Arc<[u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Arc<[u8]>, E> {
            if bytes.len() > STATE_BYTES_MAX {
                return Err(E::invalid_length(bytes.len(), &self));
            }
            Ok(bytes.into())
        }
    }
    deserializer.deserialize_bytes(Bytes)
}

#[cfg(test)]
mod tests;
