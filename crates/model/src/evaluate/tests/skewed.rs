use super::*;
use crate::settings::{Fusion, ModelSettings};

/// A model of `steps` steps from `seed`.
fn trained(data: &Dataset, model: &ModelSettings, (seed, steps): (u64, usize)) -> Model {
    let training = crate::TrainingSettings { seed, ..planted::training(steps) };
    crate::train(data, &SPLIT, model, &training, &mut |_| ControlFlow::Continue(())).unwrap().0
}

fn contenders<'a>(versions: &[(&str, &'a Model)]) -> Vec<Contender<'a>> {
    versions.iter().map(|(name, model)| Contender { name: (*name).to_owned(), model }).collect()
}

fn skew(data: &Dataset, settings: &EvaluationSettings, versions: &[(&str, &Model)]) -> Result<SkewReport, SkewError> {
    let evaluation = Evaluation { data, split: &SPLIT, settings, log: None };
    evaluation.skew(&contenders(versions), &mut |_| ControlFlow::Continue(()))
}

/// The report's pairs whose halves are of one version are what the ordinary evaluation says of that version.
fn check_own_pairs(data: &Dataset, settings: &EvaluationSettings, versions: &[(&str, &Model)]) -> SkewReport {
    let report = skew(data, settings, versions).unwrap();
    let evaluation = Evaluation { data, split: &SPLIT, settings, log: None };
    let mut arms = Arms::of(&evaluation, &contenders(versions));
    arms.retain(|name| versions.iter().any(|(version, _)| *version == name));
    let usual = evaluation.run(&arms, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.cases, report.catalogue, report.part), (usual.cases, usual.catalogue, usual.part));
    for (name, model) in versions {
        let (pair, arm) = (report.on_index(name, name).unwrap(), usual.arm(name).unwrap());
        assert_eq!((&pair.metrics, &pair.intervals), (&arm.metrics, &arm.intervals), "{name}");
        assert_eq!(report.reading(name, name), Some(pair), "one pair, which stands on both diagonals");
        assert!(pair.is_own() && pair.kept.is_empty());
        let version = report.versions.iter().find(|version| version.name == *name).unwrap();
        let own = (model.encoder_version().as_str(), model.head_version(), model.ad_tower_version());
        assert_eq!((&*version.encoder, &*version.head, &*version.ad_tower), own);
    }
    report
}

#[test]
fn own_pairs_are_the_ordinary_evaluation_and_independent_versions_mix_to_near_chance() {
    let data = world(320, Clock::Milliseconds);
    let model = planted::model(ModelKind::Contextual);
    let [one, other] = [3, 4].map(|seed| trained(&data, &model, (seed, 150)));
    let settings = EvaluationSettings { bootstrap_samples: 50, ..planted::evaluation() };
    let report = check_own_pairs(&data, &settings, &[("one", &one), ("other", &other)]);
    assert_eq!(report.pairs.len(), 6);

    let chance = report.chance_at(50).unwrap();
    let recall = |pair: &PairReport| pair.recall_at(50).unwrap();
    for (head, foreign) in [("one", "other"), ("other", "one")] {
        let own = report.on_index(head, head).unwrap();
        assert!(recall(own) > 4.0 * chance, "{} by chance {chance}", recall(own));
        let on_foreign = report.on_index(head, foreign).unwrap();
        assert!(recall(on_foreign) < 2.0 * chance, "{} by chance {chance}", recall(on_foreign));
        for mixed in [on_foreign, report.reading(head, foreign).unwrap()] {
            assert!(!mixed.is_own() && recall(mixed) < recall(own) - 0.05, "{mixed:?} beside {own:?}");
            let kept = mixed.kept["recall@50"];
            assert!((kept.value - recall(mixed) / recall(own)).abs() < 1e-12);
            let [low, high] = kept.interval.unwrap();
            assert!(low <= kept.value && kept.value <= high, "{kept:?}");
        }
    }
    let json = serde_json::to_string(&report).unwrap();
    let read: SkewReport = serde_json::from_str(&json).unwrap();
    assert_eq!(read.versions, report.versions);
}

#[test]
fn chance_is_what_random_orders_recall_on_average() {
    let data = world(320, Clock::Milliseconds);
    let one = trained(&data, &planted::model(ModelKind::HistoryOnly), (3, 1));
    let report = skew(&data, &planted::evaluation(), &[("one", &one), ("copy", &one)]).unwrap();
    let random = |seed: u64| {
        let settings = EvaluationSettings { seed, ..planted::evaluation() };
        let evaluation = Evaluation { data: &data, split: &SPLIT, settings: &settings, log: None };
        let mut arms = Arms::of(&evaluation, &[]);
        arms.retain(|name| name == "random");
        evaluation.run(&arms, &mut |_| ControlFlow::Continue(())).unwrap().arms.remove(0)
    };
    let orders: Vec<ArmReport> = (0..20).map(random).collect();
    // 6,400 ranked cases: a standard error of at most .007.
    for k in [10, 50, 100, 200] {
        let mean = orders.iter().filter_map(|arm| arm.recall_at(k)).sum::<f64>() / orders.len() as f64;
        let chance = report.chance_at(k).unwrap();
        assert!((chance - mean).abs() < 0.02, "{k}: {chance} where {mean} was drawn");
    }
    // Every target that is ranked at all is among the first thousand of 480.
    assert_eq!(report.chance_at(1_000), orders[0].recall_at(1_000));
}

#[test]
fn a_version_beside_itself_loses_nothing() {
    let data = world(60, Clock::Milliseconds);
    for fusion in [Fusion::Concat, Fusion::CrossAttention] {
        let model = ModelSettings { fusion, ..planted::model(ModelKind::Contextual) };
        let one = trained(&data, &model, (3, 4));
        let report = check_own_pairs(&data, &planted::evaluation(), &[("one", &one), ("copy", &one)]);
        let own = &report.on_index("one", "one").unwrap().metrics;
        assert!(report.pairs.iter().all(|pair| pair.metrics == *own), "{report:#?}");
        assert!(report.pairs.iter().all(|pair| pair.is_own() || pair.kept["recall@100"].value == 1.0));
    }
}

#[test]
fn versions_that_cannot_be_put_together_are_refused_and_not_computed() {
    let data = world(10, Clock::Milliseconds);
    let settings = planted::evaluation();
    let model = planted::model(ModelKind::Contextual);
    let one = trained(&data, &model, (3, 2));
    let check = |versions: &[(&str, &Model)], expected: &str| {
        let error = skew(&data, &settings, versions).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} where {expected} is expected");
    };
    let of = |model: &ModelSettings| trained(&data, model, (3, 2));
    let wide = of(&ModelSettings { dimension: 32, ..model.clone() });
    check(
        &[("one", &one), ("wide", &wide)],
        "wide cannot be paired with one: the dimension is 32 where 16 is expected",
    );
    let attending = of(&ModelSettings { fusion: Fusion::CrossAttention, ..model.clone() });
    check(
        &[("one", &one), ("attending", &attending)],
        "attending cannot be paired with one: the length of a sequence state is at most 20 rows where at most 1 rows",
    );
    let hashed = of(&ModelSettings { id_buckets: 256, ..model.clone() });
    check(&[("one", &one), ("hashed", &hashed)], "hashed cannot be paired with one: the feature schema is ");
    check(&[("one", &one)], "1 versions where 2 to 8 can be paired");
    check(&[("one", &one); 9], "9 versions");
    check(&[("one", &one), ("one", &one)], "two versions are called one");

    let late = Split::temporal(planted::DAYS * DAY_MS, (planted::DAYS + 1) * DAY_MS);
    let training = planted::training(2);
    let seen = crate::train(&data, &late, &model, &training, &mut |_| ControlFlow::Continue(())).unwrap().0;
    check(&[("one", &one), ("late", &seen)], "late: was trained on the events before");
    let none = EvaluationSettings { cases_max: Some(0), ..settings.clone() };
    let error = skew(&data, &none, &[("one", &one), ("two", &one)]).unwrap_err();
    assert!(error.to_string().starts_with("cases_max"), "{error}");
}

#[test]
fn a_sweep_tells_how_far_it_is_and_can_be_broken_off() {
    let data = world(10, Clock::Milliseconds);
    let settings = planted::evaluation();
    let one = trained(&data, &planted::model(ModelKind::HistoryOnly), (3, 2));
    let evaluation = Evaluation { data: &data, split: &SPLIT, settings: &settings, log: None };
    let versions = contenders(&[("one", &one), ("two", &one)]);
    let mut told = Vec::new();
    let mut note = |progress: EvaluationProgress<'_>| {
        told.push((progress.arm.to_owned(), progress.done, progress.total));
        ControlFlow::Continue(())
    };
    evaluation.skew(&versions, &mut note).unwrap();
    let names: Vec<&str> = told.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["one on one", "one on two", "one reading two", "two reading one", "two on one", "two on two"]);
    assert_eq!((told[0].1, told[5].1, told[5].2), (10, 60, 60));
    let broken_off = evaluation.skew(&versions, &mut |_| ControlFlow::Break(()));
    assert!(matches!(broken_off, Err(SkewError::Evaluate(EvaluateError::BrokenOff))));
}
