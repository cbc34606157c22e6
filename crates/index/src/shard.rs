//! One shard, loaded: it is searched, and its ads change meanwhile.
//!
//! Searches never wait: each takes the view of the moment, and a change makes the next one beside it. A new ad is compared with
//! every query until upkeep has linked it into the graph; one that died is masked at once, and leaves graph and postings when
//! no search sees it any more; then its row is taken again.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use turret_retrieval::item::AttributeKind;
use turret_retrieval::vector::UnitVector;

use crate::attributes::{Postings, Segment};
use crate::cells::Cells;
use crate::change::{Absent, ChangeError, Registers, ShardChange};
use crate::format::ReadError;
use crate::graph::GraphError;
use crate::names::{Name, Names};
use crate::planner::Planner;
use crate::rows::{RowsError, ShardAd, ShardRows, UnitError};
use crate::search::{Found, Search, SearchError};
use crate::settings::{Backend, IndexSettings};
use crate::stats::IndexStats;
use crate::vectors::Vectors;
use crate::view::View;
use crate::writer::{Patched, Writer};

mod calibrate;
mod opening;
mod overhaul;
mod recent;
mod scan;
mod snapshot;
mod upkeep;
mod verification;

use calibrate::Lists;
use opening::Parts;
pub use opening::{GraphOrigin, Opened};
use recent::Recent;
pub use snapshot::Written;
use upkeep::Upkeep;
pub use upkeep::{Due, Refused};

/// The loaded index of one shard. Any number of threads may search it while others change it.
///
/// Whoever changes it sees to its upkeep too: [`maintain`](Self::maintain) after each change until nothing is due, and
/// [`overhaul`](Self::overhaul) where that says so. Where they fall behind, [`apply`](Self::apply) does their work before it
/// returns.
pub struct ShardIndex {
    settings: IndexSettings,
    planner: Planner,
    now: RwLock<Arc<View>>,
    recent: Recent,
    // Taken in this order, none of them by a search.
    overhauling: Mutex<()>,
    upkeep: Mutex<Upkeep>,
    writer: Mutex<Writer>,
}

/// How far the opening of a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is going on.
    pub stage: Stage,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// A part of opening a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The file is read; counted in bytes.
    Read,
    /// The graph is built; counted in ads.
    Graph,
}

/// Why a shard was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file is not good.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be measured with one of the queries.
    #[error("query to measure with: {0}")]
    Query(#[from] UnitError),
    /// Its graph could not be built.
    #[error("{path}: {source}")]
    Graph {
        /// The file.
        path: PathBuf,
        /// Why.
        source: GraphError,
    },
}

/// Why an index was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The ads cannot make up a shard.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// It cannot be measured with one of the queries.
    #[error("query to measure with: {0}")]
    Query(#[from] UnitError),
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl ShardIndex {
    /// Indexes `ads`, given in any order; `observe` is told how far that is, and may break off.
    ///
    /// With `queries`, evenly spaced ones where there are more than 256, it is measured how long candidate lists must be: a list does where
    /// the mean recall of its walks, less two standard errors, is at least the target. Without queries, ads are taken for them that lean
    /// half-way to another ad; those say little where queries lie elsewhere than ads do.
    ///
    /// # Errors
    /// When the ads cannot make up a shard, a query has not its dimension, or the graph could not be built. Trying again does not help.
    pub fn build(
        dimension: usize,
        ads: Vec<ShardAd>,
        settings: &IndexSettings,
        queries: &[UnitVector],
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, BuildError> {
        let rows = ShardRows::new(dimension, ads)?;
        calibrate::check(queries, dimension)?;
        Ok(Self::index(rows, settings, queries, observe)?)
    }

    fn index(
        rows: ShardRows,
        settings: &IndexSettings,
        queries: &[UnitVector],
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, GraphError> {
        // Rows that lie together are read together.
        let rows =
            if Planner::new(settings).wants_graph(rows.ads.len()) { rows.arranged(settings.threads) } else { rows };
        let ShardRows { dimension, vectors, ads, kinds, cells } = rows;
        let vectors = Vectors::from_rows(dimension, &vectors);
        let cells = cells.map(|cells| Cells::with(&vectors, cells));
        let graph = Self::graph_of(&vectors, settings, observe)?;
        let postings = Postings::new([Segment::new((0..).zip(ads.iter().map(|ad| &ad.attributes)))]);
        let registers = ads.iter().map(|_| Registers::default()).collect();
        let names: Names = ads.iter().map(|ad| Name { id: ad.id.as_str(), advertiser: ad.advertiser() }).collect();
        let writer = Writer::new(&names, registers, Absent::default()).expect("ids are unique, by ShardRows::new");
        Self::of(Parts { vectors, names, postings, kinds, graph, cells, writer }, settings, Lists::MeasuredBy(queries))
    }

    /// The best `k` ads of now that pass the filter.
    ///
    /// An exact plan finds exactly them; a graph may miss some, but returns as many, each with its exact score.
    ///
    /// # Errors
    /// When `search` breaks a rule; asking again will not help.
    pub fn search(&self, search: &Search<'_>) -> Result<Found, SearchError> {
        self.search_until(search, &|| false)
    }

    /// The same; when `stop` says that time is up, the best so far, which says so ([`Found::early_stopped`]).
    ///
    /// It is asked every some 4,000 ads of a scan, and between one walk of the graph and a longer one. At least one such part is
    /// done, whatever it says.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_until(&self, search: &Search<'_>, stop: &dyn Fn() -> bool) -> Result<Found, SearchError> {
        let found = self.view().search(&self.planner, search, stop)?;
        self.recent.note(search.vector.as_slice());
        Ok(found)
    }

    /// What [`search`](Self::search) finds, without filter and crowding, where it walks with a list of `list`, whatever it would choose:
    /// for measuring what a list costs and finds. Absent where there is no graph, or where it has too few ads to answer.
    ///
    /// # Errors
    /// When `search` breaks a rule; asking again will not help.
    pub fn search_listed(&self, search: &Search<'_>, list: usize) -> Result<Option<Found>, SearchError> {
        self.view().search_listed(search, list)
    }

    /// The same where it looks into the cells of rows that lie together, and takes a row to score more than the centre of its cell by no
    /// more than `share` of the cell's radius, in [0, 1]. Absent where there are no cells, and where that is no share.
    ///
    /// # Errors
    /// When `search` breaks a rule; asking again will not help.
    pub fn search_reaching(&self, search: &Search<'_>, share: f32) -> Result<Option<Found>, SearchError> {
        self.view().search_reaching(search, share)
    }

    /// Makes changes, in whatever order they come; what is known already changes nothing. From its return on, searches see
    /// them.
    ///
    /// # Errors
    /// When one of the ads cannot stand in this shard; then nothing is changed.
    pub fn apply(&self, changes: Vec<ShardChange>) -> Result<(), ChangeError> {
        let patched = self.patched(&changes)?;
        {
            let mut writer = self.writer.lock().map_err(|_| ChangeError::Broken)?;
            if let Some(next) = writer.apply(&self.view(), changes, patched)? {
                self.publish(next);
            }
        }
        self.catch_up();
        Ok(())
    }

    /// What ads that are patched have now: all postings are read for it, and nobody is to wait for that.
    fn patched(&self, changes: &[ShardChange]) -> Result<Patched, ChangeError> {
        if !changes.iter().any(ShardChange::is_patch) {
            return Ok(Patched::default());
        }
        let (view, rows) = {
            let writer = self.writer.lock().map_err(|_| ChangeError::Broken)?;
            let view = self.view();
            let rows = writer.rows_of_patches(&view, changes);
            (view, rows)
        };
        Ok(Patched::read(&view, rows))
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Only by whoever holds the writer.
    fn publish(&self, next: View) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, Arc::new(next));
        // What the view before had alone is given back while nobody waits.
        drop(now);
        drop(before);
    }

    /// How many ads there are, paused ones too.
    pub fn len(&self) -> usize {
        self.view().counts.ads
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of an embedding.
    pub fn dimension(&self) -> usize {
        self.view().vectors.dimension()
    }

    /// The embeddings of all ads that may be found, `[ads, dimension]`, row-major, in no order: for measuring.
    pub fn embeddings(&self) -> Vec<f32> {
        let view = self.view();
        view.live.bitmap().iter().flat_map(|row| view.vectors.row(row)).copied().collect()
    }

    /// What searches; never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        if self.view().graph.is_some() { Backend::DiskAnn } else { Backend::Exact }
    }

    /// The attributes that ads of this shard have, by name. Other shards may have others.
    pub fn attributes(&self) -> BTreeMap<Box<str>, AttributeKind> {
        (*self.view().kinds).clone()
    }

    /// What the shard is made of now.
    pub fn stats(&self) -> IndexStats {
        IndexStats::of(&self.view())
    }
}

impl fmt::Debug for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardIndex").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
