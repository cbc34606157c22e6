//! What every arm is tried on: the cases, and what is needed to judge a ranking of the catalogue.

use std::borrow::Cow;
use std::collections::HashMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::dataset::{Clock, Dataset};

use super::EvaluateError;
use super::cases::{self, Case, Looked};
use super::interests::{InterestVectors, Weighted};
use super::log::{self, Request};
use super::ranking::{Judged, judge};
use crate::examples::{known_items, training_ends};
use crate::settings::{CaseChoice, EvaluationSettings, SettingsError, Split};

/// Cases ranked at once, at most.
const CHUNK_CASES: usize = 256;
/// Scores held at once, at most: 128 MiB of them.
const CHUNK_SCORES: usize = 32 << 20;

/// The cases of an evaluation, and what judges them.
pub(super) struct Trial<'a> {
    pub(super) data: &'a Dataset,
    pub(super) split: &'a Split,
    pub(super) settings: &'a EvaluationSettings,
    pub(super) cases: Vec<Case>,
    /// For each case, the context of another one.
    pub(super) shuffled: Vec<Looked>,
    /// Whether each item occurs in training.
    pub(super) known: Vec<bool>,
    pub(super) interests: InterestVectors<'a>,
    requests: &'a [Request],
    // The items that no case ranks, sorted: with a log, those that no ad promotes.
    never_ranked: Vec<u32>,
    // By advertiser, its items; and the advertiser of each item.
    advertisers: Vec<Vec<u32>>,
    advertiser_of: Vec<Option<u32>>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        (data, split): (&'a Dataset, &'a Split),
        settings: &'a EvaluationSettings,
        requests: Option<&'a [Request]>,
    ) -> Result<Self, EvaluateError> {
        settings.check()?;
        split.check()?;
        match (split, data.clock) {
            (Split::Temporal { .. }, Clock::Order) => return Err(EvaluateError::NeedsTimes),
            (Split::LeaveOneOut { .. }, _) if settings.cases != CaseChoice::Last => {
                let rule = "must be last where one is left out";
                return Err(SettingsError { field: "cases", rule }.into());
            }
            (Split::Temporal { .. } | Split::LeaveOneOut { .. }, _) => {}
        }
        let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
        let cases = match requests {
            None => cases::of(data, split, settings, &mut random),
            Some(requests) => log::cases(data, split, requests, settings, &mut random)?,
        };
        if cases.is_empty() {
            return Err(EvaluateError::NoCases);
        }
        let shuffled = cases::shuffled_contexts(&cases, &mut random);
        let known = known_items(data, &training_ends(data, split));
        let never_ranked = if requests.is_some() { log::unpromoted(data) } else { Vec::new() };
        let (advertisers, advertiser_of) = advertisers(data);
        Ok(Self {
            data,
            split,
            settings,
            cases,
            shuffled,
            known,
            interests: InterestVectors::of(data),
            requests: requests.unwrap_or(&[]),
            never_ranked,
            advertisers,
            advertiser_of,
        })
    }

    /// Whether the cases are those of a log.
    pub(super) fn is_of_log(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Whether any item has an advertiser.
    pub(super) fn has_advertisers(&self) -> bool {
        !self.advertisers.is_empty()
    }

    /// How many items are ranked where none is left out for what its user did.
    pub(super) fn ranked_items(&self) -> usize {
        self.data.items.len() - self.never_ranked.len()
    }

    /// How many cases are ranked at once.
    pub(super) fn chunk(&self) -> usize {
        (CHUNK_SCORES / self.data.items.len().max(1)).clamp(1, CHUNK_CASES)
    }

    /// The context of a request.
    pub(super) fn context(&self, looked: Looked) -> Context {
        match looked {
            Looked::Request(number) => self.requests[number as usize].context.clone(),
            Looked::Item(item) => {
                let item = &self.data.items[item as usize];
                let subject = Subject { item_id: Some(item.id.clone()), interests: item.interests.clone() };
                Context { subject: Some(subject), query: None }
            }
        }
    }

    /// The interests of what was looked at.
    pub(super) fn subject(&self, looked: Looked) -> Weighted {
        match looked {
            Looked::Item(item) => self.interests.item(item).to_vec(),
            Looked::Request(number) => {
                let subject = self.requests[number as usize].context.subject.as_ref();
                subject.map_or_else(Vec::new, |subject| self.interests.vector(&subject.interests))
            }
        }
    }

    /// The request of a case of the log.
    pub(super) fn request(&self, case: &Case) -> Option<&Request> {
        match case.context {
            Looked::Request(number) => self.requests.get(number as usize),
            Looked::Item(_) => None,
        }
    }

    /// The items that are not ranked for `case`, sorted.
    pub(super) fn unranked(&self, case: &Case) -> Cow<'_, [u32]> {
        if self.is_of_log() {
            return Cow::Borrowed(&self.never_ranked);
        }
        Cow::Owned(cases::unranked(self.data, case, self.settings))
    }

    /// Judges the ranking by `scores`, one for each item.
    pub(super) fn judge(&self, case: &Case, scores: &[f32]) -> Judged {
        let siblings = self.advertiser_of[case.target as usize].map(|own| self.advertisers[own as usize].as_slice());
        judge(scores, case.target, siblings, &self.unranked(case))
    }
}

/// The items of each advertiser, and the advertiser of each item.
fn advertisers(data: &Dataset) -> (Vec<Vec<u32>>, Vec<Option<u32>>) {
    let mut numbers = HashMap::new();
    let mut items: Vec<Vec<u32>> = Vec::new();
    let mut of = Vec::with_capacity(data.items.len());
    for (number, item) in (0..).zip(data.items.iter()) {
        of.push(item.advertiser.as_ref().map(|id| {
            let own = *numbers.entry(id).or_insert_with(|| {
                items.push(Vec::new());
                items.len() as u32 - 1
            });
            items[own as usize].push(number);
            own
        }));
    }
    (items, of)
}
