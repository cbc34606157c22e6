//! Vectors around random centres.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::vector::UnitVector;

pub(crate) struct Around {
    centres: Vec<Vec<f32>>,
    noise: f32,
}

impl Around {
    /// So many centres. Vectors lie `noise` from theirs for each component, whose own deviation is 1.
    pub(crate) fn new(random: &mut ChaCha8Rng, centres: usize, dimension: usize, noise: f32) -> Self {
        Self { centres: (0..centres).map(|_| normal(random, dimension)).collect(), noise }
    }

    /// A unit vector around a centre.
    pub(crate) fn centre(&self, centre: usize, random: &mut ChaCha8Rng) -> UnitVector {
        let centre = &self.centres[centre];
        let noise = normal(random, centre.len());
        let vector = centre.iter().zip(noise).map(|(x, noise)| x + self.noise * noise).collect();
        UnitVector::normalize(vector).expect("a direction")
    }
}

fn normal(random: &mut ChaCha8Rng, dimension: usize) -> Vec<f32> {
    // The sum of 12 uniform numbers is near enough to normal.
    (0..dimension).map(|_| (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0).collect()
}
