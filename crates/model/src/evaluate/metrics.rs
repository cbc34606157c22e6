//! Recall, NDCG and diversity, with bootstrap intervals.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::ranking::{Judged, TOP};
use crate::settings::EvaluationSettings;

/// The cut-offs of recall.
const CUT_OFFS: [usize; 5] = [10, 50, 100, 200, 1_000];
/// Diversity is the part of the catalogue that makes up this share of the results.
const COVERED: f64 = 0.9;

/// How every arm did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvaluationReport {
    /// Test cases.
    pub cases: usize,
    /// Items ranked for each.
    pub catalogue: usize,
    /// The share of the targets whose item occurs in training: what knows only ids cannot recall more.
    pub ceiling: f64,
    /// In the order in which they were given.
    pub arms: Vec<ArmReport>,
}

/// How one arm did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmReport {
    /// Which one.
    pub name: String,
    /// `recall@10`, `@50`, `@100`, `@200`, `@1000` and `ndcg@10`, means over the cases.
    pub metrics: BTreeMap<String, f64>,
    /// The 95 % bootstrap interval of each recall; empty where none was asked for.
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// The mean normalised discounted cumulative gain of the first 10.
    #[serde(skip)]
    pub ndcg_at_10: f64,
    /// The part of the catalogue that makes up 90 % of all first hundreds; none where an arm shows no results.
    pub diversity: Option<f64>,
}

impl ArmReport {
    /// The share of the cases whose target was among the first `k`, for one of the cut-offs.
    pub fn recall_at(&self, k: usize) -> Option<f64> {
        self.metrics.get(&recall_key(k)).copied()
    }

    /// The 95 % interval of that.
    pub fn interval_at(&self, k: usize) -> Option<[f64; 2]> {
        self.intervals.get(&recall_key(k)).copied()
    }
}

fn recall_key(k: usize) -> String {
    format!("recall@{k}")
}

/// The reports of all arms; every resample of the bootstrap is the same cases in every arm.
pub(super) fn reports<'a>(
    arms: impl Iterator<Item = (&'static str, &'a Vec<Judged>)>,
    catalogue: usize,
    settings: &EvaluationSettings,
    random: &mut ChaCha8Rng,
) -> Vec<ArmReport> {
    let arms: Vec<(&str, &Vec<Judged>)> = arms.collect();
    let mut reports: Vec<ArmReport> = arms.iter().map(|(name, judged)| report(name, judged, catalogue)).collect();
    let cases = arms.first().map_or(0, |(_, judged)| judged.len());
    // Which of the cut-offs each case reached, as a number of cut-offs: they are nested.
    let reached: Vec<Vec<u8>> = arms.iter().map(|(_, judged)| judged.iter().map(reached).collect()).collect();
    let mut samples = vec![[const { Vec::new() }; CUT_OFFS.len()]; arms.len()];
    for _ in 0..settings.bootstrap_samples {
        let chosen: Vec<u32> = (0..cases).map(|_| random.random_range(0..cases as u32)).collect();
        for (reached, samples) in reached.iter().zip(&mut samples) {
            let mut counts = [0u32; CUT_OFFS.len() + 1];
            chosen.iter().for_each(|case| counts[reached[*case as usize] as usize] += 1);
            let mut hits = 0;
            for (at, samples) in samples.iter_mut().enumerate() {
                // Reaching the first cut-off reaches all of them: the larger the number, the smaller the rank.
                hits += counts[CUT_OFFS.len() - at];
                samples.push(f64::from(hits) / cases as f64);
            }
        }
    }
    for (report, samples) in reports.iter_mut().zip(&mut samples) {
        for (k, samples) in CUT_OFFS.iter().zip(samples) {
            if let Some(interval) = central(samples) {
                report.intervals.insert(recall_key(*k), interval);
            }
        }
    }
    reports
}

/// How many of the cut-offs the target's place is within.
fn reached(judged: &Judged) -> u8 {
    judged.rank.map_or(0, |rank| CUT_OFFS.iter().filter(|k| (rank as usize) < **k).count() as u8)
}

/// The central 95 % of `samples`.
fn central(samples: &mut [f64]) -> Option<[f64; 2]> {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples.get(((samples.len() as f64 - 1.0) * share).round() as usize).copied();
    Some([at(0.025)?, at(0.975)?])
}

fn report(name: &str, judged: &[Judged], catalogue: usize) -> ArmReport {
    let mean = |value: &dyn Fn(u32) -> f64| {
        judged.iter().filter_map(|judged| judged.rank).map(value).sum::<f64>() / judged.len() as f64
    };
    let mut metrics: BTreeMap<String, f64> =
        CUT_OFFS.iter().map(|k| (recall_key(*k), mean(&|rank| if (rank as usize) < *k { 1.0 } else { 0.0 }))).collect();
    let ndcg_at_10 = mean(&|rank| if rank < 10 { 1.0 / (f64::from(rank) + 2.0).log2() } else { 0.0 });
    metrics.insert("ndcg@10".to_owned(), ndcg_at_10);
    let diversity = diversity(judged, catalogue);
    ArmReport { name: name.to_owned(), metrics, intervals: BTreeMap::new(), ndcg_at_10, diversity }
}

fn diversity(judged: &[Judged], catalogue: usize) -> Option<f64> {
    let mut counts = vec![0u64; catalogue];
    for judged in judged {
        judged.top.as_ref()?.iter().take(TOP).for_each(|item| counts[*item as usize] += 1);
    }
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let enough = counts.iter().sum::<u64>() as f64 * COVERED;
    let mut sum = 0.0;
    let needed = counts.iter().take_while(|count| {
        let wanted = sum < enough;
        sum += **count as f64;
        wanted
    });
    Some(needed.count() as f64 / catalogue as f64)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn judged(rank: Option<u32>, top: &[u32]) -> Judged {
        Judged { rank, top: Some(top.to_vec()) }
    }

    #[test]
    fn recall_ndcg_and_diversity_are_those_of_a_hand_count() {
        let all =
            vec![judged(Some(0), &[0, 1]), judged(Some(9), &[0, 1]), judged(Some(10), &[0, 2]), judged(None, &[0, 3])];
        let settings = EvaluationSettings { seed: 1, cases_max: None, bootstrap_samples: 500 };
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let report = reports([("arm", &all)].into_iter(), 10, &settings, &mut random).pop().unwrap();
        assert_eq!(report.recall_at(10), Some(0.5));
        assert_eq!(report.recall_at(50), Some(0.75));
        assert_eq!(report.recall_at(11), None);
        assert!((report.ndcg_at_10 - (1.0 + 1.0 / 11f64.log2()) / 4.0).abs() < 1e-12);
        // 8 results, 7.2 of them are 90 %: items 0 (4), 1 (2), 2 (1) and 3 (1).
        assert_eq!(report.diversity, Some(0.4));
        let [low, high] = report.interval_at(10).unwrap();
        assert!(low < 0.5 && high > 0.5 && low >= 0.0 && high <= 1.0, "{low} {high}");
        assert!(report.interval_at(50).unwrap()[1] >= high);
    }
}
