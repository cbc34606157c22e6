//! A training that starts from a model instead of new tensors, as one does that goes on with every day's data.

use serde_json::{Value, json};
use turret_retrieval::digest::Digester;

use super::Trainer;
use super::run::Run;
use crate::difference::differ;
use crate::model::Model;
use crate::ops::with_values;

/// Why a training does not start from a model.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tensors are of another shape, or their rows mean something else.
    #[error("{field} is {theirs} in the model that training would start from and {ours} here")]
    OtherModel {
        /// The first thing that differs.
        field: String,
        /// What it is in the model.
        theirs: String,
        /// What it is here.
        ours: String,
    },
    /// An operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Trainer<'_> {
    /// The same training, from the tensors of `model`: for a new one, before it is resumed or trained.
    ///
    /// Rows of the table that the model never trained start as they would have without it. The moments of the optimiser
    /// start anew, and with them the learning rate's rise and fall. What the model was trained on does not matter, so it
    /// may be of another day; its digests become part of this training's.
    ///
    /// # Errors
    /// When the model has other settings or another feature schema.
    pub fn starting_from(mut self, model: &Model) -> Result<Self, StartError> {
        let ours =
            made_for(serde_json::to_value(self.job.model), &self.job.blueprint.features.schema.digest().to_string());
        let theirs = made_for(serde_json::to_value(model.settings()), &model.feature_schema().to_string());
        if let Some((field, theirs, ours)) = differ("model", &theirs, &ours) {
            return Err(StartError::OtherModel { field, theirs, ours });
        }
        with_values(&model.table, |table| {
            take_over(&mut self.state.run, model, table);
            Ok(())
        })?;
        let mut digester = Digester::default();
        for version in [model.encoder_version().as_str(), model.head_version(), model.ad_tower_version()] {
            digester.update(version.as_bytes());
        }
        self.job.start = Some(digester.finish());
        Ok(self)
    }
}

/// What decides whether tensors fit, and what they mean.
fn made_for(settings: serde_json::Result<Value>, schema: &str) -> Value {
    json!({ "settings": settings.expect("settings are JSON"), "feature_schema": schema })
}

/// Gives `run`, which is new, the tensors of `model`, whose table has the values `trained`.
fn take_over(run: &mut Run<'_>, model: &Model, trained: &[f32]) {
    for (own, of_model) in run.parameters.iter_mut().zip(&model.parameters) {
        own.values.clone_from(&of_model.values);
    }
    run.table.start_from(trained);
}
