//! Users, what they did, and the requests that were made for them: one user after the other.

use std::ops::ControlFlow;
use std::path::Path;

use super::browsing::{self, Trip};
use super::catalogue::{Stock, ad_id, item_id};
use super::chance::{Chance, Stream};
use super::impressions::{self, Impression, Request, request_id};
use super::people::Person;
use super::sheet::{Cell, Sheet, Type};
use super::world::World;
use super::{GenerateError, Generated, TRUTH};
use crate::progress::Counter;

/// Users between two looks at the caller's wish to stop.
const STEP_USERS: u32 = 512;

/// The files that are filled user by user.
struct Sheets {
    users: Sheet,
    events: Sheet,
    requests: Sheet,
    tastes: Sheet,
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
            if let Some(request) = impressions::request(world, stock, trip, &person, requests) {
                sheets.request(&request, &user, &session)?;
                made.requests += 1;
            }
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
                    ("clicked", Type::Words),
                    ("converted", Type::Words),
                ],
            )?,
            tastes: Sheet::create(
                &truth.join("users.parquet"),
                &[("user_id", Type::Text), ("style", Type::Reals), ("price_position", Type::Real)],
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
        let taste = &person.taste;
        self.tastes.row(&[Cell::Text(user), Cell::Reals(&taste.style), Cell::Real(taste.price_position)])?;
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

    fn request(&mut self, request: &Request, user: &str, session: &str) -> Result<(), GenerateError> {
        let ads_that = |is: fn(&Impression) -> bool| -> Vec<String> {
            request.impressions.iter().filter(|shown| is(shown)).map(|shown| ad_id(shown.ad)).collect()
        };
        let (delivered, clicked, converted) =
            (ads_that(|_| true), ads_that(|shown| shown.is_clicked), ads_that(|shown| shown.is_converted));
        let subject = request.subject.as_ref().map_or(&[][..], |item| &item.interests);
        self.requests.row(&[
            Cell::Text(&request_id(session)),
            Cell::Text(user),
            Cell::Whole(request.at_ms),
            Cell::Text(if request.subject.is_some() { "related_pins" } else { "search" }),
            Cell::Interests(subject),
            request.query.as_deref().map_or(Cell::Null, Cell::Text),
            Cell::Words(&texts(&delivered)),
            Cell::Words(&texts(&clicked)),
            Cell::Words(&texts(&converted)),
        ])
    }

    fn finish(self) -> Result<(), GenerateError> {
        let Self { users, events, requests, tastes, interests, trips } = self;
        [users, events, requests, tastes, interests, trips].into_iter().try_for_each(Sheet::finish)
    }
}

fn texts(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}
