//! Arms that ask a model.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::dataset::{Clock, Dataset};

use super::cases::Case;
use super::ranking::{Judged, judge};
use super::{CHUNK_CASES, EvaluateError, seen};
use crate::catalogue::Catalogue;
use crate::inputs::{Histories, HistoryEvent, ItemRows};
use crate::model::{HeadInput, Model, ModelError};
use crate::ops::with_values;

/// What a model arm is told of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContextSource {
    /// The case's own.
    Given,
    /// Another case's.
    Shuffled,
    /// Nothing.
    None,
}

/// A model with everything that does not depend on the context: embeddings of all items, states of all users.
pub(super) struct Prepared<'a> {
    model: &'a Model,
    /// [items, dimension].
    items: Tensor,
    states: HashMap<u32, Vec<f32>>,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(model: &'a Model, data: &Dataset, cases: &[Case]) -> Result<Self, ModelError> {
        let catalogue = Catalogue::of(&data.items, &model.features);
        let items = embed(model, &catalogue)?;
        let mut states = HashMap::new();
        let mut users: Vec<&Case> = cases.iter().collect();
        users.dedup_by_key(|case| case.user);
        for users in users.chunks(CHUNK_CASES) {
            let mut packed = Histories::new(&model.features);
            for case in users {
                let start = case.history.end.saturating_sub(model.settings.history_length_max).max(case.history.start);
                let events = data.events()[start..case.history.end].iter().map(|row| HistoryEvent {
                    item: catalogue.item(row.item),
                    kind: row.kind,
                    at_ms: (data.clock == Clock::Milliseconds).then_some(row.at),
                    with_id: true,
                });
                packed.push(events, &model.features);
            }
            let made = users.iter().map(|case| case.user).zip(model.states(packed)?);
            states.extend(made.filter(|(_, state)| !state.is_empty()));
        }
        Ok(Self { model, items, states })
    }

    pub(super) fn is_of(&self, model: &Model) -> bool {
        std::ptr::eq(self.model, model)
    }

    /// Ranks every case.
    pub(super) fn rank(
        &self,
        data: &Dataset,
        cases: &[Case],
        (source, shuffled): (ContextSource, &[usize]),
        arm: &'static str,
        step: &mut dyn FnMut(usize) -> Result<(), EvaluateError>,
    ) -> Result<Vec<Judged>, EvaluateError> {
        let mut judged = Vec::with_capacity(cases.len());
        for (chunk, others) in cases.chunks(CHUNK_CASES).zip(shuffled.chunks(CHUNK_CASES)) {
            let contexts: Vec<Option<Context>> = chunk
                .iter()
                .zip(others)
                .map(|(case, other)| match source {
                    ContextSource::Given => Some(context(data, case.context)),
                    ContextSource::Shuffled => Some(context(data, *other)),
                    ContextSource::None => None,
                })
                .collect();
            let ranked = self.rank_chunk(data, chunk, &contexts);
            judged.extend(ranked.map_err(|source| EvaluateError::Model { arm, source })?);
            step(judged.len())?;
        }
        Ok(judged)
    }

    fn rank_chunk(
        &self,
        data: &Dataset,
        cases: &[Case],
        contexts: &[Option<Context>],
    ) -> Result<Vec<Judged>, ModelError> {
        let inputs: Vec<HeadInput<'_>> = cases
            .iter()
            .zip(contexts)
            .map(|(case, context)| HeadInput {
                state: self.states.get(&case.user).map(Vec::as_slice),
                context: context.as_ref(),
                demographics: &data.users[case.user as usize].demographics,
            })
            .collect();
        let queries = self.model.embed_queries(&inputs)?;
        let values: Vec<f32> = queries.iter().flat_map(|query| query.as_slice()).copied().collect();
        let queries = Tensor::from_vec(values, (cases.len(), self.model.dimension()), &Device::Cpu)?;
        let scores = queries.matmul(&self.items.t()?)?;
        let ranked = with_values(&scores, |scores| {
            let rows: Vec<&[f32]> = scores.chunks_exact(data.items.len()).collect();
            let rank =
                |(case, scores): (&Case, &&[f32])| judge(scores, data.events()[case.target].item, &seen(data, case));
            Ok(cases.par_iter().zip(&rows).map(rank).collect())
        })?;
        Ok(ranked)
    }
}

/// The context that an event would have been as a subject pin.
fn context(data: &Dataset, event: usize) -> Context {
    let item = &data.items[data.events()[event].item as usize];
    let subject = Subject { item_id: Some(item.id.clone()), interests: item.interests.clone() };
    Context { subject: Some(subject), query: None }
}

/// The embeddings of all items, [items, dimension].
fn embed(model: &Model, catalogue: &Catalogue) -> Result<Tensor, ModelError> {
    let mut parts = Vec::new();
    for items in catalogue.items.chunks(4_096) {
        let mut rows = ItemRows::new(&model.features);
        items.iter().for_each(|(_, item)| rows.push_row(item, true));
        parts.push(model.ads(rows)?);
    }
    Ok(Tensor::cat(&parts, 0)?)
}
