//! The events file: who did what, to which item, and when.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use turret_retrieval::dataset::{Clock, Row};
use turret_retrieval::event::EventType;

use crate::columns::{IdArray, Kind};
use crate::fault::{At, Faults, ReadError};
use crate::intern::{Interner, RawId};
use crate::items::{Catalogue, shortened};
use crate::progress::Counter;
use crate::source::EventsFile;
use crate::table::{Cells, Column, Need, Table};
use crate::users::Register;

/// The last millisecond of the year 9999: what is later was not counted in milliseconds.
pub(crate) const TIME_MS_MAX: i64 = 253_402_300_799_999;

/// Where an event's place in time comes from.
enum Order {
    Times(Column),
    Positions(Column),
    /// The order of the rows is all there is.
    Rows,
}

/// Reads the events file.
pub(crate) fn read(
    mut table: Table<'_>,
    settings: &EventsFile,
    catalogue: &mut Catalogue,
    register: &mut Register,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
) -> Result<(Vec<Row>, Clock), ReadError> {
    if table.rows() == 0 {
        faults.add(At::file(table.file), "holds no rows")?;
    }
    let user_id = table.choose("user_id", Kind::Id, Need::Required, faults)?;
    let item_id = table.choose("item_id", Kind::Id, Need::Required, faults)?;
    let event_type = table.choose("event_type", Kind::Text, Need::Required, faults)?;
    let order = order(&mut table, faults)?;
    let session_id = table.choose("session_id", Kind::Id, Need::Optional, faults)?;
    let event_id = table.choose("event_id", Kind::Id, Need::Optional, faults)?;
    let clock = match order {
        Order::Times(_) => Clock::Milliseconds,
        Order::Positions(_) | Order::Rows => Clock::Order,
    };
    let mut events = Vec::new();
    let (Some(user_id), Some(item_id), Some(event_type)) = (user_id, item_id, event_type) else {
        return Ok((events, clock));
    };
    let words = Words::new(settings);
    let mut sessions = Sessions::default();
    table.for_each_batch(faults, counter, |batch, faults| {
        let (users, items, types) = (batch.ids(&user_id), batch.ids(&item_id), batch.ids(&event_type));
        let times = match &order {
            Order::Times(column) | Order::Positions(column) => Some(batch.whole_numbers(column)),
            Order::Rows => None,
        };
        let range = if clock == Clock::Milliseconds { 0..=TIME_MS_MAX } else { i64::MIN..=i64::MAX };
        let session_ids = session_id.as_ref().map(|column| batch.ids(column));
        let event_ids = event_id.as_ref().map(|column| batch.ids(column));
        for row in 0..batch.rows() {
            // Every cell is looked at before a faulty row is left out, so that each of its faults is named.
            let user = user_of(&users, row, register, faults)?;
            let item = item_of(&items, row, catalogue, faults)?;
            let kind = words.get(&types, row, faults)?;
            let at = match &times {
                Some(times) if matches!(times.array.get(row), Ok(None)) => {
                    faults.add(times.at(row), "must not be null")?;
                    None
                }
                Some(times) => times.within(row, range.clone(), faults)?,
                None => Some(i64::try_from(batch.row_in_file(row)).expect("a file has fewer than 2^31 rows")),
            };
            if let Some(ids) = &event_ids {
                check(ids, row, faults)?;
            }
            if let Some(ids) = &session_ids {
                check(ids, row, faults)?;
            }
            let (Some(user), Some(item), Some(kind), Some(at)) = (user, item, kind, at) else { continue };
            let session = session_ids.as_ref().and_then(|ids| ids.array.get(row)).and_then(|id| sessions.get(user, id));
            events.push(Row { user, item, at, session, kind });
        }
        Ok(())
    })?;
    Ok((events, clock))
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

fn user_of(
    users: &Cells<'_, IdArray>,
    row: usize,
    register: &mut Register,
    faults: &mut Faults,
) -> Result<Option<u32>, ReadError> {
    let Some(id) = users.required(row, faults)? else { return Ok(None) };
    match register.row_of(id) {
        Ok(user) => Ok(Some(user)),
        Err(rule) => faults.add(users.at(row), rule).map(|()| None),
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

fn check(ids: &Cells<'_, IdArray>, row: usize, faults: &mut Faults) -> Result<(), ReadError> {
    match ids.array.get(row).map(RawId::check) {
        Some(Err(rule)) => faults.add(ids.at(row), rule),
        Some(Ok(())) | None => Ok(()),
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

/// Numbers sessions. A session is one user's, so data sets may count them anew for each.
#[derive(Default)]
struct Sessions {
    ids: Interner,
    numbers: HashMap<(u32, u32), u32>,
}

impl Sessions {
    /// The number of the session that `user` calls `id`; `None` where the id is faulty.
    fn get(&mut self, user: u32, id: RawId<'_>) -> Option<u32> {
        let id = self.ids.intern(id).ok()?.row();
        let next = u32::try_from(self.numbers.len()).expect("a file has fewer than 2^31 rows");
        match self.numbers.entry((user, id)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(new) => Some(*new.insert(next)),
        }
    }
}
