use super::*;

const MINIMAL: &str = r#"
title = "does it work?"
config = "cluster-config/single.toml"
out = "docs/results/x.json"
"#;

fn plan(text: &str) -> Result<Plan, PlanError> {
    Plan::parse(&format!("{MINIMAL}{text}"), Path::new("studies/trial.toml"))
}

fn refused(text: &str) -> String {
    plan(text).and_then(|plan| plan.points().map(drop)).unwrap_err().to_string()
}

#[test]
fn a_grid_is_every_combination_of_its_values_over_the_base() {
    let text = r#"
        set = { "training.steps" = 7, "training.warmup_steps" = 0 }
        [[run]]
        name = "Sweep"
        models = ["contextual"]
        set = { "model.layers" = 3 }
        grid = { "training.context_dropout" = [0, 0.5], "training.context_drop" = [0.25, 1.0] }
        [[run]]
        name = "base"
    "#;
    let plan = plan(text).unwrap();
    assert_eq!((plan.name.as_str(), plan.seeds.as_slice(), plan.part), ("trial", &[1, 2, 3][..], Part::Test));
    let points = plan.points().unwrap();
    let names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
    let expected = [
        "Sweep, context_drop 0.25, context_dropout 0",
        "Sweep, context_drop 0.25, context_dropout 0.5",
        "Sweep, context_drop 1.0, context_dropout 0",
        "Sweep, context_drop 1.0, context_dropout 0.5",
        "base",
    ];
    assert_eq!(names, expected);
    assert_eq!(points[3].slug(), "sweep-context-drop-1.0-context-dropout-0.5");
    let training = &points[3].config.training;
    assert_eq!((training.steps, training.context_drop, training.context_dropout), (7, 1.0, 0.5));
    assert_eq!((points[3].config.model.layers, points[4].config.model.layers), (3, 1));
    assert_eq!(points[4].config.training.steps, 7);
    assert_eq!(points[3].settings["model.layers"], toml::Value::Integer(3));
}

#[test]
fn a_key_of_the_configuration_that_is_wrong_is_told_with_the_point() {
    let run = |set: &str| format!("[[run]]\nname = \"a\"\nset = {{ {set} }}");
    let told = refused(&run(r#""training.stepps" = 5, "model.layers" = 99"#));
    assert!(told.starts_with("run `a`: cluster-config/single.toml: 2 faults"), "{told}");
    assert!(told.contains("training.stepps: unknown key") && told.contains("model.layers: 99 is not in"), "{told}");
    let through = refused(&run(r#""data_dir.x" = 5"#));
    assert!(through.contains("data_dir.x: leads through a key that is no table"), "{through}");
}

#[test]
fn a_plan_that_cannot_be_meant_is_refused_with_the_key() {
    let check = |text: &str, expected: &str| {
        let told = refused(text);
        assert!(told.starts_with("studies/trial.toml: ") && told.contains(expected), "{text}: {told}");
    };
    check("", "missing field `run`");
    check("run = []", "run: at least one is needed");
    check("sedes = [1]\n[[run]]\nname = \"a\"", "unknown field `sedes`");
    check("[[run]]\nname = \"a\"\nmodel = []", "run[0]");
    check("seeds = [1, 1]\n[[run]]\nname = \"a\"", "seeds: must be 1 to 100 different numbers");
    check("[[run]]\nname = \"a b\"\n[[run]]\nname = \"A-b\"", "name: must have");
    check("[[run]]\nname = \"é\"", "name: must have");
    check("[[run]]\nname = \"a\"\nmodels = []", "models: must be");
    check("[[run]]\nname = \"a\"\ngrid = { \"model.layers\" = [] }", "grid: a key has no value");
    check("set = { \"model.layers\" = 1 }\n[[run]]\nname = \"a\"\ngrid = { \"model.layers\" = [2] }", "is set already");
    check("[[run]]\nname = \"a\"\nagainst = \"b\"", "against: must name a run");
    check("[[run]]\nname = \"a\"\nset = { \"training.seed\" = 4 }", "training.seed: is set by `seeds`");
    let many = (0..1_001).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    check(&format!("[[run]]\nname = \"a\"\ngrid = {{ \"model.layers\" = [{many}] }}"), "1001 points are more than");
}

#[test]
fn a_plan_that_is_not_there_is_told_by_its_path() {
    let told = Plan::load(Path::new("studies/none.toml")).unwrap_err().to_string();
    assert!(told.starts_with("studies/none.toml: "), "{told}");
}

#[test]
fn every_committed_plan_is_sound() {
    let studies = std::fs::read_dir("studies").unwrap().map(|entry| entry.unwrap().path());
    let plans: Vec<PathBuf> = studies.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    assert!(!plans.is_empty());
    for path in plans {
        let text = std::fs::read_to_string(&path).unwrap();
        let plan = Plan::parse(&text, &path).unwrap_or_else(|error| panic!("{error}"));
        // The directories of real data are named by a variable that may be unset here.
        match plan.points() {
            Ok(points) => assert!(!points.is_empty()),
            Err(PlanError::Config { source: ConfigError::Faults { faults, .. }, .. })
                if faults.iter().all(|fault| fault.contains("TURRET_DATA is not set")) =>
            {
                eprintln!("skipped: {} needs TURRET_DATA", path.display());
            }
            Err(error) => panic!("{error}"),
        }
    }
}
