//! Data sets: the schema of events, items, ads and users, reading them from Parquet, checking them, making them up; and
//! the files of user partitions.
//!
//! Owns every byte that is Parquet or Arrow: no other crate imports either. What leaves this crate is the vocabulary
//! of `turret-retrieval`. A data set is read by one row-validating reader: [`read()`] stops at its first fault,
//! [`check()`] gathers them, and [`PartsPlan`] splits by user what does not fit into memory. Never trains, never serves,
//! never writes into a data set that it reads.

mod ads;
mod check;
mod columns;
mod event_files;
mod events;
mod fault;
#[cfg(test)]
mod fixture;
mod gathered;
mod interests;
mod intern;
mod items;
mod lists;
pub mod marketplace;
mod partition_file;
mod parts;
mod profile;
mod progress;
mod read;
mod requests;
mod source;
mod table;
mod users;

pub use check::{FAULTS_LISTED_MAX, Report, check};
pub use fault::{Fault, ReadError};
pub use partition_file::{PartitionHeader, PartitionReader, PartitionWriteError, PartitionWriter, USERS_PER_BATCH};
pub use parts::{EVENTS_PER_PART, PartedLog, PartingError, PartsPlan};
pub use profile::{Advertising, Demography, Interests, Profile, Quantiles, Span};
pub use progress::Progress;
pub use read::read;
pub use requests::{LoggedRequest, REQUESTS_MAX, read_requests};
pub use source::{AdsFile, DataSource, EventsFile, ItemsFile, RepeatedIds, TimeUnit, UsersFile};
