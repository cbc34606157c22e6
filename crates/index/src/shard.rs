//! One shard, loaded: search, and what it is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use turret_retrieval::filter::Filter;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::AttributeKind;
use turret_retrieval::topk::{Hit, K_MAX};
use turret_retrieval::vector::{UnitVector, dot};

use crate::attributes::Attributes;
use crate::exact::{ScoredRow, best, scan};
use crate::format::{ReadError, read_observed};
use crate::graph::{Graph, GraphError};
use crate::planner::{Plan, Planner, Step};
use crate::rows::{RowsError, ShardAd, ShardRows, UnitError, check_unit};
use crate::settings::{Backend, IndexSettings};
use crate::vectors::Vectors;

mod filter_shape;
mod scan;

pub use filter_shape::FilterShapeError;
use filter_shape::check_shape;

/// The loaded index of one shard. Immutable: any number of threads may search it at once.
pub struct ShardIndex {
    vectors: Vectors,
    ads: Vec<ListedAd>,
    kinds: BTreeMap<Box<str>, AttributeKind>,
    attributes: Attributes,
    graph: Option<Graph>,
    planner: Planner,
}

/// What an answer says of an ad.
struct ListedAd {
    id: AdId,
    advertiser: Option<Box<str>>,
}

/// One search.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The query embedding, of the generation of the shard.
    pub vector: &'a UnitVector,
    /// Another query embedding of that generation, by which the ads found are scored too. It has no part in finding them.
    pub baseline: Option<&'a UnitVector>,
    /// How many ads, 1 to [`K_MAX`].
    pub k: usize,
    /// Only ads that pass.
    pub filter: Option<&'a Filter>,
    /// Whether every ad that passes is compared, whatever a graph would say: what the graph is measured against.
    pub exact: bool,
}

/// An ad that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundAd {
    /// The ad and its score.
    pub hit: Hit,
    /// The advertiser, where the ad names one.
    pub advertiser: Option<Box<str>>,
    /// Its score by [`Search::baseline`], where there was one.
    pub baseline_score: Option<f32>,
}

/// The best ads of the shard, and how they were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// In the order of [`Hit`]. `k` of them wherever so many ads pass.
    pub ads: Vec<FoundAd>,
    /// Fewer than `k` ads pass the filter, and all of them are here.
    pub exhausted: bool,
    /// How they were found.
    pub plan: Plan,
    /// Share of the shard's ads that pass the filter, in [0, 1], where there was one; 0 for an empty shard.
    pub selectivity: Option<f64>,
    /// How many ads were compared with the query, by the graph and by the scan.
    pub distances: u64,
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

/// What a shard is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexStats {
    /// How many ads.
    pub ads: usize,
    /// The length of an embedding.
    pub dimension: usize,
    /// What searches; never [`Backend::Auto`].
    pub backend: Backend,
    /// Memory of the embeddings that scans read.
    pub vector_bytes: usize,
    /// Memory of the graph with its own copy of the embeddings, about; 0 where there is none.
    pub graph_bytes: usize,
    /// Memory of the postings, about.
    pub posting_bytes: usize,
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

/// Why a search was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// No answer has so many hits.
    #[error("k {found} is not in 1..={K_MAX}")]
    K {
        /// What was asked for.
        found: usize,
    },
    /// The query is not a unit vector of this index.
    #[error("vector: {0}")]
    Vector(#[from] UnitError),
    /// The query to compare with is not a unit vector of this index.
    #[error("baseline: {0}")]
    Baseline(#[source] UnitError),
    /// The filter is larger than any that a parser lets through.
    #[error("filter: {0}")]
    Filter(#[from] FilterShapeError),
    /// The graph failed.
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
        let planner = Planner::new(settings, rows.len());
        let total = rows.len() as u64;
        let mut observe_rows = |done: usize| observe(Progress { stage: Stage::Graph, done: done as u64, total });
        let graph = match planner.backend() {
            Backend::DiskAnn => Some(Graph::build(&rows.vectors, rows.dimension, settings, &mut observe_rows)?),
            Backend::Exact | Backend::Auto => None,
        };
        Ok(Self::of(rows, graph, planner))
    }

    /// An index of rows that are all compared with every query.
    pub(crate) fn scanned(rows: ShardRows) -> Self {
        Self::of(rows, None, Planner::exact())
    }

    fn of(rows: ShardRows, graph: Option<Graph>, planner: Planner) -> Self {
        let ShardRows { dimension, vectors, ads, kinds } = rows;
        let attributes = Attributes::new(&ads, &kinds);
        let list = |ad: turret_retrieval::item::Ad| ListedAd { advertiser: ad.advertiser().map(Into::into), id: ad.id };
        let ads = ads.into_iter().map(list).collect();
        let vectors = Vectors::from_rows(dimension, &vectors);
        Self { vectors, ads, kinds, attributes, graph, planner }
    }

    /// The best `k` ads that pass the filter.
    ///
    /// An exact plan finds exactly them; a graph may miss some, but returns as many, each with its exact score.
    ///
    /// # Errors
    /// When `search` breaks a rule; asking again will not help.
    pub fn search(&self, search: &Search<'_>) -> Result<Found, SearchError> {
        self.search_without(search, &RoaringBitmap::new())
    }

    /// The same, as if the rows of `hidden` were not there.
    pub(crate) fn search_without(&self, search: &Search<'_>, hidden: &RoaringBitmap) -> Result<Found, SearchError> {
        if !(1..=K_MAX).contains(&search.k) {
            return Err(SearchError::K { found: search.k });
        }
        check_unit(search.vector.as_slice(), self.dimension())?;
        if let Some(baseline) = search.baseline {
            check_unit(baseline.as_slice(), self.dimension()).map_err(SearchError::Baseline)?;
        }
        let passing = match search.filter {
            Some(filter) => {
                check_shape(filter)?;
                Some(self.attributes.rows(filter))
            }
            None => None,
        };
        let visible = self.len() - hidden.len() as usize;
        let (is_filtered, passing) = match passing {
            Some(passing) => (true, Some(passing - hidden)),
            None if hidden.is_empty() => (false, None),
            None => (false, Some(self.attributes.all() - hidden)),
        };
        let count = passing.as_ref().map(|rows| rows.len() as usize);
        // All rows pass: nothing need be looked up.
        let passing = passing.filter(|rows| (rows.len() as usize) < self.len());
        let step = match (search.exact, &passing) {
            (false, _) => self.planner.plan(self.len(), count, search.k),
            (true, Some(_)) => Step::ExactPostings,
            (true, None) => Step::Exact,
        };
        let (rows, plan, distances) = self.take(step, search, passing.as_ref())?;
        Ok(Found {
            ads: rows.iter().map(|row| self.found(row, search.baseline)).collect(),
            exhausted: count.unwrap_or(self.len()) < search.k,
            plan,
            selectivity: count.filter(|_| is_filtered).map(|count| count as f64 / visible.max(1) as f64),
            distances,
        })
    }

    fn take(
        &self,
        step: Step,
        search: &Search<'_>,
        passing: Option<&RoaringBitmap>,
    ) -> Result<(Vec<ScoredRow>, Plan, u64), GraphError> {
        let query = search.vector.as_slice();
        let (walked, distances) = match (step, &self.graph) {
            (Step::Graph { list } | Step::InGraph { list }, Some(graph)) => self.walk(graph, list, search, passing)?,
            (Step::Graph { .. } | Step::InGraph { .. }, None) | (Step::Exact | Step::ExactPostings, _) => (None, 0),
        };
        if let Some(rows) = walked {
            let plan = if matches!(step, Step::InGraph { .. }) { Plan::InGraph } else { Plan::Graph };
            return Ok((best(&self.vectors, query, rows.into_iter(), search.k), plan, distances));
        }
        let rows = scan(&self.vectors, &[query], passing, search.k).pop().unwrap_or_default();
        Ok(match passing {
            Some(passing) => (rows, Plan::ExactPostings, distances + passing.len()),
            None => (rows, Plan::Exact, distances + self.len() as u64),
        })
    }

    /// Candidates that pass, as many as wanted or more, and the distances computed; absent where the graph has fewer.
    ///
    /// Fewer are met where those that pass lie far from the query, or off the graph altogether.
    fn walk(
        &self,
        graph: &Graph,
        mut list: usize,
        search: &Search<'_>,
        passing: Option<&RoaringBitmap>,
    ) -> Result<(Option<Vec<u32>>, u64), GraphError> {
        let count = passing.map_or(self.len(), |rows| rows.len() as usize);
        let mut distances = 0;
        loop {
            let mut candidates = graph.search(search.vector.as_slice(), list)?;
            distances += candidates.distances;
            candidates.rows.retain(|row| passing.is_none_or(|passing| passing.contains(*row)));
            if candidates.rows.len() >= search.k.min(count) {
                return Ok((Some(candidates.rows), distances));
            }
            match self.planner.longer(list, self.len(), passing.map(|_| count)) {
                Some(longer) => list = longer,
                None => return Ok((None, distances)),
            }
        }
    }

    fn found(&self, row: &ScoredRow, baseline: Option<&UnitVector>) -> FoundAd {
        FoundAd {
            hit: self.hit(row),
            advertiser: self.ads[row.row as usize].advertiser.clone(),
            baseline_score: baseline.map(|baseline| dot(baseline.as_slice(), self.vectors.row(row.row))),
        }
    }

    fn hit(&self, row: &ScoredRow) -> Hit {
        Hit { ad: self.ads[row.row as usize].id.clone(), score: row.score }
    }

    /// The row of an ad, where it is of this shard.
    pub(crate) fn row_of(&self, id: &AdId) -> Option<u32> {
        self.ads.binary_search_by(|ad| ad.id.cmp(id)).ok().map(|row| row as u32)
    }

    /// How many ads there are.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ads.is_empty()
    }

    /// The length of an embedding.
    pub fn dimension(&self) -> usize {
        self.vectors.dimension()
    }

    /// What searches; never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        self.planner.backend()
    }

    /// The attributes that ads of this shard have, by name. Other shards may have others.
    pub fn attributes(&self) -> BTreeMap<Box<str>, AttributeKind> {
        self.kinds.clone()
    }

    /// What the shard is made of. Walks the postings: for a scrape, not for every request.
    pub fn stats(&self) -> IndexStats {
        IndexStats {
            ads: self.len(),
            dimension: self.dimension(),
            backend: self.backend(),
            vector_bytes: self.vectors.bytes(),
            graph_bytes: self.graph.as_ref().map_or(0, |graph| graph.bytes(self.dimension())),
            posting_bytes: self.attributes.bytes(),
        }
    }
}

impl fmt::Debug for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardIndex")
            .field("ads", &self.len())
            .field("dimension", &self.dimension())
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
