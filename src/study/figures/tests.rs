use super::super::ledger::{Ledger, Measured, Training};
use super::*;
use turret_model::{EvaluationReport, SliceReport};

fn arm(name: &str, recall: f64) -> ArmReport {
    let metrics = [("recall@10", recall), ("recall@50", 2.0 * recall), ("diversity", 0.5)];
    ArmReport {
        name: name.to_owned(),
        role: Role::Model,
        metrics: metrics.map(|(key, value)| (key.to_owned(), value)).into(),
        intervals: [("recall@10".to_owned(), [recall - 0.01, recall + 0.01])].into(),
    }
}

fn measured(arms: Vec<ArmReport>) -> Measured {
    let aged = SliceReport { by: "state_age_days".to_owned(), value: "2".to_owned(), cases: 5, arms: arms.clone() };
    let report = EvaluationReport {
        part: Part::Test,
        cases: 10,
        catalogue: 100,
        ceiling: 0.9,
        arms,
        comparisons: Vec::new(),
        slices: vec![aged],
        left_out: Vec::new(),
    };
    let training = Training { commit: "aaa".to_owned(), seconds: 2.4, steps: 3, final_loss: 1.0 };
    Measured { commit: "bbb".to_owned(), trainings: [("contextual".to_owned(), training)].into(), report }
}

fn plan() -> Plan {
    let text = r#"
        title = "t"
        config = "cluster-config/single.toml"
        out = "out.json"
        seeds = [1, 2]
        [[run]]
        name = "reference"
        models = ["history_only"]
        [[run]]
        name = "sweep"
        group = "G"
        models = ["contextual"]
        arms = ["contextual"]
        against = "reference"
        grid = { "training.context_dropout" = [0, 0.5] }
    "#;
    Plan::parse(text, Path::new("studies/t.toml")).unwrap()
}

fn provenance() -> Provenance {
    Provenance { command: "turret study".to_owned(), commit: "ccc".to_owned(), machine: "m".to_owned() }
}

#[test]
fn rows_are_means_over_the_seeds_with_each_seed_and_its_ratio() {
    let dir = tempfile::tempdir().unwrap();
    let (plan, ledger) = (plan(), Ledger::new(dir.path().to_owned()));
    let points = plan.points().unwrap();
    for (seed, reference, contextual) in [(1, 0.1, 0.2), (2, 0.2, 0.3)] {
        ledger.keep(&points[0], seed, measured(vec![arm("history only", reference)])).unwrap();
        ledger.keep(&points[1], seed, measured(vec![arm("contextual", contextual), arm("random", 0.0)])).unwrap();
    }
    ledger.keep(&points[2], 2, measured(vec![arm("contextual", 0.0)])).unwrap();
    let figures = gather(&plan, &points, provenance(), &|point, seed| ledger.find(point, seed));
    let names: Vec<&str> = figures.rows.iter().map(|row| row.name.as_str()).collect();
    let expected =
        ["reference: history only", "sweep, context_dropout 0: contextual", "sweep, context_dropout 0.5: contextual"];
    assert_eq!(names, expected);

    let row = &figures.rows[1];
    assert_eq!((row.group.as_str(), row.arm.as_str(), row.cases), ("G", "contextual", Some(10)));
    assert_eq!(row.settings["training.context_dropout"], Value::from(0));
    assert!((row.mean["recall@10"] - 0.25).abs() < 1e-12);
    assert_eq!(row.spread["recall@10"], [0.2, 0.3]);
    assert!((row.mean["ratio_vs_history_only@10"] - 1.75).abs() < 1e-12, "{:?}", row.mean);
    assert_eq!((row.slices[0].by.as_str(), row.slices[0].spread["recall@10"]), ("state_age_days", [0.2, 0.3]));
    assert_eq!(row.seeds[1]["seed"], Value::from(2));
    assert_eq!(row.seeds[1]["recall@10"], Value::from(0.3));
    assert_eq!(row.seeds[1]["commits"], Value::from(vec!["aaa", "bbb"]));
    assert_eq!(row.seeds[1]["train_seconds"], Value::from(2.0));
    assert!(row.seeds[1]["intervals"]["recall@10"].is_array());
    assert_eq!(figures.rows[2].seeds.len(), 1, "the other seed was not measured");

    let path = dir.path().join("docs/figures.json");
    figures.write(&path).unwrap();
    let read: Figures = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(read, figures);
}

#[test]
fn what_was_measured_with_other_settings_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::new(dir.path().to_owned());
    let mut points = plan().points().unwrap();
    let point = &mut points[0];
    ledger.keep(point, 1, measured(vec![arm("history only", 0.1)])).unwrap();
    assert!(ledger.find(point, 1).is_some() && ledger.find(point, 2).is_none());
    let models = ledger.models(&point.seeded(1));
    assert_ne!(models, ledger.models(&point.seeded(2)));

    point.config.evaluation.seed += 1;
    assert!(ledger.find(point, 1).is_none());
    assert_eq!(ledger.models(&point.seeded(1)), models, "what judges a model does not make it another");
    point.config.evaluation.seed -= 1;
    point.config.training.learning_rate *= 2.0;
    assert!(ledger.find(point, 1).is_none());
    assert_ne!(ledger.models(&point.seeded(1)), models);
    point.config.training.learning_rate /= 2.0;
    assert!(ledger.find(point, 1).is_some());

    let file = dir.path().join("measured/reference/seed-1.json");
    std::fs::write(&file, "{ \"half\":").unwrap();
    assert!(ledger.find(point, 1).is_none(), "a damaged file is measured again");
    ledger.clear().unwrap();
    ledger.clear().unwrap();
    assert!(!dir.path().exists());
}
