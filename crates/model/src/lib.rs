//! The contextual sequential two-tower model: features, training, evaluation, artifacts.
//!
//! Owns everything between a data set and vectors: what the features mean, the towers, how they are trained and judged,
//! and the files that a trained model is kept in. It is the only importer of candle. It knows no index, no store and no
//! actor, and runs on the calling thread and rayon's.
//!
//! Shapes: sequence states and embeddings are `[dimension]` row vectors of `f32`; embeddings have length 1.

mod artifact;
mod batch;
mod blueprint;
mod catalogue;
mod device;
mod difference;
mod evaluate;
mod examples;
mod features;
mod file_error;
mod head;
mod import;
mod inputs;
mod model;
mod ops;
mod optimizer;
mod parameters;
#[cfg(test)]
mod planted;
mod settings;
mod text;
mod towers;
mod train;

pub use artifact::{LoadError, SaveError};
pub use blueprint::{Blueprint, BlueprintError, Description, MadeFor, TensorShape};
pub use device::{Device, DeviceError, DeviceName};
pub use evaluate::{
    Arm, ArmReport, Arms, CUT_OFFS, Comparison, Contender, Estimate, EvaluateError, Evaluation, EvaluationProgress,
    EvaluationReport, LeftOut, PairReport, Request, Role, SKEW_VERSIONS_MAX, SkewError, SkewReport, SliceReport,
    Validation, ValidationScore, VersionReport,
};
pub use features::{HashSeeds, Layout, TableBlock};
pub use file_error::FileError;
pub use import::{ImportError, TensorFault, TensorFaults};
pub use model::{HeadInput, Model, ModelError};
pub use settings::{
    Attention, CaseChoice, EvaluationSettings, EventWeights, Fusion, HistoryGap, ModelKind, ModelSettings, Objective,
    Part, SettingsError, Split, SyntheticContext, TrainingSettings,
};
pub use train::{
    Caution, CheckpointError, Checkpoints, Predicts, StartError, TrainError, Trainer, TrainingProgress, TrainingRecord,
    Trial, TrialBatch, TrialModel, TrialShape, Validated, train,
};
