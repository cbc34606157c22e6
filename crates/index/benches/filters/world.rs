//! Ads around centres, queries, and filters that each query is asked with.
//!
//! Every ad has its place on a circle and a number that has nothing to do with where it lies. A filter that depends on the
//! query would be another one for each: so an ad has, for each group of queries, the rank of its score as an attribute.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_index::ShardAd;
use turret_retrieval::filter::{End, Filter, NumberRange};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::{Ad, Attribute};
use turret_retrieval::vector::{UnitVector, dot};

use super::around::Around;

pub(crate) const DIMENSION: usize = 64;
/// Ads for each centre, about.
const ADS_PER_CLUSTER: usize = 100;
/// How far ads lie from their centre, for each component, whose own deviation is 1.
const NOISE: f32 = 0.5;
/// Queries.
pub(crate) const QUERIES: usize = 32;

/// What a filter has to do with the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Independent,
    /// It keeps the nearest ads.
    Correlated,
    /// It keeps the furthest ads.
    Opposed,
}

impl Relation {
    pub(crate) const ALL: [Self; 3] = [Self::Independent, Self::Correlated, Self::Opposed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Correlated => "correlated",
            Self::Opposed => "opposed",
        }
    }
}

pub(crate) struct World {
    pub(crate) queries: Vec<UnitVector>,
    ads: usize,
}

impl World {
    /// `ads` ads and the queries, from a seed.
    pub(crate) fn new(ads: usize) -> (Self, Vec<ShardAd>) {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let centres = ads.div_ceil(ADS_PER_CLUSTER);
        let around = Around::new(&mut random, centres, DIMENSION, NOISE);
        let near = |random: &mut ChaCha8Rng| around.centre(random.random_range(0..centres), random);
        let vectors: Vec<UnitVector> = (0..ads).map(|_| near(&mut random)).collect();
        let queries: Vec<UnitVector> = (0..QUERIES).map(|_| near(&mut random)).collect();
        let ranks: Vec<Vec<u32>> = queries.iter().map(|query| ranks(query, &vectors)).collect();
        let mut mixed: Vec<u32> = (0..ads as u32).collect();
        for at in (1..ads).rev() {
            mixed.swap(at, random.random_range(0..=at));
        }
        let rows = vectors.into_iter().enumerate().map(|(ad, embedding)| {
            let number = |name: &str, value: u32| (name.into(), Attribute::Number(f64::from(value)));
            let mut attributes: BTreeMap<Box<str>, Attribute> =
                ranks.iter().enumerate().map(|(query, ranks)| number(&format!("rank{query}"), ranks[ad])).collect();
            attributes.extend([number("mixed", mixed[ad])]);
            ShardAd { ad: Ad { id: AdId::from(ad as u64), item: 1.into(), attributes }, embedding }
        });
        (Self { queries, ads }, rows.collect())
    }

    /// A filter that `share` of the ads pass, for one of the queries.
    pub(crate) fn filter(&self, query: usize, relation: Relation, share: f64) -> Filter {
        let count = (self.ads as f64 * share).round();
        let (field, low, high) = match relation {
            Relation::Independent => ("mixed".to_owned(), 0.0, count),
            Relation::Correlated => (format!("rank{query}"), 0.0, count),
            Relation::Opposed => (format!("rank{query}"), self.ads as f64 - count, self.ads as f64),
        };
        let range = NumberRange { low: Some((low, End::Included)), high: Some((high, End::Excluded)) };
        Filter::Between { field: field.into(), range }
    }
}

/// The rank of each ad by its score, the nearest first.
fn ranks(query: &UnitVector, vectors: &[UnitVector]) -> Vec<u32> {
    let scores: Vec<f32> = vectors.iter().map(|ad| dot(query.as_slice(), ad.as_slice())).collect();
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut ranks = vec![0; vectors.len()];
    (0..).zip(order).for_each(|(rank, ad)| ranks[ad] = rank);
    ranks
}
