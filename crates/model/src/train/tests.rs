use super::*;
use crate::planted::{self, SPLIT, world};
use crate::settings::{Fusion, ModelKind};

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
    let features = Features::new(Schema::of(data, model));
    let catalogue = Catalogue::of(&data.items, &features);
    let sampler = Sampler::new(data, split, training, model.history_length_max).unwrap();
    let mut run = Run::new(model, training, &features);
    let batch = Batches::new(data, &sampler, (&features, &catalogue), (model, training)).next(&mut run.random);
    let Pass { loss, leaf, variables } = run.pass(batch, drop, backend).unwrap();
    let grads = loss.backward().unwrap();
    let names = run.parameters.iter().map(|p| p.name.as_str()).zip(&variables).chain([("table", &leaf)]);
    let found = names.map(|(name, variable)| (name.to_owned(), grads.get(variable).cloned())).collect();
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
fn a_run_is_reproducible_from_its_seed() {
    let data = world(60, Clock::Milliseconds);
    let version = |seed| {
        let training = TrainingSettings { seed, ..planted::training(8) };
        let (model, _) = train(&data, &SPLIT, &planted::model(ModelKind::Contextual), &training, &mut go_on).unwrap();
        (model.encoder_version().to_string(), model.head_version().to_owned(), model.ad_tower_version().to_owned())
    };
    assert_eq!(version(7), version(7));
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
    check(&data, &early, &model, &fine, "no event of a type that has a weight");
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
    assert!(matches!(broken_off, TrainError::BrokenOff));
}
