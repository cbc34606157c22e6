use super::*;

fn check(error: EvaluateError, expected: &str) {
    assert!(error.to_string().starts_with(expected), "{error} where {expected} is expected");
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_its_reason() {
    let data = world(10, Clock::Milliseconds);
    let order = world(10, Clock::Order);
    let settings = planted::evaluation();
    let run = |data: &Dataset, split: &Split, settings: &EvaluationSettings, log: Option<&[Request]>| {
        let evaluation = Evaluation { data, split, settings, log };
        evaluation.run(&Arms::of(&evaluation, &[]), &mut |_| ControlFlow::Continue(())).unwrap_err()
    };
    check(run(&data, &Split::temporal(i64::MAX - 1, i64::MAX), &settings, None), "the split leaves no case");
    check(run(&data, &Split::temporal(5, 5), &settings, None), "until: must be after cut");
    check(run(&order, &SPLIT, &settings, None), "split: needs times");
    check(run(&order, &Split::leave_one_out(), &settings, Some(&[])), "split: a log of requests needs a temporal one");
    check(run(&data, &SPLIT, &settings, Some(&[])), "the split leaves no case");
    let none = EvaluationSettings { cases_max: Some(0), ..settings.clone() };
    check(run(&data, &SPLIT, &none, None), "cases_max");
    let each = EvaluationSettings { cases: CaseChoice::Each, ..settings.clone() };
    check(run(&order, &Split::leave_one_out(), &each, None), "cases: must be last");
    let old = EvaluationSettings { state_age_days: vec![366], ..settings };
    check(run(&data, &SPLIT, &old, None), "state_age_days");
}

#[test]
fn an_evaluation_can_be_broken_off() {
    let data = world(10, Clock::Milliseconds);
    let settings = planted::evaluation();
    let evaluation = Evaluation { data: &data, split: &SPLIT, settings: &settings, log: None };
    let mut calls = 0;
    let mut stop = |_: EvaluationProgress<'_>| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(evaluation.run(&Arms::of(&evaluation, &[]), &mut stop), Err(EvaluateError::BrokenOff)));
}

#[test]
fn a_model_is_not_judged_by_what_it_was_trained_on() {
    let data = world(10, Clock::Milliseconds);
    let day = DAY_MS;
    let split =
        Split::Temporal { part: Part::Test, validation_cut_ms: Some(8 * day), cut_ms: 9 * day, until_ms: 10 * day };
    let validation = split.of(Part::Validation).unwrap();
    let [of_test, of_validation] = [&split, &validation].map(|split| model(&data, split, ModelKind::HistoryOnly));
    let settings = planted::evaluation();
    let run = |split: &Split, model: &Model| {
        let evaluation = Evaluation { data: &data, split, settings: &settings, log: None };
        let arms = Arms::of(&evaluation, &[Contender { name: "one".to_owned(), model }]);
        evaluation.run(&arms, &mut |_| ControlFlow::Continue(()))
    };
    check(run(&validation, &of_test).unwrap_err(), "one: was trained on the events before 777600000 ms, the cases");
    assert_eq!(run(&validation, &of_validation).unwrap().part, Part::Validation);
    assert_eq!(run(&split, &of_test).unwrap().part, Part::Test);

    check(Validation::new(&data, &split, &settings, 100).err().unwrap(), "split: trains up to the test");
    let score = Validation::new(&data, &validation, &settings, 4).unwrap().score(&of_validation).unwrap();
    assert_eq!(score.cases, 4);
    assert!((0.0..=1.0).contains(&score.recall_at_10) && score.ndcg_at_10 <= score.recall_at_10, "{score:?}");
}

#[test]
fn leaving_one_out_validates_the_model_that_is_tested() {
    let data = world(10, Clock::Order);
    let split = Split::leave_one_out();
    let settings = planted::evaluation();
    let model = model(&data, &split, ModelKind::Contextual);
    let score = Validation::new(&data, &split, &settings, 1_000).unwrap().score(&model).unwrap();
    let validation = split.of(Part::Validation).unwrap();
    let evaluation = Evaluation { data: &data, split: &validation, settings: &settings, log: None };
    let arms = Arms::of(&evaluation, &[Contender { name: "contextual".to_owned(), model: &model }]);
    let report = evaluation.run(&arms, &mut |_| ControlFlow::Continue(())).unwrap();
    let arm = report.arm("contextual").unwrap();
    assert_eq!((Some(score.recall_at_10), Some(score.ndcg_at_10)), (arm.recall_at(10), arm.metric("ndcg@10")));
}
