//! The evaluation on real data agrees with what was counted without Turret: the cases, the ceiling and the floors that
//! come with the data set.

use std::ops::ControlFlow;
use std::path::Path;

use turret::config::Config;
use turret_model::{Arms, Evaluation, EvaluationSettings};

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

    let settings = EvaluationSettings { bootstrap_samples: 0, state_age_days: Vec::new(), ..config.evaluation.clone() };
    let evaluation = Evaluation { data: &data, split: &config.split, settings: &settings, log: None };
    let mut arms = Arms::of(&evaluation, &[]);
    arms.retain(|name| name.starts_with("popularity") || name.starts_with("last-item Markov"));
    let report = evaluation.run(&arms, &mut |_| ControlFlow::Continue(())).expect("a report");

    assert_eq!((report.cases, report.catalogue), (66_575, 46_033));
    assert!((report.ceiling - 0.67).abs() < 0.01, "{}", report.ceiling);
    let check = |name: &str, k: usize, expected: f64| {
        let arm = report.arm(name).expect("an arm of that name");
        let recall = arm.recall_at(k).expect("a cut-off");
        assert!((recall - expected).abs() < 0.003, "{name} R@{k}: {recall} where {expected} was counted");
    };
    check("popularity, last 24 h", 10, 0.1100);
    check("popularity, last 24 h", 100, 0.1913);
    check("last-item Markov, last 24 h", 10, 0.1363);
    check("last-item Markov, last 24 h", 100, 0.2135);
    check("popularity, all time", 10, 0.0002);
    check("popularity, all time", 100, 0.0771);
    check("last-item Markov, all time", 10, 0.0791);
    check("last-item Markov, all time", 100, 0.1698);
}
