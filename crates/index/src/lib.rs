//! One shard of the ad index: exact scan and DiskANN behind one type.
//!
//! Owns the file of a shard, its postings for filters, the exact scan, the graph, the choice between them for each
//! search, and what becomes of all of them when ads change. It is the only importer of diskann, whose interface breaks
//! about twice a month: nothing of it shows outside `graph`. It never mixes generations, never reads the network, keeps no
//! clock, and never leaves an ad out by itself: which ads may be shown is the caller's filter.

mod attributes;
mod blocks;
mod change;
mod exact;
#[cfg(test)]
mod fixtures;
mod format;
mod graph;
mod near;
mod planner;
mod rows;
mod search;
mod settings;
mod shard;
mod stats;
mod vectors;
mod view;
mod writer;

pub use change::{ChangeError, ShardChange, ShardContent};
pub use format::{ReadError, WriteError, read_shard, write_shard};
pub use graph::GraphError;
pub use planner::Plan;
pub use rows::{ADS_MAX, DIMENSION_MAX, RowsError, ShardAd, ShardRows, UnitError};
pub use search::{FilterShapeError, Found, FoundAd, Search, SearchError};
pub use settings::{Backend, IndexSettings};
pub use shard::{BuildError, Due, OpenError, Progress, Refused, ShardIndex, Stage};
pub use stats::IndexStats;
