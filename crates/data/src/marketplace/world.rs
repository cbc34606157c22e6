//! What the marketplace is like before anybody does anything: tastes, trends, advertisers.

use super::MarketplaceSettings;
use super::chance::{Chance, Stream, Weights};
use super::taxonomy::{LEAVES, LEAVES_PER_ROOT, Leaf, ROOTS};

/// The countries, and how many of 100 users live in each.
pub(super) const COUNTRIES: [(&str, f64); 8] =
    [("US", 40.0), ("BR", 14.0), ("DE", 12.0), ("GB", 10.0), ("FR", 8.0), ("JP", 7.0), ("MX", 5.0), ("CA", 4.0)];
/// The genders, and how many of 100 users are of each.
pub(super) const GENDERS: [(&str, f64); 3] = [("female", 55.0), ("male", 41.0), ("other", 4.0)];
/// The first years of life of the age bands.
pub(super) const AGE_BANDS: [u8; 6] = [13, 20, 28, 38, 50, 65];
/// The oldest user.
pub(super) const AGE_MAX: u8 = 85;
/// How many leaves are in fashion on one day.
pub(super) const TRENDS_PER_DAY: usize = 5;
/// One item in so many more is promoted by no ad.
const ADS_PER_PLAIN_ITEM: u32 = 10;

/// Who pays for ads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advertiser {
    /// The root that most of its ads belong to.
    pub(super) home: usize,
    /// What its prices are above (or below) the leaf's, on a logarithmic scale.
    pub(super) price_level: f64,
}

/// The marketplace's unchanging part.
pub(super) struct World {
    pub(super) settings: MarketplaceSettings,
    /// How popular each leaf is with those who have no reason of their own.
    pub(super) popularity: Vec<f64>,
    leaves: Weights,
    leaves_of: Vec<Weights>,
    /// The middle of each leaf's prices, as a natural logarithm.
    pub(super) price_levels: Vec<f64>,
    affinities: Vec<Weights>,
    trends: Vec<[Leaf; TRENDS_PER_DAY]>,
    advertisers: Vec<Advertiser>,
    pub(super) advertiser_sizes: Weights,
}

impl World {
    pub(super) fn new(settings: &MarketplaceSettings) -> Self {
        let chance = &mut Chance::of(settings.seed, Stream::World, 0);
        let popularity = popularity(chance);
        let of_root = |root: usize| &popularity[root * LEAVES_PER_ROOT..][..LEAVES_PER_ROOT];
        let root_popularity: Vec<f64> = (0..ROOTS).map(|root| of_root(root).iter().sum()).collect();
        let price_levels = Leaf::all().map(|_| chance.between(2.0, 4.5)).collect();
        let affinities = affinities(&root_popularity, chance);
        let trends = (0..settings.days).map(|_| std::array::from_fn(|_| any_leaf(chance))).collect();
        let advertisers = (0..settings.advertisers).map(|number| advertiser(settings.seed, number)).collect();
        Self {
            settings: settings.clone(),
            leaves: Weights::new(popularity.iter().copied()),
            leaves_of: (0..ROOTS).map(|root| Weights::new(of_root(root).iter().copied())).collect(),
            popularity,
            price_levels,
            affinities,
            trends,
            advertisers,
            advertiser_sizes: Weights::new((0..settings.advertisers).map(|number| 1.0 / (f64::from(number) + 3.0))),
        }
    }

    /// How many items there are, promoted or not. Item `i` is promoted by ad `i`, where there is one.
    pub(super) fn items(&self) -> u32 {
        self.settings.ads + self.settings.ads / ADS_PER_PLAIN_ITEM
    }

    /// Whether an ad promotes the item.
    pub(super) fn is_promoted(&self, item: u32) -> bool {
        item < self.settings.ads
    }

    pub(super) fn advertiser(&self, number: u32) -> Advertiser {
        self.advertisers[number as usize]
    }

    /// The leaves in fashion on a day.
    pub(super) fn trends(&self, day: u32) -> &[Leaf; TRENDS_PER_DAY] {
        &self.trends[day as usize]
    }

    /// A leaf by its popularity.
    pub(super) fn popular_leaf(&self, chance: &mut Chance) -> Leaf {
        Leaf(self.leaves.pick(chance) as u16)
    }

    /// A leaf of `root` by its popularity.
    pub(super) fn leaf_of(&self, root: usize, chance: &mut Chance) -> Leaf {
        Leaf::of(root, self.leaves_of[root].pick(chance))
    }

    /// A root as people of this age band, gender and country like them.
    pub(super) fn liked_root(&self, band: usize, gender: usize, country: usize, chance: &mut Chance) -> usize {
        self.affinities[group(band, gender, country)].pick(chance)
    }
}

fn group(band: usize, gender: usize, country: usize) -> usize {
    (band * GENDERS.len() + gender) * COUNTRIES.len() + country
}

/// Any leaf, all equally likely.
pub(super) fn any_leaf(chance: &mut Chance) -> Leaf {
    Leaf(chance.below(LEAVES as u32) as u16)
}

/// A mild skew: the most popular leaf is about ten times as popular as the least.
fn popularity(chance: &mut Chance) -> Vec<f64> {
    let mut ranks: Vec<u32> = (0..LEAVES as u32).collect();
    chance.shuffle(&mut ranks);
    ranks.into_iter().map(|rank| 1.0 / (f64::from(rank) + 20.0)).collect()
}

/// How each group of people likes each root: by age and gender strongly, by country a little.
fn affinities(root_popularity: &[f64], chance: &mut Chance) -> Vec<Weights> {
    const STRONG: [f64; 5] = [0.1, 0.4, 1.0, 2.5, 6.0];
    const SLIGHT: [f64; 3] = [0.6, 1.0, 1.7];
    let mut factors = |choices: &[f64]| -> Vec<f64> {
        (0..ROOTS).map(|_| choices[chance.below(choices.len() as u32) as usize]).collect()
    };
    let by_person: Vec<Vec<f64>> = (0..AGE_BANDS.len() * GENDERS.len()).map(|_| factors(&STRONG)).collect();
    let by_country: Vec<Vec<f64>> = COUNTRIES.iter().map(|_| factors(&SLIGHT)).collect();
    let mut affinities = Vec::with_capacity(by_person.len() * by_country.len());
    for person in &by_person {
        for country in &by_country {
            let weights = (0..ROOTS).map(|root| root_popularity[root] * person[root] * country[root]);
            affinities.push(Weights::new(weights));
        }
    }
    affinities
}

fn advertiser(seed: u64, number: u32) -> Advertiser {
    let chance = &mut Chance::of(seed, Stream::Advertiser, u64::from(number));
    Advertiser { home: chance.below(ROOTS as u32) as usize, price_level: 0.3 * chance.normal() }
}
