//! What the features mean: vocabularies, buckets, and where each has its rows in the embedding table.
//!
//! Every embedding of the model is a row of one table, so an item, an event, a context and a user are all lists of rows
//! with weights. Ids and advertisers are hashed; interests, countries and genders have a vocabulary.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use turret_retrieval::digest::Digest;
use turret_retrieval::event::EventType;
use turret_retrieval::hashing::{reduce, stable_hash};
use turret_retrieval::ids::{AdvertiserId, InterestId, ItemId};
use turret_retrieval::item::Item;
use turret_retrieval::user::{Demographics, User};

use crate::settings::ModelSettings;
use crate::text::tokens;

mod layout;

pub use layout::{HashSeeds, Layout, TableBlock};

/// The first age of every bucket but the youngest.
const AGE_FIRSTS: [u8; 7] = [18, 25, 35, 45, 50, 56, 65];
/// Prices fall into buckets of half an octave; the last one is open.
const PRICE_BUCKETS: u32 = 32;
/// Gaps fall into buckets of an octave of seconds; the last one is open.
const GAP_BUCKETS: u32 = 24;
/// The commonest countries and genders that get a row; the rest are unknown.
const WORDS_MAX: usize = 1024;
/// Seeds of the two hashes of an item id, and of the hashes of an advertiser and of a part of a query.
const SEEDS: [u64; 4] = [0x1D01, 0x1D02, 0xAD01, 0x7E01];

/// The vocabularies and bucket counts. Its digest is the feature schema's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schema {
    id_buckets: u32,
    advertiser_buckets: u32,
    price_buckets: u32,
    gap_buckets: u32,
    positions: u32,
    query_buckets: u32,
    age_firsts: Vec<u8>,
    interests: Vec<InterestId>,
    countries: Vec<Box<str>>,
    genders: Vec<Box<str>>,
    content_dimension: usize,
}

impl Schema {
    /// The schema of `items`, and of users who say `words`, under `settings`.
    pub(crate) fn of(items: &[Item], words: &Words, settings: &ModelSettings) -> Self {
        let mut interests: Vec<InterestId> =
            items.iter().flat_map(|item| &item.interests).map(|interest| interest.id.clone()).collect();
        interests.sort();
        interests.dedup();
        let content = items.iter().find_map(|item| item.embedding.as_ref().map(Vec::len));
        Self {
            id_buckets: settings.id_buckets,
            advertiser_buckets: settings.advertiser_buckets,
            price_buckets: PRICE_BUCKETS,
            gap_buckets: GAP_BUCKETS,
            positions: settings.history_length_max as u32,
            query_buckets: settings.query_buckets,
            age_firsts: AGE_FIRSTS.to_vec(),
            interests,
            countries: commonest(&words.countries),
            genders: commonest(&words.genders),
            content_dimension: if settings.content_embedding { content.unwrap_or(0) } else { 0 },
        }
    }

    /// The length of the content embeddings that the item vector includes; 0 where it includes none.
    pub(crate) fn content_dimension(&self) -> usize {
        self.content_dimension
    }

    /// Checks a schema that was read: that the table is of a size that can be.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let buckets = [self.id_buckets, self.advertiser_buckets, self.price_buckets, self.gap_buckets, self.positions];
        let vocabulary = self.interests.len() + self.countries.len() + self.genders.len();
        if buckets.iter().any(|count| !(1..=1 << 26).contains(count)) || vocabulary > 1 << 26 {
            return Err("schema: the number of buckets or words is out of range");
        }
        if self.query_buckets > 1 << 26 {
            return Err("schema.query_buckets: is out of range");
        }
        if self.content_dimension > 8_192 {
            return Err("schema.content_dimension: is not in 0..=8192");
        }
        Ok(())
    }

    /// The digest of everything above.
    pub(crate) fn digest(&self) -> Digest {
        let text = serde_json::to_vec(self).expect("a schema of strings and numbers is JSON");
        Digest::of(&text)
    }
}

/// The words that users have for their country and gender, with how many users say each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    countries: BTreeMap<Box<str>, u64>,
    genders: BTreeMap<Box<str>, u64>,
}

impl Words {
    /// Adds those of `users`.
    pub(crate) fn count(&mut self, users: &[User]) {
        let add = |counts: &mut BTreeMap<Box<str>, u64>, word: &Option<Box<str>>| {
            let Some(word) = word else { return };
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.clone(), 1)),
            }
        };
        for User { demographics, .. } in users {
            add(&mut self.countries, &demographics.country);
            add(&mut self.genders, &demographics.gender);
        }
    }
}

/// The [`WORDS_MAX`] commonest words, in alphabetical order.
fn commonest(counts: &BTreeMap<Box<str>, u64>) -> Vec<Box<str>> {
    let mut ranked: Vec<(&Box<str>, &u64)> = counts.iter().collect();
    ranked.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    ranked.truncate(WORDS_MAX);
    let mut words: Vec<Box<str>> = ranked.into_iter().map(|(word, _)| word.clone()).collect();
    words.sort();
    words
}

/// Finds rows of the embedding table.
#[derive(Clone, Debug)]
pub(crate) struct Features {
    pub(crate) schema: Schema,
    interests: HashMap<InterestId, u32>,
    countries: HashMap<Box<str>, u32>,
    genders: HashMap<Box<str>, u32>,
    starts: Starts,
}

/// The first row of each kind of embedding.
#[derive(Clone, Copy, Debug)]
struct Starts {
    advertisers: u32,
    interests: u32,
    prices: u32,
    kinds: u32,
    gaps: u32,
    positions: u32,
    ages: u32,
    countries: u32,
    genders: u32,
    queries: u32,
    end: u32,
}

impl Features {
    /// Prepares look-ups in `schema`.
    pub(crate) fn new(schema: Schema) -> Self {
        let number = |words: &[Box<str>]| words.iter().cloned().zip(0..).collect();
        let mut next = schema.id_buckets;
        // Buckets that may be unknown have one row more, the last.
        let mut take = |rows: u32| {
            let start = next;
            next += rows;
            start
        };
        let starts = Starts {
            advertisers: take(schema.advertiser_buckets),
            interests: take(schema.interests.len() as u32),
            prices: take(schema.price_buckets + 1),
            kinds: take(EventType::ALL.len() as u32),
            gaps: take(schema.gap_buckets + 1),
            positions: take(schema.positions),
            ages: take(schema.age_firsts.len() as u32 + 2),
            countries: take(schema.countries.len() as u32 + 1),
            genders: take(schema.genders.len() as u32 + 1),
            queries: take(schema.query_buckets),
            end: take(0),
        };
        Self {
            interests: schema.interests.iter().cloned().zip(0..).collect(),
            countries: number(&schema.countries),
            genders: number(&schema.genders),
            starts,
            schema,
        }
    }

    /// How many rows the table has.
    pub(crate) fn rows(&self) -> usize {
        self.starts.end as usize
    }

    /// The two rows of an item id.
    pub(crate) fn id(&self, id: &ItemId) -> [u32; 2] {
        [SEEDS[0], SEEDS[1]].map(|seed| reduce(stable_hash(seed, id.as_str().as_bytes()), self.schema.id_buckets))
    }

    /// The row of an advertiser.
    pub(crate) fn advertiser(&self, id: &AdvertiserId) -> u32 {
        self.starts.advertisers + reduce(stable_hash(SEEDS[2], id.as_str().as_bytes()), self.schema.advertiser_buckets)
    }

    /// The row of an interest that the model knows.
    pub(crate) fn interest(&self, id: &InterestId) -> Option<u32> {
        self.interests.get(id).map(|number| self.starts.interests + number)
    }

    /// The row of interest `number`, of [`interest_count`](Self::interest_count).
    pub(crate) fn interest_row(&self, number: u32) -> u32 {
        self.starts.interests + number
    }

    /// How many interests the model knows.
    pub(crate) fn interest_count(&self) -> u32 {
        self.schema.interests.len() as u32
    }

    /// The rows of the words and character n-grams of a query; none where the model reads no queries.
    pub(crate) fn query(&self, query: &str) -> Vec<u32> {
        if self.schema.query_buckets == 0 {
            return Vec::new();
        }
        tokens(query)
            .iter()
            .map(|token| {
                self.starts.queries + reduce(stable_hash(SEEDS[3], token.as_bytes()), self.schema.query_buckets)
            })
            .collect()
    }

    /// The row of a price.
    pub(crate) fn price(&self, price: Option<f32>) -> u32 {
        let bucket = match price.filter(|price| price.is_finite() && *price >= 0.0) {
            Some(price) => ((1.0 + price).log2() * 2.0).min(self.schema.price_buckets as f32 - 1.0) as u32,
            None => self.schema.price_buckets,
        };
        self.starts.prices + bucket
    }

    /// The row of an event type.
    pub(crate) fn kind(&self, kind: EventType) -> u32 {
        self.starts.kinds + u32::from(kind as u8)
    }

    /// The row of the time since the event before; none where there is none, or only an order.
    pub(crate) fn gap(&self, milliseconds: Option<i64>) -> u32 {
        let bucket = match milliseconds {
            Some(gap) => (gap.max(0) as u64 / 1000 + 1).ilog2().min(self.schema.gap_buckets - 1),
            None => self.schema.gap_buckets,
        };
        self.starts.gaps + bucket
    }

    /// The row of a position, counted back from the latest event, which is 0.
    pub(crate) fn position(&self, back: usize) -> u32 {
        self.starts.positions + (back as u32).min(self.schema.positions - 1)
    }

    /// The rows of all ages, countries and genders, one behind the other.
    pub(crate) fn demographic_rows(&self) -> [Range<u32>; 3] {
        let starts = &self.starts;
        [starts.ages..starts.countries, starts.countries..starts.genders, starts.genders..starts.queries]
    }

    /// The rows of age, country and gender.
    pub(crate) fn demographics(&self, facts: &Demographics) -> [u32; 3] {
        let [age, country, gender] = self.unknown_demographics();
        let firsts = &self.schema.age_firsts;
        let bucket = |years: u8| firsts.iter().take_while(|first| years >= **first).count() as u32;
        let find =
            |words: &HashMap<Box<str>, u32>, word: &Option<Box<str>>| word.as_ref().and_then(|w| words.get(w).copied());
        [
            facts.age.map_or(age, |years| self.starts.ages + bucket(years)),
            find(&self.countries, &facts.country).map_or(country, |number| self.starts.countries + number),
            find(&self.genders, &facts.gender).map_or(gender, |number| self.starts.genders + number),
        ]
    }

    /// The rows that stand for an unknown age, country and gender.
    pub(crate) fn unknown_demographics(&self) -> [u32; 3] {
        [self.starts.countries - 1, self.starts.genders - 1, self.starts.queries - 1]
    }
}

#[cfg(test)]
mod tests;
