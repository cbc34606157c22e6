//! What makes a thing suit a person, whatever it is about: style, quality, and the price they look for.
//!
//! Of all this the data set tells only the price. So what follows from it can be learnt from behaviour alone, and what
//! is judged by it is judged by something that no model was told.

use super::chance::{Chance, exp};

/// Components of a style.
pub const STYLES: usize = 4;
/// What a full match of styles adds to the appeal.
pub(super) const BY_STYLE: f64 = 2.5;
/// What the best quality adds to the appeal, and the worst takes from it.
pub(super) const BY_QUALITY: f64 = 1.2;
/// What a price takes from the appeal that is e times what the user looks for, or an e-th of it.
pub(super) const BY_PRICE: f64 = 1.0;

/// What an item is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Character {
    /// Of length 1.
    pub style: [f32; STYLES],
    /// From 0, the worst, to 1, the best.
    pub quality: f32,
    /// The natural logarithm of its price over what is usual for its foremost interest.
    pub price_position: f32,
}

/// What a user likes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taste {
    /// Of length 1.
    pub style: [f32; STYLES],
    /// The natural logarithm of the price looked for over what is usual for an interest.
    pub price_position: f32,
}

impl Character {
    pub(super) fn of(price_position: f64, chance: &mut Chance) -> Self {
        let (style, quality) = (style(chance), rounded(chance.unit()));
        Self { style, quality, price_position: rounded(price_position) }
    }
}

impl Taste {
    pub(super) fn of(price_position: f64, chance: &mut Chance) -> Self {
        Self { style: style(chance), price_position: rounded(price_position) }
    }

    /// How well `item` suits, in (0, 1): the logistic function of what style, quality and price add up to.
    ///
    /// What the item is about does not count.
    pub fn relevance(&self, item: &Character) -> f64 {
        1.0 / (1.0 + exp(-self.appeal(item)))
    }

    /// The logit of the relevance, within ±12.
    pub(super) fn appeal(&self, item: &Character) -> f64 {
        let alike: f64 = self.style.iter().zip(item.style).map(|(own, its)| f64::from(*own) * f64::from(its)).sum();
        let price_gap = (f64::from(self.price_position) - f64::from(item.price_position)).abs();
        let quality = 2.0 * f64::from(item.quality) - 1.0;
        BY_STYLE * alike + BY_QUALITY * quality - BY_PRICE * price_gap.min(8.0)
    }
}

/// A direction, all equally likely but for the grain of the rounding.
fn style(chance: &mut Chance) -> [f32; STYLES] {
    let components: [f64; STYLES] = std::array::from_fn(|_| chance.normal());
    let length = components.iter().map(|component| component * component).sum::<f64>().sqrt().max(1e-9);
    components.map(|component| rounded(component / length))
}

/// To four decimals: what is written is what was reckoned with.
fn rounded(number: f64) -> f32 {
    ((number * 10_000.0).round() / 10_000.0) as f32
}

#[cfg(test)]
mod tests {
    use super::super::chance::Stream;
    use super::*;

    #[test]
    fn relevance_rises_with_style_and_quality_and_falls_with_the_distance_in_price() {
        let taste = Taste { style: [1.0, 0.0, 0.0, 0.0], price_position: 0.5 };
        let item = Character { style: [0.6, 0.8, 0.0, 0.0], quality: 0.5, price_position: 0.5 };
        let plain = taste.relevance(&item);
        assert!((plain - 1.0 / (1.0 + (-1.5f64).exp())).abs() < 1e-6, "{plain}");
        assert!(taste.relevance(&Character { style: [1.0, 0.0, 0.0, 0.0], ..item }) > plain);
        assert!(taste.relevance(&Character { quality: 0.9, ..item }) > plain);
        assert!(taste.relevance(&Character { price_position: 0.0, ..item }) < plain);
        assert!(taste.relevance(&Character { price_position: 1.0, ..item }) < plain);
    }

    #[test]
    fn between_strangers_relevance_is_spread_out() {
        let chance = &mut Chance::of(1, Stream::World, 0);
        let relevance = |chance: &mut Chance| {
            let taste = Taste::of(0.5 * chance.normal(), chance);
            taste.relevance(&Character::of(0.5 * chance.normal(), chance))
        };
        let mut all: Vec<f64> = (0..2_000).map(|_| relevance(chance)).collect();
        all.sort_by(f64::total_cmp);
        assert!(
            all[200] < 0.12 && (0.25..0.45).contains(&all[1_000]) && all[1_800] > 0.7,
            "{:?}",
            [all[200], all[1_000], all[1_800]]
        );
    }
}
