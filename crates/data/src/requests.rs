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
use crate::table::{Cells, Column, Need, Table};

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
        let delivered = batch.lists(&columns.delivered);
        let ads = IdArray::new(delivered.array.elements() as &dyn Array);
        for row in 0..batch.rows() {
            requests.push(LoggedRequest {
                request_id: required(ids.optional(row, RequestId::new, faults)?, ids.at(row), faults)?,
                user_id: required(users.optional(row, UserId::new, faults)?, users.at(row), faults)?,
                timestamp_ms: required(times.within(row, 0..=TIME_MS_MAX, faults)?, times.at(row), faults)?,
                surface: surface_of(&surfaces, row, faults)?,
                subject_interests: interests.get(row, faults)?,
                query: query_of(&queries, row, faults)?,
                delivered: delivered_of(&delivered, &ads, row, faults)?,
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
}

impl Chosen {
    fn new(table: &mut Table<'_>, faults: &mut Faults) -> Result<Self, ReadError> {
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

fn delivered_of(
    delivered: &Cells<'_, Lists>,
    ads: &IdArray,
    row: usize,
    faults: &mut Faults,
) -> Result<Vec<AdId>, ReadError> {
    let range = required(delivered.array.get(row), delivered.at(row), faults)?;
    if range.len() > DELIVERED_MAX {
        let rule = format!("has {} ads, the limit is {DELIVERED_MAX}", range.len());
        return Err(refused(delivered.at(row), rule, faults));
    }
    let ad = |(position, element)| match ads.get(element).map(|id| AdId::new(&id.text())) {
        Some(Ok(ad)) => Ok(ad),
        Some(Err(rule)) => Err(refused(delivered.at(row), bad_ad(position, rule), &mut *faults)),
        None => Err(refused(delivered.at(row), format!("ad {position} must not be null"), &mut *faults)),
    };
    range.enumerate().map(ad).collect()
}

fn bad_ad(position: usize, rule: IdError) -> String {
    format!("ad {position} {rule}")
}

#[cfg(test)]
mod tests;
