//! Unit vectors, the only thing that is ever compared.

use serde::{Deserialize, Serialize};

/// A finite, unit-length `f32` vector. A deserialised one must be [checked](UnitVector::check) before use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitVector(Box<[f32]>);

/// Why numbers are not a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// A component is NaN or infinite.
    #[error("component {position} is not finite")]
    NotFinite {
        /// Which one, from 0.
        position: usize,
    },
    /// The vector has no direction (its length is 0, or too small to divide by).
    #[error("length is zero")]
    Zero,
    /// The vector is longer or shorter than the index's.
    #[error("dimension {found} where {expected} is expected")]
    Dimension {
        /// What the index has.
        expected: usize,
        /// What was given.
        found: usize,
    },
}

impl UnitVector {
    /// Scales `components` to length 1.
    ///
    /// # Errors
    /// When a component is not finite or all are zero.
    pub fn normalize(mut components: Vec<f32>) -> Result<Self, VectorError> {
        check_finite(&components)?;
        let norm = components.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if norm < 1e-12 {
            return Err(VectorError::Zero);
        }
        for x in &mut components {
            *x = (f64::from(*x) / norm) as f32;
        }
        Ok(Self(components.into()))
    }

    /// Checks a vector that came over the wire: `dimension` finite components, not all zero.
    ///
    /// # Errors
    /// The rule it broke.
    pub fn check(&self, dimension: usize) -> Result<(), VectorError> {
        if self.0.len() != dimension {
            return Err(VectorError::Dimension { expected: dimension, found: self.0.len() });
        }
        check_finite(&self.0)?;
        if self.0.iter().all(|x| *x == 0.0) {
            return Err(VectorError::Zero);
        }
        Ok(())
    }

    /// The components.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

fn check_finite(components: &[f32]) -> Result<(), VectorError> {
    match components.iter().position(|x| !x.is_finite()) {
        Some(position) => Err(VectorError::NotFinite { position }),
        None => Ok(()),
    }
}

/// The inner product of two vectors of one length.
///
/// Accumulates in 16 lanes, so that the compiler can use SIMD; the result depends only on the inputs.
#[inline]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    let mut lanes = [0f32; 16];
    let (a_blocks, a_rest) = a.as_chunks::<16>();
    let (b_blocks, b_rest) = b.as_chunks::<16>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..16 {
            lanes[lane] = x[lane].mul_add(y[lane], lanes[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_without_direction_is_refused() {
        assert_eq!(UnitVector::normalize(vec![0.0; 3]), Err(VectorError::Zero));
        assert_eq!(UnitVector::normalize(vec![1.0, f32::NAN]), Err(VectorError::NotFinite { position: 1 }));
        assert_eq!(UnitVector::normalize(vec![f32::INFINITY]), Err(VectorError::NotFinite { position: 0 }));
        let v = UnitVector::normalize(vec![3.0, 4.0]).unwrap();
        assert_eq!(v.as_slice(), &[0.6, 0.8]);
        assert_eq!(v.check(3), Err(VectorError::Dimension { expected: 3, found: 2 }));
    }

    #[test]
    fn dot_agrees_with_the_sum_of_products_at_every_length() {
        for n in 0..70u16 {
            let a: Vec<f32> = (0..n).map(|i| f32::from(i) * 0.25 - 3.0).collect();
            let b: Vec<f32> = (0..n).map(|i| 1.0 - f32::from(i) * 0.125).collect();
            let plain: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            assert!((f64::from(dot(&a, &b)) - plain).abs() <= 1e-3 * (1.0 + plain.abs()), "{n}");
        }
    }
}
