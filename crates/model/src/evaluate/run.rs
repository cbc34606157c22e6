//! Runs the arms over the cases, one model after the other, and gathers the report.

use std::ops::ControlFlow;

use super::arms::{Arm, Arms, Counted, Given, Ranker};
use super::baselines::{self, Counts};
use super::bootstrap::Resamples;
use super::cases;
use super::levels::Levels;
use super::model_arm::Prepared;
use super::report::{ArmReport, Comparison, EvaluationReport, LeftOut, Role, SliceReport};
use super::slices::Slices;
use super::tally::{Tallied, Tally};
use super::trial::Trial;
use super::{EvaluateError, Evaluation, EvaluationProgress};
use crate::settings::{ModelKind, Split};

type Observer<'o> = &'o mut dyn FnMut(EvaluationProgress<'_>) -> ControlFlow<()>;

pub(super) fn run(
    evaluation: &Evaluation<'_>,
    arms: &Arms<'_>,
    observe: Observer<'_>,
) -> Result<EvaluationReport, EvaluateError> {
    let Evaluation { data, split, settings, log } = *evaluation;
    for arm in &arms.list {
        if let Ranker::Model(model, _) = arm.ranker {
            check_unseen(&arm.name, split, model.split())?;
        }
    }
    let trial = Trial::new((data, split), settings, log)?;
    let slices = Slices::of(&trial);
    let mut course = Course::new(&trial, &slices, &arms.list);
    let tallied = course.run(&arms.list, observe)?;
    let levels: Vec<&[Levels]> = tallied.iter().map(|tallied| tallied.levels.as_slice()).collect();
    let all: Vec<u32> = (0..trial.cases.len() as u32).collect();
    let mut reports: Vec<ArmReport> = tallied.iter().map(|tallied| tallied.all.clone()).collect();
    let resamples = fill_intervals(&trial, &levels, &all, &mut reports);
    let comparisons = compare(arms, &reports, &resamples);
    let mut of_slices = Vec::new();
    for (number, slice) in slices.list.iter().enumerate() {
        let mut reports: Vec<ArmReport> = tallied.iter().map(|tallied| tallied.slices[number].clone()).collect();
        fill_intervals(&trial, &levels, &slice.cases, &mut reports);
        let (by, value) = (slice.by.to_owned(), slice.value.clone());
        of_slices.push(SliceReport { by, value, cases: slice.cases.len(), arms: reports });
    }
    of_slices.extend(by_age(&trial, &tallied, &course.aged));
    let known = trial.cases.iter().filter(|case| trial.known[case.target as usize]).count();
    let mut left_out = arms.left_out.clone();
    left_out.extend(slices.left_out.iter().cloned());
    left_out.extend(unmeasured(&trial));
    Ok(EvaluationReport {
        part: split.part(),
        cases: trial.cases.len(),
        catalogue: trial.ranked_items(),
        ceiling: known as f64 / trial.cases.len() as f64,
        arms: reports,
        comparisons,
        slices: of_slices,
        left_out,
    })
}

/// Refuses a model that was trained on cases of `split`.
pub(super) fn check_unseen(model: &str, split: &Split, trained: &Split) -> Result<(), EvaluateError> {
    if split.is_unseen_by(trained) {
        return Ok(());
    }
    Err(EvaluateError::Seen { model: model.to_owned(), trained: *trained, tested: *split })
}

/// The way through all arms.
struct Course<'a> {
    trial: &'a Trial<'a>,
    slices: &'a Slices,
    /// Models with histories of an age: the age in days, and how the model did.
    aged: Vec<(u32, Tallied)>,
    done: usize,
    total: usize,
}

impl<'a> Course<'a> {
    fn new(trial: &'a Trial<'a>, slices: &'a Slices, arms: &[Arm<'_>]) -> Self {
        let ages = trial.settings.state_age_days.iter().filter(|age| **age > 0).count();
        let models = arms.iter().filter(|arm| arm.role == Role::Model).count();
        Self { trial, slices, aged: Vec::new(), done: 0, total: trial.cases.len() * (arms.len() + ages * models) }
    }

    fn run(&mut self, arms: &[Arm<'_>], observe: Observer<'_>) -> Result<Vec<Tallied>, EvaluateError> {
        let mut tallied: Vec<Option<Tallied>> = arms.iter().map(|_| None).collect();
        let mut counts: Vec<(Counted, Counts)> = Vec::new();
        for number in 0..arms.len() {
            if tallied[number].is_some() {
                continue;
            }
            match arms[number].ranker {
                Ranker::Model(model, _) => {
                    // All arms of one model at once: they share the encoded histories.
                    let of_model = |arm: &Arm<'_>| match arm.ranker {
                        Ranker::Model(other, given) => std::ptr::eq(model, other).then_some(given),
                        Ranker::Baseline(_) => None,
                    };
                    let own: Vec<(usize, Given)> =
                        arms.iter().map(of_model).enumerate().filter_map(|(at, given)| Some((at, given?))).collect();
                    let given: Vec<Given> = own.iter().map(|(_, given)| *given).collect();
                    let prepared = Prepared::new(self.trial, model)?;
                    let tallies = self.model(&prepared, &given, &arms[number].name, observe)?;
                    for ((at, _), tally) in own.into_iter().zip(tallies) {
                        tallied[at] = Some(tally.finish(&arms[at].name, arms[at].role));
                        if arms[at].role == Role::Model {
                            self.age(&prepared, &arms[at].name, observe)?;
                        }
                    }
                }
                Ranker::Baseline(baseline) => {
                    let known = baseline.counted().map(|counted| self.counts(&mut counts, counted));
                    let mut tally = Tally::new(self.trial, self.slices);
                    let mut step = self.step(&arms[number].name, observe);
                    baselines::rank(baseline, known, self.trial, &mut tally, &mut step)?;
                    self.done += self.trial.cases.len();
                    tallied[number] = Some(tally.finish(&arms[number].name, arms[number].role));
                }
            }
        }
        Ok(tallied.into_iter().flatten().collect())
    }

    fn model(
        &mut self,
        prepared: &Prepared<'_>,
        given: &[Given],
        name: &str,
        observe: Observer<'_>,
    ) -> Result<Vec<Tally<'a>>, EvaluateError> {
        let mut arms: Vec<(Given, Tally<'a>)> =
            given.iter().map(|given| (*given, Tally::new(self.trial, self.slices))).collect();
        prepared.rank(&self.trial.cases, &mut arms, &mut self.step(name, observe))?;
        self.done += self.trial.cases.len() * given.len();
        Ok(arms.into_iter().map(|(_, tally)| tally).collect())
    }

    /// How the model does with histories that end some days earlier.
    fn age(&mut self, prepared: &Prepared<'_>, name: &str, observe: Observer<'_>) -> Result<(), EvaluateError> {
        for days in self.trial.settings.state_age_days.iter().copied().filter(|days| *days > 0) {
            let cases = cases::aged(self.trial.data, self.trial.split, &self.trial.cases, days);
            let whole = Slices::none(cases.len());
            let mut arms = [(Given::Everything, Tally::new(self.trial, &whole))];
            prepared.rank(&cases, &mut arms, &mut self.step(name, observe))?;
            self.done += cases.len();
            let [(_, tally)] = arms;
            self.aged.push((days, tally.finish(name, Role::Model)));
        }
        Ok(())
    }

    fn counts<'c>(&self, made: &'c mut Vec<(Counted, Counts)>, counted: Counted) -> &'c Counts {
        let number = made.iter().position(|(known, _)| *known == counted).unwrap_or_else(|| {
            made.push((counted, Counts::of(self.trial.data, self.trial.split, counted)));
            made.len() - 1
        });
        &made[number].1
    }

    /// Tells the observer how far the arms of `name` are.
    fn step<'s>(
        &self,
        name: &'s str,
        observe: Observer<'s>,
    ) -> impl FnMut(usize) -> Result<(), EvaluateError> + use<'s> {
        let (before, total) = (self.done, self.total);
        move |done| match observe(EvaluationProgress { done: before + done, total, arm: name }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvaluateError::BrokenOff),
        }
    }
}

/// Adds the intervals over the `chosen` cases to every report.
pub(super) fn fill_intervals(
    trial: &Trial<'_>,
    levels: &[&[Levels]],
    chosen: &[u32],
    reports: &mut [ArmReport],
) -> Resamples {
    let settings = trial.settings;
    let resamples = Resamples::new(levels, (&trial.cases, chosen), settings.bootstrap_samples, settings.seed);
    for (number, report) in reports.iter_mut().enumerate() {
        report.intervals = resamples.intervals(number);
    }
    resamples
}

/// A slice for each age of the histories: all cases, ranked by the models alone.
fn by_age(trial: &Trial<'_>, tallied: &[Tallied], aged: &[(u32, Tallied)]) -> Vec<SliceReport> {
    let all: Vec<u32> = (0..trial.cases.len() as u32).collect();
    let slice = |days: u32| {
        let fresh = tallied.iter().filter(|tallied| days == 0 && tallied.all.role == Role::Model);
        let arms: Vec<&Tallied> =
            fresh.chain(aged.iter().filter(|(age, _)| *age == days).map(|(_, tallied)| tallied)).collect();
        let levels: Vec<&[Levels]> = arms.iter().map(|tallied| tallied.levels.as_slice()).collect();
        let mut reports: Vec<ArmReport> = arms.iter().map(|tallied| tallied.all.clone()).collect();
        fill_intervals(trial, &levels, &all, &mut reports);
        SliceReport { by: "state_age_days".to_owned(), value: days.to_string(), cases: all.len(), arms: reports }
    };
    let slices = trial.settings.state_age_days.iter().map(|days| slice(*days));
    slices.filter(|slice| !slice.arms.is_empty()).collect()
}

/// Every arm but the oracles against the first history-only model.
fn compare(arms: &Arms<'_>, reports: &[ArmReport], resamples: &Resamples) -> Vec<Comparison> {
    let is_reference = |arm: &Arm<'_>| match arm.ranker {
        Ranker::Model(model, given) => given == Given::Everything && model.settings().kind == ModelKind::HistoryOnly,
        Ranker::Baseline(_) => false,
    };
    let Some(reference) = arms.list.iter().position(is_reference) else { return Vec::new() };
    let compared =
        arms.list.iter().enumerate().filter(|(number, arm)| *number != reference && arm.role != Role::Oracle);
    compared.map(|(number, _)| resamples.compare(reports, number, reference)).collect()
}

/// The metrics that the data does not define.
fn unmeasured(trial: &Trial<'_>) -> Vec<LeftOut> {
    let absent = [
        ("advertiser_recall", "no item has an advertiser", trial.has_advertisers()),
        ("relevance@10", "no item has interests", trial.interests.are_known()),
    ];
    let absent = absent.into_iter().filter(|(.., is_there)| !is_there);
    absent.map(|(what, why, _)| LeftOut { what: what.to_owned(), why: why.to_owned() }).collect()
}
