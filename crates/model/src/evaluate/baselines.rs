//! Arms that count instead of learning. They get what the models get: events before the cut, and the context.

use rayon::prelude::*;
use turret_retrieval::dataset::Dataset;
use turret_retrieval::vector::dot;

use super::EvaluateError;
use super::arms::{Baseline, Counted};
use super::cases::{Case, Looked};
use super::tally::Tally;
use super::trial::Trial;
use crate::examples::{neighbour, training_ends};
use crate::settings::Split;

const DAY_MS: i64 = 86_400_000;
/// How much of a cosine the popularity of an item is worth: enough to order ties.
const TIE: f32 = 1e-4;

/// What the baselines count over training events.
pub(super) struct Counts {
    /// In [0, 1), in the order of popularity.
    popularity: Vec<f32>,
    // Pairs of one item and the next, with how often they occurred, by the first item.
    next: Vec<(u32, u32, u32)>,
}

impl Counts {
    pub(super) fn of(data: &Dataset, split: &Split, counted: Counted) -> Self {
        let from = match (split, counted) {
            (Split::Temporal { cut_ms, .. }, Counted::LastDay) => cut_ms - DAY_MS,
            (Split::Temporal { .. } | Split::LeaveOneOut { .. }, Counted::All)
            | (Split::LeaveOneOut { .. }, Counted::LastDay) => i64::MIN,
        };
        let ends = training_ends(data, split);
        let mut counts = vec![0u32; data.items.len()];
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        for user in 0..data.users.len() as u32 {
            for number in data.range_of(user).start..ends[user as usize] {
                let row = &data.events()[number];
                if row.at < from {
                    continue;
                }
                counts[row.item as usize] += 1;
                let before = neighbour(data, number).map(|before| &data.events()[before]);
                pairs.extend(before.filter(|before| before.at >= from).map(|before| (before.item, row.item)));
            }
        }
        pairs.par_sort_unstable();
        let next = pairs.chunk_by(|a, b| a == b).map(|same| (same[0].0, same[0].1, same.len() as u32)).collect();
        let scale = 1.0 / (counts.iter().max().copied().unwrap_or(0) as f32 + 1.0);
        Self { popularity: counts.iter().map(|count| *count as f32 * scale).collect(), next }
    }

    /// What came after `item`, and how often.
    fn after(&self, item: u32) -> &[(u32, u32, u32)] {
        let start = self.next.partition_point(|(first, ..)| *first < item);
        let count = self.next[start..].partition_point(|(first, ..)| *first == item);
        &self.next[start..start + count]
    }
}

/// Ranks every case.
pub(super) fn rank(
    baseline: Baseline,
    counts: Option<&Counts>,
    trial: &Trial<'_>,
    tally: &mut Tally<'_>,
    step: &mut dyn FnMut(usize) -> Result<(), EvaluateError>,
) -> Result<(), EvaluateError> {
    let nothing = Counts { popularity: vec![0.0; trial.data.items.len()], next: Vec::new() };
    let embeddings = match baseline {
        Baseline::ContentNeighbour(_) => embeddings(trial.data),
        Baseline::Popularity(_) | Baseline::Markov(_) | Baseline::CategoryPopularity(_) | Baseline::Random => {
            Vec::new()
        }
    };
    let scorer = Scorer { trial, counts: counts.unwrap_or(&nothing), embeddings };
    for chunk in trial.cases.chunks(trial.chunk()) {
        let first = tally.len();
        let judge = |(at, case)| trial.judge(case, &scorer.scores(baseline, case, (first + at) as u64));
        let judged: Vec<_> = chunk.par_iter().enumerate().map(judge).collect();
        tally.extend(judged);
        step(tally.len())?;
    }
    Ok(())
}

struct Scorer<'a> {
    trial: &'a Trial<'a>,
    counts: &'a Counts,
    // By item, of length 1.
    embeddings: Vec<Option<Vec<f32>>>,
}

impl Scorer<'_> {
    /// The score of every item for case `number`; what is ranked first stands above popularity, which is below 1.
    fn scores(&self, baseline: Baseline, case: &Case, number: u64) -> Vec<f32> {
        let mut scores = self.counts.popularity.clone();
        match baseline {
            Baseline::Popularity(_) => {}
            Baseline::Random => {
                let seed = mixed(self.trial.settings.seed ^ mixed(number));
                for (score, item) in scores.iter_mut().zip(0u64..) {
                    // 24 bits are what a float holds.
                    *score = (mixed(seed ^ item) >> 40) as f32;
                }
            }
            Baseline::Markov(_) => {
                if let Looked::Item(subject) = case.context {
                    self.counts
                        .after(subject)
                        .iter()
                        .for_each(|(_, item, count)| scores[*item as usize] += *count as f32);
                }
            }
            Baseline::CategoryPopularity(_) => {
                let subject = self.trial.subject(case.context);
                for (item, _) in self.trial.interests.sharing(&subject) {
                    let score = &mut scores[item as usize];
                    // Sharing a second interest is worth nothing more.
                    *score = score.fract() + 1.0;
                }
            }
            Baseline::ContentNeighbour(_) => self.add_cosines(case, &mut scores),
        }
        scores
    }

    /// The sum of both cosines with the subject, ties by what `scores` holds before.
    fn add_cosines(&self, case: &Case, scores: &mut [f32]) {
        scores.iter_mut().for_each(|score| *score *= TIE);
        for (item, cosine) in self.trial.interests.sharing(&self.trial.subject(case.context)) {
            scores[item as usize] += cosine;
        }
        let Looked::Item(subject) = case.context else { return };
        if let Some(subject) = &self.embeddings[subject as usize] {
            for (score, own) in scores.iter_mut().zip(&self.embeddings) {
                *score += own.as_deref().map_or(0.0, |own| dot(subject, own));
            }
        }
    }
}

/// The content embeddings of the items, scaled to length 1.
fn embeddings(data: &Dataset) -> Vec<Option<Vec<f32>>> {
    let unit = |values: &Vec<f32>| {
        let length = dot(values, values).sqrt();
        (length > 0.0 && length.is_finite()).then(|| values.iter().map(|value| value / length).collect())
    };
    data.items.iter().map(|item| item.embedding.as_ref().and_then(unit)).collect()
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014: its mixing function.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
