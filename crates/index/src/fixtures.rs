//! Seeded ads and vectors for the tests of this crate.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use turret_retrieval::filter::Filter;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::{Ad, Attribute};
use turret_retrieval::topk::Hit;
use turret_retrieval::vector::{UnitVector, dot};

use crate::{Backend, IndexSettings, ShardAd};

/// An ad of item 1.
pub(crate) fn ad(id: &str, attributes: &[(&str, Attribute)]) -> Ad {
    let attributes: BTreeMap<Box<str>, Attribute> =
        attributes.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    Ad { id: AdId::new(id).unwrap(), item: 1.into(), attributes }
}

pub(crate) fn keyword(word: &str) -> Attribute {
    Attribute::Keyword(word.into())
}

pub(crate) fn any_of(field: &str, values: &[&str]) -> Filter {
    Filter::AnyOf { field: field.into(), values: values.iter().map(|value| (*value).into()).collect() }
}

pub(crate) fn unit(components: &[f32]) -> UnitVector {
    UnitVector::normalize(components.to_vec()).unwrap()
}

/// Whatever the filter leaves is searched in the graph, where the backend is one.
pub(crate) fn settings(backend: Backend) -> IndexSettings {
    IndexSettings { backend, exact_below_ads: 0, threads: 2, ..IndexSettings::default() }
}

/// Unit vectors around `clusters` random centres, one cluster after the other in turn.
pub(crate) fn clustered(seed: u64, rows: usize, dimension: usize, clusters: usize) -> Vec<UnitVector> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // The centres do not depend on the seed, so that queries of another seed lie where the ads do.
    let mut fixed = ChaCha8Rng::seed_from_u64(0);
    let centres: Vec<Vec<f32>> = (0..clusters).map(|_| normal(&mut fixed, dimension)).collect();
    (0..rows)
        .map(|row| {
            let noise = normal(&mut random, dimension);
            unit(&centres[row % clusters].iter().zip(noise).map(|(centre, x)| centre + 0.5 * x).collect::<Vec<_>>())
        })
        .collect()
}

fn normal(random: &mut ChaCha8Rng, dimension: usize) -> Vec<f32> {
    // The sum of 12 uniform numbers is near enough to normal.
    (0..dimension).map(|_| (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0).collect()
}

/// One ad for each vector, ids `0000000`, `0000001`, …, with the attributes that `attributes` gives the row.
pub(crate) fn ads(
    vectors: &[UnitVector],
    attributes: impl Fn(usize) -> Vec<(&'static str, Attribute)>,
) -> Vec<ShardAd> {
    let row = |(row, vector): (usize, &UnitVector)| ShardAd {
        ad: ad(&format!("{row:07}"), &attributes(row)),
        embedding: vector.clone(),
    };
    vectors.iter().enumerate().map(row).collect()
}

/// The best `k` of the ads that pass, by sorting all of them.
pub(crate) fn brute_force(ads: &[ShardAd], query: &UnitVector, k: usize, filter: Option<&Filter>) -> Vec<Hit> {
    let mut hits: Vec<Hit> = ads
        .iter()
        .filter(|row| filter.is_none_or(|filter| filter.matches(&row.ad.attributes)))
        .map(|row| Hit { ad: row.ad.id.clone(), score: dot(query.as_slice(), row.embedding.as_slice()) })
        .collect();
    hits.sort();
    hits.truncate(k);
    hits
}
