//! What the ranker knows and the towers do not: counts of a user with an advertiser, click rates, prices compared, words
//! of titles, hours, and what a classifier of pictures makes of style and quality.

use std::collections::HashMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use turret_data::marketplace::{Character, STYLES, Truth};
use turret_retrieval::dataset::Dataset;
use turret_retrieval::hashing::stable_hash;

use super::ads::Ads;
use super::asked::Asked;
use super::market::normals;
use super::words::Vocabulary;

/// How many features an ad has at a moment.
pub(super) const FEATURES: usize = 15;
/// Their names, in their order.
pub(super) const NAMES: [&str; FEATURES] = [
    "words_of_query_or_looked_at",
    "words_of_history",
    "style_of_looked_at",
    "style_of_history",
    "quality",
    "price_to_looked_at",
    "price_to_history",
    "log_events_with_advertiser",
    "log_events_with_item",
    "log_hours_since_advertiser",
    "hour_sine",
    "hour_cosine",
    "log_click_rate_of_ad",
    "log_click_rate_of_advertiser",
    "is_search",
];
/// The latest events that words, styles and prices are averaged over.
const HISTORY_EVENTS: usize = 20;
/// Impressions at the overall click rate that every click rate begins with.
const PRIOR_IMPRESSIONS: f64 = 20.0;
/// The noise of each component of an observed style, whose length is 1.
const STYLE_NOISE: f64 = 0.35;
/// The noise of an observed quality, which is in 0..=1.
const QUALITY_NOISE: f64 = 0.2;
/// The seed of the hash that noise follows from.
const NOISE_SEED: u64 = 0xF0E1;
const HOUR_MS: f64 = 3_600_000.0;

/// An item as a classifier of pictures sees it: the truth with noise.
#[derive(Clone, Copy)]
struct Observed {
    style: [f64; STYLES],
    quality: f64,
}

impl Observed {
    fn of(character: &Character, item: &str) -> Self {
        let random = &mut ChaCha8Rng::seed_from_u64(stable_hash(NOISE_SEED, item.as_bytes()));
        let mut noise = || normals(random)[0];
        let style = character.style.map(|component| f64::from(component) + STYLE_NOISE * noise());
        Self { style, quality: f64::from(character.quality) + QUALITY_NOISE * noise() }
    }
}

/// What is observed of every item, by row.
pub(super) struct Observations {
    seen: Vec<Option<Observed>>,
    /// The logarithm of the price over what is usual for the foremost interest; not a number where unknown.
    prices: Vec<f64>,
    words: Vocabulary,
    /// Numbers of advertisers; none where no active ad promotes the item.
    advertisers: Vec<Option<u32>>,
}

impl Observations {
    pub(super) fn new(data: &Dataset, ads: &Ads<'_>, truth: &Truth) -> Self {
        let mut advertisers = vec![None; data.items.len()];
        ads.all.iter().for_each(|ad| advertisers[ad.item as usize] = Some(ad.advertiser));
        let items = data.items.iter();
        Self {
            seen: items.map(|item| Some(Observed::of(truth.character(&item.id)?, item.id.as_str()))).collect(),
            prices: price_positions(data),
            words: Vocabulary::new(data),
            advertisers,
        }
    }
}

fn price_positions(data: &Dataset) -> Vec<f64> {
    let foremost = |row: usize| data.items[row].interests.first().map(|interest| &interest.id);
    let log = |row: usize| data.items[row].price.filter(|price| *price > 0.0).map(|price| f64::from(price).ln());
    let mut usual = HashMap::new();
    for row in 0..data.items.len() {
        if let Some(price) = log(row) {
            let sums: &mut (f64, f64) = usual.entry(foremost(row)).or_default();
            *sums = (sums.0 + price, sums.1 + 1.0);
        }
    }
    let usual = |row| usual.get(&foremost(row)).map_or(f64::NAN, |(sum, count)| sum / count);
    (0..data.items.len()).map(|row| log(row).map_or(f64::NAN, |price| price - usual(row))).collect()
}

/// Clicks and impressions so far.
#[derive(Clone, Copy, Default)]
struct Tally {
    impressions: f64,
    clicks: f64,
}

impl Tally {
    fn rate(self, overall: f64) -> f64 {
        (self.clicks + PRIOR_IMPRESSIONS * overall) / (self.impressions + PRIOR_IMPRESSIONS)
    }
}

/// The click rates that a log has shown so far.
pub(super) struct ClickRates {
    ads: Vec<Tally>,
    advertisers: Vec<Tally>,
    all: Tally,
}

impl ClickRates {
    pub(super) fn new(ads: &Ads<'_>) -> Self {
        Self {
            ads: vec![Tally::default(); ads.all.len()],
            advertisers: vec![Tally::default(); ads.of_advertiser.len()],
            all: Tally::default(),
        }
    }

    /// Counts an impression; `clicked` is 1 or 0.
    pub(super) fn add(&mut self, ads: &Ads<'_>, ad: u32, clicked: f64) {
        let of_advertiser = &mut self.advertisers[ads.ad(ad).advertiser as usize];
        for tally in [&mut self.ads[ad as usize], of_advertiser, &mut self.all] {
            tally.impressions += 1.0;
            tally.clicks += clicked;
        }
    }

    /// Clicks of all impressions, as if there had been one before the first in ten.
    fn overall(&self) -> f64 {
        (self.all.clicks + 1.0) / (self.all.impressions + 10.0)
    }
}

/// A request as the ranker sees it.
pub(super) struct Seen<'a> {
    observations: &'a Observations,
    looked_at: u32,
    /// Rows of the items of the latest events.
    latest: Vec<u32>,
    /// The words of the query; none where nothing was searched for.
    query: Option<Vec<u32>>,
    history_style: [f64; STYLES],
    history_price: f64,
    /// By advertiser: events, and the time of the last.
    advertisers: HashMap<u32, (f64, i64)>,
    items: HashMap<u32, f64>,
    at_ms: i64,
}

impl<'a> Seen<'a> {
    pub(super) fn new(asked: &Asked<'_>, data: &Dataset, observations: &'a Observations) -> Self {
        let rows = &data.events()[asked.history.clone()];
        let latest: Vec<u32> = rows.iter().rev().take(HISTORY_EVENTS).map(|row| row.item).collect();
        let styles = latest.iter().filter_map(|item| observations.seen[*item as usize]).map(|seen| seen.style);
        let prices = latest.iter().map(|item| observations.prices[*item as usize]).filter(|price| price.is_finite());
        let (mut advertisers, mut items) = (HashMap::new(), HashMap::new());
        for row in rows {
            *items.entry(row.item).or_insert(0.0) += 1.0;
            if let Some(advertiser) = observations.advertisers[row.item as usize] {
                let seen: &mut (f64, i64) = advertisers.entry(advertiser).or_default();
                *seen = (seen.0 + 1.0, row.at);
            }
        }
        let styles: Vec<[f64; STYLES]> = styles.collect();
        Self {
            observations,
            looked_at: asked.looked_at,
            query: asked.log.query.as_deref().map(|query| observations.words.of_text(query)),
            history_style: std::array::from_fn(|at| mean(styles.iter().map(|style| style[at]))),
            history_price: mean(prices),
            latest,
            advertisers,
            items,
            at_ms: asked.log.timestamp_ms,
        }
    }

    /// The features of ad `number`, as [`NAMES`] has them; what is not known is not a number.
    pub(super) fn features(&self, ads: &Ads<'_>, number: u32, rates: &ClickRates) -> [f64; FEATURES] {
        let (ad, all) = (ads.ad(number), self.observations);
        let seen = |item: u32| all.seen[item as usize].as_ref();
        let price = |item: u32| all.prices[item as usize];
        let own = seen(ad.item);
        let styles = |other: Option<&[f64; STYLES]>| match (own, other) {
            (Some(own), Some(other)) => own.style.iter().zip(other).map(|(own, other)| own * other).sum(),
            _ => f64::NAN,
        };
        let words = |item: u32| all.words.likeness(all.words.of_item(ad.item), all.words.of_item(item));
        let asked_words =
            self.query.as_ref().map(|query| all.words.likeness(all.words.of_item(ad.item), query.as_slice()));
        let with_advertiser = self.advertisers.get(&ad.advertiser);
        let overall = rates.overall();
        let hour = self.at_ms as f64 / HOUR_MS % 24.0 / 24.0 * std::f64::consts::TAU;
        [
            asked_words.unwrap_or_else(|| words(self.looked_at)),
            mean(self.latest.iter().map(|item| words(*item))),
            styles(seen(self.looked_at).map(|seen| &seen.style)),
            styles(Some(&self.history_style)),
            own.map_or(f64::NAN, |own| own.quality),
            (price(ad.item) - price(self.looked_at)).abs(),
            (price(ad.item) - self.history_price).abs(),
            with_advertiser.map_or(0.0, |(events, _)| events.ln_1p()),
            self.items.get(&ad.item).map_or(0.0, |events| events.ln_1p()),
            with_advertiser.map_or(f64::NAN, |(_, at)| ((self.at_ms - at) as f64 / HOUR_MS).ln_1p()),
            hour.sin(),
            hour.cos(),
            rates.ads[number as usize].rate(overall).ln(),
            rates.advertisers[ad.advertiser as usize].rate(overall).ln(),
            f64::from(u8::from(self.query.is_some())),
        ]
    }
}

/// Not a number where there is nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    sum / count
}
