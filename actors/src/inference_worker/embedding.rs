//! Query embeddings of many asks at once, each answered or refused alone: what a worker's batch computes, and a node's own head.

use turret_model::{HeadInput, Model, ModelError};
use turret_retrieval::ids::GenerationId;
use turret_retrieval::state::SequenceState;
use turret_retrieval::vector::UnitVector;

use crate::protocol::{EmbedAsk, Embedded, EncodedHistory, QueryEmbedding, Refusal};

/// Whether the model, and what it is computed on, did what a sound one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Soundness {
    /// It did, whatever became of single rows.
    Sound,
    /// It failed where no input can be at fault.
    Faulty,
}

impl Soundness {
    /// What an error says of the model.
    pub(crate) fn of(error: &ModelError) -> Self {
        if error.is_of_model() { Self::Faulty } else { Self::Sound }
    }
}

/// What came of asks.
pub(crate) struct Embeddings {
    /// One for each, in their order.
    pub(crate) results: Vec<Result<Embedded, Refusal>>,
    /// What they tell of the model.
    pub(crate) soundness: Soundness,
}

/// An ask whose state could be read.
#[derive(Clone, Copy)]
struct Row<'a> {
    input: HeadInput<'a>,
    context_used: bool,
    compares_without_context: bool,
}

impl<'a> Row<'a> {
    fn of(ask: &'a EmbedAsk, state: Option<&'a [f32]>, model: &Model) -> Self {
        Self {
            input: HeadInput { state, context: ask.context.as_ref(), demographics: &ask.demographics },
            context_used: ask.context.as_ref().is_some_and(|context| model.context_is_usable(context)),
            compares_without_context: ask.compares_without_context,
        }
    }

    /// Whether it is embedded once more; where no context is used, the embedding without it is the embedding.
    fn is_again(&self) -> bool {
        self.compares_without_context && self.context_used
    }
}

/// Embeds all asks at once, and again without their context those that ask what it did.
pub(crate) fn embed(model: &Model, generation: &GenerationId, asks: &[&EmbedAsk]) -> Embeddings {
    let states: Vec<Result<Option<Vec<f32>>, Refusal>> = asks.iter().map(|ask| state(ask, model)).collect();
    let read = asks.iter().zip(&states).filter_map(|(ask, state)| Some((ask, state.as_ref().ok()?)));
    let rows: Vec<Row<'_>> = read.map(|(ask, state)| Row::of(ask, state.as_deref(), model)).collect();
    let mut inputs: Vec<HeadInput<'_>> = rows.iter().map(|row| row.input).collect();
    let again = rows.iter().filter(|row| row.is_again());
    inputs.extend(again.map(|row| HeadInput { context: None, ..row.input }));

    let mut vectors = embed_all(model, &inputs);
    let faulty = |vector: &Result<UnitVector, ModelError>| vector.as_ref().is_err_and(ModelError::is_of_model);
    let soundness = if vectors.iter().any(faulty) { Soundness::Faulty } else { Soundness::Sound };
    let mut bare = vectors.split_off(rows.len()).into_iter();
    let of_row = |(row, vector): (&Row<'_>, Result<UnitVector, ModelError>)| {
        let bare = if row.is_again() { bare.next() } else { None };
        let vector = vector.map_err(refusal)?;
        let without_context = match bare {
            Some(bare) => Some(bare.map_err(refusal)?),
            None => row.compares_without_context.then(|| vector.clone()),
        };
        let query = QueryEmbedding { generation: generation.clone(), vector, without_context };
        Ok(Embedded { query, context_used: row.context_used })
    };
    let embedded: Vec<Result<Embedded, Refusal>> = rows.iter().zip(vectors).map(of_row).collect();
    let mut embedded = embedded.into_iter();
    let result = |state: Result<Option<Vec<f32>>, Refusal>| {
        state.and_then(|_| embedded.next().expect("every state that was read has its row"))
    };
    Embeddings { results: states.into_iter().map(result).collect(), soundness }
}

/// What a state holds, where the encoder of `model` made it: any other says nothing to its head.
pub(crate) fn sequence<'a>(state: &'a EncodedHistory, model: &Model) -> Result<&'a SequenceState, Refusal> {
    let sequence = state.sequence_of(model.encoder_version())?;
    match (sequence.dimension(), model.dimension()) {
        (found, dimension) if found == dimension => Ok(sequence),
        (found, dimension) => {
            Err(Refusal::Failed(format!("state: rows of {found} values where {dimension} are expected")))
        }
    }
}

/// The values of an ask's state. One that is not finite was not made by a sound encoder, and says nothing of this one.
fn state(ask: &EmbedAsk, model: &Model) -> Result<Option<Vec<f32>>, Refusal> {
    let Some(state) = &ask.state else { return Ok(None) };
    let values = sequence(state, model)?.values();
    match values.iter().position(|value| !value.is_finite()) {
        Some(position) => Err(Refusal::Failed(format!("state: value {position} is not finite"))),
        None => Ok(Some(values)),
    }
}

/// Embeds all inputs at once; where that fails, each on its own, so that one bad input is one refusal.
fn embed_all(model: &Model, inputs: &[HeadInput<'_>]) -> Vec<Result<UnitVector, ModelError>> {
    match model.embed_queries(inputs) {
        Ok(vectors) => vectors.into_iter().map(Ok).collect(),
        Err(_) => inputs.iter().map(|input| embed_one(model, input)).collect(),
    }
}

fn embed_one(model: &Model, input: &HeadInput<'_>) -> Result<UnitVector, ModelError> {
    Ok(model.embed_queries(std::slice::from_ref(input))?.pop().expect("a model answers each of its inputs"))
}

fn refusal(error: ModelError) -> Refusal {
    if error.is_not_finite() { Refusal::NotFinite } else { Refusal::Failed(error.to_string()) }
}
