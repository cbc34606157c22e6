//! All of a model but the numbers of its tensors: what settings and a data set decide before anything is trained.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use turret_retrieval::dataset::{Clock, PartError, Parts};
use turret_retrieval::digest::Digest;

use crate::catalogue::Catalogue;
use crate::examples::{known_items, training_ends};
use crate::features::{Features, Layout, Schema, Words};
use crate::model::Model;
use crate::parameters::{Parameter, TABLE, shapes};
use crate::settings::{ModelSettings, SettingsError, Split};

/// All of a model but the numbers of its tensors.
///
/// The same settings, split and data give the same blueprint to a training and to an import, so a model of either has
/// the same versions where its tensors are the same.
pub struct Blueprint {
    pub(crate) settings: ModelSettings,
    pub(crate) features: Arc<Features>,
    pub(crate) catalogue: Arc<Catalogue>,
    timed: bool,
    split: Split,
}

/// Why there is no blueprint.
#[derive(Debug, thiserror::Error)]
pub enum BlueprintError {
    /// A setting is out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A temporal split needs times, and the data has only an order.
    #[error("split: needs times, and the data has only an order")]
    NeedsTimes,
    /// There is nothing that a model could have been trained on.
    #[error("the training part of the data holds no event")]
    NoEvents,
    /// A part of the log could not be read.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The observer broke it off.
    #[error("reading the log was broken off")]
    BrokenOff,
}

/// The name and shape of a tensor; its numbers are `f32`, row by row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorShape {
    /// Such as `encoder.0.query_key_value.weight`.
    pub name: String,
    /// Rows and columns, or only a length.
    pub shape: Vec<usize>,
}

impl TensorShape {
    /// How many numbers it holds.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What weights are made for. Any difference would give a model that runs and answers wrongly.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MadeFor {
    /// The shape of the model, and what no tensor's shape tells: attention heads, what attends to what.
    pub settings: ModelSettings,
    /// Whether events have times, or only an order.
    pub timed: bool,
    /// What was held out of training.
    pub split: Split,
    /// The digest of the vocabularies and buckets: which row of the table means what.
    pub feature_schema: Digest,
    /// The digest of the items, and of which of them training sees.
    pub catalogue: Digest,
}

/// Everything that the author of another implementation needs to know of the model.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// To be written beside the weights.
    pub made_for: MadeFor,
    /// Every tensor.
    pub tensors: Vec<TensorShape>,
    /// Which rows of the embedding table mean what.
    pub features: Layout,
}

impl Blueprint {
    /// The blueprint that a training of `model` on the training part of `data` has. This reads the whole log once;
    /// `watch` is told the parts done, and parts in all.
    ///
    /// # Errors
    /// When a setting is out of range or does not fit the data, the training part is empty, a part cannot be read or
    /// `watch` breaks off.
    pub fn of(
        data: &dyn Parts,
        split: &Split,
        model: &ModelSettings,
        watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Self, BlueprintError> {
        model.check()?;
        split.check()?;
        if data.clock() == Clock::Order && matches!(split, Split::Temporal { .. }) {
            return Err(BlueprintError::NeedsTimes);
        }
        let (mut words, mut seen) = (Words::default(), vec![false; data.items().len()]);
        for number in 0..data.count() {
            if watch(number, data.count()).is_break() {
                return Err(BlueprintError::BrokenOff);
            }
            let part = data.read(number)?;
            words.count(&part.users);
            let known = known_items(&part, &training_ends(&part, split));
            seen.iter_mut().zip(known).for_each(|(seen, known)| *seen |= known);
        }
        if !seen.contains(&true) {
            return Err(BlueprintError::NoEvents);
        }
        Ok(Self::new(data, split, model, (&words, &seen)))
    }

    /// The same, of a log that was read: its users' `words`, and which items are `seen` among the training events.
    pub(crate) fn new(
        data: &dyn Parts,
        split: &Split,
        model: &ModelSettings,
        (words, seen): (&Words, &[bool]),
    ) -> Self {
        let features = Features::new(Schema::of(data.items(), words, model));
        let mut catalogue = Catalogue::of(data.items(), &features);
        catalogue.keep_ids(seen);
        Self {
            settings: model.clone(),
            features: Arc::new(features),
            catalogue: Arc::new(catalogue),
            timed: data.clock() == Clock::Milliseconds,
            split: *split,
        }
    }

    /// Every tensor, in the order of files: the embedding table, then the dense ones.
    pub fn tensors(&self) -> Vec<TensorShape> {
        let table = (TABLE.to_owned(), vec![self.features.rows(), self.settings.dimension]);
        let dense = shapes(&self.settings, self.features.schema.content_dimension());
        std::iter::once(table).chain(dense).map(|(name, shape)| TensorShape { name, shape }).collect()
    }

    /// What its weights are made for.
    pub fn made_for(&self) -> MadeFor {
        MadeFor {
            settings: self.settings.clone(),
            timed: self.timed,
            split: self.split,
            feature_schema: self.features.schema.digest(),
            catalogue: Digest::of(&self.catalogue.to_bytes()),
        }
    }

    /// What the author of weights for it needs to know.
    pub fn describe(&self) -> Description {
        Description { made_for: self.made_for(), tensors: self.tensors(), features: self.features.layout() }
    }

    /// The model of these tensors.
    pub(crate) fn model(&self, parameters: Vec<Parameter>, table: Vec<f32>) -> candle_core::Result<Model> {
        let (features, catalogue) = (self.features.clone(), self.catalogue.clone());
        Model::new(self.settings.clone(), features, catalogue, self.timed, self.split, parameters, table)
    }
}
