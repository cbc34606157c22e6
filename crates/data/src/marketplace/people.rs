//! Who browses: demographics, and interests that last but drift.

use super::chance::{Chance, Stream, Weights, exp};
use super::taste::Taste;
use super::taxonomy::Leaf;
use super::world::{AGE_BANDS, AGE_MAX, COUNTRIES, GENDERS, World};

/// The share of users whose age the data set does not know.
const AGE_UNKNOWN: f64 = 0.15;
/// The share of users whose gender the data set does not know.
const GENDER_UNKNOWN: f64 = 0.12;
/// The share of users whose country the data set does not know.
const COUNTRY_UNKNOWN: f64 = 0.04;
/// The share of interests that fade from the first day to the last.
pub(super) const FADING: f64 = 0.25;
/// The share of users who come by a new interest.
pub(super) const NEW_INTEREST: f64 = 0.5;

/// A user as they are, whether or not the data set knows it.
pub(super) struct Person {
    /// What the data set knows.
    pub(super) age: Option<u8>,
    pub(super) country: Option<&'static str>,
    pub(super) gender: Option<&'static str>,
    /// Long-term interests; each sum of weights is 1.
    pub(super) interests: Vec<LastingInterest>,
    /// Trips a day.
    pub(super) trips_per_day: f64,
    /// What they like, whatever the interest.
    pub(super) taste: Taste,
}

/// An interest that lasts, with its weight on the first day and on the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LastingInterest {
    pub(super) leaf: Leaf,
    pub(super) start: f64,
    pub(super) end: f64,
}

impl Person {
    /// The user of a number. Needs nothing but the world, so that users can be made in any order.
    pub(super) fn of(world: &World, number: u32) -> Self {
        let chance = &mut Chance::of(world.settings.seed, Stream::Person, u64::from(number));
        let country = Weights::new(COUNTRIES.map(|(_, share)| share)).pick(chance);
        let gender = Weights::new(GENDERS.map(|(_, share)| share)).pick(chance);
        let band = chance.below(AGE_BANDS.len() as u32) as usize;
        let next = AGE_BANDS.get(band + 1).copied().unwrap_or(AGE_MAX + 1);
        let age = AGE_BANDS[band] + chance.below(u32::from(next - AGE_BANDS[band])) as u8;
        let interests = interests(chance, |chance| {
            let root = world.liked_root(band, gender, country, chance);
            world.leaf_of(root, chance)
        });
        Self {
            age: (!chance.is(AGE_UNKNOWN)).then_some(age),
            country: (!chance.is(COUNTRY_UNKNOWN)).then_some(COUNTRIES[country].0),
            gender: (!chance.is(GENDER_UNKNOWN)).then_some(GENDERS[gender].0),
            interests,
            trips_per_day: (0.24 * exp(0.5 * chance.normal())).clamp(0.05, 1.5),
            taste: Taste::of(0.5 * chance.normal(), chance),
        }
    }

    /// The weights of the interests on a day: a straight line from the first to the last.
    pub(super) fn interests_on(&self, day: u32, days: u32) -> Weights {
        let passed = if days > 1 { f64::from(day) / f64::from(days - 1) } else { 0.0 };
        Weights::new(self.interests.iter().map(|interest| (1.0 - passed) * interest.start + passed * interest.end))
    }
}

fn interests(chance: &mut Chance, mut liked: impl FnMut(&mut Chance) -> Leaf) -> Vec<LastingInterest> {
    let mut interests: Vec<LastingInterest> = Vec::new();
    for _ in 0..3 + chance.below(3) {
        let (leaf, start) = (liked(chance), chance.between(0.3, 1.3));
        let end = if chance.is(FADING) { 0.1 * start } else { start };
        if interests.iter().all(|interest| interest.leaf != leaf) {
            interests.push(LastingInterest { leaf, start, end });
        }
    }
    let (new, end) = (liked(chance), chance.between(0.3, 1.3));
    if chance.is(NEW_INTEREST) && interests.iter().all(|interest| interest.leaf != new) {
        interests.push(LastingInterest { leaf: new, start: 0.0, end });
    }
    let sum = |weight: fn(&LastingInterest) -> f64| interests.iter().map(weight).sum::<f64>();
    let (start, end) = (sum(|interest| interest.start), sum(|interest| interest.end));
    for interest in &mut interests {
        interest.start /= start;
        interest.end /= end;
    }
    interests
}
