//! A log of any length, for trying what must not grow with the log.
//!
//! Much plainer than the marketplace: people without demographics or tastes, who hold three interests each and follow
//! one of them, or anything, for some events in a row. Nothing is kept of a user, who is drawn anew for every session,
//! so each is spread over all files, and memory is that of the items and one row group.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use turret_retrieval::event::EventType;

use super::browsing::{DAY_MS, FOLLOWS_INTENT};
use super::chance::{Chance, Stream, Weights};
use super::sheet::{Cell, Sheet, Type};
use super::taxonomy::{LEAVES, Leaf};
use super::world::any_leaf;
use super::{DAYS_MAX, GenerateError, Partial, START_MS_MAX, SettingsError, check_ranges};
use crate::progress::{Counter, Progress};

/// The most events.
const EVENTS_MAX: u64 = 10_000_000_000;
/// The most users.
const USERS_MAX: u32 = 1_000_000_000;
/// The most items.
const ITEMS_MAX: u32 = 10_000_000;
/// Events in one file.
const FILE_EVENTS: u64 = 4_194_304;
/// Events between two looks at the caller's wish to stop.
const STEP_EVENTS: u64 = 65_536;
/// Lasting interests of a user.
const INTERESTS: u32 = 3;
/// The probability that a session's intent is one of them.
const FROM_INTERESTS: f64 = 0.7;
/// The probability that a session goes on after an event.
const GOES_ON: f64 = 0.6;
/// The longest pause within a session.
const PAUSE_MS_MAX: u32 = 300_000;
/// The time before the log's end in which no session begins, so that none outlasts it.
const LAST_MS: i64 = 3_600_000;
/// The most events of one session.
const SESSION_EVENTS_MAX: usize = 10;

/// How large a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkSettings {
    /// Events, 1 to 10,000,000,000.
    pub events: u64,
    /// Users, 1 to 1,000,000,000; those who are never drawn have no events.
    pub users: u32,
    /// Items, 1 to 10,000,000.
    pub items: u32,
    /// Days, 1 to 366.
    pub days: u32,
    /// What everything random follows from.
    pub seed: u64,
    /// The first millisecond of the first day, since 1970-01-01 UTC.
    pub start_ms: i64,
}

impl BulkSettings {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first one that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        // Compared as i64, into which a greater number of events must not wrap.
        let events = i64::try_from(self.events).unwrap_or(i64::MAX);
        check_ranges(&[
            ("events", events, 1, EVENTS_MAX as i64),
            ("users", i64::from(self.users), 1, i64::from(USERS_MAX)),
            ("items", i64::from(self.items), 1, i64::from(ITEMS_MAX)),
            ("days", i64::from(self.days), 1, i64::from(DAYS_MAX)),
            ("start_ms", self.start_ms, 0, START_MS_MAX),
        ])
    }
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bulk {
    /// Events.
    pub events: u64,
    /// Users that may have events.
    pub users: u32,
    /// Items.
    pub items: u32,
    /// Files of events.
    pub files: u64,
}

/// Makes a log in `dir`, which must not exist or be empty; one seed gives identical bytes.
///
/// Writes `items.parquet` and, in the directory `events.parquet`, files of 4,194,304 events; everything appears in `dir`
/// at once, when it is complete. Ids are integers; files follow each other in time, sessions within one do not.
///
/// # Errors
/// See [`GenerateError`].
pub fn generate_bulk(
    settings: &BulkSettings,
    dir: &Path,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Bulk, GenerateError> {
    settings.check()?;
    let partial = Partial::beside(dir)?;
    let counter = &mut Counter::new(settings.events, progress);
    write_items(settings, &partial.path)?;
    let folder = partial.path.join("events.parquet");
    fs::create_dir(&folder).map_err(|source| GenerateError::Io { path: folder.clone(), source })?;
    let files = settings.events.div_ceil(FILE_EVENTS);
    let shelves = Shelves::new(settings);
    for number in 0..files {
        let events = FILE_EVENTS.min(settings.events - number * FILE_EVENTS);
        let file = BulkFile { settings, shelves: &shelves, number, files, events };
        file.write(&folder.join(format!("part-{number:05}.parquet")), counter)?;
    }
    partial.become_complete()?;
    Ok(Bulk { events: settings.events, users: settings.users, items: settings.items, files })
}

/// The leaf of an item.
fn leaf_of(item: u32) -> Leaf {
    Leaf((item % LEAVES as u32) as u16)
}

fn write_items(settings: &BulkSettings, dir: &Path) -> Result<(), GenerateError> {
    let mut items =
        Sheet::create(&dir.join("items.parquet"), &[("item_id", Type::Whole), ("interests", Type::Interests)])?;
    for item in 0..settings.items {
        items.row(&[Cell::Whole(i64::from(item)), Cell::Interests(&[(leaf_of(item), 1.0)])])?;
    }
    items.finish()
}

/// The items of each leaf, the first the most popular.
struct Shelves {
    items: u32,
    ranks: Weights,
}

impl Shelves {
    fn new(settings: &BulkSettings) -> Self {
        let longest = settings.items.div_ceil(LEAVES as u32);
        Self { items: settings.items, ranks: Weights::new((0..longest).map(|rank| 1.0 / (f64::from(rank) + 1.0))) }
    }

    fn pick(&self, leaf: Leaf, chance: &mut Chance) -> u32 {
        // With fewer items than leaves, some leaves have none.
        let first = leaf.index() as u32 % self.items;
        let count = (self.items - first).div_ceil(LEAVES as u32);
        first + self.ranks.pick_among(count as usize, chance) as u32 * LEAVES as u32
    }
}

/// One file of events.
struct BulkFile<'a> {
    settings: &'a BulkSettings,
    shelves: &'a Shelves,
    number: u64,
    files: u64,
    events: u64,
}

/// One session.
struct Session {
    user: u32,
    id: i64,
    intent: Leaf,
    at_ms: i64,
}

impl BulkFile<'_> {
    fn write(&self, path: &Path, counter: &mut Counter<'_, '_>) -> Result<(), GenerateError> {
        let mut sheet = Sheet::create(
            path,
            &[
                ("user_id", Type::Whole),
                ("item_id", Type::Whole),
                ("event_type", Type::Text),
                ("timestamp_ms", Type::Whole),
                ("session_id", Type::Whole),
            ],
        )?;
        let chance = &mut Chance::of(self.settings.seed, Stream::Bulk, self.number);
        let (mut written, mut sessions) = (0, 0);
        while written < self.events {
            let mut session = self.session((self.number * FILE_EVENTS) as i64 + sessions, chance);
            sessions += 1;
            for _ in 0..SESSION_EVENTS_MAX {
                self.event(&session, &mut sheet, chance)?;
                written += 1;
                if written % STEP_EVENTS == 0 && counter.add(STEP_EVENTS, "events.parquet") == ControlFlow::Break(()) {
                    return Err(GenerateError::Interrupted);
                }
                if written == self.events || !chance.is(GOES_ON) {
                    break;
                }
                session.at_ms += 1 + i64::from(chance.below(PAUSE_MS_MAX));
            }
        }
        if counter.add(self.events % STEP_EVENTS, "events.parquet") == ControlFlow::Break(()) {
            return Err(GenerateError::Interrupted);
        }
        sheet.finish()
    }

    /// Begins a session within this file's stretch of time.
    fn session(&self, id: i64, chance: &mut Chance) -> Session {
        let user = chance.below(self.settings.users);
        let intent = match chance.is(FROM_INTERESTS) {
            // The interests of a user follow from their number, so that they are the same in every file.
            true => {
                let which = u64::from(chance.below(INTERESTS));
                let own = u64::from(user) * u64::from(INTERESTS) + which;
                any_leaf(&mut Chance::of(self.settings.seed, Stream::Person, own))
            }
            false => any_leaf(chance),
        };
        let span = i64::from(self.settings.days) * DAY_MS - LAST_MS;
        let within = (self.number as f64 + chance.unit()) / self.files as f64;
        Session { user, id, intent, at_ms: self.settings.start_ms + (within * span as f64) as i64 }
    }

    fn event(&self, session: &Session, sheet: &mut Sheet, chance: &mut Chance) -> Result<(), GenerateError> {
        let leaf = if chance.is(FOLLOWS_INTENT) { session.intent } else { any_leaf(chance) };
        let item = self.shelves.pick(leaf, chance);
        let kind = match chance.below(20) {
            0 => EventType::Checkout,
            1 | 2 => EventType::AddToCart,
            _ => EventType::View,
        };
        sheet.row(&[
            Cell::Whole(i64::from(session.user)),
            Cell::Whole(i64::from(item)),
            Cell::Text(kind.name()),
            Cell::Whole(session.at_ms),
            Cell::Whole(session.id),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fixture::{self, go_on};
    use crate::{DataSource, PartsPlan};

    fn settings(events: u64, items: u32) -> BulkSettings {
        BulkSettings { events, users: 500, items, days: 30, seed: 1, start_ms: 1_767_571_200_000 }
    }

    #[test]
    fn a_log_passes_the_check_and_has_as_many_events_as_asked_for() {
        for (events, items) in [(1, 1), (30_000, 7), (30_000, 1_000)] {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("log");
            let settings = settings(events, items);
            let made = generate_bulk(&settings, &dir, &mut go_on).unwrap();
            assert_eq!(made, Bulk { events, users: 500, items, files: 1 });
            let source = DataSource::canonical(&dir);
            let report = fixture::check(&source);
            assert_eq!((report.faults_total, report.profile.events), (0, events));
            assert_eq!(report.profile.items, u64::from(items));
            let data = fixture::read(&source).unwrap();
            let end = settings.start_ms + i64::from(settings.days) * DAY_MS;
            assert!(data.events().iter().all(|row| (settings.start_ms..end).contains(&row.at)));
            let parts = PartsPlan::of(&source, 10_000).unwrap().parts;
            assert_eq!(u64::from(parts), events.div_ceil(10_000));
        }
    }

    #[test]
    fn one_seed_gives_identical_bytes_and_users_keep_their_interests() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = parent.path().join(name);
            generate_bulk(&settings(30_000, 1_000), &dir, &mut go_on).unwrap();
            dir
        };
        let (first, again) = (make("first"), make("again"));
        let bytes = |dir: &Path| fs::read(dir.join("events.parquet/part-00000.parquet")).unwrap();
        assert!(bytes(&first) == bytes(&again));
        let data = fixture::read(&DataSource::canonical(&first)).unwrap();
        let of_favourites = |user: u32| {
            let mut counts = vec![0u32; LEAVES];
            data.events_of(user).iter().for_each(|row| counts[row.item as usize % LEAVES] += 1);
            counts.sort_unstable();
            f64::from(counts.iter().rev().take(3).sum::<u32>()) / data.events_of(user).len() as f64
        };
        let share = (0..100).map(of_favourites).sum::<f64>() / 100.0;
        assert!(share > 0.5, "{share} of the events are of three of {LEAVES} leaves");
        let users: BTreeSet<u32> = data.events()[..].iter().map(|row| row.user).collect();
        assert!(users.len() > 450, "{}", users.len());
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = generate_bulk(&settings(0, 5), dir.path(), &mut go_on).unwrap_err().to_string();
        assert_eq!(error, "events: 0 is not in 1..=10000000000");
        assert_eq!(settings(u64::MAX, 5).check().unwrap_err().setting, "events");
        assert_eq!(settings(5, 0).check().unwrap_err().to_string(), "items: 0 is not in 1..=10000000");
    }
}
