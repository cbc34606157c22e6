use std::ops::ControlFlow;
use std::time::Duration;

use turret_retrieval::dataset::{Clock, Dataset};

use super::*;
use crate::planted::{self, SPLIT, world};
use crate::settings::{EvaluationSettings, ModelKind, ModelSettings, TrainingSettings};
use crate::train::{Checkpoints, TrainError, Trainer};

static EVALUATION: EvaluationSettings = EvaluationSettings::plain(3);

/// Trains `steps` steps, breaks off, and leaves a checkpoint at `path`.
fn broken_off(data: &Dataset, (model, training): (&ModelSettings, &TrainingSettings), steps: usize, path: &Path) {
    let checkpoints = Checkpoints { path: path.to_owned(), every: Duration::MAX };
    let mut stop = |progress: crate::TrainingProgress| match progress.step == steps {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let trainer =
        Trainer::new(data, &SPLIT, (model, training, &EVALUATION), &mut |_, _| ControlFlow::Continue(())).unwrap();
    let error = trainer.train(Some(&checkpoints), &mut stop).unwrap_err();
    assert!(matches!(error, TrainError::BrokenOff { step } if step == steps), "{error}");
}

/// What resuming from `path` says.
fn resumed(data: &Dataset, model: &ModelSettings, training: &TrainingSettings, path: &Path) -> String {
    let mut trainer =
        Trainer::new(data, &SPLIT, (model, training, &EVALUATION), &mut |_, _| ControlFlow::Continue(())).unwrap();
    trainer.resume(path).unwrap_err().to_string()
}

#[test]
fn a_damaged_checkpoint_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("below").join("contextual.checkpoint");
    let data = world(10, Clock::Milliseconds);
    let (model, training) = (planted::model(ModelKind::Contextual), planted::training(4));
    broken_off(&data, (&model, &training), 2, &path);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    let good = fs::read(&path).unwrap();
    let check = |bytes: &[u8], rule: &str| {
        fs::write(&path, bytes).unwrap();
        let error = resumed(&data, &model, &training, &path);
        assert!(error.contains(rule) && error.contains("contextual.checkpoint"), "{error} where {rule} was expected");
    };
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    check(&[], "ends too early");
    check(&good[..good.len() / 2], "ends too early");
    check(&good[..good.len() - 1], "ends too early");
    check(&[&good[..], b"0"].concat(), "is damaged");
    check(&flipped(18), "is no checkpoint of this version");
    check(&flipped(FORMAT.len() + 7), "its header is too long");
    check(&flipped(good.len() / 2), "is damaged");
    check(&flipped(good.len() - 1), "is damaged");
    fs::remove_file(&path).unwrap();
    assert!(resumed(&data, &model, &training, &path).contains("contextual.checkpoint"));
}

#[test]
fn a_checkpoint_of_another_training_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let data = world(10, Clock::Milliseconds);
    let (model, training) = (planted::model(ModelKind::Contextual), planted::training(4));
    broken_off(&data, (&model, &training), 2, &path);
    let check = |data: &Dataset, model: &ModelSettings, training: &TrainingSettings, parts: &[&str]| {
        let error = resumed(data, model, training, &path);
        assert!(parts.iter().all(|part| error.contains(part)), "{error} where {parts:?} were expected");
    };
    let wide = ModelSettings { dimension: 32, ..model.clone() };
    check(&data, &wide, &training, &["model.dimension is 16 in the checkpoint and 32 here"]);
    let slow = TrainingSettings { learning_rate: 0.002, ..training.clone() };
    check(&data, &model, &slow, &["training.learning_rate is 0.01 in the checkpoint and 0.002 here"]);
    let late = TrainingSettings { half_life_hours: Some(24.0), ..training.clone() };
    check(&data, &model, &late, &["training.half_life_hours is null in the checkpoint and 24.0 here"]);
    check(&world(11, Clock::Milliseconds), &model, &training, &["data.", " in the checkpoint and "]);
}
