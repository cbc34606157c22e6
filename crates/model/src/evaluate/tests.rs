use turret_retrieval::dataset::Row;
use turret_retrieval::event::EventType;

use super::*;
use crate::planted::{self, SPLIT, world};
use crate::settings::ModelKind;

fn random() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

fn data(rows: &[(u32, u32, i64, Option<u32>)], clock: Clock) -> Dataset {
    let base = world(3, clock);
    let rows = rows
        .iter()
        .map(|(user, item, at, session)| Row {
            user: *user,
            item: *item,
            at: *at,
            session: *session,
            kind: EventType::View,
        })
        .collect();
    Dataset::new(base.items, base.ads, base.users, clock, rows)
}

#[test]
fn a_case_is_the_last_event_of_a_session_with_the_one_before_it() {
    // User 0: two sessions that overlap; user 1: only one event in the window; user 2: a session that began before it.
    let rows = [
        (0, 1, 50, Some(1)),
        (0, 2, 110, Some(2)),
        (0, 3, 120, Some(3)),
        (0, 4, 130, Some(2)),
        (0, 5, 140, Some(3)),
        (1, 6, 120, Some(4)),
        (2, 7, 90, Some(5)),
        (2, 8, 101, Some(5)),
        (2, 9, 102, Some(5)),
        (2, 10, 205, Some(5)),
    ];
    let data = data(&rows, Clock::Milliseconds);
    let split = Split::Temporal { cut_ms: 100, until_ms: 200 };
    let cases = cases::of(&data, &split, None, &mut random());
    let items = |case: &Case| {
        let item = |event: usize| data.events()[event].item;
        (
            item(case.context),
            item(case.target),
            data.events()[case.history.clone()].iter().map(|row| row.item).collect(),
        )
    };
    let expected: Vec<(u32, u32, Vec<u32>)> = vec![(2, 4, vec![1]), (3, 5, vec![1]), (8, 9, vec![7])];
    assert_eq!(cases.iter().map(items).collect::<Vec<_>>(), expected);
    assert_eq!(seen(&data, &cases[1]), [1, 2, 3, 4]);
    let ends = crate::examples::training_ends(&data, &split);
    assert_eq!(cases::ceiling(&data, &cases, &ends), 0.0);
}

#[test]
fn without_sessions_half_an_hour_parts_them() {
    let minute = 60_000;
    let rows = [(0, 1, 0, None), (0, 2, 29 * minute, None), (0, 3, 60 * minute, None), (0, 4, 61 * minute, None)];
    let data = data(&rows, Clock::Milliseconds);
    let split = Split::Temporal { cut_ms: 0, until_ms: i64::MAX };
    let cases = cases::of(&data, &split, None, &mut random());
    let pairs: Vec<(usize, usize)> = cases.iter().map(|case| (case.context, case.target)).collect();
    assert_eq!(pairs, [(0, 1), (2, 3)]);
}

#[test]
fn leaving_one_out_tests_the_last_event_and_knows_every_other() {
    let data = data(&[(0, 1, 0, None), (0, 2, 1, None), (0, 3, 2, None), (1, 4, 0, None)], Clock::Order);
    let cases = cases::of(&data, &Split::LeaveOneOut, None, &mut random());
    assert_eq!(cases, [Case { user: 0, history: 0..2, context: 1, target: 2 }]);
}

#[test]
fn no_case_keeps_its_own_context_when_they_are_shuffled_and_a_sample_is_a_subset() {
    let data = world(50, Clock::Milliseconds);
    let all = cases::of(&data, &SPLIT, None, &mut random());
    let shuffled = cases::shuffled_contexts(&all, &mut random());
    assert!(all.iter().zip(&shuffled).all(|(case, other)| case.context != *other));
    let sample = cases::of(&data, &SPLIT, Some(20), &mut random());
    assert_eq!(sample.len(), 20);
    assert!(sample.iter().all(|case| all.contains(case)));
    assert!(sample.is_sorted_by_key(|case| case.target));
}

#[test]
fn baselines_count_what_they_say() {
    let day = 86_400_000;
    let rows = [
        // Long before the cut: counts for nothing.
        (0, 50, 0, Some(1)),
        (0, 51, 1, Some(1)),
        // The last day: 3 → 4 twice, 3 → 60 once; 60 is the most popular.
        (0, 3, 2 * day, Some(2)),
        (0, 4, 2 * day + 1, Some(2)),
        (1, 3, 2 * day, Some(3)),
        (1, 4, 2 * day + 1, Some(3)),
        (1, 3, 2 * day + 2, Some(4)),
        (1, 60, 2 * day + 3, Some(4)),
        (1, 60, 2 * day + 4, Some(5)),
        (1, 60, 2 * day + 5, Some(6)),
        (1, 60, 2 * day + 6, Some(7)),
        // The case: looks at 3, then at 4.
        (2, 3, 3 * day, Some(8)),
        (2, 4, 3 * day + 1, Some(8)),
    ];
    let data = data(&rows, Clock::Milliseconds);
    let split = Split::Temporal { cut_ms: 3 * day, until_ms: 4 * day };
    let cases = cases::of(&data, &split, None, &mut random());
    let mut step = |_| Ok(());
    let mut first = |baseline| {
        let judged = baselines::rank(baseline, &data, &split, &cases, &mut random(), &mut step).unwrap();
        (judged[0].rank, judged[0].top.as_ref().map(|top| top[..2].to_vec()))
    };
    assert_eq!(first(Baseline::Popularity), (Some(1), Some(vec![60, 4])));
    assert_eq!(first(Baseline::Markov), (Some(0), Some(vec![4, 60])));
    assert_eq!(first(Baseline::CategoryPopularity), (Some(0), Some(vec![4, 0])));
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_its_reason() {
    let data = world(10, Clock::Milliseconds);
    let model = |kind| {
        let mut go_on = |_: crate::TrainingProgress| ControlFlow::Continue(());
        crate::train(&data, &SPLIT, &planted::model(kind), &planted::training(1), &mut go_on).unwrap().0
    };
    let (contextual, history_only) = (model(ModelKind::Contextual), model(ModelKind::HistoryOnly));
    let arms = Arm::all(&contextual, &history_only, &SPLIT);
    let settings = EvaluationSettings { seed: 1, cases_max: None, bootstrap_samples: 3 };
    let mut go_on = |_: EvaluationProgress| ControlFlow::Continue(());
    let never = Split::Temporal { cut_ms: i64::MAX - 1, until_ms: i64::MAX };
    assert!(matches!(evaluate(&data, &never, &arms, &settings, &mut go_on), Err(EvaluateError::NoCases)));
    let order = world(10, Clock::Order);
    assert!(matches!(evaluate(&order, &SPLIT, &arms, &settings, &mut go_on), Err(EvaluateError::NeedsTimes)));
    let none = EvaluationSettings { cases_max: Some(0), ..settings.clone() };
    assert!(evaluate(&data, &SPLIT, &arms, &none, &mut go_on).unwrap_err().to_string().starts_with("cases_max"));
    let mut calls = 0;
    let mut stop = |_: EvaluationProgress| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(evaluate(&data, &SPLIT, &arms, &settings, &mut stop), Err(EvaluateError::BrokenOff)));
}
