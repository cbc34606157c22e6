//! Random numbers that are the same on every machine.
//!
//! Only integer arithmetic and the exactly rounded operations of IEEE 754 are used: the platform's `exp` and `ln` may
//! differ in the last bit, and one bit is enough to give another marketplace.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is for. Each thing has its own, so that none depends on how many came before it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    World,
    Advertiser,
    Item,
    Ad,
    LeafOrder,
    Person,
    Browsing,
    Request,
    Bulk,
}

/// One stream of random numbers.
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream of the `index`th thing of a kind.
    pub(super) fn of(seed: u64, stream: Stream, index: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(stream as u64).to_le_bytes());
        key[16..24].copy_from_slice(&index.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..count`; 0 where `count` is 0.
    pub(super) fn below(&mut self, count: u32) -> u32 {
        ((u128::from(self.0.next_u64()) * u128::from(count)) >> 64) as u32
    }

    /// True with the given probability.
    pub(super) fn is(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Mean 0, deviation 1, within ±6: the sum of twelve uniform numbers.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Puts `values` into a random order.
    pub(super) fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            let other = self.below(last as u32 + 1) as usize;
            values.swap(last, other);
        }
    }
}

/// e to the power of `x`, for |x| up to about 20; relative error below 1e-12.
pub(super) fn exp(x: f64) -> f64 {
    // exp(x) = exp(x / 1024)^1024, and ten terms are plenty for |x| / 1024 < 0.02.
    let small = x / 1_024.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for n in 1..=10 {
        term *= small / f64::from(n);
        sum += term;
    }
    (0..10).fold(sum, |power, _| power * power)
}

/// Things to choose from, some likelier than others.
pub(super) struct Weights {
    /// Sums of the weights up to and with each.
    sums: Vec<f64>,
}

impl Weights {
    /// At least one weight, none negative, not all 0.
    pub(super) fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let sums: Vec<f64> = weights
            .into_iter()
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        assert!(sums.last().is_some_and(|total| *total > 0.0), "there is something to choose");
        Self { sums }
    }

    /// Chooses one, by its position.
    pub(super) fn pick(&self, chance: &mut Chance) -> usize {
        self.pick_among(self.sums.len(), chance)
    }

    /// Chooses one of the first `count`, which must be within `1..=len`.
    pub(super) fn pick_among(&self, count: usize, chance: &mut Chance) -> usize {
        let at = chance.unit() * self.sums[count - 1];
        // Rounding can put `at` onto the total itself.
        self.sums[..count].partition_point(|sum| *sum <= at).min(count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close_to_the_platforms() {
        for tenth in -120..=120 {
            let x = f64::from(tenth) / 10.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn a_choice_follows_the_weights() {
        let weights = Weights::new([1.0, 0.0, 3.0]);
        let mut chance = Chance::of(1, Stream::World, 0);
        let mut counts = [0u32; 3];
        (0..4_000).for_each(|_| counts[weights.pick(&mut chance)] += 1);
        assert_eq!(counts[1], 0);
        assert!((2_850..3_150).contains(&counts[2]), "{counts:?}");
        assert!((0..100).all(|_| weights.pick_among(1, &mut chance) == 0));
    }

    #[test]
    fn streams_are_apart_and_stay_what_they_are() {
        let first = |seed, stream, index| Chance::of(seed, stream, index).below(1_000_000);
        assert_eq!(first(1, Stream::Person, 7), first(1, Stream::Person, 7));
        assert_ne!(first(1, Stream::Person, 7), first(2, Stream::Person, 7));
        assert_ne!(first(1, Stream::Person, 7), first(1, Stream::Item, 7));
        assert_ne!(first(1, Stream::Person, 7), first(1, Stream::Person, 8));
    }
}
