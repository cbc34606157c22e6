//! The evaluation on real data agrees with what was counted without Turret: the cases, the ceiling and the floors that
//! come with the data set.

use std::ops::ControlFlow;
use std::path::Path;

use turret::config::Config;
use turret_model::{Arm, EvaluationSettings, Model, ModelKind, ModelSettings, TrainingSettings, evaluate, train};
use turret_retrieval::dataset::Dataset;

/// The smallest model there can be: this test is about the baselines.
fn model(config: &Config, data: &Dataset, kind: ModelKind) -> Model {
    let settings = ModelSettings {
        kind,
        dimension: 4,
        heads: 1,
        layers: 1,
        feed_forward: 4,
        head_hidden: 4,
        history_length_max: 2,
        ..config.model.clone()
    };
    let training = TrainingSettings { steps: 1, warmup_steps: 1, batch_size: 16, ..config.training.clone() };
    let mut go_on = |_| ControlFlow::Continue(());
    train(data, &config.split, &settings, &training, &mut go_on).expect("one step").0
}

#[test]
fn globo_has_the_cases_the_ceiling_and_the_floors_that_were_counted_elsewhere() {
    if std::env::var_os("TURRET_DATA").is_none() {
        eprintln!("skipped: TURRET_DATA is not set");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/globo.toml");
    let config = Config::load(&path).expect("a valid configuration");
    let source = config.data.as_ref().expect("globo.toml has [data]");
    let data = turret_data::read(source, &mut |_| ControlFlow::Continue(())).expect("globo reads as it lies");
    assert_eq!((data.events().len(), data.users.len(), data.items.len()), (2_988_181, 322_897, 46_033));

    let (contextual, history_only) =
        (model(&config, &data, ModelKind::Contextual), model(&config, &data, ModelKind::HistoryOnly));
    let baselines = Arm::all(&contextual, &history_only, &config.split)
        .into_iter()
        .filter(|arm| arm.name().contains("last 24 h"))
        .collect::<Vec<_>>();
    let settings = EvaluationSettings { seed: 1, cases_max: None, bootstrap_samples: 0 };
    let mut go_on = |_| ControlFlow::Continue(());
    let report = evaluate(&data, &config.split, &baselines, &settings, &mut go_on).expect("a report");

    assert_eq!((report.cases, report.catalogue), (66_575, 46_033));
    assert!((report.ceiling - 0.67).abs() < 0.01, "{}", report.ceiling);
    let check = |name: &str, k: usize, expected: f64| {
        let arm = report.arms.iter().find(|arm| arm.name == name).expect("an arm of that name");
        let recall = arm.recall_at(k).expect("a cut-off");
        assert!((recall - expected).abs() < 0.003, "{name} R@{k}: {recall} where {expected} was counted");
    };
    check("popularity, last 24 h", 10, 0.1100);
    check("popularity, last 24 h", 100, 0.1913);
    check("last-item Markov, last 24 h", 10, 0.1363);
    check("last-item Markov, last 24 h", 100, 0.2135);
}
