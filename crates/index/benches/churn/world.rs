//! Seeded ads in two versions each, and queries, around the same centres.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_index::ShardAd;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::{Ad, Attribute};
use turret_retrieval::vector::UnitVector;

use super::around::Around;

pub(crate) const DIMENSION: usize = 64;
/// For each centre, about.
const ADS_PER_CLUSTER: usize = 100;
/// How far ads lie from their centre, for each component, whose own deviation is 1.
const NOISE: f32 = 0.5;
const ADVERTISERS: usize = 5_000;

/// The vectors of all ads before and after, `[ads, DIMENSION]`, row-major, and the order in which ads are replaced.
pub(crate) struct World {
    pub(crate) versions: [Vec<f32>; 2],
    pub(crate) queries: Vec<UnitVector>,
    pub(crate) order: Vec<u32>,
    /// Where each ad stands in `order`.
    pub(crate) turn: Vec<u32>,
}

impl World {
    pub(crate) fn new(ads: usize, queries: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let centres = ads.div_ceil(ADS_PER_CLUSTER);
        let around = Around::new(&mut random, centres, DIMENSION, NOISE);
        let near = |random: &mut ChaCha8Rng| around.centre(random.random_range(0..centres), random);
        let mut flat = || (0..ads).flat_map(|_| near(&mut random).as_slice().to_vec()).collect();
        let versions = [flat(), flat()];
        let queries = (0..queries).map(|_| near(&mut random)).collect();
        let mut order: Vec<u32> = (0..ads as u32).collect();
        for at in (1..ads).rev() {
            order.swap(at, random.random_range(0..=at));
        }
        let mut turn = vec![0; ads];
        (0..).zip(&order).for_each(|(at, ad)| turn[*ad as usize] = at);
        Self { versions, queries, order, turn }
    }

    pub(crate) fn vector(&self, version: usize, ad: u32) -> &[f32] {
        &self.versions[version][ad as usize * DIMENSION..][..DIMENSION]
    }

    /// An ad with a few attributes, of which some change with it.
    pub(crate) fn ad(&self, version: usize, ad: u32) -> ShardAd {
        let mixed = (ad + 7 * version as u32).wrapping_mul(2_654_435_761) >> 8;
        let word = |text: String| Attribute::Keyword(text.into());
        let attributes: BTreeMap<Box<str>, Attribute> = [
            ("status", word(if mixed.is_multiple_of(2) { "active" } else { "ended" }.to_owned())),
            ("advertiser_id", word(format!("adv{}", ad as usize % ADVERTISERS))),
            ("countries", Attribute::Keywords((0..3).map(|at| format!("c{}", (mixed >> at) % 40).into()).collect())),
            ("min_age", Attribute::Number(f64::from(mixed % 60))),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        let embedding = UnitVector::normalize(self.vector(version, ad).to_vec()).expect("a direction");
        ShardAd { ad: Ad { id: id(ad), item: 1.into(), attributes }, embedding }
    }
}

pub(crate) fn id(ad: u32) -> AdId {
    AdId::from(u64::from(ad))
}
