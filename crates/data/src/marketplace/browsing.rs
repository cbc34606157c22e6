//! Browsing trips: what people do, and why.

use turret_retrieval::event::EventType;

use super::catalogue::Stock;
use super::chance::{Chance, Stream, Weights, exp};
use super::people::Person;
use super::taxonomy::Leaf;
use super::world::{TRENDS_PER_DAY, World};

/// The probability that an event follows its trip's intent.
pub(super) const FOLLOWS_INTENT: f64 = 0.85;
/// The share of trips whose intent is one of the user's lasting interests.
pub(super) const FROM_INTERESTS: f64 = 0.50;
/// The share of trips whose intent is in fashion that day. The others' intents are of the moment: any leaf, by its
/// popularity.
pub(super) const FROM_TRENDS: f64 = 0.15;
/// How many items are considered for each event.
pub(super) const CONSIDERED: usize = 3;
/// The share of the events on promoted items of full relevance that are of each type; the rest are views.
pub(super) const ADDS_TO_CART: f64 = 0.22;
/// See [`ADDS_TO_CART`].
pub(super) const CHECKS_OUT: f64 = 0.12;
/// See [`ADDS_TO_CART`].
pub(super) const SIGNS_UP: f64 = 0.01;

/// The probability that a trip goes on after an event.
const GOES_ON: f64 = 0.68;
/// The most events of one trip.
const EVENTS_MAX: usize = 12;
/// The longest pause within a trip; a trip is over within an hour.
const PAUSE_MS_MAX: u32 = 290_000;
/// The shortest pause within a trip.
const PAUSE_MS_MIN: i64 = 10_000;
/// When on a day a trip may begin, in hours, and how likely it does, in trips of a user who makes one a day. Trips are
/// over before the next part of the day begins, so they never overlap.
const PARTS_OF_DAY: [(i64, i64, f64); 3] = [(6, 11, 0.25), (12, 17, 0.30), (18, 23, 0.45)];

const HOUR_MS: i64 = 3_600_000;
/// The length of a day.
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// Why a trip has its intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Motive {
    Interest,
    Trend,
    Moment,
}

impl Motive {
    /// The name in `truth/trips.parquet`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interest => "interest",
            Self::Trend => "trend",
            Self::Moment => "moment",
        }
    }
}

/// Some events in a row with one intent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trip {
    pub(super) intent: Leaf,
    pub(super) motive: Motive,
    /// At least one, in the order of time.
    pub(super) steps: Vec<Step>,
}

/// One event of a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) item: u32,
    pub(super) at_ms: i64,
    pub(super) kind: EventType,
}

/// Every trip of a user, in the order of time.
pub(super) fn trips(world: &World, stock: &Stock, person: &Person, number: u32) -> Vec<Trip> {
    let chance = &mut Chance::of(world.settings.seed, Stream::Browsing, u64::from(number));
    let mut trips = Vec::new();
    for day in 0..world.settings.days {
        let mut interests = None;
        for (from, to, share) in PARTS_OF_DAY {
            if !chance.is((person.trips_per_day * share).min(0.6)) {
                continue;
            }
            let interests = interests.get_or_insert_with(|| person.interests_on(day, world.settings.days));
            let within = from * HOUR_MS + i64::from(chance.below(((to - from) * HOUR_MS) as u32));
            let begin = world.settings.start_ms + i64::from(day) * DAY_MS + within;
            trips.push(trip(world, stock, &Traveller { person, interests, day }, begin, chance));
        }
    }
    trips
}

/// A user on a day.
struct Traveller<'a> {
    person: &'a Person,
    interests: &'a Weights,
    day: u32,
}

impl Traveller<'_> {
    fn lasting_interest(&self, chance: &mut Chance) -> Leaf {
        self.person.interests[self.interests.pick(chance)].leaf
    }

    fn intent(&self, world: &World, chance: &mut Chance) -> (Leaf, Motive) {
        let motive = chance.unit();
        if motive < FROM_INTERESTS {
            (self.lasting_interest(chance), Motive::Interest)
        } else if motive < FROM_INTERESTS + FROM_TRENDS {
            (world.trends(self.day)[chance.below(TRENDS_PER_DAY as u32) as usize], Motive::Trend)
        } else {
            (world.popular_leaf(chance), Motive::Moment)
        }
    }
}

fn trip(world: &World, stock: &Stock, traveller: &Traveller<'_>, begin: i64, chance: &mut Chance) -> Trip {
    let (intent, motive) = traveller.intent(world, chance);
    let mut steps: Vec<Step> = Vec::new();
    let mut at_ms = begin;
    loop {
        let leaf = match chance.is(FOLLOWS_INTENT) {
            true => intent,
            false if chance.is(0.5) => traveller.lasting_interest(chance),
            false => world.popular_leaf(chance),
        };
        let item = chosen_item(stock, traveller.person, leaf, &steps, chance);
        steps.push(Step { item, at_ms, kind: kind(world, stock, traveller.person, item, chance) });
        if steps.len() == EVENTS_MAX || !chance.is(GOES_ON) {
            return Trip { intent, motive, steps };
        }
        at_ms += PAUSE_MS_MIN + i64::from(chance.below(PAUSE_MS_MAX));
    }
}

/// Of some items of the leaf that this trip has not come by, one that suits: the more it appeals, the likelier.
fn chosen_item(stock: &Stock, person: &Person, leaf: Leaf, steps: &[Step], chance: &mut Chance) -> u32 {
    let considered: [u32; CONSIDERED] = std::array::from_fn(|_| fresh_item(stock, leaf, steps, chance));
    let odds = considered.map(|item| exp(person.taste.appeal(stock.character(item))));
    considered[Weights::new(odds).pick(chance)]
}

/// An item of the leaf, by popularity, that this trip has not come by: a trip that kept looking at one item would make
/// the next event too easy to guess.
fn fresh_item(stock: &Stock, leaf: Leaf, steps: &[Step], chance: &mut Chance) -> u32 {
    let mut item = stock.pick(leaf, chance);
    // A leaf may have too few items, so the search is bounded.
    for _ in 0..4 {
        if steps.iter().all(|step| step.item != item) {
            break;
        }
        item = stock.pick(leaf, chance);
    }
    item
}

/// The better an item suits, the likelier it is more than looked at; one that nobody promotes never is.
fn kind(world: &World, stock: &Stock, person: &Person, item: u32, chance: &mut Chance) -> EventType {
    let kind = chance.unit() / person.taste.relevance(stock.character(item));
    if !world.is_promoted(item) || kind >= ADDS_TO_CART + CHECKS_OUT + SIGNS_UP {
        EventType::View
    } else if kind < ADDS_TO_CART {
        EventType::AddToCart
    } else if kind < ADDS_TO_CART + CHECKS_OUT {
        EventType::Checkout
    } else {
        EventType::Signup
    }
}
