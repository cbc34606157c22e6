//! The events: who did what, to which item, and when.

use std::ops::ControlFlow;

use turret_retrieval::dataset::Clock;
use turret_retrieval::event::EventType;

use crate::columns::{IdArray, Kind, WholeArray};
use crate::event_files::EventFiles;
use crate::fault::{At, Faults, ReadError};
use crate::intern::RawId;
use crate::items::{Catalogue, shortened};
use crate::progress::Counter;
use crate::source::{DataSource, EventsFile, TimeUnit};
use crate::table::{Batch, Cells, Column, Need, Table};

/// The last millisecond of the year 9999: what is later was not counted in milliseconds.
pub(crate) const TIME_MS_MAX: i64 = 253_402_300_799_999;

/// An event whose every cell is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) user: RawId<'a>,
    /// The row of the item in the catalogue.
    pub(crate) item: u32,
    pub(crate) at: i64,
    pub(crate) session: Option<RawId<'a>>,
    pub(crate) kind: EventType,
}

/// What walking the events came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surveyed {
    pub(crate) clock: Clock,
    /// Sound events that `from` and `until` leave out.
    pub(crate) left_out: u64,
}

/// Walks all files, giving every sound event that is not left out to `take`, in the order of the files; where that breaks
/// off, the walk is interrupted.
pub(crate) fn walk(
    files: &EventFiles,
    source: &DataSource,
    catalogue: &mut Catalogue,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
    take: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
) -> Result<Surveyed, ReadError> {
    let settings = &source.events;
    let words = Words::new(settings);
    let mut surveyed = None;
    let (mut left_out, mut rows_before) = (0, 0);
    for file in &files.files {
        let Some(table) = Table::open(&source.dir, &file.name, &settings.columns, faults)? else { continue };
        let (table, columns) = Chosen::choose(table, settings, faults)?;
        let clock = *surveyed.get_or_insert(columns.clock());
        if columns.clock() != clock {
            let rule = format!("has {}, and the files before it have {}", told(columns.clock()), told(clock));
            faults.add(At::file(&file.name), rule)?;
        } else if let Some(columns) = columns.complete() {
            let mut walk = Walk { columns: &columns, settings, words: &words, rows_before, left_out: 0 };
            table.for_each_batch(faults, counter, |batch, faults| walk.batch(batch, catalogue, faults, take))?;
            left_out += walk.left_out;
        }
        rows_before += file.rows;
    }
    Ok(Surveyed { clock: surveyed.unwrap_or(Clock::Order), left_out })
}

fn told(clock: Clock) -> &'static str {
    match clock {
        Clock::Milliseconds => "times",
        Clock::Order => "only an order",
    }
}

/// Where an event's place in time comes from.
enum Order {
    Times(Column),
    Positions(Column),
    /// The order of the rows is all there is.
    Rows,
}

/// The columns of one file; required ones may be missing, which is a fault.
struct Chosen {
    user_id: Option<Column>,
    item_id: Option<Column>,
    event_type: Option<Column>,
    order: Order,
    session_id: Option<Column>,
    event_id: Option<Column>,
}

/// The columns of a file that has all it must.
struct Complete {
    user_id: Column,
    item_id: Column,
    event_type: Column,
    order: Order,
    session_id: Option<Column>,
    event_id: Option<Column>,
}

impl Chosen {
    fn choose<'s>(
        mut table: Table<'s>,
        settings: &EventsFile,
        faults: &mut Faults,
    ) -> Result<(Table<'s>, Self), ReadError> {
        let chosen = Self {
            user_id: table.choose("user_id", Kind::Id, Need::Required, faults)?,
            item_id: table.choose("item_id", Kind::Id, Need::Required, faults)?,
            event_type: table.choose("event_type", Kind::Text, Need::Required, faults)?,
            order: order(&mut table, faults)?,
            session_id: table.choose("session_id", Kind::Id, Need::Optional, faults)?,
            event_id: table.choose("event_id", Kind::Id, Need::Optional, faults)?,
        };
        match &chosen.order {
            Order::Times(times) if table.is_timestamp(times) && settings.timestamp_unit.is_some() => {
                let rule = "is a timestamp, whose unit is known: leave out `timestamp_unit`";
                faults.add(At::column(table.file, &times.name), rule)?;
            }
            Order::Positions(_) | Order::Rows if settings.from_ms.is_some() || settings.until_ms.is_some() => {
                faults.add(At::file(table.file), "has no times, which `from` and `until` ask for")?;
            }
            Order::Times(_) | Order::Positions(_) | Order::Rows => {}
        }
        Ok((table, chosen))
    }

    fn clock(&self) -> Clock {
        match self.order {
            Order::Times(_) => Clock::Milliseconds,
            Order::Positions(_) | Order::Rows => Clock::Order,
        }
    }

    fn complete(self) -> Option<Complete> {
        Some(Complete {
            user_id: self.user_id?,
            item_id: self.item_id?,
            event_type: self.event_type?,
            order: self.order,
            session_id: self.session_id,
            event_id: self.event_id,
        })
    }
}

/// Chooses between times and positions. A column of times that is null throughout counts as absent where there are
/// positions: so data sets write that they have none.
fn order(table: &mut Table<'_>, faults: &mut Faults) -> Result<Order, ReadError> {
    let times = table.choose("timestamp_ms", Kind::Time, Need::Optional, faults)?;
    let positions = table.choose("position", Kind::Whole, Need::Optional, faults)?;
    Ok(match (times, positions) {
        (Some(times), Some(positions)) => match table.has_values(&times, faults)? {
            true => Order::Times(times),
            false => Order::Positions(positions),
        },
        (Some(times), None) => Order::Times(times),
        (None, Some(positions)) => Order::Positions(positions),
        (None, None) => Order::Rows,
    })
}

/// A walk over one file.
struct Walk<'a> {
    columns: &'a Complete,
    settings: &'a EventsFile,
    words: &'a Words<'a>,
    rows_before: u64,
    left_out: u64,
}

impl Walk<'_> {
    fn batch(
        &mut self,
        batch: &Batch<'_>,
        catalogue: &mut Catalogue,
        faults: &mut Faults,
        take: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let columns = self.columns;
        let (users, items) = (batch.ids(&columns.user_id), batch.ids(&columns.item_id));
        let types = batch.ids(&columns.event_type);
        let order = match &columns.order {
            Order::Times(column) | Order::Positions(column) => Some(batch.whole_numbers(column)),
            Order::Rows => None,
        };
        let sessions = columns.session_id.as_ref().map(|column| batch.ids(column));
        let event_ids = columns.event_id.as_ref().map(|column| batch.ids(column));
        for row in 0..batch.rows() {
            // Every cell is looked at before a faulty row is left out, so that each of its faults is named.
            let user = sound_id(&users, row, Need::Required, faults)?;
            let item = item_of(&items, row, catalogue, faults)?;
            let kind = self.words.get(&types, row, faults)?;
            let at = match &order {
                Some(order) => self.at(order, row, faults)?,
                None => Some((self.rows_before + batch.row_in_file(row)) as i64),
            };
            if let Some(ids) = &event_ids {
                sound_id(ids, row, Need::Optional, faults)?;
            }
            let session = match &sessions {
                Some(ids) => sound_id(ids, row, Need::Optional, faults)?,
                None => None,
            };
            let (Some(user), Some(item), Some(kind), Some(at)) = (user, item, kind, at) else { continue };
            if self.is_left_out(at) {
                self.left_out += 1;
            } else if take(Found { user, item, at, session, kind }) == ControlFlow::Break(()) {
                return Err(ReadError::Interrupted);
            }
        }
        Ok(())
    }

    /// The time in ms, or the position.
    fn at(&self, order: &Cells<'_, WholeArray>, row: usize, faults: &mut Faults) -> Result<Option<i64>, ReadError> {
        if matches!(order.array.get(row), Ok(None)) {
            return faults.add(order.at(row), "must not be null").map(|()| None);
        }
        match (&self.columns.order, self.settings.timestamp_unit) {
            (Order::Times(_), Some(TimeUnit::Seconds)) => {
                Ok(order.within(row, 0..=TIME_MS_MAX / 1_000, faults)?.map(|seconds| seconds * 1_000))
            }
            (Order::Times(_), Some(TimeUnit::Microseconds)) => {
                Ok(order.within(row, 0..=TIME_MS_MAX * 1_000 + 999, faults)?.map(|micros| micros / 1_000))
            }
            (Order::Times(_), Some(TimeUnit::Milliseconds) | None) => order.within(row, 0..=TIME_MS_MAX, faults),
            (Order::Positions(_) | Order::Rows, _) => order.within(row, i64::MIN..=i64::MAX, faults),
        }
    }

    fn is_left_out(&self, at: i64) -> bool {
        self.settings.from_ms.is_some_and(|from| at < from) || self.settings.until_ms.is_some_and(|until| at >= until)
    }
}

/// The id in `row`; `None` where it is null, or faulty.
fn sound_id<'a>(
    ids: &'a Cells<'_, IdArray>,
    row: usize,
    need: Need,
    faults: &mut Faults,
) -> Result<Option<RawId<'a>>, ReadError> {
    let found = match need {
        Need::Required => ids.required(row, faults)?,
        Need::Optional => ids.array.get(row),
    };
    match found.map(|id| id.check().map(|()| id)) {
        None => Ok(None),
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(rule)) => faults.add(ids.at(row), rule).map(|()| None),
    }
}

fn item_of(
    items: &Cells<'_, IdArray>,
    row: usize,
    catalogue: &mut Catalogue,
    faults: &mut Faults,
) -> Result<Option<u32>, ReadError> {
    let Some(id) = items.required(row, faults)? else { return Ok(None) };
    match catalogue.row_of(id) {
        Ok(item) => Ok(Some(item)),
        Err(rule) => faults.add(items.at(row), rule).map(|()| None),
    }
}

/// The file's words for event types.
struct Words<'a>(Vec<(&'a str, EventType)>);

impl<'a> Words<'a> {
    /// The mapped words, and ours where they are not mapped to something else.
    fn new(settings: &'a EventsFile) -> Self {
        let mapped = settings.event_types.iter().map(|(word, kind)| (word.as_str(), *kind));
        let ours = EventType::ALL.into_iter().map(|kind| (kind.name(), kind));
        let mut words: Vec<(&str, EventType)> = mapped.collect();
        words.extend(ours.filter(|(word, _)| !settings.event_types.contains_key(*word)));
        Self(words)
    }

    fn get(&self, types: &Cells<'_, IdArray>, row: usize, faults: &mut Faults) -> Result<Option<EventType>, ReadError> {
        let Some(found) = types.array.text(row) else {
            return faults.add(types.at(row), "must not be null").map(|()| None);
        };
        if let Some((_, kind)) = self.0.iter().find(|(word, _)| *word == found) {
            return Ok(Some(*kind));
        }
        let known: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        let rule = format!("event type `{}` is none of {}", shortened(found), known.join(", "));
        faults.add(types.at(row), rule).map(|()| None)
    }
}
