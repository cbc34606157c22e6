//! Which rows of the embedding table mean what, told to the author of another implementation.

use serde::Serialize;
use turret_retrieval::event::EventType;
use turret_retrieval::ids::InterestId;

use super::{Features, SEEDS};

/// Which rows of the embedding table mean what. A word's row is its block's first plus its place in its list.
#[derive(Clone, Debug, Serialize)]
pub struct Layout {
    /// Every block of rows, in order; together they are the table.
    pub table: Vec<TableBlock>,
    /// Of the hashes, which are XXH3 of 64 bits over UTF-8, reduced to `0..rows` by `hash * rows >> 64`.
    pub hash_seeds: HashSeeds,
    /// Every interest, in the order of its rows.
    pub interests: Vec<InterestId>,
    /// Every country, in the order of its rows; behind them stands the unknown one.
    pub countries: Vec<Box<str>>,
    /// Every gender, in the order of its rows; behind them stands the unknown one.
    pub genders: Vec<Box<str>>,
    /// The youngest age, in years, of each bucket but the first; behind the buckets stands the unknown age.
    pub age_firsts: Vec<u8>,
    /// The event types, in the order of their rows.
    pub event_types: Vec<&'static str>,
    /// The length of the content embeddings that the item vector includes; 0 where it includes none.
    pub content_dimension: usize,
}

/// Rows of the table of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableBlock {
    /// Such as `interests`.
    pub name: &'static str,
    /// Its first row.
    pub first: u32,
    /// How many there are.
    pub rows: u32,
}

/// Seeds of the hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HashSeeds {
    /// Of the two rows of an item id.
    pub ids: [u64; 2],
    /// Of the row of an advertiser.
    pub advertisers: u64,
    /// Of the row of a word of a query, or of a part of one.
    pub queries: u64,
}

impl Features {
    /// Which row means what.
    pub(crate) fn layout(&self) -> Layout {
        let starts = &self.starts;
        let firsts = [
            ("ids", 0),
            ("advertisers", starts.advertisers),
            ("interests", starts.interests),
            ("prices", starts.prices),
            ("event_types", starts.kinds),
            ("gaps", starts.gaps),
            ("positions", starts.positions),
            ("ages", starts.ages),
            ("countries", starts.countries),
            ("genders", starts.genders),
            ("queries", starts.queries),
        ];
        let ends = firsts.iter().skip(1).map(|(_, first)| *first).chain([starts.end]);
        let table = firsts.iter().zip(ends).map(|(&(name, first), end)| TableBlock { name, first, rows: end - first });
        let [id, other_id, advertisers, queries] = SEEDS;
        Layout {
            table: table.collect(),
            hash_seeds: HashSeeds { ids: [id, other_id], advertisers, queries },
            interests: self.schema.interests.clone(),
            countries: self.schema.countries.clone(),
            genders: self.schema.genders.clone(),
            age_firsts: self.schema.age_firsts.clone(),
            event_types: EventType::ALL.into_iter().map(EventType::name).collect(),
            content_dimension: self.schema.content_dimension,
        }
    }
}
