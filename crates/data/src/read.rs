//! Reading a whole data set: the one reader behind `read` and `check`.

use std::ops::ControlFlow;

use turret_retrieval::dataset::Dataset;
use turret_retrieval::item::Ad;

use crate::event_files::EventFiles;
use crate::events::Surveyed;
use crate::fault::{At, Faults, ReadError};
use crate::gathered::Gathered;
use crate::items::Catalogue;
use crate::progress::{Counter, Progress, Watch};
use crate::source::{Columns, DataSource, ITEM_COLUMNS, USER_COLUMNS, unknown_column};
use crate::table::{ROWS_MAX, Table};
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
    let (dataset, _) = assemble(source, &mut Faults::stop_at_first(&source.dir), progress)?;
    Ok(dataset)
}

/// Reads what can be read, noting in `faults` what cannot; tells how many events were left out besides.
pub(crate) fn assemble(
    source: &DataSource,
    faults: &mut Faults,
    watch: &mut Watch<'_>,
) -> Result<(Dataset, u64), ReadError> {
    let mut files = Files::open(source, faults)?;
    let rows = files.events.rows();
    if rows > ROWS_MAX {
        let rule = format!("holds {rows} rows in all, the limit is {ROWS_MAX} where all are in memory");
        faults.add(At::file(&source.events.file), rule)?;
    }
    let counter = &mut Counter::new(files.rows(), watch);
    let mut catalogue = files.items(source, faults, counter)?;
    let mut gathered = Gathered::with_capacity(0);
    if let Some(table) = files.users.take() {
        users::walk(table, faults, counter, &mut |id, demographics| gathered.user(id, demographics))?;
    }
    let ads = files.ads(&mut catalogue, faults, counter)?;
    let take = &mut |found: events::Found<'_>| {
        gathered.event(found);
        ControlFlow::Continue(())
    };
    let Surveyed { clock, left_out } = events::walk(&files.events, source, &mut catalogue, faults, counter, take)?;
    let ads = ads.unwrap_or_else(|| ads::every_item(&catalogue.items));
    Ok((gathered.into_dataset(catalogue.items, ads, clock), left_out))
}

/// The files of a data set, opened; those that cannot be are faults, and absent.
pub(crate) struct Files<'s> {
    items: Option<Table<'s>>,
    pub(crate) users: Option<Table<'s>>,
    ads: Option<Table<'s>>,
    pub(crate) events: EventFiles,
}

impl<'s> Files<'s> {
    pub(crate) fn open(source: &'s DataSource, faults: &mut Faults) -> Result<Self, ReadError> {
        let mut open = |file, columns, known: Option<&[&str]>| open(source, file, columns, known, &mut *faults);
        let items = source.items.as_ref();
        let items = items.map(|items| open(&items.file, &items.columns, Some(ITEM_COLUMNS))).transpose()?.flatten();
        let users = source.users.as_ref();
        let users = users.map(|users| open(&users.file, &users.columns, Some(USER_COLUMNS))).transpose()?.flatten();
        let ads = source.ads.as_ref();
        let ads = ads.map(|ads| open(&ads.file, &ads.columns, None)).transpose()?.flatten();
        Ok(Self { items, users, ads, events: EventFiles::find(source, faults)? })
    }

    /// How many rows all files say they have.
    pub(crate) fn rows(&self) -> u64 {
        let tables = [&self.items, &self.users, &self.ads];
        tables.into_iter().flatten().map(Table::rows).sum::<u64>() + self.events.rows()
    }

    /// Reads the items; where there is no file of them, the catalogue is open to those that others name.
    pub(crate) fn items(
        &mut self,
        source: &DataSource,
        faults: &mut Faults,
        counter: &mut Counter<'_, '_>,
    ) -> Result<Catalogue, ReadError> {
        match (self.items.take(), &source.items) {
            (Some(table), Some(file)) => items::read(table, file.repeated_ids, faults, counter),
            (_, _) => Ok(Catalogue::open()),
        }
    }

    /// Reads the ads, where there is a file of them.
    pub(crate) fn ads(
        &mut self,
        catalogue: &mut Catalogue,
        faults: &mut Faults,
        counter: &mut Counter<'_, '_>,
    ) -> Result<Option<Vec<Ad>>, ReadError> {
        self.ads.take().map(|table| ads::read(table, catalogue, faults, counter)).transpose()
    }
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
