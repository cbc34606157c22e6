use turret_retrieval::item::Interest;

use super::*;

fn request(user: u64, at_ms: i64, surface: Surface, interest: u64, delivered: &[&str]) -> Request {
    let interests = vec![Interest { id: interest.into(), confidence: 0.9 }];
    Request {
        user: UserId::from(user),
        at_ms,
        surface,
        context: Context { subject: Some(Subject { item_id: None, interests }), query: None },
        delivered: delivered.iter().map(|ad| AdId::new(ad).unwrap()).collect(),
    }
}

#[test]
fn delivered_ads_are_found_by_what_the_log_says_was_looked_at() {
    let data = world(20, Clock::Milliseconds);
    let settings = planted::evaluation();
    let cut = (planted::DAYS - 1) * DAY_MS;
    let mut log = vec![
        // Before the cut, of an ad that nobody knows, and of a user that nobody knows.
        request(1, cut - 1, Surface::Search, 1, &["61"]),
        request(2, cut + 1, Surface::Search, 1, &["unheard-of"]),
        request(9_999, cut + 1, Surface::Home, 0, &["5", "6"]),
    ];
    log.extend((0..60).map(|user| request(user % 20, cut + 5, Surface::RelatedPins, 2, &["121"])));
    let evaluation = Evaluation { data: &data, split: &SPLIT, settings: &settings, log: Some(&log) };
    let arms = Arms::of(&evaluation, &[]);
    let report = evaluation.run(&arms, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.cases, 62);
    assert_eq!(report.catalogue, 480);
    // A category has 60 items.
    let neighbours = report.arm("content neighbours of the subject").unwrap();
    assert_eq!((neighbours.recall_at(100), report.arm("random").is_some()), (Some(1.0), true));
    assert!(report.arms.iter().all(|arm| !arm.name.contains("Markov")));
    let reason = report.left_out.iter().find(|left| left.what == "last-item Markov").unwrap();
    assert!(reason.why.contains("does not name the item"), "{reason:?}");
    let surfaces: Vec<(&str, usize)> =
        report.slices.iter().filter(|slice| slice.by == "surface").map(|slice| (&*slice.value, slice.cases)).collect();
    assert_eq!(surfaces, [("related_pins", 60)]);
    assert!(report.left_out.iter().any(|left| left.what == "slices by surface" && left.why.contains("home")));
}

#[test]
fn only_promoted_items_are_ranked_for_a_log() {
    let mut data = world(5, Clock::Milliseconds);
    data.ads.truncate(10);
    let settings = planted::evaluation();
    let cut = (planted::DAYS - 1) * DAY_MS;
    let log = [request(1, cut, Surface::RelatedPins, 0, &["9"])];
    let evaluation = Evaluation { data: &data, split: &SPLIT, settings: &settings, log: Some(&log) };
    let report = evaluation.run(&Arms::of(&evaluation, &[]), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.catalogue, 10);
    assert_eq!(report.arm("random").unwrap().recall_at(10), Some(1.0));
}
