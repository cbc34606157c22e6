//! Intervals: what the metrics would have been with other users.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::cases::Case;
use super::levels::{Histogram, Levels, keys};
use super::report::{ArmReport, Comparison, Estimate};

/// Metrics whose differences and ratios are reported.
const COMPARED: [&str; 4] = ["recall@10", "recall@50", "recall@100", "ndcg@10"];

type Metrics = [f64; Histogram::METRICS];

/// The metrics of every arm under each resample: the same users in every arm, so that arms can be compared.
pub(super) struct Resamples {
    // By resample, then arm.
    samples: Vec<Vec<Metrics>>,
}

impl Resamples {
    /// Draws `samples` times as many users as there are, with all of their cases.
    ///
    /// `arms` holds the levels of all cases, `chosen` the numbers of those that are resampled, in order; cases of one
    /// user stand together. A case of a user that the data set does not know is drawn by itself.
    pub(super) fn new(arms: &[&[Levels]], (cases, chosen): (&[Case], &[u32]), samples: usize, seed: u64) -> Self {
        let users = users(cases, chosen);
        let sample = |number: usize| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            // The first streams are those of the cases and of the random arm.
            random.set_stream(16 + number as u64);
            let mut histograms = vec![Histogram::default(); arms.len()];
            for _ in 0..users.len() {
                let user = users[random.random_range(0..users.len())].clone();
                for case in &chosen[user] {
                    for (histogram, levels) in histograms.iter_mut().zip(arms) {
                        histogram.add(levels[*case as usize]);
                    }
                }
            }
            histograms.iter().map(Histogram::metrics).collect()
        };
        Self { samples: (0..samples).into_par_iter().map(sample).collect() }
    }

    /// The interval of every metric of an arm.
    pub(super) fn intervals(&self, arm: usize) -> BTreeMap<String, [f64; 2]> {
        let of = |metric: usize| central(self.samples.iter().map(|arms| arms[arm][metric]).collect());
        keys().into_iter().enumerate().filter_map(|(number, key)| Some((key, of(number)?))).collect()
    }

    /// One arm against another.
    pub(super) fn compare(&self, reports: &[ArmReport], one: usize, other: usize) -> Comparison {
        let keys = keys();
        let (mut difference, mut ratio) = (BTreeMap::new(), BTreeMap::new());
        for key in COMPARED {
            let number = keys.iter().position(|known| known == key).expect("what is compared is a metric");
            let interval = |of: &dyn Fn(f64, f64) -> f64| {
                central(self.samples.iter().map(|arms| of(arms[one][number], arms[other][number])).collect())
            };
            let (Some(own), Some(its)) = (reports[one].metric(key), reports[other].metric(key)) else { continue };
            difference.insert(key.to_owned(), Estimate { value: own - its, interval: interval(&|own, its| own - its) });
            if its > 0.0 {
                ratio.insert(key.to_owned(), Estimate { value: own / its, interval: interval(&|own, its| own / its) });
            }
        }
        Comparison { arm: reports[one].name.clone(), to: reports[other].name.clone(), difference, ratio }
    }
}

/// Where in `chosen` the cases of each user stand.
fn users(cases: &[Case], chosen: &[u32]) -> Vec<Range<usize>> {
    let user = |number: &u32| cases[*number as usize].user;
    let mut from = 0;
    let groups = chosen.chunk_by(|a, b| user(a).is_some() && user(a) == user(b));
    let range = |group: &[u32]| {
        from += group.len();
        from - group.len()..from
    };
    groups.map(range).collect()
}

/// The central 95 % of `samples`; none where there is none, or one of them is not a number.
fn central(mut samples: Vec<f64>) -> Option<[f64; 2]> {
    if samples.iter().any(|sample| !sample.is_finite()) {
        return None;
    }
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples.get(((samples.len() as f64 - 1.0) * share).round() as usize).copied();
    Some([at(0.025)?, at(0.975)?])
}

#[cfg(test)]
mod tests {
    use super::super::cases::Looked;
    use super::super::report::Role;
    use super::*;

    fn case(user: Option<u32>) -> Case {
        Case { user, history: 0..0, context: Looked::Item(0), target: 0, past: 0..0 }
    }

    fn levels(hits: &[bool]) -> Vec<Levels> {
        let level = |hit: &bool| Levels::level(hit.then_some(0));
        hits.iter().map(|hit| Levels { item: level(hit), advertiser: Levels::UNDEFINED }).collect()
    }

    fn report(levels: &[Levels]) -> ArmReport {
        let metrics = super::super::levels::metrics(levels.iter().copied());
        ArmReport { name: "arm".to_owned(), role: Role::Model, metrics, intervals: BTreeMap::new() }
    }

    #[test]
    fn intervals_hold_the_mean_and_narrow_with_more_cases() {
        let width = |count: u32| {
            let cases: Vec<Case> = (0..count).map(|user| case(Some(user))).collect();
            let all: Vec<u32> = (0..count).collect();
            let own = levels(&all.iter().map(|number| number % 2 == 0).collect::<Vec<_>>());
            let [low, high] = Resamples::new(&[&own], (&cases, &all), 500, 1).intervals(0)["recall@10"];
            assert!(low < 0.5 && high > 0.5 && low >= 0.0 && high <= 1.0, "{low} {high}");
            high - low
        };
        assert!(width(1_000) < width(50) / 2.0);
    }

    #[test]
    fn cases_of_one_user_are_drawn_together() {
        // Ten users with ten cases each, all alike: as uncertain as ten cases, not as a hundred.
        let together: Vec<Case> = (0..100).map(|number| case(Some(number / 10))).collect();
        let alone: Vec<Case> = (0..100).map(|_| case(None)).collect();
        let all: Vec<u32> = (0..100).collect();
        let own = levels(&(0..100).map(|number| number / 10 % 2 == 0).collect::<Vec<_>>());
        let width = |cases: &[Case]| {
            let [low, high] = Resamples::new(&[&own], (cases, &all), 500, 1).intervals(0)["recall@10"];
            high - low
        };
        assert!(width(&together) > 2.0 * width(&alone));
    }

    #[test]
    fn arms_are_compared_over_the_same_draws() {
        let cases: Vec<Case> = (0..200).map(|user| case(Some(user))).collect();
        let all: Vec<u32> = (0..200).collect();
        // The one hits wherever the other does, and in a tenth of the cases besides.
        let other = levels(&all.iter().map(|number| number % 2 == 0).collect::<Vec<_>>());
        let one = levels(&all.iter().map(|number| number % 2 == 0 || number % 10 == 1).collect::<Vec<_>>());
        let reports = [report(&one), report(&other)];
        let compared = Resamples::new(&[&one, &other], (&cases, &all), 500, 1).compare(&reports, 0, 1);
        let difference = compared.difference["recall@10"];
        assert!((difference.value - 0.1).abs() < 1e-9);
        let [low, high] = difference.interval.unwrap();
        assert!(low > 0.0 && high < 0.16, "paired, the difference is surely positive: {low} {high}");
        assert!((compared.ratio["recall@10"].value - 1.2).abs() < 1e-9);
        let nothing = levels(&[false; 200]);
        let reports = [report(&one), report(&nothing)];
        let compared = Resamples::new(&[&one, &nothing], (&cases, &all), 10, 1).compare(&reports, 0, 1);
        assert!(compared.ratio.is_empty() && compared.difference["recall@10"].interval.is_some());
        assert!(Resamples::new(&[&one], (&cases, &all), 0, 1).intervals(0).is_empty());
    }
}
