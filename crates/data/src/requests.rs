//! The log of requests that a marketplace received.

use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::Array;
use turret_retrieval::context::Surface;
use turret_retrieval::ids::{AdId, IdError, RequestId, UserId};
use turret_retrieval::item::Interest;

use crate::columns::{IdArray, Kind};
use crate::events::TIME_MS_MAX;
use crate::fault::{At, Faults, ReadError};
use crate::items::shortened;
use crate::lists::Lists;
use crate::progress::{Counter, Progress};
use crate::source::Columns;
use crate::table::{Batch, Cells, Column, Need, Table};

/// The most requests that [`read_requests`] reads; a longer log is refused.
pub const REQUESTS_MAX: u64 = 10_000_000;
/// The longest query, in bytes of UTF-8.
const QUERY_BYTES_MAX: usize = 1_024;
/// The most ads delivered for one request.
const DELIVERED_MAX: usize = 1_000;

/// The surfaces by their names in the file.
pub(crate) const SURFACES: [(&str, Surface); 3] =
    [("related_pins", Surface::RelatedPins), ("search", Surface::Search), ("home", Surface::Home)];

/// One request as it was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedRequest {
    /// Its id.
    pub request_id: RequestId,
    /// Who asked.
    pub user_id: UserId,
    /// When, in ms since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// Where the ads were to be shown.
    pub surface: Surface,
    /// The interests of the pin that the user looked at; may be empty.
    pub subject_interests: Vec<Interest>,
    /// What the user searched for.
    pub query: Option<String>,
    /// The ads that were shown, in their order.
    pub delivered: Vec<AdId>,
    /// Those of them that were clicked, where the log tells; in any order.
    pub clicked: Vec<AdId>,
    /// Those whose click was followed by a conversion, where the log tells; in any order.
    pub converted: Vec<AdId>,
}

/// Reads a log of at most [`REQUESTS_MAX`] requests, in the order of the file.
///
/// # Errors
/// The first fault, or [`ReadError::Interrupted`] where `progress` broke off.
pub fn read_requests(
    path: &Path,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Vec<LoggedRequest>, ReadError> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let faults = &mut Faults::stop_at_first(dir);
    let mapping = Columns::new();
    let opened = Table::open(dir, &file, &mapping, faults)?;
    let mut table = opened.expect("where the first fault ends the reading, a table that is not opened is an error");
    if table.rows() > REQUESTS_MAX {
        let rule = format!("holds {} requests, the limit is {REQUESTS_MAX}", table.rows());
        faults.add(At::file(&file), rule)?;
    }
    let columns = Chosen::new(&mut table, faults)?;
    let mut requests = Vec::new();
    let counter = &mut Counter::new(table.rows(), progress);
    table.for_each_batch(faults, counter, |batch, faults| {
        let (ids, users) = (batch.ids(&columns.request_id), batch.ids(&columns.user_id));
        let (times, surfaces) = (batch.whole_numbers(&columns.timestamp_ms), batch.ids(&columns.surface));
        let (interests, queries) = (batch.interests(&columns.subject_interests), batch.ids(&columns.query));
        let delivered = Ads::new(batch, &columns.delivered);
        let clicked = columns.clicked.as_ref().map(|column| Ads::new(batch, column));
        let converted = columns.converted.as_ref().map(|column| Ads::new(batch, column));
        for row in 0..batch.rows() {
            requests.push(LoggedRequest {
                request_id: required(ids.optional(row, RequestId::new, faults)?, ids.at(row), faults)?,
                user_id: required(users.optional(row, UserId::new, faults)?, users.at(row), faults)?,
                timestamp_ms: required(times.within(row, 0..=TIME_MS_MAX, faults)?, times.at(row), faults)?,
                surface: surface_of(&surfaces, row, faults)?,
                subject_interests: interests.get(row, faults)?,
                query: query_of(&queries, row, faults)?,
                delivered: delivered.get(row, faults)?,
                clicked: clicked.as_ref().map_or(Ok(Vec::new()), |ads| ads.get(row, faults))?,
                converted: converted.as_ref().map_or(Ok(Vec::new()), |ads| ads.get(row, faults))?,
            });
        }
        Ok(())
    })?;
    Ok(requests)
}

struct Chosen {
    request_id: Column,
    user_id: Column,
    timestamp_ms: Column,
    surface: Column,
    subject_interests: Column,
    query: Column,
    delivered: Column,
    clicked: Option<Column>,
    converted: Option<Column>,
}

impl Chosen {
    fn new(table: &mut Table<'_>, faults: &mut Faults) -> Result<Self, ReadError> {
        let clicked = table.choose("clicked", Kind::Ids, Need::Optional, faults)?;
        let converted = table.choose("converted", Kind::Ids, Need::Optional, faults)?;
        let mut choose = |name, kind| {
            let chosen = table.choose(name, kind, Need::Required, faults)?;
            Ok(chosen.expect("where the first fault ends the reading, an absent column is an error"))
        };
        Ok(Self {
            request_id: choose("request_id", Kind::Id)?,
            user_id: choose("user_id", Kind::Id)?,
            timestamp_ms: choose("timestamp_ms", Kind::Time)?,
            surface: choose("surface", Kind::Text)?,
            subject_interests: choose("subject_interests", Kind::Interests)?,
            query: choose("query", Kind::Text)?,
            delivered: choose("delivered", Kind::Ids)?,
            clicked,
            converted,
        })
    }
}

fn required<T>(value: Option<T>, at: At<'_>, faults: &mut Faults) -> Result<T, ReadError> {
    match value {
        Some(value) => Ok(value),
        None => Err(refused(at, "must not be null", faults)),
    }
}

/// The error that a fault is where the first one ends the reading.
fn refused(at: At<'_>, rule: impl std::fmt::Display, faults: &mut Faults) -> ReadError {
    faults.add(at, rule).expect_err("a log of requests is read up to its first fault")
}

fn surface_of(surfaces: &Cells<'_, IdArray>, row: usize, faults: &mut Faults) -> Result<Surface, ReadError> {
    let found = required(surfaces.array.text(row), surfaces.at(row), faults)?;
    match SURFACES.iter().find(|(name, _)| *name == found) {
        Some((_, surface)) => Ok(*surface),
        None => {
            let rule = format!("surface `{}` is none of related_pins, search, home", shortened(found));
            Err(refused(surfaces.at(row), rule, faults))
        }
    }
}

fn query_of(queries: &Cells<'_, IdArray>, row: usize, faults: &mut Faults) -> Result<Option<String>, ReadError> {
    match queries.array.text(row) {
        Some(query) if query.len() > QUERY_BYTES_MAX => {
            let rule = format!("is {} bytes long, the limit is {QUERY_BYTES_MAX}", query.len());
            Err(refused(queries.at(row), rule, faults))
        }
        query => Ok(query.map(str::to_owned)),
    }
}

/// A column of lists of ads.
struct Ads<'a> {
    lists: Cells<'a, Lists>,
    ids: IdArray,
}

impl<'a> Ads<'a> {
    fn new(batch: &'a Batch<'_>, column: &'a Column) -> Self {
        let lists = batch.lists(column);
        let ids = IdArray::new(lists.array.elements() as &dyn Array);
        Self { lists, ids }
    }

    fn get(&self, row: usize, faults: &mut Faults) -> Result<Vec<AdId>, ReadError> {
        let at = || self.lists.at(row);
        let range = required(self.lists.array.get(row), at(), faults)?;
        if range.len() > DELIVERED_MAX {
            let rule = format!("has {} ads, the limit is {DELIVERED_MAX}", range.len());
            return Err(refused(at(), rule, faults));
        }
        let ad = |(position, element)| match self.ids.get(element).map(|id| AdId::new(&id.text())) {
            Some(Ok(ad)) => Ok(ad),
            Some(Err(rule)) => Err(refused(at(), bad_ad(position, rule), &mut *faults)),
            None => Err(refused(at(), format!("ad {position} must not be null"), &mut *faults)),
        };
        range.enumerate().map(ad).collect()
    }
}

fn bad_ad(position: usize, rule: IdError) -> String {
    format!("ad {position} {rule}")
}

#[cfg(test)]
mod tests;
