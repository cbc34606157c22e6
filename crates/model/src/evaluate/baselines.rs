//! Arms that count instead of learning. They get what the models get: events before the cut, and the context.

use std::collections::HashMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use turret_retrieval::dataset::Dataset;

use super::cases::Case;
use super::ranking::{Judged, judge};
use super::{CHUNK_CASES, EvaluateError, seen};
use crate::examples::{neighbour, training_ends};
use crate::settings::Split;

const DAY_MS: i64 = 86_400_000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Baseline {
    /// Events of an item.
    Popularity,
    /// Events of an item right after the context's item in a session; then popularity.
    Markov,
    /// Popularity among items that share an interest with the context's item; then popularity.
    CategoryPopularity,
    /// Nothing: the target's place is drawn.
    Random,
}

/// What the baselines count, over the training events of the last day (without times: over all of them).
struct Counts {
    /// In [0, 1), in the order of popularity.
    popularity: Vec<f32>,
    /// By item: what came next how often.
    next: HashMap<u32, HashMap<u32, u32>>,
}

impl Counts {
    fn of(data: &Dataset, split: &Split) -> Self {
        let from = match split {
            Split::Temporal { cut_ms, .. } => cut_ms - DAY_MS,
            Split::LeaveOneOut => i64::MIN,
        };
        let ends = training_ends(data, split);
        let mut counts = vec![0u32; data.items.len()];
        let mut next: HashMap<u32, HashMap<u32, u32>> = HashMap::new();
        for user in 0..data.users.len() as u32 {
            for number in data.range_of(user).start..ends[user as usize] {
                let row = &data.events()[number];
                if row.at < from {
                    continue;
                }
                counts[row.item as usize] += 1;
                if let Some(before) = neighbour(data, number).map(|before| &data.events()[before])
                    && before.at >= from
                {
                    *next.entry(before.item).or_default().entry(row.item).or_default() += 1;
                }
            }
        }
        let scale = 1.0 / (counts.iter().max().copied().unwrap_or(0) as f32 + 1.0);
        Self { popularity: counts.iter().map(|count| *count as f32 * scale).collect(), next }
    }

    /// The score of every item; the ranked part stands above popularity, which is below 1.
    fn scores(&self, baseline: Baseline, data: &Dataset, context: u32) -> Vec<f32> {
        let mut scores = self.popularity.clone();
        match baseline {
            Baseline::Popularity | Baseline::Random => {}
            Baseline::Markov => {
                for (item, count) in self.next.get(&context).into_iter().flatten() {
                    scores[*item as usize] += *count as f32;
                }
            }
            Baseline::CategoryPopularity => {
                let subject = &data.items[context as usize].interests;
                for (score, item) in scores.iter_mut().zip(&*data.items) {
                    if item.interests.iter().any(|own| subject.iter().any(|its| its.id == own.id)) {
                        *score += 1.0;
                    }
                }
            }
        }
        scores
    }
}

/// Ranks every case.
pub(super) fn rank(
    baseline: Baseline,
    data: &Dataset,
    split: &Split,
    cases: &[Case],
    random: &mut ChaCha8Rng,
    step: &mut dyn FnMut(usize) -> Result<(), EvaluateError>,
) -> Result<Vec<Judged>, EvaluateError> {
    if baseline == Baseline::Random {
        let place = |case: &Case| {
            let seen = seen(data, case);
            let place = random.random_range(0..(data.items.len() - seen.len()).max(1) as u32);
            let is_ranked = seen.binary_search(&data.events()[case.target].item).is_err();
            Judged { rank: is_ranked.then_some(place), top: None }
        };
        return Ok(cases.iter().map(place).collect());
    }
    let counts = Counts::of(data, split);
    let mut judged = Vec::with_capacity(cases.len());
    for chunk in cases.chunks(CHUNK_CASES) {
        judged.par_extend(chunk.par_iter().map(|case| {
            let item = |event: usize| data.events()[event].item;
            judge(&counts.scores(baseline, data, item(case.context)), item(case.target), &seen(data, case))
        }));
        step(judged.len())?;
    }
    Ok(judged)
}
