//! The data sets of purchases read as they lie, and carry the signal that was counted without Turret.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use turret::config::Config;
use turret_data::Report;
use turret_retrieval::dataset::{Clock, Dataset};
use turret_retrieval::event::EventType;
use turret_retrieval::item::Item;

/// The data set of a committed configuration; `None`, and a word about it, where there is no real data.
fn data(config: &str) -> Option<(Dataset, Report)> {
    if std::env::var_os("TURRET_DATA").is_none() {
        eprintln!("skipped: TURRET_DATA is not set");
        return None;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config").join(config);
    let config = Config::load(&path).expect("a valid configuration");
    let source = config.data.expect("the configuration has [data]");
    let data = turret_data::read(&source, &mut |_| ControlFlow::Continue(())).expect("it reads as it lies");
    let report = turret_data::check(&source, &mut |_| ControlFlow::Continue(())).expect("nobody interrupts");
    Some((data, report))
}

/// Whether two items share an interest that at most `rare_max` items have.
fn share(a: &Item, b: &Item, frequencies: &HashMap<&str, usize>, rare_max: usize) -> bool {
    let rare = a.interests.iter().map(|interest| &interest.id).filter(|id| frequencies[id.as_str()] <= rare_max);
    rare.into_iter().any(|id| b.interests.iter().any(|other| other.id == *id))
}

/// The share of the users' last two purchases, and of pairs of unlike items far apart, that have a rare interest in common.
fn rare_in_common(data: &Dataset) -> (f64, f64) {
    let mut frequencies: HashMap<&str, usize> = HashMap::new();
    for interest in data.items.iter().flat_map(|item| &item.interests) {
        *frequencies.entry(interest.id.as_str()).or_default() += 1;
    }
    let rare_max = data.items.len() / 20;
    let is_shared = |a: u32, b: u32| share(&data.items[a as usize], &data.items[b as usize], &frequencies, rare_max);
    let of_user = |user: u32| match data.events_of(user) {
        [.., before, last] => is_shared(before.item, last.item),
        [_] | [] => false,
    };
    let users = data.users.len() as u32;
    let consecutive = (0..users).filter(|user| of_user(*user)).count();
    // Items as far apart as they can be in the file stand for a random pair.
    let half = data.items.len() as u32 / 2;
    let random = (0..half).filter(|item| is_shared(*item, item + half)).count();
    (consecutive as f64 / f64::from(users), random as f64 / f64::from(half))
}

fn check_amazon(config: &str, counts: [usize; 4], common: f64) {
    let Some((data, report)) = data(config) else { return };
    let interests = report.profile.interests.distinct as usize;
    assert_eq!([data.users.len(), data.items.len(), data.events().len(), interests], counts);
    assert_eq!((report.faults_total, data.clock), (0, Clock::Order));
    assert!(data.events().iter().all(|row| row.kind == EventType::Checkout));
    assert!((0..data.users.len() as u32).all(|user| data.events_of(user).len() >= 5), "five of each user at least");
    let (consecutive, random) = rare_in_common(&data);
    assert!((consecutive - common).abs() < 0.001, "{consecutive} where {common} was counted");
    assert!(random < 0.04, "{random}");
}

#[test]
fn amazon_sports_is_what_its_readme_says() {
    check_amazon("amazon-sports.toml", [35_598, 18_357, 296_337, 2_277], 0.1605);
}

#[test]
fn amazon_beauty_is_what_its_readme_says() {
    check_amazon("amazon-beauty.toml", [22_363, 12_101, 198_502, 637], 0.1778);
}

#[test]
fn taobao_is_what_its_readme_says_but_for_its_stray_times() {
    let Some((data, report)) = data("taobao.toml") else { return };
    assert_eq!((report.faults_total, data.clock), (0, Clock::Milliseconds));
    assert_eq!((report.profile.events, report.profile.events_left_out), (84_440, 35));
    assert_eq!((data.users.len(), data.items.len()), (815, 55_368));
    assert_eq!(report.profile.interests.distinct, 2_914);
    assert_eq!(data.items.iter().filter(|item| item.interests.len() == 2).count(), 1);
    let count = |kind| data.events().iter().filter(|row| row.kind == kind).count();
    let [views, carts, purchases] = [EventType::View, EventType::AddToCart, EventType::Checkout].map(count);
    assert_eq!(views + carts + purchases, 84_440);
    assert!(75_872 - views <= 35 && 4_497 + 2_356 - carts <= 35 && 1_750 - purchases <= 35);

    let category = |item: u32| &data.items[item as usize].interests;
    let (mut pairs, mut shared) = (0u32, 0u32);
    for user in 0..data.users.len() as u32 {
        let events = data.events_of(user);
        for (at, bought) in events.iter().enumerate().filter(|(_, row)| row.kind == EventType::Checkout) {
            let is_other_view =
                |row: &&turret_retrieval::dataset::Row| row.kind == EventType::View && row.item != bought.item;
            let Some(viewed) = events[..at].iter().rev().find(is_other_view) else { continue };
            pairs += 1;
            shared += u32::from(category(viewed.item).iter().any(|own| category(bought.item).contains(own)));
        }
    }
    let found = f64::from(shared) / f64::from(pairs);
    assert!((found - 0.37).abs() < 0.005, "{found} of {pairs} purchases");
}
