//! The online half of a model: query embeddings, from states and what a request knows.

use candle_core::Tensor;
use turret_retrieval::vector::UnitVector;

use super::{HeadInput, Model, ModelError, unit_vectors};
use crate::head::{Head, HeadStates};
use crate::inputs::{HeadRows, QueryFeatures, demographics};
use crate::ops::with_values;
use crate::towers::{Dropout, EncodedEvents, States};

impl Model {
    /// Query embeddings, one for each input.
    ///
    /// # Errors
    /// When a state has another length, or an embedding is not a direction (a state that is not finite).
    pub fn embed_queries(&self, inputs: &[HeadInput<'_>]) -> Result<Vec<UnitVector>, ModelError> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let mut head = HeadRows::new(&self.settings, &self.features);
        for input in inputs {
            let context = input.context.and_then(|context| self.usable(context));
            let demographics = demographics(input.demographics, &self.features, || false);
            head.push(&QueryFeatures { context: context.as_ref(), demographics });
        }
        match &self.head {
            Some(own) => {
                let states = self.head_states(inputs, own)?;
                let queries = with_values(&self.table, |table| Ok(own.apply(&head, states, table)))?;
                unit_vectors(&queries, self.dimension())
            }
            None => {
                let embeddings = head.embed(self.read_states(inputs)?, &mut self.sums(), &self.network)?;
                let queries = self.network.head(embeddings, Dropout::NONE)?;
                with_values(&queries, |values| Ok(unit_vectors(values, self.dimension())))?
            }
        }
    }

    /// The states of `inputs`, as the head that is computed here takes them.
    fn head_states<'a>(&self, inputs: &[HeadInput<'a>], head: &Head) -> Result<HeadStates<'a>, ModelError> {
        let mut states = HeadStates { last: Vec::with_capacity(inputs.len() * self.dimension()), events: Vec::new() };
        for input in inputs {
            if let Some(state) = input.state {
                self.check_state(state)?;
            }
            let last = input.state.map_or(head.no_history(), |state| &state[state.len() - self.dimension()..]);
            states.last.extend_from_slice(last);
            states.events.push(input.state.unwrap_or_default());
        }
        Ok(states)
    }

    fn check_state(&self, state: &[f32]) -> Result<(), ModelError> {
        let (dimension, rows_max) = (self.dimension(), self.state_rows_max());
        if state.is_empty() || !state.len().is_multiple_of(dimension) || state.len() > rows_max * dimension {
            return Err(ModelError::State { rows_max, dimension, found: state.len() });
        }
        Ok(())
    }

    /// The states of `inputs`, as the head takes them.
    fn read_states(&self, inputs: &[HeadInput<'_>]) -> Result<States, ModelError> {
        let dimension = self.dimension();
        let nothing = with_values(self.network.no_history(), |values| Ok(values.to_vec()))?;
        let mut lasts = Vec::with_capacity(inputs.len() * dimension);
        let mut events = Vec::new();
        let mut spans = Vec::with_capacity(inputs.len());
        for input in inputs {
            let state = input.state.unwrap_or(&nothing);
            self.check_state(state)?;
            lasts.extend_from_slice(&state[state.len() - dimension..]);
            let first = events.len() / dimension;
            events.extend_from_slice(input.state.filter(|_| self.network.keeps_events()).unwrap_or_default());
            spans.push(first..events.len() / dimension);
        }
        let rows = events.len() / dimension;
        let device = self.network.device();
        let last = Tensor::from_vec(lasts, (inputs.len(), dimension), device)?;
        let states = Tensor::from_vec(events, (rows, dimension), device)?;
        let events = self.network.keeps_events().then_some(EncodedEvents { states, spans: spans.into() });
        Ok(States { last, events })
    }
}
