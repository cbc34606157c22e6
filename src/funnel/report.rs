//! What a simulated funnel came to, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contest::{Day, Entry, Proposers, Rules};
use super::generators::Generator;
use super::ranker::RankerQuality;

/// Spend and value are told for so many requests.
const REQUESTS: f64 = 1_000.0;

/// Numbers by name; see `docs/evaluation.md`.
pub type Metrics = BTreeMap<&'static str, f64>;

/// One generator under one set of rules.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The generator, and what is unusual about the rules; once in a report.
    pub name: String,
    /// What is unusual about the rules; empty for the usual ones.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The generator.
    pub arm: &'static str,
    /// Over the seeds; without what none of them could measure.
    pub mean: Metrics,
    /// The smallest and the largest.
    pub spread: BTreeMap<&'static str, [f64; 2]>,
    /// Seed by seed.
    pub seeds: Vec<Seed>,
}

/// What one seed came to.
#[derive(Clone, Debug, Serialize)]
pub struct Seed {
    /// The seed.
    pub seed: u64,
    /// What it came to.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// A simulated funnel.
#[derive(Clone, Debug, Serialize)]
pub struct FunnelReport {
    /// What it is.
    pub title: &'static str,
    /// Of bids, budgets and the random generator; the models, the ranker and the requests are the same for all.
    pub seeds: Vec<u64>,
    /// Requests of the simulated day.
    pub requests: usize,
    /// Ads that compete.
    pub ads: usize,
    /// Who pays for them.
    pub advertisers: usize,
    /// Ads that each generator proposes for a request.
    pub candidates: usize,
    /// How good the ranker is.
    pub ranker: RankerQuality,
    /// What the ranker knows.
    pub features: Vec<&'static str>,
    /// Every generator under every set of rules, the usual ones first.
    pub rows: Vec<Row>,
}

impl FunnelReport {
    /// The row of a generator under the rules of `group`.
    pub fn row(&self, generator: Generator, group: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.arm == generator.name() && row.group == group)
    }

    /// The groups, the usual rules (an empty name) first.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = self.rows.iter().map(|row| row.group.as_str()).collect();
        groups.dedup();
        groups
    }
}

/// Joins what the seeds came to.
pub(super) fn row(generator: Generator, group: &str, seeds: Vec<Seed>) -> Row {
    let (mut mean, mut spread) = (Metrics::new(), BTreeMap::new());
    let names: Vec<&'static str> = seeds.iter().flat_map(|seed| seed.metrics.keys().copied()).collect();
    for name in names {
        let values: Vec<f64> = seeds.iter().filter_map(|seed| seed.metrics.get(name).copied()).collect();
        mean.insert(name, values.iter().sum::<f64>() / values.len() as f64);
        spread.insert(name, values.iter().fold([f64::MAX, f64::MIN], |[low, high], x| [low.min(*x), high.max(*x)]));
    }
    let name = match group {
        "" => generator.name().to_owned(),
        group => format!("{}, {group}", generator.name()),
    };
    Row { name, group: group.to_owned(), arm: generator.name(), mean, spread, seeds }
}

/// A day on which all compete, and one for each generator alone.
pub(super) struct Days {
    pub(super) together: Day,
    pub(super) alone: [Day; Generator::ALL.len()],
}

/// Every generator's numbers, in the order of [`Generator::ALL`]; what cannot be measured is left out.
pub(super) fn metrics(pools: &[Vec<Entry>], days: &Days, rules: &Rules) -> Vec<Metrics> {
    let mut all: Vec<Metrics> =
        Generator::ALL.iter().zip(&days.alone).map(|(own, alone)| of(*own, pools, days, (alone, rules))).collect();
    let reference = all[Generator::HistoryOnly as usize].clone();
    for metrics in &mut all {
        for (name, ratio) in [
            ("delivery_share", "delivery_ratio_vs_history_only"),
            ("median_relevance", "relevance_ratio_vs_history_only"),
            ("median_relevance_retrieved", "relevance_retrieved_ratio_vs_history_only"),
            ("median_click_probability", "click_probability_ratio_vs_history_only"),
            ("median_click_probability_retrieved", "click_probability_retrieved_ratio_vs_history_only"),
        ] {
            if let (Some(own), Some(other)) = (metrics.get(name), reference.get(name).filter(|other| **other > 0.0)) {
                metrics.insert(ratio, own / other);
            }
        }
    }
    all
}

fn of(own: Generator, pools: &[Vec<Entry>], days: &Days, (alone, rules): (&Day, &Rules)) -> Metrics {
    let proposed: Vec<&Entry> = pools.iter().flatten().filter(|entry| entry.proposers.has(own)).collect();
    let survived = proposed.iter().filter(|entry| entry.score >= rules.floor).count();
    let shown = &days.together.impressions;
    let delivered: Vec<_> = shown.iter().filter(|sold| sold.proposers.has(own)).collect();
    let credit = |of: fn(&super::contest::Impression) -> f64| {
        delivered.iter().map(|sold| sold.proposers.share() * of(sold)).sum::<f64>()
    };
    let requests = pools.len() as f64;
    let thousands = requests / REQUESTS;
    let alone_sum = |of: fn(&super::contest::Impression) -> f64| alone.impressions.iter().map(of).sum::<f64>();
    let measured = [
        ("survival_rate", share(survived, proposed.len())),
        ("delivery_share", share(delivered.len(), proposed.len())),
        ("impression_share", Some(credit(|_| 1.0) / shown.len() as f64).filter(|share| share.is_finite())),
        ("median_relevance_retrieved", median(proposed.iter().map(|entry| entry.relevance))),
        ("median_relevance", median(delivered.iter().map(|sold| sold.relevance))),
        ("median_click_probability_retrieved", median(proposed.iter().map(|entry| entry.truth))),
        ("median_click_probability", median(delivered.iter().map(|sold| sold.truth))),
        ("spend", Some(credit(|sold| sold.price.amount()) / thousands)),
        ("value", Some(credit(|sold| sold.value) / thousands)),
        ("alone_fill_rate", share(alone.impressions.len(), pools.len() * rules.slots)),
        ("alone_median_relevance", median(alone.impressions.iter().map(|sold| sold.relevance))),
        ("alone_spend", Some(alone_sum(|sold| sold.price.amount()) / thousands)),
        ("alone_value", Some(alone_sum(|sold| sold.value) / thousands)),
    ];
    measured.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The middle value, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f32>) -> Option<f64> {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(f64::from(values[middle])),
        _ => Some((f64::from(values[middle - 1]) + f64::from(values[middle])) / 2.0),
    }
}

/// Simulates the days that [`metrics`] needs.
pub(super) fn days(simulate: impl Fn(Proposers) -> Day) -> Days {
    Days { together: simulate(Proposers::ALL), alone: Generator::ALL.map(|own| simulate(Proposers::only(own))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let check = |values: &[f32], expected| assert_eq!(median(values.iter().copied()), expected);
        check(&[], None);
        check(&[3.0, 1.0, 2.0], Some(2.0));
        check(&[4.0, 1.0, 3.0, 2.0], Some(2.5));
    }

    #[test]
    fn a_row_tells_the_mean_and_the_range_of_its_seeds() {
        let seed = |seed, value: Option<f64>| Seed {
            seed,
            metrics: value.into_iter().map(|value| ("spend", value)).chain([("value", 1.0)]).collect(),
        };
        let row = row(Generator::Random, "2 slots", vec![seed(1, Some(2.0)), seed(2, None), seed(3, Some(5.0))]);
        assert_eq!((row.name.as_str(), row.mean["spend"], row.spread["spend"]), ("random, 2 slots", 3.5, [2.0, 5.0]));
        assert_eq!(row.mean["value"], 1.0);
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!((&json["seeds"][2]["seed"], &json["seeds"][2]["spend"]), (&3.into(), &5.0.into()));
    }
}
