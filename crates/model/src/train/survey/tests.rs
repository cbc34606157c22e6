use turret_retrieval::dataset::Clock;

use super::*;
use crate::planted::{self, DAYS, SPLIT, world};

/// The world of `users` users after `change`.
fn changed(users: u64, change: impl Fn(&mut Vec<Item>, &mut Row)) -> Dataset {
    let base = world(users, Clock::Milliseconds);
    let (mut items, mut rows) = (base.items.to_vec(), base.events().to_vec());
    rows.iter_mut().for_each(|row| change(&mut items, row));
    Dataset::new(items, Vec::new(), base.users.clone(), base.clock, rows)
}

fn surveyed(data: &Dataset, training: &TrainingSettings) -> Result<Survey, TrainError> {
    let model = planted::model(ModelKind::Contextual);
    survey(data, &SPLIT, (&model, training), &mut |_, _| ControlFlow::Continue(()))
}

#[test]
fn what_training_can_live_with_is_told() {
    let check = |data: &Dataset, expected: &[Caution]| {
        assert_eq!(surveyed(data, &planted::training(1)).unwrap().cautions, expected);
    };
    check(&world(20, Clock::Milliseconds), &[]);
    check(&world(1, Clock::Milliseconds), &[Caution::OneUser]);
    check(&changed(20, |_, row| row.item = 7), &[Caution::OneItem, Caution::SameHistories]);
    check(&changed(20, |_, row| row.item = (row.at / planted::DAY_MS) as u32), &[Caution::SameHistories]);
    let bare = |items: &mut Vec<Item>, _: &mut Row| items.iter_mut().for_each(|item| item.interests.clear());
    check(&changed(5, bare), &[Caution::NoInterests]);
    // All but the first event of each user are moved behind the cut.
    let base = world(20, Clock::Milliseconds);
    let mut rows = base.events().to_vec();
    let later = |rows: &mut Vec<Row>| {
        (0..20).flat_map(|user| base.range_of(user).skip(1)).for_each(|row| rows[row].at = DAYS * planted::DAY_MS);
    };
    later(&mut rows);
    let short = Dataset::new(base.items.clone(), Vec::new(), base.users.clone(), base.clock, rows);
    check(&short, &[Caution::NoHistories]);
    for caution in
        [Caution::OneUser, Caution::OneItem, Caution::NoHistories, Caution::SameHistories, Caution::NoInterests]
    {
        assert!(caution.to_string().contains(": "), "what it is, and what follows: {caution}");
    }
}

#[test]
fn what_cannot_be_learnt_from_is_refused_with_what_there_is() {
    let refused = |data: &Dataset, weights: EventWeights| {
        let training = TrainingSettings { event_weights: weights, ..planted::training(1) };
        surveyed(data, &training).err().unwrap().to_string()
    };
    let conversions = EventWeights { view: 0.0, add_to_cart: 1.0, checkout: 0.0, signup: 1.0 };
    let said = refused(&world(5, Clock::Milliseconds), conversions);
    assert!(said.contains("it has view, checkout, and training.event_weights weighs add_to_cart, signup"), "{said}");
    let all = planted::training(1).event_weights;
    let one = Dataset::new(
        &world(1, Clock::Milliseconds).items[..1],
        vec![],
        world(3, Clock::Milliseconds).users.clone(),
        Clock::Milliseconds,
        {
            let rows = world(3, Clock::Milliseconds).events().to_vec();
            rows.into_iter().map(|row| Row { item: 0, ..row }).collect()
        },
    );
    assert_eq!(refused(&one, all), "the data has one item, 0: there is nothing to rank");
    let none = Dataset::new(vec![planted::item(0)], vec![], vec![], Clock::Milliseconds, vec![]);
    assert_eq!(refused(&none, all), "the training part of the data holds no event");
}

#[test]
fn words_are_counted_over_all_parts() {
    let data = world(9, Clock::Milliseconds);
    let parts = planted::InParts::of(&data, 2);
    let model = planted::model(ModelKind::Contextual);
    let training = planted::training(1);
    let found = survey(&parts, &SPLIT, (&model, &training), &mut |_, _| ControlFlow::Continue(())).unwrap();
    let schema = crate::features::Schema::of(parts.items(), &found.words, &model);
    assert_eq!(schema, planted::schema(&data, &model));
    let mut stop = |done, _| if done == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let stopped = survey(&parts, &SPLIT, (&model, &training), &mut stop).err().unwrap();
    assert!(matches!(stopped, TrainError::BrokenOff { step: 0 }));
}
