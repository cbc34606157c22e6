use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::context::{Context, Subject, Surface};
use turret_retrieval::dataset::{Clock, Row};
use turret_retrieval::event::EventType::{self, Checkout, View};
use turret_retrieval::ids::{AdId, UserId};

use super::cases::{Case, Looked};
use super::*;
use crate::examples::{known_items, training_ends};
use crate::planted::{self, DAY_MS, SPLIT, world};
use crate::settings::{CaseChoice, ModelKind, Part};

mod baselines;
mod logged;
mod refused;
mod reported;
mod skewed;

fn random() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

/// Events as (user, item, at, session, kind), over the items of the planted world.
fn data_of(rows: &[(u32, u32, i64, Option<u32>, EventType)], clock: Clock) -> Dataset {
    let base = world(3, clock);
    let row = |&(user, item, at, session, kind): &_| Row { user, item, at, session, kind };
    Dataset::new(base.items, base.ads, base.users, clock, rows.iter().map(row).collect())
}

fn data(rows: &[(u32, u32, i64, Option<u32>)], clock: Clock) -> Dataset {
    let rows: Vec<_> = rows.iter().map(|&(user, item, at, session)| (user, item, at, session, View)).collect();
    data_of(&rows, clock)
}

/// Context, target and history of every case, by item.
fn items(data: &Dataset, split: &Split, settings: &EvaluationSettings) -> Vec<(u32, u32, Vec<u32>)> {
    let items = |case: &Case| {
        let Looked::Item(context) = case.context else { unreachable!("no log is read") };
        (context, case.target, data.events()[case.history.clone()].iter().map(|row| row.item).collect())
    };
    cases::of(data, split, settings, &mut random()).iter().map(items).collect()
}

fn model(data: &Dataset, split: &Split, kind: ModelKind) -> Model {
    let mut go_on = |_: crate::TrainingProgress| ControlFlow::Continue(());
    let training = crate::TrainingSettings { history_gap: crate::HistoryGap::None, ..planted::training(2) };
    crate::train(data, split, &planted::model(kind), &training, &mut go_on).unwrap().0
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
    let split = Split::temporal(100, 200);
    let settings = planted::evaluation();
    assert_eq!(items(&data, &split, &settings), [(2, 4, vec![1]), (3, 5, vec![1]), (8, 9, vec![7])]);
    let cases = cases::of(&data, &split, &settings, &mut random());
    assert_eq!(cases::unranked(&data, &cases[1], &settings), [1, 2, 3, 4]);
    let known = known_items(&data, &training_ends(&data, &split));
    assert_eq!((0..12).filter(|item| known[*item]).collect::<Vec<_>>(), [1, 7]);
}

#[test]
fn a_session_can_be_looked_at_from_its_first_event_or_at_each() {
    let rows = [(0, 1, 0, Some(1)), (0, 2, 1, Some(1)), (0, 3, 2, Some(1)), (0, 4, 3, Some(2))];
    let data = data(&rows, Clock::Milliseconds);
    let of = |cases| {
        let settings = EvaluationSettings { cases, ..planted::evaluation() };
        let found = items(&data, &Split::temporal(0, 10), &settings);
        found.into_iter().map(|(context, target, _)| (context, target)).collect::<Vec<_>>()
    };
    assert_eq!(of(CaseChoice::Last), [(2, 3)]);
    assert_eq!(of(CaseChoice::FirstContext), [(1, 3)]);
    assert_eq!(of(CaseChoice::Each), [(1, 2), (2, 3)]);
}

#[test]
fn with_chosen_targets_the_context_is_the_view_before_and_never_the_label() {
    let minute = 60_000;
    let rows = [
        (0, 9, 0, None, Checkout),
        // Bought after a look at something else, although it had been looked at before that.
        (0, 1, 10 * minute, None, View),
        (0, 2, 11 * minute, None, View),
        (0, 3, 12 * minute, None, EventType::AddToCart),
        (0, 1, 13 * minute, None, Checkout),
        // Bought after a look at itself.
        (1, 4, 10 * minute, None, View),
        (1, 4, 11 * minute, None, Checkout),
        // Bought without a look.
        (2, 5, 10 * minute, None, Checkout),
    ];
    let data = data_of(&rows, Clock::Milliseconds);
    let split = Split::temporal(5 * minute, 60 * minute);
    let settings = EvaluationSettings { target_events: vec![Checkout], ..planted::evaluation() };
    assert_eq!(items(&data, &split, &settings), [(2, 1, vec![9])]);
    let cases = cases::of(&data, &split, &settings, &mut random());
    assert_eq!(cases::unranked(&data, &cases[0], &settings), [2, 9], "what was bought, and the subject");
}

#[test]
fn without_sessions_half_an_hour_parts_them() {
    let minute = 60_000;
    let rows = [(0, 1, 0, None), (0, 2, 29 * minute, None), (0, 3, 60 * minute, None), (0, 4, 61 * minute, None)];
    let data = data(&rows, Clock::Milliseconds);
    let found = items(&data, &Split::temporal(0, i64::MAX), &planted::evaluation());
    assert_eq!(found, [(1, 2, vec![]), (3, 4, vec![])]);
}

#[test]
fn leaving_one_out_tests_the_last_event_and_validates_the_one_before() {
    let data = data(&[(0, 1, 0, None), (0, 2, 1, None), (0, 3, 2, None), (1, 4, 0, None)], Clock::Order);
    let of = |part, history_gap_events| {
        items(&data, &Split::LeaveOneOut { part, history_gap_events }, &planted::evaluation())
    };
    assert_eq!(of(Part::Test, 0), [(2, 3, vec![1, 2])]);
    assert_eq!(of(Part::Validation, 0), [(1, 2, vec![1])]);
    assert_eq!(of(Part::Test, 1), [(2, 3, vec![1])], "the history ends before the context's event");
    assert_eq!(of(Part::Validation, 9), [(1, 2, vec![])]);
}

#[test]
fn an_older_state_knows_less() {
    let day = DAY_MS;
    let rows = [(0, 1, 0, Some(1)), (0, 2, day, Some(2)), (0, 3, 2 * day, Some(3)), (0, 4, 2 * day + 1, Some(3))];
    let data = data(&rows, Clock::Milliseconds);
    let split = Split::temporal(2 * day, 3 * day);
    let fresh = cases::of(&data, &split, &planted::evaluation(), &mut random());
    let lengths = [0, 1, 2].map(|days| cases::aged(&data, &split, &fresh, days)[0].history.len());
    assert_eq!(lengths, [2, 1, 0]);
}

#[test]
fn no_case_keeps_its_own_context_when_they_are_shuffled_and_a_sample_is_a_subset() {
    let data = world(50, Clock::Milliseconds);
    let all = cases::of(&data, &SPLIT, &planted::evaluation(), &mut random());
    // Every context here is another event, and contexts of one item are rare among 480.
    let shuffled = cases::shuffled_contexts(&all, &mut random());
    let kept = all.iter().zip(&shuffled).filter(|(case, other)| case.context == **other).count();
    assert!(kept <= 1, "{kept}");
    let settings = EvaluationSettings { cases_max: Some(20), ..planted::evaluation() };
    let sample = cases::of(&data, &SPLIT, &settings, &mut random());
    assert_eq!(sample.len(), 20);
    assert!(sample.iter().all(|case| all.contains(case)));
    assert!(sample.is_sorted_by_key(|case| case.past.end));
}
