//! Checking a data set: every fault, and a profile of what is sound.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::fault::{Fault, Faults, ReadError};
use crate::profile::Profile;
use crate::progress::Progress;
use crate::read::assemble;
use crate::source::DataSource;

/// The most faults that a [`Report`] lists; the others are counted.
pub const FAULTS_LISTED_MAX: usize = 100;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What the sound rows hold.
    pub profile: Profile,
    /// The first [`FAULTS_LISTED_MAX`] faults, in the order of reading: items, users, ads, events.
    pub faults: Vec<Fault>,
    /// How many faults there are in all.
    pub faults_total: u64,
}

/// Reads the whole data set as [`read`](crate::read()) does, but goes on after faults: a faulty row is left out, a
/// faulty cell counts as absent.
///
/// # Errors
/// Only [`ReadError::Interrupted`], where `progress` broke off; faults are the result, not an error.
pub fn check(
    source: &DataSource,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Report, ReadError> {
    let mut faults = Faults::gather(&source.dir, FAULTS_LISTED_MAX);
    let (dataset, left_out) = assemble(source, &mut faults, progress)?;
    let (faults, faults_total) = faults.finish();
    let advertised = if source.ads.is_some() { "ads file" } else { "every item" };
    Ok(Report { profile: Profile::of(&dataset, left_out, advertised), faults, faults_total })
}

#[cfg(test)]
mod tests;
