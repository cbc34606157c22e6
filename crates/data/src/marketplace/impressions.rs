//! Requests: what is asked for, which ads are delivered, and what comes of them.

use super::browsing::Trip;
use super::catalogue::{Ad, Item, Stock};
use super::chance::Chance;
use super::people::Person;
use super::taxonomy::ADJECTIVES;
use super::world::World;

/// The share of trips of two events or more during which a request is logged.
pub(super) const REQUESTED: f64 = 0.3;
/// The share of requests made beside a pin; the others are searches.
pub(super) const RELATED_PINS: f64 = 0.7;
/// The share of delivered ads that have nothing to do with the trip's intent.
pub(super) const MISPLACED: f64 = 0.2;
/// How likely an ad is clicked that is wholly about the intent and of full relevance.
pub(super) const CLICKED: f64 = 0.3;
/// How much an ad is about an intent that is none of its interests.
pub(super) const OFF_INTENT: f64 = 0.1;
/// How likely a click on an ad of full relevance is followed by a conversion.
pub(super) const CONVERTED: f64 = 0.3;
/// The most ads delivered for one request.
const DELIVERED_MAX: usize = 4;
/// How often another ad is looked for.
const TRIES: usize = 8;

/// A request as it is logged.
pub(super) struct Request {
    pub(super) at_ms: i64,
    /// The item looked at just before; none for a search.
    pub(super) subject: Option<Item>,
    /// What was searched for; none beside a pin.
    pub(super) query: Option<String>,
    pub(super) impressions: Vec<Impression>,
}

/// An ad that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Impression {
    pub(super) ad: u32,
    pub(super) is_clicked: bool,
    /// Only what was clicked converts.
    pub(super) is_converted: bool,
}

/// The request made during a trip, if one is: after one of its events but not its last, so that it has a sequel.
pub(super) fn request(
    world: &World,
    stock: &Stock,
    trip: &Trip,
    person: &Person,
    chance: &mut Chance,
) -> Option<Request> {
    if trip.steps.len() < 2 || !chance.is(REQUESTED) {
        return None;
    }
    let step = trip.steps[chance.below(trip.steps.len() as u32 - 1) as usize];
    // The next event is at least ten seconds away.
    let at_ms = step.at_ms + 1_000 + i64::from(chance.below(5_000));
    let is_search = !chance.is(RELATED_PINS);
    let subject = (!is_search).then(|| Item::of(world, step.item));
    let query = is_search.then(|| query(trip, chance));
    let delivered = delivered(world, stock, trip, chance);
    let impressions = delivered.into_iter().map(|ad| impression(world, trip, person, ad, chance)).collect();
    Some(Request { at_ms, subject, query, impressions })
}

/// The id of the request that is logged during a session, if one is.
pub(super) fn request_id(session: &str) -> String {
    format!("r{}", session.strip_prefix('s').unwrap_or(session))
}

/// How likely an ad is clicked. `about` is how much it truly is about the user's intent, in (0, 1]; `relevance` is
/// that of [`Taste::relevance`](super::Taste::relevance).
pub(super) fn click_probability(about: Option<f32>, relevance: f64) -> f64 {
    CLICKED * about.map_or(OFF_INTENT, f64::from) * relevance
}

/// How likely a click is followed by a conversion.
pub(super) fn conversion_probability(relevance: f64) -> f64 {
    CONVERTED * relevance
}

fn impression(world: &World, trip: &Trip, person: &Person, ad: u32, chance: &mut Chance) -> Impression {
    let item = Item::of(world, ad);
    let about = item.truth.iter().find(|(leaf, _)| *leaf == trip.intent).map(|(_, weight)| *weight);
    let relevance = person.taste.relevance(&item.character);
    let is_clicked = chance.is(click_probability(about, relevance));
    Impression { ad, is_clicked, is_converted: is_clicked && chance.is(conversion_probability(relevance)) }
}

/// The words of the intent, with an adjective or the root's words now and then.
fn query(trip: &Trip, chance: &mut Chance) -> String {
    let words = trip.intent.words();
    match chance.below(4) {
        0 => format!("{} {words}", ADJECTIVES[chance.below(ADJECTIVES.len() as u32) as usize]),
        1 => format!("{words} {}", trip.intent.root_words()),
        _ => words,
    }
}

/// Some different ads that may be shown, most of them for the trip's intent.
fn delivered(world: &World, stock: &Stock, trip: &Trip, chance: &mut Chance) -> Vec<u32> {
    let mut ads: Vec<u32> = Vec::new();
    for _ in 0..DELIVERED_MAX {
        let is_misplaced = chance.is(MISPLACED);
        // Paused ads, items without one and repetitions are passed over; a leaf may have nothing else, so the search
        // is bounded.
        for _ in 0..TRIES {
            let item = if is_misplaced { chance.below(world.settings.ads) } else { stock.pick(trip.intent, chance) };
            if world.is_promoted(item) && !ads.contains(&item) && !Ad::of(world, item).is_paused {
                ads.push(item);
                break;
            }
        }
    }
    ads
}
