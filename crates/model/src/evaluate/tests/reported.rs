use super::*;

#[test]
fn a_report_has_every_arm_metric_interval_comparison_and_slice() {
    let data = world(120, Clock::Milliseconds);
    let models = (&model(&data, &SPLIT, ModelKind::HistoryOnly), &model(&data, &SPLIT, ModelKind::Contextual));
    let settings = EvaluationSettings { bootstrap_samples: 20, state_age_days: vec![0, 2], ..planted::evaluation() };
    let report = planted::evaluate((&data, &SPLIT), &settings, models).unwrap();
    let names: Vec<&str> = report.arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "history only",
            "history only, unknown demographics",
            "contextual",
            "contextual, shuffled context",
            "contextual, without context",
            "contextual, context only",
            "popularity, last 24 h",
            "popularity, all time",
            "last-item Markov, last 24 h",
            "last-item Markov, all time",
            "subject's category x popularity, last 24 h",
            "content neighbours of the subject",
            "random",
            "ORACLE: contextual, the target's own interests as context",
        ]
    );
    for arm in &report.arms {
        for k in CUT_OFFS {
            let recall = arm.recall_at(k).unwrap();
            let [low, high] = arm.interval_at(k).unwrap();
            assert!(low <= recall && recall <= high, "{} {k}: {low} {recall} {high}", arm.name);
            assert!(arm.metric(&format!("advertiser_recall@{k}")).unwrap() >= recall);
        }
        let shares = ["ndcg@10", "diversity", "relevance@10"].map(|key| arm.metric(key).unwrap());
        assert!(shares.iter().all(|share| (0.0..=1.00001).contains(share)), "{} {shares:?}", arm.name);
    }
    // Scattered over everything, a random arm shows more of the catalogue than the popular items do.
    let diversity = |name: &str| report.arm(name).unwrap().metric("diversity").unwrap();
    assert!(diversity("random") > diversity("popularity, last 24 h") + 0.3);

    assert_eq!(report.comparisons.len(), 12, "all but the reference and the oracle");
    for comparison in &report.comparisons {
        assert_eq!(comparison.to, "history only");
        let (own, its) = (report.arm(&comparison.arm).unwrap(), report.arm("history only").unwrap());
        let difference = comparison.difference["recall@50"];
        assert_eq!(Some(difference.value), own.recall_at(50).zip(its.recall_at(50)).map(|(own, its)| own - its));
        assert!(difference.interval.is_some());
    }

    let slices: Vec<(&str, &str, usize)> =
        report.slices.iter().map(|slice| (&*slice.by, &*slice.value, slice.cases)).collect();
    let expected = [("target", "in training", 117), ("state_age_days", "0", 120), ("state_age_days", "2", 120)];
    assert_eq!(slices, expected, "three targets are too few for a slice of their own");
    let aged: Vec<&str> = report.slices[2].arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(aged, ["history only", "contextual"]);
    assert_eq!(report.slices[1].arms[1], report.arms[2]);
    let left_out: Vec<&str> = report.left_out.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(left_out, ["slices by country", "slices by history", "slices by target", "slices by context"]);

    let json = serde_json::to_string(&report).unwrap();
    let read: EvaluationReport = serde_json::from_str(&json).unwrap();
    let named = |report: &EvaluationReport| report.arms.iter().map(|arm| arm.name.clone()).collect::<Vec<String>>();
    assert_eq!(named(&read), named(&report));
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["arms", "cases", "catalogue", "ceiling", "comparisons", "left_out", "part", "slices"]);
}

#[test]
fn slices_part_the_cases_and_their_recalls_add_up() {
    let mut data = world(200, Clock::Milliseconds);
    for (number, user) in data.users.iter_mut().enumerate() {
        let country = ["US", "DE", "FR"][if number < 80 {
            0
        } else if number < 160 {
            1
        } else {
            2
        }];
        user.demographics.country = Some(country.into());
    }
    data.users[199].demographics.country = None;
    let settings = EvaluationSettings { bootstrap_samples: 10, ..planted::evaluation() };
    let evaluation = Evaluation { data: &data, split: &SPLIT, settings: &settings, log: None };
    let report = evaluation.run(&Arms::of(&evaluation, &[]), &mut |_| ControlFlow::Continue(())).unwrap();
    let countries: Vec<&SliceReport> = report.slices.iter().filter(|slice| slice.by == "country").collect();
    let sizes: Vec<(&str, usize)> = countries.iter().map(|slice| (&*slice.value, slice.cases)).collect();
    assert_eq!(sizes, [("DE", 80), ("US", 80)]);
    let merged = report.left_out.iter().find(|left| left.what == "slices by country").unwrap();
    assert_eq!(merged.why, "40 cases in all, 50 are needed: FR, unknown");
    for slice in countries {
        let arm = slice.arms.iter().find(|arm| arm.name == "random").unwrap();
        assert!(arm.metric("diversity").unwrap() > 0.5 && arm.interval_at(100).is_some());
    }
}

#[test]
fn items_that_training_never_saw_are_a_slice_and_are_scored_without_their_ids() {
    let base = world(200, Clock::Milliseconds);
    // On the tested day every second user looks at two items that nobody had looked at before.
    let split = Split::temporal(9 * DAY_MS, 10 * DAY_MS);
    let mut rows: Vec<Row> = base.events().to_vec();
    for row in &mut rows {
        let is_tested = row.at >= 9 * DAY_MS;
        let in_session = row.at % 3_600_000 / 60_000;
        if !is_tested && row.item % planted::ITEMS_EACH as u32 >= 50 {
            row.item -= 50;
        } else if is_tested && in_session > 0 && row.user % 2 == 0 {
            row.item = row.item / planted::ITEMS_EACH as u32 * planted::ITEMS_EACH as u32 + 53 + in_session as u32;
        }
    }
    let Dataset { items, ads, users, clock, .. } = base;
    let data = Dataset::new(items, ads, users, clock, rows);
    let mut go_on = |_: crate::TrainingProgress| ControlFlow::Continue(());
    let train = |kind, steps, go_on: &mut dyn FnMut(crate::TrainingProgress) -> ControlFlow<()>| {
        crate::train(&data, &split, &planted::model(kind), &planted::training(steps), go_on).unwrap().0
    };
    let contextual = train(ModelKind::Contextual, 120, &mut go_on);
    let history_only = train(ModelKind::HistoryOnly, 1, &mut go_on);
    let report = planted::evaluate((&data, &split), &planted::evaluation(), (&history_only, &contextual)).unwrap();
    let cold_by = |by: &str| {
        let mut of_kind = report.slices.iter().filter(|slice| slice.by == by);
        of_kind.find(|slice| slice.value.starts_with("cold (never")).unwrap()
    };
    let cold = cold_by("target");
    assert!(cold.cases >= 100, "{}", cold.cases);
    assert!(cold_by("context").cases >= 100, "{}", cold_by("context").cases);
    let recall = |name: &str| cold.arms.iter().find(|arm| arm.name == name).unwrap().recall_at(100).unwrap();
    // A category has 60 of the 480 items, and the context tells which it is.
    assert!(recall("contextual") > 0.6, "{}", recall("contextual"));
    assert!(recall("contextual") > recall("popularity, last 24 h") + 0.3, "{}", recall("popularity, last 24 h"));
}

#[test]
fn a_model_answers_in_every_tier_and_knows_less_in_each() {
    let data = world(120, Clock::Milliseconds);
    let (history_only, contextual) =
        (model(&data, &SPLIT, ModelKind::HistoryOnly), model(&data, &SPLIT, ModelKind::Contextual));
    let settings = EvaluationSettings { state_age_days: vec![0, 2], ..planted::evaluation() };
    let evaluation = Evaluation { data: &data, split: &SPLIT, settings: &settings, log: None };
    let contender = |name: &str, model| Contender { name: name.to_owned(), model };
    let arms = Arms::by_tier(&evaluation, &[contender("history", &history_only), contender("model", &contextual)]);
    let report = evaluation.run(&arms, &mut |_| ControlFlow::Continue(())).unwrap();
    let names: Vec<&str> = report.arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(
        names,
        ["model", "model, without context", "model, context only", "model, demographics only", "model, nothing"]
    );
    let diversity = |name: &str| report.arm(name).unwrap().metric("diversity").unwrap();
    // To whom nothing is known, everybody is the same; what is left of the catalogue is what they have seen.
    assert!(diversity("model, nothing") < diversity("model"), "{report:#?}");
    let stale = report.slices.iter().find(|slice| slice.by == "state_age_days" && slice.value == "2").unwrap();
    assert_eq!(stale.arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>(), ["model"]);
    // The same as where the whole report has them.
    let whole = planted::evaluate((&data, &SPLIT), &settings, (&history_only, &contextual)).unwrap();
    for (tier, arm) in [("model", "contextual"), ("model, context only", "contextual, context only")] {
        assert_eq!(report.arm(tier).unwrap().metrics, whole.arm(arm).unwrap().metrics);
    }
}
