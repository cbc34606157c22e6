//! Why there is no model.

use turret_retrieval::dataset::PartError;
use turret_retrieval::ids::ItemId;

use super::checkpoint::CheckpointError;
use crate::evaluate::EvaluateError;
use crate::settings::SettingsError;

/// Why a model was not trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting of the model or the training is out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The training part is empty.
    #[error("the training part of the data holds no event")]
    NoEvents,
    /// Nothing to learn from.
    #[error(
        "the training part of the data holds no event of a type that has a weight: it has {found}, and \
         training.event_weights weighs {weighted}"
    )]
    NoPositives {
        /// The types of the events.
        found: String,
        /// The types that have a weight.
        weighted: String,
    },
    /// Nothing to tell apart.
    #[error("the data has one item, {id}: there is nothing to rank")]
    OneItem {
        /// That one.
        id: ItemId,
    },
    /// A setting needs times, and the data has only an order.
    #[error("{field}: needs times, and the data has only an order")]
    NeedsTimes {
        /// The setting.
        field: &'static str,
    },
    /// The loss, or a tensor, is no longer a number.
    #[error(
        "the loss is {loss} in batch {step}, at learning rate {learning_rate:.2e}: lower training.learning_rate, or raise \
         training.warmup_steps or training.temperature"
    )]
    Diverged {
        /// Which step's batch.
        step: usize,
        /// What it is.
        loss: f32,
        /// The rate of that step.
        learning_rate: f32,
    },
    /// The observer broke it off.
    #[error("training was broken off after {step} steps")]
    BrokenOff {
        /// Steps done.
        step: usize,
    },
    /// A part of the log could not be read.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The model in the making could not be validated.
    #[error("validation: {0}")]
    Validation(#[from] EvaluateError),
    /// A checkpoint could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}
