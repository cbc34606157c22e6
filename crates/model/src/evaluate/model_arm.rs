//! Arms that ask a model.

use candle_core::Tensor;
use rayon::prelude::*;
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::dataset::Clock;
use turret_retrieval::user::Demographics;

use super::EvaluateError;
use super::arms::Given;
use super::cases::{Case, Looked};
use super::ranking::Judged;
use super::tally::Tally;
use super::trial::Trial;
use crate::catalogue::Catalogue;
use crate::inputs::{Histories, HistoryEvent, ItemRows};
use crate::model::{HeadInput, Model, ModelError};
use crate::ops::with_values;

fn is_without_history(given: Given) -> bool {
    matches!(given, Given::NoHistory | Given::DemographicsOnly | Given::Nothing)
}

/// A model with the embeddings of all items.
pub(super) struct Prepared<'a> {
    trial: &'a Trial<'a>,
    model: &'a Model,
    catalogue: Catalogue,
    /// [dimension, items].
    items: Tensor,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(trial: &'a Trial<'a>, model: &'a Model) -> Result<Self, ModelError> {
        let items = trial.data.items.iter();
        let catalogue = Catalogue::new(items.map(|item| (item.id.clone(), model.item(item))).collect());
        let mut parts = Vec::new();
        for items in catalogue.items.chunks(4_096) {
            let mut rows = ItemRows::new(&model.features);
            items.iter().for_each(|(_, item)| rows.push_row(item, true));
            parts.push(model.ads(rows)?);
        }
        let items = Tensor::cat(&parts, 0)?.t()?;
        Ok(Self { trial, model, catalogue, items })
    }

    /// Ranks every case once for each of `given`, into the tally beside it; histories are encoded once.
    ///
    /// `cases` are the trial's, perhaps with other histories. Memory does not grow with their number.
    pub(super) fn rank(
        &self,
        cases: &[Case],
        arms: &mut [(Given, Tally<'_>)],
        step: &mut dyn FnMut(usize) -> Result<(), EvaluateError>,
    ) -> Result<(), EvaluateError> {
        let mut done = 0;
        for (chunk, others) in cases.chunks(self.trial.chunk()).zip(self.trial.shuffled.chunks(self.trial.chunk())) {
            let states = self.states(chunk)?;
            for (given, tally) in &mut *arms {
                let contexts: Vec<Option<Context>> =
                    chunk.iter().zip(others).map(|(case, other)| self.context(*given, case, *other)).collect();
                let queries = self.queries(*given, chunk, &states, &contexts)?;
                tally.extend(self.judge(chunk, &queries)?);
                done += chunk.len();
                step(done)?;
            }
        }
        Ok(())
    }

    /// The state of each case; none where it has no history.
    pub(super) fn states(&self, cases: &[Case]) -> Result<Vec<Option<Vec<f32>>>, ModelError> {
        let (model, data) = (self.model, self.trial.data);
        let mut packed = Histories::new(&model.features);
        let same_history = |a: &Case, b: &Case| a.user == b.user && a.history == b.history;
        for same in cases.chunk_by(same_history) {
            let history = &same[0].history;
            let start = history.end.saturating_sub(model.settings.history_length_max).max(history.start);
            let events = data.events()[start..history.end].iter().map(|row| HistoryEvent {
                item: self.catalogue.item(row.item),
                kind: row.kind,
                at_ms: (data.clock == Clock::Milliseconds).then_some(row.at),
                with_id: true,
            });
            packed.push(events, &model.features);
        }
        let mut states = Vec::with_capacity(cases.len());
        for (same, state) in cases.chunk_by(same_history).zip(model.states(packed)?) {
            let state = (!state.is_empty()).then_some(state);
            states.extend(std::iter::repeat_n(state, same.len()));
        }
        Ok(states)
    }

    fn context(&self, given: Given, case: &Case, other: Looked) -> Option<Context> {
        match given {
            Given::Everything | Given::NoHistory | Given::NoDemographics => Some(self.trial.context(case.context)),
            Given::OtherContext => Some(self.trial.context(other)),
            Given::NoContext | Given::DemographicsOnly | Given::Nothing => None,
            Given::Target => {
                let interests = self.trial.data.items[case.target as usize].interests.clone();
                Some(Context { subject: Some(Subject { item_id: None, interests }), query: None })
            }
        }
    }

    /// The query embedding of each case, [cases, dimension]; `states` may be those of another version.
    pub(super) fn queries(
        &self,
        given: Given,
        cases: &[Case],
        states: &[Option<Vec<f32>>],
        contexts: &[Option<Context>],
    ) -> Result<Vec<f32>, ModelError> {
        let unknown = Demographics::default();
        let facts = |case: &Case| match case.user.filter(|_| !matches!(given, Given::NoDemographics | Given::Nothing)) {
            Some(user) => &self.trial.data.users[user as usize].demographics,
            None => &unknown,
        };
        let inputs: Vec<HeadInput<'_>> = cases
            .iter()
            .zip(states)
            .zip(contexts)
            .map(|((case, state), context)| HeadInput {
                state: state.as_deref().filter(|_| !is_without_history(given)),
                context: context.as_ref(),
                demographics: facts(case),
            })
            .collect();
        let queries = self.model.embed_queries(&inputs)?;
        Ok(queries.iter().flat_map(|query| query.as_slice()).copied().collect())
    }

    /// Ranks all items for each case by these `queries`, [cases, dimension], which may be those of another version.
    pub(super) fn judge(&self, cases: &[Case], queries: &[f32]) -> Result<Vec<Judged>, ModelError> {
        let queries = Tensor::from_slice(queries, (cases.len(), self.model.dimension()), self.items.device())?;
        let scores = queries.matmul(&self.items)?;
        let judged = with_values(&scores, |scores| {
            let rows: Vec<&[f32]> = scores.chunks_exact(self.trial.data.items.len()).collect();
            Ok(cases.par_iter().zip(&rows).map(|(case, scores)| self.trial.judge(case, scores)).collect())
        })?;
        Ok(judged)
    }
}
