use super::*;

/// The first two items of an arm's ranking for a single case, and the target's metrics.
fn check(data: &Dataset, split: &Split, name: &str, expected: (f64, f64)) {
    let settings = planted::evaluation();
    let evaluation = Evaluation { data, split, settings: &settings, log: None };
    let mut arms = Arms::of(&evaluation, &[]);
    arms.retain(|own| own == name);
    let report = evaluation.run(&arms, &mut |_| ControlFlow::Continue(())).unwrap();
    let arm = report.arm(name).unwrap_or_else(|| panic!("no arm {name}"));
    assert_eq!((arm.recall_at(10).unwrap(), arm.metric("ndcg@10").unwrap()), expected, "{name}");
}

#[test]
fn baselines_count_what_they_say() {
    let day = DAY_MS;
    let mut rows = vec![
        // Long before the cut: 50 is the most popular of all time, and what came after 3.
        (0, 3, 0, Some(1)),
        (0, 50, 1, Some(1)),
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
    rows.extend((0..9).map(|number| (0, 50, 2 + number, Some(1))));
    let data = data(&rows, Clock::Milliseconds);
    let split = Split::temporal(3 * day, 4 * day);
    let at = |rank: f64| 1.0 / (rank + 2.0).log2();
    // Not ranked is 3, which the user has seen.
    check(&data, &split, "popularity, last 24 h", (1.0, at(1.0)));
    check(&data, &split, "popularity, all time", (1.0, at(2.0)));
    check(&data, &split, "last-item Markov, last 24 h", (1.0, at(0.0)));
    check(&data, &split, "last-item Markov, all time", (1.0, at(0.0)));
    // 60 is of another category than 3, and so stands behind.
    check(&data, &split, "subject's category x popularity, last 24 h", (1.0, at(0.0)));
}

#[test]
fn neighbours_are_near_in_content() {
    // The content embedding of an item is its number, scaled: neighbours of 100 are 99 and 101 before 110 and 30.
    let near = [(0, 100, 10, Some(1)), (0, 101, 11, Some(1))];
    let far = [(0, 100, 10, Some(1)), (0, 400, 11, Some(1))];
    for (rows, recall) in [(near, 1.0), (far, 0.0)] {
        let data = data(&rows, Clock::Milliseconds);
        let settings = planted::evaluation();
        let split = Split::temporal(5, 20);
        let evaluation = Evaluation { data: &data, split: &split, settings: &settings, log: None };
        let mut arms = Arms::of(&evaluation, &[]);
        arms.retain(|name| name == "content neighbours of the subject");
        let report = evaluation.run(&arms, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.arms[0].recall_at(20), Some(recall));
    }
}
