//! What is held out of training, and how models are compared on it.

use serde::{Deserialize, Serialize};
use turret_retrieval::event::EventType;

use super::{SettingsError, require};

/// Which cases a model is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Those that settings are chosen by.
    Validation,
    /// Those that results are read from, once.
    Test,
}

/// What is trained on, and what is tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// Training: the events before `cut_ms`. Cases: the sessions in `cut_ms..until_ms`. Needs times.
    Temporal {
        /// What the cases are.
        part: Part,
        /// Where the training for validation ends, in milliseconds since 1970-01-01 UTC, before `cut_ms`; the sessions
        /// from there to `cut_ms` are its cases. None: nothing to validate on.
        validation_cut_ms: Option<i64>,
        /// Milliseconds since 1970-01-01 UTC.
        cut_ms: i64,
        /// Milliseconds since 1970-01-01 UTC, exclusive.
        until_ms: i64,
    },
    /// Each user's last event is the test, the one before it the validation; training sees neither.
    LeaveOneOut {
        /// What the cases are.
        part: Part,
        /// The history of a case ends this many events before its target; 0: with what the user looked at just before.
        history_gap_events: usize,
    },
}

impl Split {
    /// A temporal split for the test, with nothing to validate on.
    pub const fn temporal(cut_ms: i64, until_ms: i64) -> Self {
        Self::Temporal { part: Part::Test, validation_cut_ms: None, cut_ms, until_ms }
    }

    /// Leaving one out, for the test, with whole histories.
    pub const fn leave_one_out() -> Self {
        Self::LeaveOneOut { part: Part::Test, history_gap_events: 0 }
    }

    /// What its cases are.
    pub fn part(&self) -> Part {
        match self {
            Self::Temporal { part, .. } | Self::LeaveOneOut { part, .. } => *part,
        }
    }

    /// The split whose training part and cases are those of `wanted`.
    ///
    /// For the validation of a temporal split training ends at the validation's cut, so that is another model than the
    /// one that is tested. Leaving one out trains one model for both.
    ///
    /// # Errors
    /// When a temporal split names no time to validate from, or the test is asked of a split for validation.
    pub fn of(&self, wanted: Part) -> Result<Self, SettingsError> {
        let error = |rule| SettingsError { field: "validation_cut", rule };
        match *self {
            _ if wanted == self.part() => Ok(*self),
            Self::LeaveOneOut { history_gap_events, .. } => Ok(Self::LeaveOneOut { part: wanted, history_gap_events }),
            Self::Temporal { part: Part::Validation, .. } => {
                Err(error("has been applied: the test is no longer known"))
            }
            Self::Temporal { validation_cut_ms, cut_ms, .. } => {
                let validation_cut_ms = validation_cut_ms.ok_or(error("is needed to validate a temporal split"))?;
                let part = Part::Validation;
                Ok(Self::Temporal { part, validation_cut_ms: None, cut_ms: validation_cut_ms, until_ms: cut_ms })
            }
        }
    }

    /// Whether a model that was trained on the training part of `trained` has seen none of this split's cases.
    pub fn is_unseen_by(&self, trained: &Self) -> bool {
        match (self, trained) {
            (Self::Temporal { cut_ms, .. }, Self::Temporal { cut_ms: trained_ms, .. }) => trained_ms <= cut_ms,
            (Self::LeaveOneOut { .. }, Self::LeaveOneOut { .. }) => true,
            (Self::Temporal { .. }, Self::LeaveOneOut { .. }) | (Self::LeaveOneOut { .. }, Self::Temporal { .. }) => {
                false
            }
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range, and the range.
    pub fn check(&self) -> Result<(), SettingsError> {
        match self {
            Self::Temporal { validation_cut_ms, cut_ms, until_ms, .. } => {
                require(cut_ms < until_ms, "until", "must be after cut")?;
                require(validation_cut_ms.is_none_or(|at| at < *cut_ms), "validation_cut", "must be before cut")
            }
            Self::LeaveOneOut { history_gap_events, .. } => {
                require(*history_gap_events <= 1_024, "history_gap_events", "is not in 0..=1024")
            }
        }
    }
}

/// What says, in words, where training ended: `events before 1508025600000 ms`.
impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Temporal { cut_ms, .. } => write!(f, "the events before {cut_ms} ms"),
            Self::LeaveOneOut { .. } => f.write_str("all of each user's events but the last two"),
        }
    }
}

/// Which events of a session of a temporal split are targets, and what their contexts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseChoice {
    /// The last event; its context is the one just before it.
    Last,
    /// The last event; its context is the first of the session.
    FirstContext,
    /// Every event but the first; its context is the one just before it.
    Each,
}

/// How models are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Of the sampled cases, the shuffled contexts, the random arm and the bootstrap.
    pub seed: u64,
    /// A sample of at most this many cases; none: all.
    pub cases_max: Option<usize>,
    /// Resamples behind each interval, 0..=10,000; with 0 there are no intervals.
    pub bootstrap_samples: usize,
    /// With a temporal split: what of a session is a case. Leaving one out knows only [`CaseChoice::Last`].
    pub cases: CaseChoice,
    /// Only events of these types are targets; their contexts are views, and an item stays in the ranking until the
    /// user has done one of these to it. Empty: every event is a target and a context, and what was seen is not ranked.
    pub target_events: Vec<EventType>,
    /// With a temporal split: recall is also measured with histories that end this many days before the cut, at most 16
    /// ages of at most 365 days.
    pub state_age_days: Vec<u32>,
}

impl EvaluationSettings {
    /// Every held-out event is a target, and there are neither samples nor intervals.
    pub(crate) const fn plain(seed: u64) -> Self {
        Self {
            seed,
            cases_max: None,
            bootstrap_samples: 0,
            cases: CaseChoice::Last,
            target_events: Vec::new(),
            state_age_days: Vec::new(),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range, and the range.
    pub fn check(&self) -> Result<(), SettingsError> {
        require(self.bootstrap_samples <= 10_000, "bootstrap_samples", "is not in 0..=10000")?;
        require(self.state_age_days.len() <= 16, "state_age_days", "has more than 16 ages")?;
        require(self.state_age_days.iter().all(|age| *age <= 365), "state_age_days", "is not in 0..=365")?;
        require(self.cases_max != Some(0), "cases_max", "must be at least 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: Split = Split::Temporal { part: Part::Test, validation_cut_ms: Some(10), cut_ms: 20, until_ms: 30 };

    #[test]
    fn validation_is_held_out_of_what_is_trained_for_it() {
        let validation = TEST.of(Part::Validation).unwrap();
        let expected = Split::Temporal { part: Part::Validation, validation_cut_ms: None, cut_ms: 10, until_ms: 20 };
        assert_eq!(validation, expected);
        assert_eq!(validation.of(Part::Validation).unwrap(), validation);
        assert_eq!(TEST.of(Part::Test).unwrap(), TEST);
        assert!(validation.of(Part::Test).unwrap_err().to_string().starts_with("validation_cut"));
        assert!(Split::temporal(20, 30).of(Part::Validation).unwrap_err().to_string().starts_with("validation_cut"));
        let out = Split::leave_one_out().of(Part::Validation).unwrap();
        assert_eq!(out.part(), Part::Validation);
        assert_eq!(out.of(Part::Test).unwrap(), Split::leave_one_out());
    }

    #[test]
    fn a_model_has_seen_what_it_was_trained_on() {
        let validation = TEST.of(Part::Validation).unwrap();
        assert!(TEST.is_unseen_by(&TEST) && validation.is_unseen_by(&validation) && TEST.is_unseen_by(&validation));
        assert!(!validation.is_unseen_by(&TEST), "the test's training part holds the validation's cases");
        let out = Split::leave_one_out();
        assert!(out.of(Part::Validation).unwrap().is_unseen_by(&out));
        assert!(!out.is_unseen_by(&TEST) && !TEST.is_unseen_by(&out));
    }

    #[test]
    fn a_split_that_cannot_be_is_refused_with_its_key() {
        let refused = |split: Split| split.check().unwrap_err().to_string();
        assert!(refused(Split::temporal(5, 5)).starts_with("until"));
        let late = Split::Temporal { part: Part::Test, validation_cut_ms: Some(20), cut_ms: 20, until_ms: 30 };
        assert!(refused(late).starts_with("validation_cut"));
        let gap = Split::LeaveOneOut { part: Part::Test, history_gap_events: 2_000 };
        assert!(refused(gap).starts_with("history_gap_events"));
        assert_eq!(TEST.check(), Ok(()));
    }
}
