use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use tempfile::TempDir;
use turret_retrieval::context::Surface;
use turret_retrieval::dataset::{Dataset, Row};
use turret_retrieval::digest::Digest;
use turret_retrieval::event::EventType;
use turret_retrieval::ids::{AdId, ItemId};

use super::browsing::DAY_MS;
use super::*;
use crate::fixture::{self, go_on};
use crate::{DataSource, read_requests};

/// 2026-01-05 00:00 UTC.
const START_MS: i64 = 1_767_571_200_000;

fn settings(users: u32, ads: u32, days: u32, seed: u64) -> MarketplaceSettings {
    MarketplaceSettings { users, ads, advertisers: 40, days, seed, start_ms: START_MS }
}

fn made(settings: &MarketplaceSettings) -> (TempDir, Generated) {
    let dir = tempfile::tempdir().unwrap();
    let made = generate(settings, dir.path(), &mut go_on).unwrap();
    (dir, made)
}

/// A marketplace in the proportions of the default one, read.
fn sample() -> (TempDir, Generated, Dataset) {
    let (dir, made) = made(&settings(3_000, 2_000, 21, 1));
    let data = fixture::read(&DataSource::canonical(dir.path())).unwrap();
    (dir, made, data)
}

/// The digest of every file, by its path in the directory.
fn digests(dir: &Path) -> BTreeMap<String, String> {
    let mut digests = BTreeMap::new();
    for part in ["", "truth"] {
        for entry in std::fs::read_dir(dir.join(part)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let digest = Digest::of(&std::fs::read(entry.path()).unwrap());
                digests.insert(format!("{part}/{}", entry.file_name().display()), digest.to_string());
            }
        }
    }
    digests
}

#[test]
fn one_seed_gives_identical_bytes_and_another_seed_others() {
    let (first, _) = made(&settings(300, 200, 5, 7));
    let (again, _) = made(&settings(300, 200, 5, 7));
    let (other, _) = made(&settings(300, 200, 5, 8));
    let (first, again, other) = (digests(first.path()), digests(again.path()), digests(other.path()));
    let files = [
        "/ads.parquet",
        "/events.parquet",
        "/items.parquet",
        "/requests.parquet",
        "/users.parquet",
        "truth/items.parquet",
        "truth/manifest.json",
        "truth/taxonomy.parquet",
        "truth/trips.parquet",
        "truth/user_interests.parquet",
        "truth/users.parquet",
    ];
    assert_eq!(first.keys().collect::<Vec<_>>(), files);
    assert_eq!(first, again);
    assert!(files.iter().all(|file| first[*file] != other[*file]), "{other:#?}");
}

#[test]
fn a_user_does_the_same_among_few_and_among_many() {
    let events_of = |users| {
        let (dir, _) = made(&settings(users, 200, 10, 3));
        let data = fixture::read(&DataSource::canonical(dir.path())).unwrap();
        (0..50).flat_map(|user| data.events_of(user).to_vec()).collect::<Vec<Row>>()
    };
    let few = events_of(50);
    assert!(few.len() > 100, "{}", few.len());
    assert_eq!(few, events_of(700));
}

#[test]
fn what_is_generated_passes_the_check() {
    // The least marketplace there is, one of many days with few items, and one of ordinary proportions.
    for settings in [settings(1, 1, 1, 1), settings(40, 12, 200, 2), settings(500, 400, 21, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let made = generate(&MarketplaceSettings { seed: 11, ..settings }, dir.path(), &mut go_on).unwrap();
        if made.events == 0 {
            continue;
        }
        let report = fixture::check(&DataSource::canonical(dir.path()));
        assert_eq!((report.faults, report.faults_total), (vec![], 0));
        let profile = report.profile;
        assert_eq!((profile.events, profile.users, profile.items), (made.events, made.users, made.items));
        assert_eq!((profile.sessions, profile.ads.count), (Some(made.trips), made.ads));
        let requests = read_requests(&dir.path().join("requests.parquet"), &mut go_on).unwrap();
        assert_eq!(requests.len() as u64, made.requests);
    }
}

#[test]
fn the_proportions_are_those_of_a_marketplace() {
    let (_dir, made, data) = sample();
    assert!(made.events / made.users >= 8, "{made:?}");
    assert_eq!((made.items, made.ads), (2_200, 2_000));
    let paused = data.ads.iter().filter(|ad| !ad.is_active()).count() as f64 / data.ads.len() as f64;
    assert!((paused - catalogue::PAUSED).abs() < 0.015, "{paused}");
    let share = |kind| data.events().iter().filter(|row| row.kind == kind).count() as f64 / made.events as f64;
    assert!((0.75..0.9).contains(&share(EventType::View)));
    assert!((0.07..0.14).contains(&share(EventType::AddToCart)));
    assert!((0.04..0.08).contains(&share(EventType::Checkout)));
    assert!((0.001..0.01).contains(&share(EventType::Signup)));
    assert!(data.items.iter().all(|item| (1..=3).contains(&item.interests.len())));
    let unknown = data.users.iter().filter(|user| user.demographics.age.is_none()).count();
    assert!((300..600).contains(&unknown), "{unknown}");

    let last_day = START_MS + 20 * DAY_MS;
    let mut sessions: HashMap<u32, u32> = HashMap::new();
    for row in data.events().iter().filter(|row| row.at >= last_day) {
        *sessions.entry(row.session.unwrap()).or_default() += 1;
    }
    let testable = sessions.values().filter(|events| **events >= 2).count();
    assert!(testable > 300, "{testable}");
    assert!(data.events().iter().all(|row| (START_MS..last_day + DAY_MS).contains(&row.at)));
}

#[test]
fn times_rise_within_a_user_and_sessions_do_not_overlap() {
    let (_dir, _, data) = sample();
    for user in 0..data.users.len() as u32 {
        for pair in data.events_of(user).windows(2) {
            assert!(pair[0].at < pair[1].at);
            assert!(pair[0].session <= pair[1].session, "sessions are numbered in the order of time");
        }
    }
}

/// The foremost interest's root of each item, as planted.
fn roots(data: &Dataset) -> Vec<String> {
    let root = |item: &turret_retrieval::item::Item| {
        let foremost = item.interests[0].id.as_str();
        foremost.split('/').next().unwrap().to_owned()
    };
    data.items.iter().map(root).collect()
}

#[test]
fn consecutive_events_share_their_intents_root_as_often_as_was_planted() {
    let (_dir, _, data) = sample();
    let roots = roots(&data);
    let (mut shared, mut pairs) = (0u32, 0u32);
    for pair in
        data.events().windows(2).filter(|pair| pair[0].user == pair[1].user && pair[0].session == pair[1].session)
    {
        pairs += 1;
        shared += u32::from(roots[pair[0].item as usize] == roots[pair[1].item as usize]);
    }
    let share = f64::from(shared) / f64::from(pairs);
    // Both follow the intent, or they agree by chance: one in twenty, more where interests are few.
    let both = browsing::FOLLOWS_INTENT.powi(2);
    let expected = both + (1.0 - both) * 0.15;
    assert!((share - expected).abs() < 0.04, "{share} where {expected} is expected, of {pairs} pairs");
}

/// Of 10 guesses for each event of the last day but the sessions' first, how many are right: by popularity, by the
/// user's history before that day, and by what the user looked at just before.
fn recalls(data: &Dataset) -> [f64; 3] {
    let cut = START_MS + 20 * DAY_MS;
    let mut clicks = vec![0u32; data.items.len()];
    data.events().iter().filter(|row| row.at < cut).for_each(|row| clicks[row.item as usize] += 1);
    let mut by_popularity: Vec<u32> = (0..data.items.len() as u32).collect();
    by_popularity.sort_by_key(|item| std::cmp::Reverse(clicks[*item as usize]));
    let leaf = |item: u32| data.items[item as usize].interests[0].id.as_str();
    let mut by_leaf: HashMap<&str, Vec<u32>> = HashMap::new();
    by_popularity.iter().for_each(|item| by_leaf.entry(leaf(*item)).or_default().push(*item));
    let (mut hits, mut cases) = ([0u32; 3], 0u32);
    for user in 0..data.users.len() as u32 {
        let events = data.events_of(user);
        let known = events.partition_point(|row| row.at < cut);
        let mut likes: HashMap<&str, u32> = HashMap::new();
        events[..known].iter().for_each(|row| *likes.entry(leaf(row.item)).or_default() += 1);
        let mut likes: Vec<(&str, u32)> = likes.into_iter().collect();
        likes.sort_by_key(|(leaf, count)| (std::cmp::Reverse(*count), *leaf));
        for pair in events[known..].windows(2).filter(|pair| known > 0 && pair[0].session == pair[1].session) {
            cases += 1;
            let target = pair[1].item;
            let of_history = likes.iter().take(4).flat_map(|(leaf, _)| by_leaf[leaf].iter().take(3)).take(10);
            hits[0] += u32::from(by_popularity[..10].contains(&target));
            hits[1] += u32::from(of_history.copied().any(|item| item == target));
            hits[2] += u32::from(by_leaf[leaf(pair[0].item)].iter().take(10).any(|item| *item == target));
        }
    }
    assert!(cases > 300, "{cases}");
    hits.map(|hits| f64::from(hits) / f64::from(cases))
}

#[test]
fn context_says_more_than_history_and_history_more_than_popularity() {
    let (_dir, _, data) = sample();
    let [popularity, history, context] = recalls(&data);
    println!("right of ten guesses: popularity {popularity:.3}, history {history:.3}, context {context:.3}");
    assert!(history > 2.0 * popularity, "history {history}, popularity {popularity}");
    assert!(context > 2.0 * history, "context {context}, history {history}");
}

#[test]
fn requests_lie_within_trips_and_deliver_mostly_what_is_asked_for() {
    let (dir, _, data) = sample();
    let requests = read_requests(&dir.path().join("requests.parquet"), &mut go_on).unwrap();
    assert!(requests.len() > 500, "{}", requests.len());
    let ads: HashMap<&AdId, usize> = data.ads.iter().enumerate().map(|(row, ad)| (&ad.id, row)).collect();
    let items: HashMap<&str, usize> =
        data.items.iter().enumerate().map(|(row, item)| (item.id.as_str(), row)).collect();
    let users: HashMap<&str, u32> = data.users.iter().zip(0..).map(|(user, row)| (user.id.as_str(), row)).collect();
    let (mut on_topic, mut delivered) = (0u32, 0u32);
    for request in &requests {
        let events = data.events_of(users[request.user_id.as_str()]);
        let before = events.partition_point(|row| row.at <= request.timestamp_ms);
        assert!(before > 0 && events[before - 1].session == events[before].session, "{request:?}");
        match request.surface {
            Surface::RelatedPins => {
                let subject = &data.items[events[before - 1].item as usize];
                assert_eq!((&request.subject_interests, &request.query), (&subject.interests, &None));
            }
            Surface::Search => assert!(request.subject_interests.is_empty() && request.query.is_some()),
            Surface::Home => panic!("{request:?}"),
        }
        for id in &request.delivered {
            let ad = &data.ads[ads[id]];
            assert!(ad.is_active());
            let item = &data.items[items[ad.item.as_str()]];
            let words = item.interests[0].id.as_str().split('/').nth(1).unwrap().replace('_', " ");
            if let Some(query) = &request.query {
                delivered += 1;
                on_topic += u32::from(query.contains(&words));
            }
        }
    }
    let share = f64::from(on_topic) / f64::from(delivered);
    assert!((0.7..0.9).contains(&share), "{share} of {delivered}");
}

#[test]
fn clicks_and_conversions_come_as_often_as_the_truth_says() {
    let (dir, _, data) = sample();
    let truth = Truth::read(dir.path(), &mut go_on).unwrap();
    let requests = read_requests(&dir.path().join("requests.parquet"), &mut go_on).unwrap();
    let items: HashMap<&AdId, &ItemId> = data.ads.iter().map(|ad| (&ad.id, &ad.item)).collect();
    let [mut expected_clicks, mut expected_conversions, mut clicks, mut conversions] = [0.0f64; 4];
    for request in &requests {
        assert!(request.clicked.iter().all(|ad| request.delivered.contains(ad)));
        assert!(request.converted.iter().all(|ad| request.clicked.contains(ad)));
        clicks += request.clicked.len() as f64;
        conversions += request.converted.len() as f64;
        for ad in &request.delivered {
            expected_clicks += truth.click_probability(&request.request_id, &request.user_id, items[ad]).unwrap();
        }
        for ad in &request.clicked {
            expected_conversions += truth.conversion_probability(&request.user_id, items[ad]).unwrap();
        }
    }
    let is_near = |found: f64, expected: f64| (found - expected).abs() < 3.0 * expected.sqrt();
    assert!(clicks > 400.0 && is_near(clicks, expected_clicks), "{clicks} where {expected_clicks} are expected");
    assert!(is_near(conversions, expected_conversions), "{conversions} where {expected_conversions} are expected");
}

#[test]
fn people_choose_what_suits_them_and_do_more_with_it() {
    let (dir, _, data) = sample();
    let truth = Truth::read(dir.path(), &mut go_on).unwrap();
    let relevance =
        |user: u32, item: u32| truth.relevance(&data.users[user as usize].id, &data.items[item as usize].id).unwrap();
    let mean = |all: Vec<f64>| all.iter().sum::<f64>() / all.len() as f64;
    let chosen = mean(data.events().iter().map(|row| relevance(row.user, row.item)).collect());
    // The same items by other people: what is popular is the same, so is the quality.
    let strangers = data.events().iter().zip(data.events().iter().rev());
    let others = mean(strangers.map(|(row, other)| relevance(row.user, other.item)).collect());
    let bought = data.events().iter().filter(|row| row.kind == EventType::Checkout);
    let bought = mean(bought.map(|row| relevance(row.user, row.item)).collect());
    assert!(others + 0.05 < chosen && chosen + 0.05 < bought, "{others}, {chosen}, {bought}");
}

#[test]
fn the_manifest_tells_what_was_planted() {
    let (dir, made) = made(&settings(30, 20, 4, 5));
    let text = std::fs::read_to_string(dir.path().join("truth/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest["settings"], serde_json::to_value(settings(30, 20, 4, 5)).unwrap());
    assert_eq!(manifest["made"], serde_json::to_value(made).unwrap());
    assert_eq!(manifest["planted"]["event_follows_intent"], browsing::FOLLOWS_INTENT);
    assert_eq!(manifest["trends"].as_array().unwrap().len(), 4);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let check = |change: fn(&mut MarketplaceSettings), expected: &str| {
        let mut settings = settings(10, 10, 2, 1);
        change(&mut settings);
        assert_eq!(settings.check().unwrap_err().to_string(), expected);
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(generate(&settings, dir.path(), &mut go_on), Err(GenerateError::Settings(_))));
    };
    check(|of| of.users = 0, "users: 0 is not in 1..=1000000");
    check(|of| of.users = 1_000_001, "users: 1000001 is not in 1..=1000000");
    check(|of| of.ads = 0, "ads: 0 is not in 1..=1000000");
    check(|of| of.advertisers = 100_001, "advertisers: 100001 is not in 1..=100000");
    check(|of| of.days = 367, "days: 367 is not in 1..=366");
    check(|of| of.start_ms = -1, "start_ms: -1 is not in 0..=4102444800000");
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("market");
    let make = || generate(&settings(5, 5, 2, 1), &dir, &mut go_on);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("mine"), b"!").unwrap();
    assert!(matches!(make(), Err(GenerateError::Occupied { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, b"a file").unwrap();
    assert!(matches!(make(), Err(GenerateError::Occupied { .. })));
    std::fs::remove_file(&dir).unwrap();

    let partial = parent.path().join("market.partial");
    std::fs::create_dir(&partial).unwrap();
    let error = make().unwrap_err().to_string();
    assert!(error.contains("market.partial is in the way"), "{error}");
    assert!(partial.exists(), "it may be another run's");
    std::fs::remove_dir(&partial).unwrap();

    make().unwrap();
    assert!(dir.join("events.parquet").exists() && !partial.exists());
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep").join("market");
    let mut steps = Vec::new();
    let stopped = generate(&settings(5_000, 20, 2, 1), &dir, &mut |progress| {
        steps.push((progress.done, progress.total, progress.what.to_owned()));
        if steps.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(GenerateError::Interrupted)));
    assert_eq!(steps[0], (22, 5_022, "items.parquet".to_owned()));
    assert_eq!(steps[2], (1_046, 5_022, "events.parquet".to_owned()));
    assert_eq!(std::fs::read_dir(parent.path().join("deep")).unwrap().count(), 0);
}
