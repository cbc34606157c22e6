//! Ads, queries, and filters that each query is asked with.
//!
//! Every ad has a number that has nothing to do with where it lies, and for each query the rank of its score.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_index::ShardAd;
use turret_retrieval::filter::{End, Filter, NumberRange};
use turret_retrieval::ids::AdId;
use turret_retrieval::item::{Ad, Attribute};
use turret_retrieval::vector::{UnitVector, dot};

use super::around::Around;
use super::embeddings;

const DIMENSION: usize = 64;
/// Ads for each centre, about.
const ADS_PER_CLUSTER: usize = 100;
/// How far ads lie from their centre, for each component, whose own deviation is 1.
const NOISE: f32 = 0.5;
/// Queries that are asked, and those that a shard is measured with before: as many as a publication has.
const ASKED: usize = 32;
const PROBES: usize = 64;
pub(crate) const QUERIES: usize = ASKED + PROBES;

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
    pub(crate) name: String,
    pub(crate) dimension: usize,
    pub(crate) queries: Vec<UnitVector>,
    pub(crate) probes: Vec<UnitVector>,
    pub(crate) ads: usize,
}

/// Ads around centres that have about as many each, and queries like them.
pub(crate) fn clustered(ads: usize) -> embeddings::World {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let centres = ads.div_ceil(ADS_PER_CLUSTER);
    let around = Around::new(&mut random, centres, DIMENSION, NOISE);
    let mut near = || around.centre(random.random_range(0..centres), &mut random);
    let flat = (0..ads).flat_map(|_| near().as_slice().to_vec()).collect();
    let queries = (0..QUERIES).map(|_| near()).collect();
    embeddings::World {
        name: format!("clusters of {ADS_PER_CLUSTER}, {DIMENSION} d"),
        dimension: DIMENSION,
        flat,
        queries,
    }
}

impl World {
    /// Ads with attributes that filters ask for, and queries from all over `of`, each asked or a probe.
    pub(crate) fn new(of: embeddings::World) -> (Self, Vec<ShardAd>) {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let (dimension, ads) = (of.dimension, of.rows());
        let (mut queries, mut probes) = (Vec::new(), Vec::new());
        for at in 0..QUERIES {
            let query = of.queries[at * of.queries.len() / QUERIES].clone();
            if at % (QUERIES / ASKED) == 0 { queries.push(query) } else { probes.push(query) }
        }
        let vector = |row: &[f32]| UnitVector::normalize(row.to_vec()).expect("embeddings have a direction");
        let vectors: Vec<UnitVector> = of.flat.chunks_exact(dimension).map(vector).collect();
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
        (Self { name: of.name, dimension, queries, probes, ads }, rows.collect())
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
