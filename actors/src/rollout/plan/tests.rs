use proptest::prelude::*;

use super::*;

fn id(name: &str) -> GenerationId {
    GenerationId::new(name).unwrap()
}

fn plan() -> RolloutPlan {
    RolloutPlan::new(1, id("g-old"), id("g-new"), 5)
}

fn run(events: &[Event]) -> RolloutPlan {
    let mut plan = plan();
    for event in events {
        assert!(plan.take(event.clone(), 9), "{event:?} in {:?}", plan.phase);
    }
    plan
}

const DONE: Event = Event::Done;

fn failed() -> Event {
    Event::Failed("p99".to_owned())
}

#[test]
fn a_sound_generation_is_prepared_judged_activated_watched_and_the_old_one_retired() {
    let mut plan = plan();
    let mut effects = vec![];
    while let Some(effect) = plan.effect() {
        effects.push(effect);
        assert!(plan.take(DONE, 9));
    }
    let expected =
        [Effect::Prepare, Effect::Gate, Effect::Activate(id("g-new")), Effect::Watch, Effect::Retire(id("g-old"))];
    assert_eq!(effects, expected);
    assert_eq!(plan.phase, Phase::Ended { outcome: Outcome::Published });
    assert_eq!((plan.serving(), plan.standby()), (&id("g-new"), None));
}

#[test]
fn what_fails_before_it_answers_anybody_is_refused_and_stopped() {
    for before in [vec![], vec![DONE]] {
        for event in [failed(), Event::RollBack] {
            let plan = run(&[before.clone(), vec![event]].concat());
            assert_eq!(plan.effect(), Some(Effect::Retire(id("g-new"))));
            assert_eq!((plan.serving(), plan.standby()), (&id("g-old"), None));
            assert!(matches!(plan.phase, Phase::Retiring { outcome: Outcome::Refused { .. } }));
        }
    }
}

#[test]
fn what_fails_while_it_answers_goes_back_to_the_old_one_which_is_ready() {
    for before in [2, 3] {
        for event in [failed(), Event::RollBack] {
            let mut plan = run(&vec![DONE; before]);
            assert_eq!(plan.standby(), Some(&id("g-old")));
            plan.take(event, 9);
            assert_eq!(plan.effect(), Some(Effect::Activate(id("g-old"))));
            // An old one that could not be made current is made so again.
            assert!(!plan.take(failed(), 9));
            assert_eq!(plan.effect(), Some(Effect::Activate(id("g-old"))));
            plan.take(DONE, 9);
            assert_eq!(plan.effect(), Some(Effect::Retire(id("g-new"))));
            plan.take(DONE, 9);
            assert!(matches!(plan.phase, Phase::Ended { outcome: Outcome::RolledBack { .. } }));
            assert_eq!(plan.serving(), &id("g-old"));
        }
    }
}

#[test]
fn a_restart_gives_up_what_answered_nobody_and_watches_once_more() {
    let restart = |done: usize, current: &str| run(&vec![DONE; done]).after_restart(&id(current), 20);
    for done in [0, 1] {
        // Whoever made another generation current meanwhile has decided.
        for current in ["g-old", "g-new"] {
            let (plan, serves) = restart(done, current);
            assert!(matches!(plan.phase, Phase::Ended { outcome: Outcome::Refused { .. } }));
            assert_eq!(serves, id(current));
        }
    }
    let (plan, serves) = restart(2, "g-new");
    assert!(matches!(plan.phase, Phase::Ended { outcome: Outcome::RolledBack { .. } }));
    assert_eq!(serves, id("g-old"), "nobody knows how far it came");

    let (plan, serves) = restart(3, "g-new");
    assert_eq!((&plan.phase, &serves, plan.restarts), (&Phase::Watching, &id("g-new"), 1));
    let (plan, serves) = plan.after_restart(&id("g-new"), 30);
    assert!(matches!(plan.phase, Phase::Ended { outcome: Outcome::RolledBack { .. } }));
    assert_eq!(serves, id("g-old"));

    let (plan, serves) = restart(4, "g-new");
    assert_eq!((plan.phase, serves), (Phase::Ended { outcome: Outcome::Published }, id("g-new")));
}

#[test]
fn whoever_makes_another_generation_current_while_the_node_is_down_has_decided() {
    for done in 0..=4 {
        let (plan, serves) = run(&vec![DONE; done]).after_restart(&id("g-third"), 20);
        assert!(plan.is_ended(), "{:?}", plan.phase);
        assert_eq!(serves, id("g-third"));
    }
    // CURRENT names the new one before the watch begins.
    let (plan, serves) = run(&[DONE; 3]).after_restart(&id("g-old"), 20);
    assert!(matches!(plan.phase, Phase::Ended { outcome: Outcome::RolledBack { .. } }));
    assert_eq!(serves, id("g-old"));
}

proptest! {
    #[test]
    fn every_schedule_ends_and_one_of_the_two_always_serves(
        schedule in prop::collection::vec(0u8..4, 0..40),
    ) {
        let mut plan = plan();
        for step in schedule {
            let before = plan.clone();
            match step {
                0 => drop(plan.take(DONE, 9)),
                1 => drop(plan.take(failed(), 9)),
                2 => drop(plan.take(Event::RollBack, 9)),
                _ => {
                    let current = plan.serving().clone();
                    let (next, serves) = plan.after_restart(&current, 9);
                    prop_assert_eq!(&serves, next.serving());
                    plan = next;
                }
            }
            prop_assert!([&plan.from, &plan.to].contains(&plan.serving()));
            prop_assert!(plan.standby() != Some(plan.serving()));
            // Only what passed the gates ever serves.
            if plan.serving() == &plan.to && before.serving() == &before.from {
                prop_assert!(matches!(before.phase, Phase::Gating));
            }
        }
        for _ in 0..6 {
            plan.take(DONE, 9);
        }
        prop_assert!(plan.is_ended());
    }
}

#[test]
fn what_a_generation_is_judged_by_outlives_the_node_and_latencies_of_a_cold_one_are_judged_when_it_is_warm() {
    let before = Counts { requests: 100, empty: 1, failed: 2, p99_us: Some(3_000) };
    let watched = RolloutPlan { before: Some(before), ..run(&[DONE, DONE, DONE]) };
    assert_eq!(watched.judged_by(0), before);
    let written: RolloutPlan = serde_json::from_str(&serde_json::to_string(&watched).unwrap()).unwrap();
    let (again, _) = written.after_restart(&id("g-new"), 20);
    let cold = Counts { p99_us: None, ..before };
    assert_eq!((again.judged_by(2_000), again.judged_by(2_001)), (cold, before));
    // Written by a version before.
    let mut old = serde_json::to_value(plan()).unwrap();
    old.as_object_mut().unwrap().remove("before").unwrap();
    assert_eq!(serde_json::from_value::<RolloutPlan>(old).unwrap(), plan());
    assert_eq!(plan().judged_by(5_000), Counts::default());
}
