//! One shard, loaded: it is searched, and its ads change meanwhile.
//!
//! Searches never wait: each takes the view of the moment, and a change makes the next one beside it. A new ad is compared with
//! every query until upkeep has linked it into the graph; one that died is masked at once, and leaves graph and postings when
//! no search sees it any more; then its row is taken again.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use roaring::RoaringBitmap;
use turret_retrieval::item::AttributeKind;

use crate::attributes::{Postings, Segment};
use crate::change::{ChangeError, ShardChange};
use crate::format::{ReadError, read_observed};
use crate::graph::{Graph, GraphError};
use crate::planner::Planner;
use crate::rows::{RowsError, ShardAd, ShardRows};
use crate::search::{Found, Search, SearchError};
use crate::settings::{Backend, IndexSettings};
use crate::stats::IndexStats;
use crate::vectors::Vectors;
use crate::view::{Counts, ListedAd, View};
use crate::writer::{Writer, name_bytes};

mod overhaul;
mod scan;
mod upkeep;

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
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl ShardIndex {
    /// Reads the shard at `path` and indexes it; `observe` is told how far that is, and may break off.
    ///
    /// # Errors
    /// The first thing wrong with the file, or why the graph could not be built.
    pub fn open(
        path: &Path,
        settings: &IndexSettings,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, OpenError> {
        let rows = read_observed(path, &mut |done, total| observe(Progress { stage: Stage::Read, done, total }))?;
        Self::index(rows, settings, observe).map_err(|source| OpenError::Graph { path: path.to_owned(), source })
    }

    /// Indexes `ads`, given in any order; `observe` is told how far that is, and may break off.
    ///
    /// # Errors
    /// When the ads cannot make up a shard, or the graph could not be built.
    pub fn build(
        dimension: usize,
        ads: Vec<ShardAd>,
        settings: &IndexSettings,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, BuildError> {
        Ok(Self::index(ShardRows::new(dimension, ads)?, settings, observe)?)
    }

    fn index(
        rows: ShardRows,
        settings: &IndexSettings,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, GraphError> {
        let ShardRows { dimension, vectors, ads, kinds } = rows;
        let planner = Planner::new(settings);
        let vectors = Vectors::from_rows(dimension, &vectors);
        let mut live = RoaringBitmap::new();
        live.insert_range(0..ads.len() as u32);
        // Runs would stay, and most work on runs is slow.
        live.remove_run_compression();
        let total = ads.len() as u64;
        let mut observe_rows = |done: usize| observe(Progress { stage: Stage::Graph, done: done as u64, total });
        let graph = match planner.wants_graph(ads.len()) {
            true => Some(Graph::build(&vectors, &live, Graph::capacity_for(ads.len()), settings, &mut observe_rows)?),
            false => None,
        };
        let upkeep = Upkeep::new(graph.as_ref().map(|_| live.clone()).unwrap_or_default());
        let postings = Postings::new([Segment::new((0..).zip(&ads))]);
        let listed = ads.into_iter().map(|ad| ListedAd { advertiser: ad.advertiser().map(Into::into), id: ad.id });
        let mut counts =
            Counts { ads: total as usize, linked: graph.as_ref().map_or(0, |_| total as usize), ..Counts::default() };
        let ads = listed.inspect(|ad| counts.name_bytes += name_bytes(ad)).map(Arc::new).collect();
        let writer = Writer::new(&ads, total as u32);
        let view = View {
            vectors: Arc::new(vectors),
            ads: Arc::new(ads),
            live: Arc::new(live),
            unlinked: Arc::default(),
            postings: Arc::new(postings),
            kinds: Arc::new(kinds),
            graph: graph.map(Arc::new),
            counts,
            era: Arc::default(),
        };
        Ok(Self {
            settings: settings.clone(),
            planner,
            now: RwLock::new(Arc::new(view)),
            overhauling: Mutex::default(),
            upkeep: Mutex::new(upkeep),
            writer: Mutex::new(writer),
        })
    }

    /// The best `k` ads of now that pass the filter.
    ///
    /// An exact plan finds exactly them; a graph may miss some, but returns as many, each with its exact score.
    ///
    /// # Errors
    /// When `search` breaks a rule; asking again will not help.
    pub fn search(&self, search: &Search<'_>) -> Result<Found, SearchError> {
        self.view().search(&self.planner, search)
    }

    /// What [`search`](Self::search) finds, without filter and crowding, where it walks with a list of `list`, whatever it would choose:
    /// for measuring what a list costs and finds. Absent where there is no graph, or where it has too few ads to answer.
    ///
    /// # Errors
    /// When `search` breaks a rule; asking again will not help.
    pub fn search_listed(&self, search: &Search<'_>, list: usize) -> Result<Option<Found>, SearchError> {
        self.view().search_listed(search, list)
    }

    /// Makes changes, in whatever order they come; what is known already changes nothing. From its return on, searches see
    /// them.
    ///
    /// # Errors
    /// When one of the ads cannot stand in this shard; then nothing is changed.
    pub fn apply(&self, changes: Vec<ShardChange>) -> Result<(), ChangeError> {
        {
            let mut writer = self.writer.lock().map_err(|_| ChangeError::Broken)?;
            if let Some(next) = writer.apply(&self.view(), changes)? {
                self.publish(next);
            }
        }
        self.catch_up();
        Ok(())
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
