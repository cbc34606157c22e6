//! Trainings that start from a model.

use super::*;

/// A training of one step whose rate is next to nothing.
fn still() -> TrainingSettings {
    TrainingSettings { learning_rate: 1e-12, warmup_steps: 0, weight_decay: 0.0, ..planted::training(1) }
}

fn train_from(data: &Dataset, start: Option<&Model>, split: &Split, training: &TrainingSettings) -> Model {
    let model = planted::model(ModelKind::Contextual);
    let trainer = begin(data, split, &model, training);
    let trainer = match start {
        Some(start) => trainer.starting_from(start).unwrap(),
        None => trainer,
    };
    trainer.train(None, &mut go_on).unwrap().0
}

#[test]
fn a_training_starts_with_the_tensors_of_the_model_that_it_is_given() {
    let data = world(60, Clock::Milliseconds);
    let yesterday = Split::temporal((planted::DAYS - 2) * planted::DAY_MS, (planted::DAYS - 1) * planted::DAY_MS);
    let start = train_from(&data, None, &yesterday, &planted::training(1));
    let from = train_from(&data, Some(&start), &SPLIT, &still());
    let anew = train_from(&data, None, &SPLIT, &still());
    assert_eq!(from.split(), &SPLIT, "it is a model of what it was trained on last");
    let width = start.dimension();
    let (starts, found, new) = (tensors(&start), tensors(&from), tensors(&anew));
    let last = starts.len() - 1;
    for (start, found) in starts[..last].iter().zip(&found[..last]) {
        assert!(start.iter().zip(found).all(|(start, found)| (start - found).abs() < 1e-9));
    }
    let (mut kept, mut begun) = (0, 0);
    for ((start, found), new) in starts[last].chunks(width).zip(found[last].chunks(width)).zip(new[last].chunks(width))
    {
        let near = |other: &[f32]| found.iter().zip(other).all(|(found, other)| (found - other).abs() < 1e-9);
        if start.iter().any(|value| *value != 0.0) {
            assert!(near(start), "what was trained stays, whether or not the new steps read it");
            kept += 1;
        } else {
            assert!(near(new), "what was not begins as it would have without the model");
            begun += usize::from(found.iter().any(|value| *value != 0.0));
        }
    }
    assert!(kept > 50 && begun > 0, "{kept} and {begun}");
}

#[test]
fn what_a_training_starts_from_decides_what_comes_out_and_is_part_of_its_digest() {
    let data = world(40, Clock::Milliseconds);
    let (model, training) = (planted::model(ModelKind::Contextual), planted::training(6));
    let [one, other] =
        [1, 2].map(|seed| train_from(&data, None, &SPLIT, &TrainingSettings { seed, ..planted::training(3) }));
    let digest = |start: Option<&Model>| {
        let trainer = begin(&data, &SPLIT, &model, &training);
        start.map_or_else(
            || trainer.digest(),
            |start| begin(&data, &SPLIT, &model, &training).starting_from(start).unwrap().digest(),
        )
    };
    assert_eq!(digest(Some(&one)), digest(Some(&one)));
    assert!(digest(None) != digest(Some(&one)) && digest(Some(&one)) != digest(Some(&other)));
    assert!(
        tensors(&train_from(&data, Some(&one), &SPLIT, &training))
            == tensors(&train_from(&data, Some(&one), &SPLIT, &training))
    );

    // A checkpoint is of a training with its start, and of no other.
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints { path: dir.path().join("checkpoint"), every: Duration::MAX };
    let begin_from = |start: &Model| begin(&data, &SPLIT, &model, &training).starting_from(start).unwrap();
    let mut stop = |progress: TrainingProgress| match progress.step {
        4 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    begin_from(&one).train(Some(&checkpoints), &mut stop).unwrap_err();
    let error = begin_from(&other).resume(&checkpoints.path).unwrap_err().to_string();
    assert!(error.contains(": start is "), "{error}");
    let mut resumed = begin_from(&one);
    assert_eq!(resumed.resume(&checkpoints.path).unwrap(), 4);
    let (resumed, _) = resumed.train(None, &mut go_on).unwrap();
    assert!(tensors(&resumed) == tensors(&train_from(&data, Some(&one), &SPLIT, &training)));
}

#[test]
fn a_training_does_not_start_from_a_model_whose_numbers_mean_something_else() {
    let data = world(20, Clock::Milliseconds);
    let (settings, training) = (planted::model(ModelKind::Contextual), planted::training(2));
    let check = |start: &Model, expected: &str| {
        let error = begin(&data, &SPLIT, &settings, &training).starting_from(start).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{error} where {expected} is expected");
    };
    let of = |settings: &ModelSettings, data: &Dataset| train(data, &SPLIT, settings, &training, &mut go_on).unwrap().0;
    check(
        &of(&ModelSettings { dimension: 8, ..settings.clone() }, &data),
        "model.settings.dimension is 8 in the model that training would start from and 16 here",
    );
    check(&of(&planted::model(ModelKind::HistoryOnly), &data), "model.settings.kind is \"history_only\"");
    let mut other = world(20, Clock::Milliseconds);
    other.users[0].demographics.country = Some("PT".into());
    check(&of(&settings, &other), "model.feature_schema is ");
}
