//! The arms: what ranks the catalogue.

use super::report::{LeftOut, Role};
use super::{Contender, Evaluation};
use crate::model::Model;
use crate::settings::{ModelKind, Split};
use turret_retrieval::dataset::Dataset;

/// One way to rank the catalogue for a case.
pub struct Arm<'a> {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) ranker: Ranker<'a>,
}

/// What an arm ranks by.
#[derive(Clone, Copy)]
pub(super) enum Ranker<'a> {
    Model(&'a Model, Given),
    Baseline(Baseline),
}

/// What a model is given of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// All there is.
    Everything,
    /// No context.
    NoContext,
    /// The context of another case.
    OtherContext,
    /// No history.
    NoHistory,
    /// Demographics that say nothing.
    NoDemographics,
    /// Neither history nor context.
    DemographicsOnly,
    /// Nothing at all.
    Nothing,
    /// The target's own interests as the context.
    Target,
}

/// What is counted or compared instead of learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Baseline {
    /// Events of an item.
    Popularity(Counted),
    /// Events of an item right after the context's item in a session; then popularity.
    Markov(Counted),
    /// Popularity among items that share an interest with the subject; then popularity.
    CategoryPopularity(Counted),
    /// The cosine of the subject's interests and content embedding with the item's; ties by popularity.
    ContentNeighbour(Counted),
    /// Nothing.
    Random,
}

/// Which training events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Those of the 24 hours before the cut.
    LastDay,
    /// All of them.
    All,
}

impl Baseline {
    /// What it counts.
    pub(super) fn counted(self) -> Option<Counted> {
        match self {
            Self::Popularity(counted)
            | Self::Markov(counted)
            | Self::CategoryPopularity(counted)
            | Self::ContentNeighbour(counted) => Some(counted),
            Self::Random => None,
        }
    }
}

impl Arm<'_> {
    /// What it is called in reports.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The arms of an evaluation, and those that make no sense for its data.
pub struct Arms<'a> {
    pub(super) list: Vec<Arm<'a>>,
    pub(super) left_out: Vec<LeftOut>,
}

impl<'a> Arms<'a> {
    /// Every arm that `models` and the data allow: each model with its controls, the baselines, then the oracles.
    pub fn of(evaluation: &Evaluation<'_>, models: &[Contender<'a>]) -> Self {
        let mut arms = Self { list: Vec::new(), left_out: Vec::new() };
        let known = Known::of(evaluation);
        models.iter().for_each(|contender| arms.add_model(contender, &known));
        arms.add_baselines(evaluation.split, &known);
        for Contender { name, model } in models.iter().filter(|contender| is_contextual(contender.model)) {
            if known.has_interests {
                let name = format!("ORACLE: {name}, the target's own interests as context");
                arms.list.push(Arm { name, role: Role::Oracle, ranker: Ranker::Model(model, Given::Target) });
            }
        }
        arms
    }

    /// Each contextual model of `models` as it answers in every tier: with all it could be given, without the context, without the
    /// history, and with less still. Stale histories are those of [`state_age_days`](crate::EvaluationSettings::state_age_days).
    pub fn by_tier(evaluation: &Evaluation<'_>, models: &[Contender<'a>]) -> Self {
        let mut arms = Self { list: Vec::new(), left_out: Vec::new() };
        let known = Known::of(evaluation);
        for Contender { name, model } in models.iter().filter(|contender| is_contextual(contender.model)) {
            let mut add = |suffix: &str, role, given| {
                arms.list.push(Arm { name: format!("{name}{suffix}"), role, ranker: Ranker::Model(model, given) });
            };
            add("", Role::Model, Given::Everything);
            add(", without context", Role::Control, Given::NoContext);
            add(", context only", Role::Control, Given::NoHistory);
            if known.has_demographics {
                add(", demographics only", Role::Control, Given::DemographicsOnly);
            }
            add(", nothing", Role::Control, Given::Nothing);
        }
        if !known.has_demographics {
            arms.leave_out("demographics only", "no user's demographics are known");
        }
        arms
    }

    /// Keeps the arms whose name `wanted` accepts.
    pub fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.list.retain(|arm| wanted(&arm.name));
    }

    /// In the order of the report.
    pub fn iter(&self) -> impl Iterator<Item = &Arm<'a>> {
        self.list.iter()
    }

    fn add_model(&mut self, Contender { name, model }: &Contender<'a>, known: &Known) {
        let mut add = |suffix: &str, role, given| {
            self.list.push(Arm { name: format!("{name}{suffix}"), role, ranker: Ranker::Model(model, given) });
        };
        add("", Role::Model, Given::Everything);
        if is_contextual(model) {
            add(", shuffled context", Role::Control, Given::OtherContext);
            add(", without context", Role::Control, Given::NoContext);
            add(", context only", Role::Control, Given::NoHistory);
        } else if known.has_demographics {
            add(", unknown demographics", Role::Control, Given::NoDemographics);
        } else {
            self.leave_out(&format!("{name}, unknown demographics"), "no user's demographics are known");
        }
    }

    fn add_baselines(&mut self, split: &Split, known: &Known) {
        let windows: &[(&str, Counted)] = match split {
            Split::Temporal { .. } => &[(", last 24 h", Counted::LastDay), (", all time", Counted::All)],
            Split::LeaveOneOut { .. } => &[("", Counted::All)],
        };
        let mut add = |name: String, baseline| {
            self.list.push(Arm { name, role: Role::Baseline, ranker: Ranker::Baseline(baseline) });
        };
        let (latest, newest) = windows[0];
        for (window, counted) in windows {
            add(format!("popularity{window}"), Baseline::Popularity(*counted));
        }
        if known.has_subject_items {
            for (window, counted) in windows {
                add(format!("last-item Markov{window}"), Baseline::Markov(*counted));
            }
        }
        if known.has_interests {
            add(format!("subject's category x popularity{latest}"), Baseline::CategoryPopularity(newest));
        }
        if known.has_interests || known.has_content {
            add("content neighbours of the subject".to_owned(), Baseline::ContentNeighbour(newest));
        }
        add("random".to_owned(), Baseline::Random);
        let is_order = windows.len() == 1;
        for (what, why, is_so) in [
            ("baselines of the last 24 h", "leaving one out has no cut that they could come before", is_order),
            (
                "last-item Markov",
                "a logged request does not name the item that was looked at",
                !known.has_subject_items,
            ),
            ("subject's category x popularity, oracles", "no item has interests", !known.has_interests),
        ] {
            if is_so {
                self.leave_out(what, why);
            }
        }
    }

    fn leave_out(&mut self, what: &str, why: &str) {
        self.left_out.push(LeftOut { what: what.to_owned(), why: why.to_owned() });
    }
}

fn is_contextual(model: &Model) -> bool {
    model.settings().kind == ModelKind::Contextual
}

/// What the data has that arms need.
struct Known {
    has_demographics: bool,
    has_interests: bool,
    has_content: bool,
    has_subject_items: bool,
}

impl Known {
    fn of(evaluation: &Evaluation<'_>) -> Self {
        let Dataset { users, items, .. } = evaluation.data;
        Self {
            has_demographics: users.iter().any(|user| {
                let facts = &user.demographics;
                facts.age.is_some() || facts.country.is_some() || facts.gender.is_some()
            }),
            has_interests: items.iter().any(|item| !item.interests.is_empty()),
            has_content: items.iter().any(|item| item.embedding.is_some()),
            has_subject_items: evaluation.log.is_none(),
        }
    }
}
