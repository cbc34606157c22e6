//! One shard of the ad index: exact scan and DiskANN behind one type.
//!
//! Owns the file of a shard, its postings for filters, the exact scan, the graph, the choice between them for each
//! search, what becomes of all of them when ads change, and which ads lie together. It is the only importer of diskann, whose interface breaks
//! about twice a month: nothing of it shows outside `graph`. It never mixes generations, never reads the network, keeps no
//! clock, and never leaves an ad out by itself: which ads may be shown is the caller's filter.

mod attributes;
mod bits;
mod blocks;
mod cells;
mod change;
mod clusters;
mod exact;
#[cfg(test)]
mod fixtures;
mod format;
mod graph;
mod names;
mod planner;
mod row_set;
mod rows;
mod search;
mod settings;
mod shard;
mod stats;
mod vectors;
mod view;
mod writer;

pub use change::{ChangeError, ShardChange, ShardContent};
pub use clusters::{ClusterSettings, Clustering, cluster};
pub use format::{Origin, ReadError, WriteError};
pub use graph::GraphError;
pub use planner::Plan;
pub use rows::{ADS_MAX, DIMENSION_MAX, RowsError, ShardAd, UnitError};
pub use search::{FilterShapeError, Found, FoundAd, Search, SearchError};
pub use settings::{Backend, IndexSettings};
pub use shard::{BuildError, Due, GraphOrigin, OpenError, Opened, Progress, Refused, ShardIndex, Stage, Written};
pub use stats::IndexStats;
