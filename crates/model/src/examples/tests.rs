use rand::SeedableRng;
use turret_retrieval::event::EventType;

use super::*;
use crate::planted::{self, DAY_MS as DAY, SPLIT, world};
use crate::settings::{EventWeights, ModelKind};

fn draws(data: &Dataset, split: &Split, settings: &TrainingSettings) -> Vec<Example> {
    let history_max = planted::model(ModelKind::Contextual).history_length_max;
    let sampler = Sampler::new(data, split, settings, history_max).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let drawn: Vec<Example> = (0..500).map(|_| sampler.draw(&mut random)).collect();
    for example in &drawn {
        assert!(example.history.len() <= history_max);
        for prediction in &example.predictions {
            assert!(data.range_of(example.user).contains(&prediction.positive));
            let known = prediction.after.map_or(example.history.start, |after| after + 1);
            assert!(known <= prediction.positive, "a history that knows its positive: {example:?}");
            assert!(prediction.after.is_none_or(|after| example.history.contains(&after)));
        }
    }
    drawn
}

#[test]
fn nothing_after_the_cut_is_drawn() {
    let data = world(20, Clock::Milliseconds);
    let Split::Temporal { cut_ms, .. } = SPLIT else { unreachable!() };
    for example in draws(&data, &SPLIT, &planted::training(1)) {
        assert!(data.events()[example.predictions[0].positive].at < cut_ms);
    }
    for example in draws(&world(20, Clock::Order), &Split::leave_one_out(), &planted::training(1)) {
        let range = data.range_of(example.user);
        assert!(example.predictions[0].positive < range.end - 2);
    }
}

#[test]
fn a_history_with_a_gap_ends_at_the_midnight_before() {
    let data = world(20, Clock::Milliseconds);
    let settings = planted::training(1);
    assert_eq!(settings.history_gap, HistoryGap::Day);
    for example in draws(&data, &SPLIT, &settings) {
        let midnight = data.events()[example.predictions[0].positive].at.div_euclid(DAY) * DAY;
        assert!(data.events()[example.history.clone()].iter().all(|row| row.at < midnight));
        let next = &data.events()[example.history.end];
        assert!(next.at >= midnight, "an event before midnight was left out");
    }
}

#[test]
fn positives_lie_in_the_window() {
    let data = world(20, Clock::Milliseconds);
    let settings = TrainingSettings { history_gap: HistoryGap::None, ..planted::training(1) };
    let mut gaps = std::collections::HashSet::new();
    for example in draws(&data, &SPLIT, &settings) {
        let Prediction { after, positive } = example.predictions[0];
        if let Some(after) = after {
            let gap = data.events()[positive].at - data.events()[after].at;
            assert!(gap <= i64::from(settings.window_days) * DAY, "{gap}");
            gaps.insert(gap / DAY);
        }
    }
    assert!(gaps.len() > 1, "histories end at different times");
    let order = world(20, Clock::Order);
    let mut gaps = std::collections::HashSet::new();
    for example in draws(&order, &Split::leave_one_out(), &settings) {
        let Prediction { after, positive } = example.predictions[0];
        gaps.extend(after.map(|after| positive - after));
    }
    assert_eq!(gaps, (1..=settings.window_events as usize).collect());
}

#[test]
fn the_next_action_is_the_very_next_and_dense_predicts_from_every_position() {
    let data = world(20, Clock::Milliseconds);
    let next =
        TrainingSettings { objective: Objective::NextAction, history_gap: HistoryGap::None, ..planted::training(1) };
    for example in draws(&data, &SPLIT, &next) {
        let Prediction { after, positive } = example.predictions[0];
        assert!(after.is_none_or(|after| after + 1 == positive));
        assert_eq!(after.is_none(), positive == data.range_of(example.user).start);
    }
    let dense = TrainingSettings { objective: Objective::DenseAllAction, ..next };
    let drawn = draws(&data, &SPLIT, &dense);
    assert!(drawn.iter().any(|example| example.predictions.len() > 10));
}

#[test]
fn what_has_no_weight_is_never_predicted() {
    let data = world(20, Clock::Milliseconds);
    let weights = EventWeights { view: 0.0, ..planted::training(1).event_weights };
    for objective in [Objective::AllAction, Objective::NextAction, Objective::DenseAllAction] {
        let settings = TrainingSettings {
            objective,
            event_weights: weights,
            history_gap: HistoryGap::None,
            ..planted::training(1)
        };
        let drawn = draws(&data, &SPLIT, &settings);
        let kinds = drawn.iter().flat_map(|example| &example.predictions).map(|p| data.events()[p.positive].kind);
        assert!(kinds.into_iter().all(|kind| kind == EventType::Checkout), "{objective:?}");
    }
}

#[test]
fn recent_events_are_drawn_more_often() {
    let data = world(20, Clock::Milliseconds);
    let settings = TrainingSettings { half_life_hours: Some(24.0), ..planted::training(1) };
    let last_day = (planted::DAYS - 2) * DAY;
    let drawn = draws(&data, &SPLIT, &settings);
    let late = drawn.iter().filter(|example| data.events()[example.predictions[0].positive].at >= last_day);
    // Halved every day over nine days: the last one has half of all.
    assert!((late.count() as f64 / drawn.len() as f64 - 0.5).abs() < 0.07);
}

#[test]
fn item_shares_are_the_probabilities_of_the_draws() {
    let data = world(20, Clock::Milliseconds);
    let settings = planted::training(1);
    let sampler = Sampler::new(&data, &SPLIT, &settings, 10).unwrap();
    let mut shares = vec![0.0; data.items.len()];
    let draws = Draws::of(&data, &SPLIT, &settings);
    let total: f64 = draws.weights().map(|(_, weight)| weight).sum();
    draws.weights().for_each(|(row, weight)| shares[data.events()[row].item as usize] += weight / total);
    let mut counts = vec![0.0; data.items.len()];
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..20_000 {
        counts[data.events()[sampler.draw(&mut random).predictions[0].positive].item as usize] += 1.0 / 20_000.0;
    }
    for (item, (share, count)) in shares.iter().zip(counts).enumerate() {
        assert!((share - count).abs() < 4.0 * (share / 20_000.0).sqrt() + 1e-4, "{item}: {share} {count}");
    }
}

#[test]
fn where_every_position_predicts_users_are_drawn_alike_and_their_latest_window() {
    let data = world(20, Clock::Order);
    let settings = TrainingSettings { objective: Objective::DenseAllAction, ..planted::training(1) };
    let ends = training_ends(&data, &Split::leave_one_out());
    let mut drawn = vec![0_usize; data.users.len()];
    for example in draws(&data, &Split::leave_one_out(), &settings) {
        drawn[example.user as usize] += 1;
        let last = example.predictions.iter().map(|prediction| prediction.positive).max().unwrap();
        let events = ends[example.user as usize] - data.range_of(example.user).start;
        if events <= planted::model(ModelKind::Contextual).history_length_max {
            assert_eq!(example.history.start, data.range_of(example.user).start);
            assert_eq!(last, ends[example.user as usize] - 1);
        }
    }
    // 500 draws of 20 users: 25 each, with a deviation of 5.
    let of_users = drawn.iter().zip(&ends).zip(0..).filter(|((_, end), user)| **end > data.range_of(*user).start);
    of_users.for_each(|((count, _), user)| assert!((5..=45).contains(count), "user {user} was drawn {count} times"));
}
