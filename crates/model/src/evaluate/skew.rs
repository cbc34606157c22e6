//! Version skew: halves of different versions of one model put together, as the serving cluster never would.
//!
//! Each number is what the same cases would recall if a mixed pair answered instead of being refused.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use turret_retrieval::context::Context;

use super::arms::Given;
use super::cases::Case;
use super::levels::Levels;
use super::model_arm::Prepared;
use super::report::{ArmReport, Role, recall_key};
use super::run::{check_unseen, fill_intervals};
use super::slices::Slices;
use super::tally::{Tallied, Tally};
use super::trial::Trial;
use super::{CUT_OFFS, Contender, EvaluateError, Evaluation, EvaluationProgress};
use crate::model::Model;

mod report;

pub use report::{PairReport, SkewReport, VersionReport};

/// The most versions that are paired: the pairs grow with the square, and each version is in memory.
pub const SKEW_VERSIONS_MAX: usize = 8;

type Observer<'o> = &'o mut dyn FnMut(EvaluationProgress<'_>) -> ControlFlow<()>;

/// Why there is no [`SkewReport`].
#[derive(Debug, thiserror::Error)]
pub enum SkewError {
    /// Too few to pair, or more than are held at once.
    #[error("{found} versions where 2 to {SKEW_VERSIONS_MAX} can be paired")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// The report could not tell them apart.
    #[error("two versions are called {name}")]
    SameName {
        /// What both are called.
        name: String,
    },
    /// Two models that are no versions of one: a pair of them has no number, not even a bad one.
    #[error("{other} cannot be paired with {one}: {what} is {theirs} where {ours} is expected")]
    Unlike {
        /// The first version.
        one: String,
        /// The one that does not fit.
        other: String,
        /// What differs.
        what: &'static str,
        /// What it is in the first.
        ours: String,
        /// What it is in the other.
        theirs: String,
    },
    /// As of any evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

pub(super) fn run(
    evaluation: &Evaluation<'_>,
    versions: &[Contender<'_>],
    observe: Observer<'_>,
) -> Result<SkewReport, SkewError> {
    if !(2..=SKEW_VERSIONS_MAX).contains(&versions.len()) {
        return Err(SkewError::Count { found: versions.len() });
    }
    for (number, version) in versions.iter().enumerate() {
        if versions[..number].iter().any(|other| other.name == version.name) {
            return Err(SkewError::SameName { name: version.name.clone() });
        }
        check_alike(&versions[0], version)?;
        check_unseen(&version.name, evaluation.split, version.model.split())?;
    }
    Ok(measure(evaluation, versions, observe)?)
}

/// Refuses a version whose vectors cannot be compared with those of `one`, whatever they were trained on.
fn check_alike(one: &Contender<'_>, other: &Contender<'_>) -> Result<(), SkewError> {
    let facts = |model: &Model| {
        [
            ("the dimension", model.dimension().to_string()),
            ("the length of a sequence state", format!("at most {} rows", model.state_rows_max())),
            ("the feature schema", model.feature_schema().short().to_owned()),
        ]
    };
    for ((what, ours), (_, theirs)) in facts(one.model).into_iter().zip(facts(other.model)) {
        if ours != theirs {
            let (one, other) = (one.name.clone(), other.name.clone());
            return Err(SkewError::Unlike { one, other, what, ours, theirs });
        }
    }
    Ok(())
}

/// Whose half stands where, by the number of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Halves {
    encoder: usize,
    head: usize,
    index: usize,
}

impl Halves {
    /// Each head with its own states and every index, and with its own index and every version's states; those that ask the
    /// same queries stand together.
    fn all(versions: usize) -> Vec<Self> {
        let of = |head: usize| {
            (0..versions).flat_map(move |encoder| {
                let indexes = if encoder == head { 0..versions } else { head..head + 1 };
                indexes.map(move |index| Self { encoder, head, index })
            })
        };
        (0..versions).flat_map(of).collect()
    }

    fn asks_as(&self, other: &Self) -> bool {
        (self.encoder, self.head) == (other.encoder, other.head)
    }

    /// The pair that a cluster would have answered with in its place.
    fn own(&self) -> Self {
        Self { encoder: self.head, head: self.head, index: self.head }
    }

    fn name(&self, versions: &[Contender<'_>]) -> String {
        let name = |number: usize| &versions[number].name;
        match *self {
            Self { encoder, head, index } if encoder == head => format!("{} on {}", name(head), name(index)),
            Self { encoder, head, .. } => format!("{} reading {}", name(head), name(encoder)),
        }
    }
}

fn measure(
    evaluation: &Evaluation<'_>,
    versions: &[Contender<'_>],
    observe: Observer<'_>,
) -> Result<SkewReport, EvaluateError> {
    let Evaluation { data, split, settings, log } = *evaluation;
    let trial = Trial::new((data, split), settings, log)?;
    let pairs = Halves::all(versions.len());
    let names: Vec<String> = pairs.iter().map(|pair| pair.name(versions)).collect();
    let tallied = rank(&trial, versions, (&pairs, &names), observe)?;

    let levels: Vec<&[Levels]> = tallied.iter().map(|tallied| tallied.levels.as_slice()).collect();
    let all: Vec<u32> = (0..trial.cases.len() as u32).collect();
    let mut reports: Vec<ArmReport> = tallied.iter().map(|tallied| tallied.all.clone()).collect();
    let resamples = fill_intervals(&trial, &levels, &all, &mut reports);
    let kept = |number: usize| {
        let own = pairs.iter().position(|pair| *pair == pairs[number].own()).filter(|own| *own != number);
        own.map(|own| resamples.compare(&reports, number, own).ratio).unwrap_or_default()
    };
    let name = |number: usize| versions[number].name.clone();
    let pair = |(number, pair): (usize, &Halves)| PairReport {
        encoder: name(pair.encoder),
        head: name(pair.head),
        index: name(pair.index),
        metrics: reports[number].metrics.clone(),
        intervals: reports[number].intervals.clone(),
        kept: kept(number),
    };
    Ok(SkewReport {
        part: split.part(),
        cases: trial.cases.len(),
        catalogue: trial.ranked_items(),
        chance: chance(&trial),
        versions: versions.iter().map(VersionReport::of).collect(),
        pairs: pairs.iter().enumerate().map(pair).collect(),
    })
}

/// Ranks every case with each of `pairs`, chunk by chunk: every version encodes a chunk's histories once.
fn rank(
    trial: &Trial<'_>,
    versions: &[Contender<'_>],
    (pairs, names): (&[Halves], &[String]),
    observe: Observer<'_>,
) -> Result<Vec<Tallied>, EvaluateError> {
    let prepared = versions.iter().map(|version| Prepared::new(trial, version.model)).collect::<Result<Vec<_>, _>>()?;
    let slices = Slices::none(trial.cases.len());
    let mut tallies: Vec<Tally<'_>> = pairs.iter().map(|_| Tally::new(trial, &slices)).collect();
    let (mut done, total) = (0, trial.cases.len() * pairs.len());
    for cases in trial.cases.chunks(trial.chunk()) {
        let contexts: Vec<Option<Context>> = cases.iter().map(|case| Some(trial.context(case.context))).collect();
        let states = prepared.iter().map(|version| version.states(cases)).collect::<Result<Vec<_>, _>>()?;
        let mut tallies = tallies.iter_mut().zip(names);
        for same in pairs.chunk_by(Halves::asks_as) {
            let Halves { encoder, head, .. } = same[0];
            let queries = prepared[head].queries(Given::Everything, cases, &states[encoder], &contexts)?;
            for (pair, (tally, name)) in same.iter().zip(&mut tallies) {
                tally.extend(prepared[pair.index].judge(cases, &queries)?);
                done += cases.len();
                if observe(EvaluationProgress { done, total, arm: name }).is_break() {
                    return Err(EvaluateError::BrokenOff);
                }
            }
        }
    }
    let role = |pair: &Halves| if *pair == pair.own() { Role::Model } else { Role::Control };
    let finished = tallies.into_iter().zip(pairs.iter().zip(names));
    Ok(finished.map(|(tally, (pair, name))| tally.finish(name, role(pair))).collect())
}

/// What an order drawn at random recalls at each cut-off, on average over all orders.
fn chance(trial: &Trial<'_>) -> BTreeMap<String, f64> {
    let items = trial.data.items.len();
    let ranked = |case: &Case| {
        let unranked = trial.unranked(case);
        unranked.binary_search(&case.target).is_err().then(|| items - unranked.len())
    };
    let ranked: Vec<Option<usize>> = trial.cases.iter().map(ranked).collect();
    let recall = |k: usize| {
        let hits = ranked.iter().flatten().map(|items| (k as f64 / *items as f64).min(1.0));
        hits.sum::<f64>() / ranked.len() as f64
    };
    CUT_OFFS.iter().map(|k| (recall_key(*k), recall(*k))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_meets_every_index_and_every_encoder_once() {
        let pairs = Halves::all(3);
        assert_eq!(pairs.len(), 9 + 6);
        for (number, pair) in pairs.iter().enumerate() {
            assert!(!pairs[..number].contains(pair), "{pair:?} is there twice");
            assert!(pair.encoder == pair.head || pair.index == pair.head, "{pair:?} mixes three versions");
            assert!(pairs.contains(&pair.own()));
        }
        // Queries are made once for each encoder and head.
        assert_eq!(pairs.chunk_by(Halves::asks_as).count(), 9);
    }
}
