//! What one arm's rankings add up to.

use std::collections::BTreeMap;

use super::interests::cosine;
use super::levels::Levels;
use super::ranking::{AdvertiserRank, Judged};
use super::report::{ArmReport, Role};
use super::slices::Slices;
use super::trial::Trial;

/// Diversity is the part of the catalogue that makes up this share of the results.
const COVERED: f64 = 0.9;
/// Results whose relevance is measured.
const RELEVANT: usize = 10;

/// The rankings of one arm, case after case.
///
/// Holds two bytes and a float for each case, and a count for each item and slice; no ranking is kept.
pub(super) struct Tally<'a> {
    trial: &'a Trial<'a>,
    slices: &'a Slices,
    pub(super) levels: Vec<Levels>,
    // Mean cosine of the first results with the target; not a number where it is not defined.
    relevance: Vec<f32>,
    // How often each item is among the first hundred: over all cases, then in each slice.
    shown: Vec<Vec<u32>>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(trial: &'a Trial<'a>, slices: &'a Slices) -> Self {
        Self {
            trial,
            slices,
            levels: Vec::with_capacity(trial.cases.len()),
            relevance: Vec::with_capacity(trial.cases.len()),
            shown: vec![vec![0; trial.data.items.len()]; 1 + slices.list.len()],
        }
    }

    /// Adds the rankings of the next cases.
    pub(super) fn extend(&mut self, judged: impl IntoIterator<Item = Judged>) {
        for judged in judged {
            let number = self.levels.len();
            let case = &self.trial.cases[number];
            self.levels.push(Levels::of(&judged));
            let first = &judged.top[..judged.top.len().min(RELEVANT)];
            self.relevance.push(self.relevance_of(case.target, first));
            let of_slices = self.slices.of_case(number).map(|slice| 1 + slice);
            for slice in std::iter::once(0).chain(of_slices) {
                let shown = &mut self.shown[slice];
                judged.top.iter().for_each(|item| shown[*item as usize] += 1);
            }
        }
    }

    /// The mean cosine of `results` with `target`; not a number where the target has no interests.
    fn relevance_of(&self, target: u32, results: &[u32]) -> f32 {
        let interests = &self.trial.interests;
        let wanted = interests.item(target);
        if wanted.is_empty() {
            return f32::NAN;
        }
        results.iter().map(|result| cosine(wanted, interests.item(*result))).sum::<f32>() / results.len() as f32
    }

    /// How many cases have been added.
    pub(super) fn len(&self) -> usize {
        self.levels.len()
    }

    /// The metrics over all cases, then those of each slice, without intervals.
    pub(super) fn finish(self, name: &str, role: Role) -> Tallied {
        let report = |cases: &mut dyn Iterator<Item = usize>, shown: &[u32]| {
            let cases: Vec<usize> = cases.collect();
            let mut metrics = super::levels::metrics(cases.iter().map(|case| self.levels[*case]));
            metrics.insert("diversity".to_owned(), diversity(shown, self.trial.ranked_items()));
            if let Some(relevance) = median(cases.iter().map(|case| self.relevance[*case])) {
                metrics.insert(format!("relevance@{RELEVANT}"), relevance);
            }
            ArmReport { name: name.to_owned(), role, metrics, intervals: BTreeMap::new() }
        };
        let all = report(&mut (0..self.levels.len()), &self.shown[0]);
        let slices = self.slices.list.iter().zip(&self.shown[1..]);
        let slices =
            slices.map(|(slice, shown)| report(&mut slice.cases.iter().map(|case| *case as usize), shown)).collect();
        Tallied { levels: self.levels, all, slices }
    }
}

/// How an arm did.
pub(super) struct Tallied {
    pub(super) levels: Vec<Levels>,
    pub(super) all: ArmReport,
    pub(super) slices: Vec<ArmReport>,
}

/// The smallest part of the `catalogue` that makes up 90 % of what is shown.
fn diversity(shown: &[u32], catalogue: usize) -> f64 {
    let mut counts: Vec<u32> = shown.iter().copied().filter(|count| *count > 0).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let enough = counts.iter().map(|count| f64::from(*count)).sum::<f64>() * COVERED;
    let mut sum = 0.0;
    let needed = counts.iter().take_while(|count| {
        let wanted = sum < enough;
        sum += f64::from(**count);
        wanted
    });
    needed.count() as f64 / catalogue as f64
}

/// The middle of the numbers among `values`; of an even count, the lower one.
fn median(values: impl Iterator<Item = f32>) -> Option<f64> {
    let mut values: Vec<f32> = values.filter(|value| !value.is_nan()).collect();
    let middle = values.len().checked_sub(1)? / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    Some(f64::from(*median))
}

impl Levels {
    fn of(judged: &Judged) -> Self {
        let advertiser = match judged.advertiser {
            AdvertiserRank::Unknown => Self::UNDEFINED,
            AdvertiserRank::Unranked => Self::level(None),
            AdvertiserRank::At(rank) => Self::level(Some(rank)),
        };
        Self { item: Self::level(judged.rank), advertiser }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diversity_is_the_part_that_makes_up_nine_tenths() {
        // 8 results, 7.2 of them are 90 %: items 0 (4), 1 (2), 2 (1) and 3 (1).
        assert_eq!(diversity(&[4, 2, 1, 1, 0, 0, 0, 0, 0, 0], 10), 0.4);
        assert_eq!(diversity(&[0; 10], 10), 0.0);
        assert_eq!(diversity(&[1; 10], 10), 0.9);
    }

    #[test]
    fn the_median_leaves_out_what_is_no_number() {
        assert_eq!(median([0.5, f32::NAN, 0.25, 0.75].into_iter()), Some(0.5));
        assert_eq!(median([f32::NAN].into_iter()), None);
    }
}
