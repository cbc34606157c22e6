use candle_core::Tensor;
use turret_retrieval::dataset::Dataset;

use super::feed::random_of;
use super::run::Pass;
use super::*;
use crate::batch::Batches;
use crate::catalogue::Catalogue;
use crate::examples::Sampler;
use crate::features::Features;
use crate::ops::Backend;
use crate::planted::{self, SPLIT, world};
use crate::settings::{EvaluationSettings, Fusion, ModelKind};
use crate::towers::Dropout;

mod started;

static EVALUATION: EvaluationSettings = EvaluationSettings::plain(3);

fn go_on(_: TrainingProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The loss of one batch, and the gradients of all variables under their names.
fn gradients(
    data: &Dataset,
    split: &Split,
    (model, training): (&ModelSettings, &TrainingSettings),
    (drop, backend): (Dropout, Backend),
) -> (f32, Vec<(String, Option<Tensor>)>) {
    let features = Features::new(planted::schema(data, model));
    let catalogue = Catalogue::of(&data.items, &features);
    let sampler = Sampler::new(data, split, training, model.history_length_max).unwrap();
    let item_shares = vec![1.0 / data.items.len() as f64; data.items.len()];
    let shared = Shared { features: &features, catalogue: &catalogue, item_shares: &item_shares, model, training };
    let mut run = Run::new(model, training, &features);
    let batch = Batches::new(data, &sampler, shared).next(&mut random_of(1, 1));
    let Pass { loss, variables } = run.pass(batch, drop, backend).unwrap();
    let grads = loss.backward().unwrap();
    let sums = run.table.variables().enumerate().map(|(number, sum)| (format!("sum {number} of the table"), sum));
    let names = run.parameters.iter().map(|p| p.name.clone()).zip(&variables).chain(sums);
    let found = names.map(|(name, variable)| (name, grads.get(variable).cloned())).collect();
    (loss.to_scalar().unwrap(), found)
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// One pass over one batch; panics where a variable has no gradient, one that is all zeros, or another one than by
/// candle's operations.
fn check_gradients(data: &Dataset, split: &Split, model: &ModelSettings, training: &TrainingSettings) {
    let drop = Dropout { encoder: 0.1, context: 0.2, seed: 4 };
    let (loss, own) = gradients(data, split, (model, training), (drop, Backend::Own));
    let (stock_loss, stock) = gradients(data, split, (model, training), (drop, Backend::Stock));
    assert!((loss - stock_loss).abs() < 1e-5 * stock_loss, "{loss} where {stock_loss}");
    for ((name, own), (_, stock)) in own.iter().zip(&stock) {
        let (Some(own), Some(stock)) = (own, stock) else { panic!("{name} has no gradient") };
        // The bias of the keys cancels in the softmax, but shares a tensor with queries and values.
        let size = largest(stock);
        assert!(size > 0.0 && size.is_finite(), "the gradient of {name} is {size} at most");
        let off = largest(&(own - stock).unwrap());
        assert!(off < 2e-4 * size + 1e-8, "{name} is off by {off} of {size}");
    }
}

#[test]
fn every_trainable_variable_gets_a_gradient() {
    let data = world(40, Clock::Milliseconds);
    let fusions = [Fusion::Concat, Fusion::CrossAttention];
    let shapes = fusions.map(|fusion| (ModelKind::Contextual, fusion));
    for (kind, fusion) in shapes.into_iter().chain([(ModelKind::HistoryOnly, Fusion::Concat)]) {
        for objective in [Objective::AllAction, Objective::NextAction, Objective::DenseAllAction] {
            let model = ModelSettings { fusion, layers: 2, content_embedding: true, ..planted::model(kind) };
            let training = TrainingSettings { objective, history_gap: HistoryGap::None, ..planted::training(1) };
            check_gradients(&data, &SPLIT, &model, &training);
        }
    }
    let order = world(40, Clock::Order);
    let training = TrainingSettings { history_gap: HistoryGap::None, ..planted::training(1) };
    let model = ModelSettings { attention: Attention::Bidirectional, ..planted::model(ModelKind::Contextual) };
    check_gradients(&order, &Split::leave_one_out(), &model, &training);
}

#[test]
fn a_planted_pattern_is_recovered_and_context_adds_to_history() {
    let data = world(320, Clock::Milliseconds);
    let train = |kind| train(&data, &SPLIT, &planted::model(kind), &planted::training(150), &mut go_on).unwrap();
    let (history_only, _) = train(ModelKind::HistoryOnly);
    let (contextual, record) = train(ModelKind::Contextual);
    assert!(record.final_loss < record.first_loss - 0.3, "{} → {}", record.first_loss, record.final_loss);

    let models = (&history_only, &contextual);
    let report = planted::evaluate((&data, &SPLIT), &planted::evaluation(), models).unwrap();
    let recall = |name: &str| report.arm(name).unwrap().recall_at(50).unwrap();
    let all: Vec<String> = report.arms.iter().map(|arm| format!("{} {:.3}", arm.name, recall(&arm.name))).collect();
    // 480 items; a category has 60, and 30 of them are for the user's gender.
    assert!(recall("contextual") > 0.55, "{all:?}");
    assert!(recall("contextual") > recall("history only") + 0.1, "{all:?}");
    assert!(recall("history only") > recall("popularity, last 24 h") + 0.2, "{all:?}");
    assert!(recall("contextual, shuffled context") < recall("contextual") - 0.2, "{all:?}");
    assert!(recall("contextual, without context") > recall("popularity, last 24 h") + 0.15, "{all:?}");
    assert!(recall("contextual, context only") > recall("popularity, last 24 h") + 0.1, "{all:?}");
    assert!(recall("content neighbours of the subject") > recall("popularity, last 24 h") + 0.2, "{all:?}");
    assert!((recall("random") - 50.0 / 460.0).abs() < 0.06, "{all:?}");
    assert_eq!(report.cases, 320);
}

#[test]
fn a_run_is_reproducible_from_its_seed_on_any_number_of_threads() {
    let data = world(60, Clock::Milliseconds);
    let version = |seed| {
        let training = TrainingSettings { seed, ..planted::training(8) };
        let (model, _) = train(&data, &SPLIT, &planted::model(ModelKind::Contextual), &training, &mut go_on).unwrap();
        (model.encoder_version().to_string(), model.head_version().to_owned(), model.ad_tower_version().to_owned())
    };
    let with_threads =
        |count| rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap().install(|| version(7));
    assert_eq!(with_threads(1), version(7));
    assert_eq!(with_threads(3), version(7));
    assert_ne!(version(7), version(8));
}

#[test]
fn what_cannot_be_trained_is_refused_with_its_reason() {
    let data = world(10, Clock::Milliseconds);
    let model = planted::model(ModelKind::Contextual);
    let check = |data: &Dataset, split: &Split, model: &ModelSettings, training: &TrainingSettings, rule: &str| {
        let error = train(data, split, model, training, &mut go_on).unwrap_err().to_string();
        assert!(error.contains(rule), "{error}");
    };
    let fine = planted::training(2);
    let early = Split::temporal(-1, 0);
    check(&data, &early, &model, &fine, "holds no event");
    let hot = TrainingSettings { learning_rate: 2.0, ..fine.clone() };
    check(&data, &SPLIT, &model, &hot, "learning_rate: is not in (0, 1)");
    let odd = ModelSettings { heads: 3, ..model.clone() };
    check(&data, &SPLIT, &odd, &fine, "heads: does not divide the dimension");
    let both = ModelSettings { attention: Attention::Bidirectional, ..model.clone() };
    let dense =
        TrainingSettings { objective: Objective::DenseAllAction, history_gap: HistoryGap::None, ..fine.clone() };
    check(&data, &SPLIT, &both, &dense, "attention: must be causal");
    let order = world(10, Clock::Order);
    check(&order, &SPLIT, &model, &fine, "split: needs times");
    check(&order, &Split::leave_one_out(), &model, &fine, "history_gap: needs times");

    let mut stop = |_| ControlFlow::Break(());
    let broken_off = train(&data, &SPLIT, &model, &fine, &mut stop).unwrap_err();
    assert!(matches!(broken_off, TrainError::BrokenOff { step: 1 }));
}

/// Every tensor of a model.
fn tensors(model: &Model) -> Vec<Vec<f32>> {
    let table = model.table.flatten_all().unwrap().to_vec1().unwrap();
    model.parameters.iter().map(|parameter| parameter.values.clone()).chain([table]).collect()
}

fn begin<'a>(
    data: &'a dyn Parts,
    split: &'a Split,
    model: &'a ModelSettings,
    training: &'a TrainingSettings,
) -> Trainer<'a> {
    Trainer::new(data, split, (model, training, &EVALUATION), &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// Breaks off after each of `stops` and goes on; the tensors must be those of a training without.
fn check_resumed(data: &dyn Parts, split: &Split, training: &TrainingSettings, stops: &[usize]) {
    let dir = tempfile::tempdir().unwrap();
    let model = planted::model(ModelKind::Contextual);
    let (expected, whole) = train(data, split, &model, training, &mut go_on).unwrap();
    let checkpoints = Checkpoints { path: dir.path().join("checkpoint"), every: Duration::MAX };
    for (number, stop) in stops.iter().enumerate() {
        let mut trainer = begin(data, split, &model, training);
        if number > 0 {
            assert_eq!(trainer.resume(&checkpoints.path).unwrap(), stops[number - 1]);
        }
        let mut until = |progress: TrainingProgress| match progress.step == *stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let error = trainer.train(Some(&checkpoints), &mut until).unwrap_err();
        assert!(matches!(error, TrainError::BrokenOff { step } if step == *stop), "{error}");
    }
    let mut trainer = begin(data, split, &model, training);
    trainer.resume(&checkpoints.path).unwrap();
    let (resumed, record) = trainer.train(Some(&checkpoints), &mut go_on).unwrap();
    assert!(tensors(&resumed) == tensors(&expected), "stopped at {stops:?}");
    assert_eq!(resumed.head_version(), expected.head_version());
    assert_eq!((record.final_loss, record.validations), (whole.final_loss, whole.validations));
}

#[test]
fn a_training_that_goes_on_ends_with_the_tensors_of_one_that_was_not_broken_off() {
    let data = world(60, Clock::Milliseconds);
    check_resumed(&data, &SPLIT, &planted::training(12), &[1]);
    check_resumed(&data, &SPLIT, &planted::training(12), &[5, 6, 12]);
    let parts = planted::InParts::of(&data, 3);
    let small = TrainingSettings { batch_size: 16, ..planted::training(60) };
    check_resumed(&parts, &SPLIT, &small, &[7, 51]);
}

#[test]
fn a_checkpoint_is_written_as_often_as_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let data = world(10, Clock::Milliseconds);
    let (model, training) = (planted::model(ModelKind::HistoryOnly), planted::training(3));
    let path = dir.path().join("checkpoint");
    let checkpoints = Checkpoints { path: path.clone(), every: Duration::ZERO };
    let mut found = Vec::new();
    let mut look = |_| {
        found.push(path.is_file());
        ControlFlow::Continue(())
    };
    begin(&data, &SPLIT, &model, &training).train(Some(&checkpoints), &mut look).unwrap();
    assert_eq!(found, [false, true, true], "the first one is there when the second step is told of");
    assert_eq!(begin(&data, &SPLIT, &model, &training).resume(&path).unwrap(), 3);
}

#[test]
fn a_log_in_parts_is_known_and_trained_as_a_whole() {
    let data = world(61, Clock::Milliseconds);
    let model = planted::model(ModelKind::HistoryOnly);
    let training = TrainingSettings { half_life_hours: Some(48.0), batch_size: 32, ..planted::training(160) };
    let parts = planted::InParts::of(&data, 4);
    for split in [SPLIT, Split::leave_one_out()] {
        let (one, four) = (begin(&data, &split, &model, &training), begin(&parts, &split, &model, &training));
        let (one, four) = (&one.job.survey, &four.job.survey);
        assert_eq!(one.positives, four.positives);
        assert!((one.predictions_per_draw - four.predictions_per_draw).abs() < 1e-9);
        assert!(one.item_shares.iter().zip(&four.item_shares).all(|(one, four)| (one - four).abs() < 1e-9));
        assert!((four.part_shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && four.part_shares.len() == 4);
    }
    let mut epochs = Vec::new();
    let mut look = |progress: TrainingProgress| {
        epochs.push(progress.epoch);
        ControlFlow::Continue(())
    };
    let (trained, record) = train(&parts, &SPLIT, &model, &training, &mut look).unwrap();
    assert!(record.final_loss < record.first_loss - 0.2, "{} → {}", record.first_loss, record.final_loss);
    // 61 users, 27 events before the cut: 1647 positives, 32 a step.
    assert!((record.epochs - 160.0 * 32.0 / 1647.0).abs() < 1e-9 && epochs.len() == 160);
    assert_eq!(epochs.last(), Some(&record.epochs));
    let (again, _) = train(&parts, &SPLIT, &model, &training, &mut go_on).unwrap();
    assert!(tensors(&trained) == tensors(&again));
}

#[test]
fn a_part_that_cannot_be_read_ends_the_training_with_its_reason() {
    struct Missing(planted::InParts);
    impl Parts for Missing {
        fn items(&self) -> &[turret_retrieval::item::Item] {
            self.0.items()
        }
        fn clock(&self) -> Clock {
            self.0.clock()
        }
        fn count(&self) -> usize {
            self.0.count() + 1
        }
        fn read(
            &self,
            number: usize,
        ) -> Result<turret_retrieval::dataset::Part<'_>, turret_retrieval::dataset::PartError> {
            self.0.read(number)
        }
    }
    let parts = Missing(planted::InParts::of(&world(10, Clock::Milliseconds), 2));
    let (model, training) = (planted::model(ModelKind::HistoryOnly), planted::training(3));
    let error = train(&parts, &SPLIT, &model, &training, &mut go_on).unwrap_err();
    assert_eq!(error.to_string(), "part 2 of the log: there is no such part");
}

#[test]
fn a_loss_that_is_no_number_stops_with_advice() {
    let mut items = world(20, Clock::Milliseconds).items.to_vec();
    items.iter_mut().for_each(|item| item.embedding = Some(vec![f32::MAX, f32::MAX, f32::MAX]));
    let base = world(20, Clock::Milliseconds);
    let data = Dataset::new(items, Vec::new(), base.users.clone(), base.clock, base.events().to_vec());
    let model = ModelSettings { content_embedding: true, ..planted::model(ModelKind::HistoryOnly) };
    let error = train(&data, &SPLIT, &model, &planted::training(5), &mut go_on).unwrap_err().to_string();
    assert!(error.contains("the loss is NaN in batch 1, at learning rate 2.00e-3"), "{error}");
    assert!(error.contains("lower training.learning_rate"), "{error}");
}

/// Leaving one out, so that what is trained for the test may be validated.
fn validated(steps: usize) -> TrainingSettings {
    TrainingSettings {
        history_gap: HistoryGap::None,
        validation_every_steps: 4,
        validation_cases_max: 50,
        ..planted::training(steps)
    }
}

#[test]
fn the_model_of_the_best_validation_is_kept_also_when_training_goes_on() {
    let data = world(60, Clock::Milliseconds);
    let split = Split::leave_one_out();
    let model = planted::model(ModelKind::Contextual);
    // So high a rate that the last step is not the best.
    let training = TrainingSettings { learning_rate: 0.2, ..validated(22) };
    let (best, record) = train(&data, &split, &model, &training, &mut go_on).unwrap();
    assert_eq!(record.validations.iter().map(|v| v.step).collect::<Vec<_>>(), [4, 8, 12, 16, 20, 22]);
    let kept = record.best.unwrap();
    assert!(record.validations.iter().all(|v| v.ndcg_at_10 <= kept.ndcg_at_10));
    assert!(kept.step < 22, "this test is of a training that gets worse: {:?}", record.validations);
    let short = TrainingSettings { keep_best: false, ..training.clone() };
    let (last, unkept) = train(&data, &split, &model, &short, &mut go_on).unwrap();
    assert_eq!(unkept.validations, record.validations);
    let score = |model: &Model| {
        let evaluation = EvaluationSettings::plain(training.seed);
        let validation = crate::evaluate::Validation::new(&data, &split, &evaluation, 50).unwrap();
        validation.score(model).unwrap().ndcg_at_10
    };
    assert_eq!(score(&best), kept.ndcg_at_10);
    assert_eq!(score(&last), record.validations.last().unwrap().ndcg_at_10);
    check_resumed(&data, &split, &training, &[6, 13]);
}

#[test]
fn training_ends_early_where_validations_get_no_better() {
    let data = world(60, Clock::Milliseconds);
    let training = TrainingSettings { learning_rate: 0.2, patience: 2, ..validated(400) };
    let model = planted::model(ModelKind::HistoryOnly);
    let mut told = Vec::new();
    let mut look = |progress: TrainingProgress| {
        told.extend(progress.validation);
        ControlFlow::Continue(())
    };
    let (_, record) = train(&data, &Split::leave_one_out(), &model, &training, &mut look).unwrap();
    assert!(record.steps < 400, "{:?}", record.validations);
    assert_eq!(record.best.unwrap().step + 8, record.steps);
    assert_eq!(told, record.validations);
}

#[test]
fn what_training_sees_is_not_validated_on() {
    let data = world(20, Clock::Milliseconds);
    let model = planted::model(ModelKind::HistoryOnly);
    let training = validated(5);
    let (_, record) = train(&data, &SPLIT, &model, &training, &mut go_on).unwrap();
    assert_eq!((record.validations, record.cautions), (vec![], vec![Caution::NotValidated]));
}
