use std::collections::BTreeMap;

use turret_model::{ArmReport, CUT_OFFS, EvaluationReport, LeftOut, Part, Role, SliceReport};

use super::*;
use crate::provenance::Provenance;
use crate::study::{Figures, Plot, Row};

fn provenance() -> Provenance {
    Provenance { command: "turret x".to_owned(), commit: "abc".to_owned(), machine: "2 cores".to_owned() }
}

fn arm(name: &str, role: Role, recall: f64) -> ArmReport {
    let at = |k: usize| (recall * (k as f64).log10()).min(1.0);
    let metrics: BTreeMap<String, f64> = CUT_OFFS.iter().map(|k| (format!("recall@{k}"), at(*k))).collect();
    let intervals = metrics.iter().map(|(key, value)| (key.clone(), [value * 0.9, value * 1.1])).collect();
    ArmReport { name: name.to_owned(), role, metrics, intervals }
}

fn evaluation() -> Source {
    let arms = vec![
        arm("history only", Role::Model, 0.1),
        arm("contextual <b>", Role::Model, 0.2),
        arm("random", Role::Baseline, 0.0),
        arm("ORACLE", Role::Oracle, 0.3),
    ];
    let slice = |by: &str, value: &str| SliceReport {
        by: by.to_owned(),
        value: value.to_owned(),
        cases: 60,
        arms: arms[..2].to_vec(),
    };
    let report = EvaluationReport {
        part: Part::Test,
        cases: 120,
        catalogue: 1_000,
        ceiling: 0.67,
        slices: vec![slice("country", "BR"), slice("state_age_days", "0"), slice("state_age_days", "7")],
        arms,
        comparisons: Vec::new(),
        left_out: vec![LeftOut { what: "relevance@10".to_owned(), why: "no item has interests".to_owned() }],
    };
    let evaluated = Evaluated { provenance: provenance(), report };
    Source { name: "globo.json".to_owned(), content: Content::Evaluation(Box::new(evaluated)) }
}

fn row(group: &str, run: &str, dropout: Option<f64>, recall: f64) -> Row {
    Row {
        name: format!("{run} {dropout:?}"),
        group: group.to_owned(),
        run: run.to_owned(),
        settings: dropout.map(|dropout| ("training.context_dropout".to_owned(), dropout.into())).into_iter().collect(),
        mean: [("recall@10".to_owned(), recall)].into(),
        spread: [("recall@10".to_owned(), [recall - 0.01, recall + 0.01])].into(),
        seeds: vec![BTreeMap::new(), BTreeMap::new()],
        ..Row::default()
    }
}

fn figures(rows: Vec<Row>) -> Figures {
    let plot = Plot {
        title: "Recall by dropout".to_owned(),
        x: "training.context_dropout".to_owned(),
        y: "recall@10".to_owned(),
        runs: Vec::new(),
        arms: Vec::new(),
    };
    Figures {
        provenance: provenance(),
        title: "Does it work?".to_owned(),
        seeds: vec![1, 2],
        part: Some(Part::Test),
        plan: "studies/x.toml".to_owned(),
        plots: vec![plot],
        rows,
    }
}

fn study(rows: Vec<Row>) -> Source {
    Source { name: "x.json".to_owned(), content: Content::Figures(figures(rows)) }
}

#[test]
fn the_page_of_an_evaluation_has_its_tables_and_plots_and_needs_nothing_else() {
    let page = page(&[evaluation()]);
    for expected in [
        "120 test cases, 1000 items ranked",
        "Recall by arm",
        "Recall by K",
        "Recall by state age",
        "age of the sequence state, days",
        "Recall@10 by country",
        "relevance@10: no item has interests",
        "contextual &lt;b&gt;",
        "0.0900 to 0.1100",
        "prefers-color-scheme: dark",
    ] {
        assert!(page.contains(expected), "{expected} is not on the page");
    }
    assert!(!page.contains("<b>") && !page.contains("<script"), "text of the figures became markup");
    let addresses = page.matches("http").count() - page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count();
    assert_eq!(addresses, 0, "the page names another place");
    assert!(!page.contains("NaN") && !page.contains("{style}"));
}

#[test]
fn what_no_file_holds_is_named_instead_of_drawn() {
    let page = page(&[evaluation()]);
    assert!(page.contains("Not on this page") && page.contains("Synthetic context: no study"));
    assert!(!page.contains("Recall by state age: no file"));
    assert_eq!(page.matches("<figure").count(), 3);
}

#[test]
fn a_study_is_drawn_with_a_panel_for_each_group_and_level_lines_for_what_does_not_depend_on_x() {
    let rows = vec![
        row("A", "A, none", None, 0.05),
        row("A", "A, made up", Some(0.0), 0.1),
        row("A", "A, made up", Some(0.5), 0.2),
        row("B", "B, made up", Some(0.0), 0.3),
        row("B", "B, made up", Some(0.5), 0.2),
    ];
    let page = page(&[study(rows)]);
    assert!(page.contains("<h2>Does it work?</h2>") && page.contains("Mean over the seeds 1, 2"));
    assert_eq!(page.matches("<svg width").count(), 2, "one panel a group");
    assert!(page.contains("A: recall@10") && page.contains("B: recall@10"));
    assert!(page.contains("stroke-dasharray") && page.contains("training.context_dropout"));
    assert!(page.contains("0.0900 to 0.1100") && page.contains("<th scope=\"row\">made up Some(0.5)</th>"));
    assert!(!page.contains("Synthetic context: no study"));
}

#[test]
fn a_study_without_plots_is_drawn_as_evaluations_are() {
    let of_arm = |name: &str, role: Role, recall: f64| {
        let ArmReport { metrics, intervals, .. } = arm(name, role, recall);
        let aged = |value: &str| crate::study::SliceRow {
            by: "state_age_days".to_owned(),
            value: value.to_owned(),
            cases: 10,
            mean: metrics.clone(),
            spread: intervals.clone(),
        };
        Row {
            name: format!("G, run: {name}"),
            group: "G".to_owned(),
            run: "G, run".to_owned(),
            arm: name.to_owned(),
            role: Some(role),
            slices: vec![aged("0"), aged("2")],
            mean: metrics.clone(),
            spread: intervals.clone(),
            ..Row::default()
        }
    };
    let rows = vec![of_arm("contextual", Role::Model, 0.2), of_arm("popularity", Role::Baseline, 0.1)];
    let mut study = figures(rows);
    study.plots = Vec::new();
    let page = page(&[Source { name: "globo.json".to_owned(), content: Content::Figures(study) }]);
    for expected in
        ["Recall by arm", "Recall by K", "Recall by state age", "smallest to the largest seed", ">popularity<"]
    {
        assert!(page.contains(expected), "{expected} is not on the page");
    }
    assert!(!page.contains("Recall by K and arm: no") && !page.contains("Recall by state age: no"));
}

#[test]
fn a_plot_without_points_is_one_sentence() {
    let page = page(&[study(vec![row("A", "A, none", None, 0.05)])]);
    assert!(page.contains("no row has both training.context_dropout and recall@10"));
    assert!(!page.contains("<figure"));
}

#[test]
fn a_funnel_is_drawn_as_simulated() {
    let generator = |name: &str, survival: f64| Row {
        name: name.to_owned(),
        mean: [("survival_rate".to_owned(), survival), ("spend".to_owned(), 12_345.0)].into(),
        seeds: vec![BTreeMap::new()],
        ..Row::default()
    };
    let mut funnel = figures(vec![generator("contextual", 0.5), generator("random", 0.1)]);
    funnel.plots = Vec::new();
    let page = page(&[Source { name: "funnel.json".to_owned(), content: Content::Figures(funnel) }]);
    assert!(page.contains("Funnel (simulated)") && page.contains("Spend, 1,000 requests"));
    assert_eq!(page.matches("<figure").count(), 1);
    assert!(page.contains("12\u{202f}345"));
}

#[test]
fn a_file_that_is_no_figures_is_told_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Source::read(&path).err().unwrap().to_string()
    };
    let check = |text: &str, expected: &str| {
        let told = refused(text);
        assert!(told.contains("x.json: ") && told.contains(expected) && !told.contains('\n'), "{text}: {told}");
    };
    check("{", "is no JSON");
    check("{}", "has neither `arms`");
    check("{\"rows\": 5}", "");
    let row = "{\"name\": \"a\", \"mean\": {\"x\": \"high\"}, \"seeds\": []}";
    let head = "\"command\": \"c\", \"commit\": \"\", \"machine\": \"m\"";
    check(&format!("{{ {head}, \"seeds\": [1], \"rows\": [{row}] }}"), "rows");
    check(&format!("{{ {head}, \"arms\": [] }}"), "missing field `part`");
    assert!(Source::read(&dir.path().join("none.json")).is_err());

    let figures = figures(vec![super::tests::row("A", "A", Some(0.1), 0.5)]);
    figures.write(&path).unwrap();
    let source = Source::read(&path).unwrap();
    assert_eq!(source.name, "x.json");
    assert!(matches!(source.content, Content::Figures(read) if read == figures));
}

#[test]
fn every_file_of_the_results_is_read() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/results");
    let files: Vec<_> = results.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        Source::read(file).unwrap();
    }
}
