//! Users, what they did, and the requests that were made for them: one user after the other.

use std::ops::ControlFlow;
use std::path::Path;

use super::browsing::{self, Trip};
use super::catalogue::{Ad, Item, Stock, ad_id, item_id};
use super::chance::{Chance, Stream};
use super::people::Person;
use super::sheet::{Cell, Sheet, Type};
use super::taxonomy::ADJECTIVES;
use super::world::World;
use super::{GenerateError, Generated, TRUTH};
use crate::progress::Counter;

/// The share of trips of two events or more during which a request is logged.
pub(super) const REQUESTED: f64 = 0.3;
/// The share of requests made beside a pin; the others are searches.
pub(super) const RELATED_PINS: f64 = 0.7;
/// The share of delivered ads that have nothing to do with the trip's intent.
pub(super) const MISPLACED: f64 = 0.2;
/// The most ads delivered for one request.
const DELIVERED_MAX: usize = 4;
/// How often another ad is looked for.
const TRIES: usize = 8;
/// Users between two looks at the caller's wish to stop.
const STEP_USERS: u32 = 512;

/// The files that are filled user by user.
struct Sheets {
    users: Sheet,
    events: Sheet,
    requests: Sheet,
    interests: Sheet,
    trips: Sheet,
}

/// Writes users, events, requests, and what moved the users.
pub(super) fn write(
    world: &World,
    stock: &Stock,
    dir: &Path,
    counter: &mut Counter<'_, '_>,
    made: &mut Generated,
) -> Result<(), GenerateError> {
    let mut sheets = Sheets::create(dir)?;
    for number in 0..world.settings.users {
        let person = Person::of(world, number);
        let user = format!("u{number}");
        sheets.person(&person, &user)?;
        let mut events = 0;
        for (count, trip) in browsing::trips(world, stock, &person, number).iter().enumerate() {
            let session = format!("s{number}-{count}");
            sheets.trip(trip, &user, &session, &mut events)?;
            let requests = &mut Chance::of(world.settings.seed, Stream::Request, request_index(number, count));
            made.requests += u64::from(sheets.request(world, stock, trip, &user, &session, requests)?);
            made.trips += 1;
        }
        made.events += events;
        let is_step = (number + 1).is_multiple_of(STEP_USERS);
        if is_step && counter.add(u64::from(STEP_USERS), "events.parquet") == ControlFlow::Break(()) {
            return Err(GenerateError::Interrupted);
        }
    }
    if counter.add(u64::from(world.settings.users % STEP_USERS), "events.parquet") == ControlFlow::Break(()) {
        return Err(GenerateError::Interrupted);
    }
    sheets.finish()
}

/// A user makes fewer than 2^16 trips: three a day on 366 days at most.
fn request_index(user: u32, trip: usize) -> u64 {
    (u64::from(user) << 16) | trip as u64
}

impl Sheets {
    fn create(dir: &Path) -> Result<Self, GenerateError> {
        let truth = dir.join(TRUTH);
        Ok(Self {
            users: Sheet::create(
                &dir.join("users.parquet"),
                &[
                    ("user_id", Type::Text),
                    ("age", Type::OptionalWhole),
                    ("country", Type::OptionalText),
                    ("gender", Type::OptionalText),
                ],
            )?,
            events: Sheet::create(
                &dir.join("events.parquet"),
                &[
                    ("user_id", Type::Text),
                    ("item_id", Type::Text),
                    ("event_type", Type::Text),
                    ("timestamp_ms", Type::Whole),
                    ("session_id", Type::Text),
                    ("event_id", Type::Text),
                ],
            )?,
            requests: Sheet::create(
                &dir.join("requests.parquet"),
                &[
                    ("request_id", Type::Text),
                    ("user_id", Type::Text),
                    ("timestamp_ms", Type::Whole),
                    ("surface", Type::Text),
                    ("subject_interests", Type::Interests),
                    ("query", Type::OptionalText),
                    ("delivered", Type::Words),
                ],
            )?,
            interests: Sheet::create(
                &truth.join("user_interests.parquet"),
                &[
                    ("user_id", Type::Text),
                    ("interest_id", Type::Text),
                    ("weight_start", Type::Real),
                    ("weight_end", Type::Real),
                ],
            )?,
            trips: Sheet::create(
                &truth.join("trips.parquet"),
                &[("session_id", Type::Text), ("user_id", Type::Text), ("intent", Type::Text), ("motive", Type::Text)],
            )?,
        })
    }

    fn person(&mut self, person: &Person, user: &str) -> Result<(), GenerateError> {
        self.users.row(&[
            Cell::Text(user),
            person.age.map_or(Cell::Null, |age| Cell::Whole(i64::from(age))),
            person.country.map_or(Cell::Null, Cell::Text),
            person.gender.map_or(Cell::Null, Cell::Text),
        ])?;
        for interest in &person.interests {
            self.interests.row(&[
                Cell::Text(user),
                Cell::Text(&interest.leaf.id()),
                Cell::Real(interest.start as f32),
                Cell::Real(interest.end as f32),
            ])?;
        }
        Ok(())
    }

    fn trip(&mut self, trip: &Trip, user: &str, session: &str, events: &mut u64) -> Result<(), GenerateError> {
        for step in &trip.steps {
            self.events.row(&[
                Cell::Text(user),
                Cell::Text(&item_id(step.item)),
                Cell::Text(step.kind.name()),
                Cell::Whole(step.at_ms),
                Cell::Text(session),
                Cell::Text(&format!("e{}-{events}", &user[1..])),
            ])?;
            *events += 1;
        }
        let intent = trip.intent.id();
        self.trips.row(&[Cell::Text(session), Cell::Text(user), Cell::Text(&intent), Cell::Text(trip.motive.name())])
    }

    /// Logs a request after one of the trip's events but not its last, so that it has a sequel; tells whether it did.
    fn request(
        &mut self,
        world: &World,
        stock: &Stock,
        trip: &Trip,
        user: &str,
        session: &str,
        chance: &mut Chance,
    ) -> Result<bool, GenerateError> {
        if trip.steps.len() < 2 || !chance.is(REQUESTED) {
            return Ok(false);
        }
        let step = trip.steps[chance.below(trip.steps.len() as u32 - 1) as usize];
        // The next event is at least ten seconds away.
        let at_ms = step.at_ms + 1_000 + i64::from(chance.below(5_000));
        let is_search = !chance.is(RELATED_PINS);
        let subject = if is_search { Vec::new() } else { Item::of(world, step.item).interests };
        let query = is_search.then(|| query(trip, chance));
        let delivered = delivered(world, stock, trip, chance);
        self.requests.row(&[
            Cell::Text(&format!("r{}", &session[1..])),
            Cell::Text(user),
            Cell::Whole(at_ms),
            Cell::Text(if is_search { "search" } else { "related_pins" }),
            Cell::Interests(&subject),
            query.as_deref().map_or(Cell::Null, Cell::Text),
            Cell::Words(&delivered.iter().map(String::as_str).collect::<Vec<_>>()),
        ])?;
        Ok(true)
    }

    fn finish(self) -> Result<(), GenerateError> {
        let Self { users, events, requests, interests, trips } = self;
        [users, events, requests, interests, trips].into_iter().try_for_each(Sheet::finish)
    }
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
fn delivered(world: &World, stock: &Stock, trip: &Trip, chance: &mut Chance) -> Vec<String> {
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
    ads.into_iter().map(ad_id).collect()
}
