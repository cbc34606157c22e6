//! Reading a whole data set: the one reader behind `read` and `check`.

use std::ops::ControlFlow;

use turret_retrieval::dataset::{Clock, Dataset};

use crate::fault::{At, Faults, ReadError};
use crate::items::Catalogue;
use crate::progress::{Counter, Progress, Watch};
use crate::source::{Columns, DataSource, EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS, unknown_column};
use crate::table::Table;
use crate::users::Register;
use crate::{ads, events, items, users};

/// Reads a data set into memory, telling `progress` of it some thousand rows at a time.
///
/// Items come in the order of the items file, then of their first mention; users likewise.
///
/// # Errors
/// The first fault by file (items, users, ads, events), then by batch of rows; or [`ReadError::Interrupted`] where
/// `progress` broke off. No data set is returned in part.
pub fn read(
    source: &DataSource,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Dataset, ReadError> {
    assemble(source, &mut Faults::stop_at_first(&source.dir), progress)
}

/// Reads what can be read, noting in `faults` what cannot.
pub(crate) fn assemble(source: &DataSource, faults: &mut Faults, watch: &mut Watch<'_>) -> Result<Dataset, ReadError> {
    let mut open = |file, columns, known: Option<&[&str]>| open(source, file, columns, known, &mut *faults);
    let items = source.items.as_ref();
    let items = items.map(|items| open(&items.file, &items.columns, Some(ITEM_COLUMNS))).transpose()?.flatten();
    let users = source.users.as_ref();
    let users = users.map(|users| open(&users.file, &users.columns, Some(USER_COLUMNS))).transpose()?.flatten();
    let ads = source.ads.as_ref();
    let ads = ads.map(|ads| open(&ads.file, &ads.columns, None)).transpose()?.flatten();
    let events = open(&source.events.file, &source.events.columns, Some(EVENT_COLUMNS))?;

    let rows = |table: &Option<Table<'_>>| table.as_ref().map_or(0, Table::rows);
    let total = rows(&items) + rows(&users) + rows(&ads) + rows(&events);
    let counter = &mut Counter::new(total, watch);
    let mut catalogue = match items {
        Some(table) => items::read(table, faults, counter)?,
        None => Catalogue::open(),
    };
    let mut register = match users {
        Some(table) => users::read(table, faults, counter)?,
        None => Register::default(),
    };
    let ads = match ads {
        Some(table) => Some(ads::read(table, &mut catalogue, faults, counter)?),
        None => None,
    };
    let (events, clock) = match events {
        Some(table) => events::read(table, &source.events, &mut catalogue, &mut register, faults, counter)?,
        None => (Vec::new(), Clock::Order),
    };
    let ads = ads.unwrap_or_else(|| ads::every_item(&catalogue.items));
    Ok(Dataset::new(catalogue.items, ads, register.users, clock, events))
}

fn open<'s>(
    source: &DataSource,
    file: &'s str,
    columns: &'s Columns,
    known: Option<&[&str]>,
    faults: &mut Faults,
) -> Result<Option<Table<'s>>, ReadError> {
    // A mapping from a configuration file was checked when it was parsed, one made in code was not.
    if let Some(rule) = known.and_then(|known| unknown_column(columns, known)) {
        faults.add(At::file(file), rule)?;
    }
    Table::open(&source.dir, file, columns, faults)
}

#[cfg(test)]
mod tests;
