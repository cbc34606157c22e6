//! The graph over the embeddings of a shard: the one place that names diskann.
//!
//! Its answers are candidates only. Their scores say which of them are worth a look; whoever asked scores those anew, so that a
//! graph and a scan agree on every score to the bit.
//!
//! The filtered searches of the library are not used. They return what passes among all that they met, also far from
//! the query, and there is no telling whether nearer ads were met at all: with filters that say where an ad lies, as
//! categories do, recall@10 fell to 0.75. The candidates of a plain search are the nearest that the walk knows; where
//! enough of them pass, the answer is as good as one without a filter, and where not, the caller knows.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};

use diskann::ANNError;
use diskann::graph::search::Knn;
use diskann::graph::{DiskANNIndex, InplaceDeleteMethod, config};
use diskann::neighbor::Neighbor;
use diskann::provider::{Delete, ElementStatus};
use diskann_inmem::num::{Capacity, MaxDegree};
use diskann_inmem::repr::Full;
use diskann_inmem::{Context, Provider, Strategy, store};
use diskann_utils::views::rowmajor;
use diskann_vector::distance::Metric;
use roaring::RoaringBitmap;

use crate::settings::IndexSettings;
use crate::vectors::Vectors;

mod adjacency;
mod build;

pub(crate) use adjacency::{Adjacency, LIBRARY, Made, NOT_LINKED};
use build::insert_all;

/// Why a graph was not built, or not searched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The settings make no graph.
    #[error("graph settings: {reason}")]
    Settings {
        /// Which, and the rule.
        reason: String,
    },
    /// The library refused an ad.
    #[error("graph, row {row}: {reason}")]
    Insert {
        /// The ad's row.
        row: u32,
        /// What the library said.
        reason: String,
    },
    /// The library would not let go of an ad.
    #[error("graph, row {row}, removal: {reason}")]
    Remove {
        /// The ad's row.
        row: u32,
        /// What the library said.
        reason: String,
    },
    /// The library refused a search.
    #[error("graph search: {reason}")]
    Search {
        /// What the library said.
        reason: String,
    },
    /// The caller wanted no more.
    #[error("building the graph was broken off")]
    Stopped,
}

/// Searches and inserts that may go on at once: each holds a guard or two, and 256 threads are the most configured.
const GUARDS: NonZeroUsize = NonZeroUsize::new(1_024).expect("1024 is not 0");
/// Nodes may have 1.3 times the degree before they are pruned back to it.
const DEGREE_SLACK: f64 = 1.3;
const DEGREE_MAX: usize = 1_024;
const BUILD_LIST_MAX: usize = 1 << 16;
const NO_SLOT: &str = "could not allocate a new slot";
/// What the library writes between what an error says and the source line that it is from.
const BEFORE_PLACE: &str = " -- (";
/// Every future of diskann-inmem is ready at once; more polls than this mean that one waits for a runtime.
const POLLS_MAX: usize = 1_000;
/// Of the walk that looks for whoever points at a row that is removed: its list, how many of the nearest may take the row's
/// place, and how many do for each that pointed at it. With a list of 64 and 10 candidates, replacing all of a shard of 200,000 lost
/// up to 0.007 of recall@10, with these nothing.
const REMOVAL_LIST: usize = 128;
const REMOVAL_CANDIDATES: usize = 50;
const REMOVAL_EDGES: usize = 3;

type Nodes = DiskANNIndex<Provider<Full<f32>, u32>>;

/// A graph over some rows of a shard. Any number of threads may search it while one changes it.
pub(crate) struct Graph {
    nodes: Nodes,
    capacity: usize,
    made: Made,
    /// Where every walk begins.
    start: Box<[f32]>,
}

/// The rows nearest to a query that a walk met, best first, and how many distances it computed.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    pub(crate) rows: Vec<Candidate>,
    pub(crate) distances: u64,
}

/// A row that may be among the best.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) row: u32,
    /// Its score, but for roundings: the library sums in an order of its own.
    pub(crate) score: f32,
}

impl Candidate {
    /// A row that no walk met: it may be anywhere.
    pub(crate) fn unscored(row: u32) -> Self {
        Self { row, score: f32::INFINITY }
    }
}

/// Whether a row is in the graph now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Linked {
    Yes,
    /// No slot was found for it.
    NoRoom,
}

impl Graph {
    /// The slots of a graph that is not expected to grow. An eighth more than is needed: the library may fail to find a free
    /// slot among few, and what was removed is not free at once. It takes each slot once before it takes one again, so that
    /// all of them are memory after a while.
    pub(crate) fn capacity_for(rows: usize) -> usize {
        rows + rows / 8 + 256
    }

    /// Builds the graph of `rows` of `vectors`, of unit length, at least one, with `capacity` slots.
    ///
    /// `observe` is told the rows inserted, and may break off. With one thread the graph depends on nothing but
    /// the vectors of the rows and `settings`.
    pub(crate) fn build(
        vectors: &Vectors,
        rows: &RoaringBitmap,
        capacity: usize,
        settings: &IndexSettings,
        observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Self, GraphError> {
        let graph = Self::empty(middle(vectors, rows), capacity, settings)?;
        insert_all(&graph, vectors, rows, settings.threads.clamp(1, (rows.len() as usize).max(1)), observe)?;
        Ok(graph)
    }

    fn empty(start: Box<[f32]>, capacity: usize, settings: &IndexSettings) -> Result<Self, GraphError> {
        let refuse = |reason: String| GraphError::Settings { reason };
        // Written so that NaN fails too.
        if !(settings.alpha >= 1.0 && settings.alpha.is_finite()) {
            return Err(refuse(format!("alpha {} is not at least 1", settings.alpha)));
        }
        // Both are allocated for every ad or every thread before anything is inserted.
        if settings.degree > DEGREE_MAX || settings.build_list > BUILD_LIST_MAX {
            let (degree, list) = (settings.degree, settings.build_list);
            return Err(refuse(format!(
                "degree {degree} or build list {list} is above {DEGREE_MAX} or {BUILD_LIST_MAX}"
            )));
        }
        let made = Made::with(settings);
        let metric = Metric::InnerProduct;
        let max = config::MaxDegree::new(made.degree_max());
        let config = config::Builder::new_with(settings.degree, max, settings.build_list, metric.into(), |builder| {
            builder.alpha(settings.alpha);
        })
        .build()
        .map_err(|error| refuse(error.to_string()))?;
        let mut threads = store::Config::new();
        threads.epoch_guard_slots(GUARDS);
        let row = rowmajor::Owned::row_vector(start.clone());
        let full = Full::<f32>::config(Capacity::new(capacity), MaxDegree::new(made.degree_max()), metric, row)
            .map_err(|error| refuse(error.to_string()))?
            .store(threads);
        let provider = Provider::new(full).map_err(|error| refuse(reason(&error)))?;
        Ok(Self { nodes: DiskANNIndex::new(config, provider, None), capacity, made, start })
    }

    /// Links a row that is not in the graph.
    ///
    /// # Errors
    /// When the library refuses it for another reason than room; it is not in the graph then.
    pub(crate) fn insert(&self, row: u32, vector: &[f32], tries_max: usize) -> Result<Linked, GraphError> {
        let mut tries = 0;
        loop {
            let Some(inserted) = ready(self.nodes.insert(&Strategy, &Context, &row, vector)) else {
                return Err(GraphError::Insert { row, reason: WAITS.to_owned() });
            };
            let Err(error) = inserted else { return Ok(Linked::Yes) };
            if !is_without_slot(&error) {
                let reason = reason(&error);
                // What failed half-way is taken back. It may not have come so far as to be there.
                drop(ready(self.nodes.provider().delete(&Context, &row)));
                return Err(GraphError::Insert { row, reason });
            }
            tries += 1;
            if tries >= tries_max {
                return Ok(Linked::NoRoom);
            }
            std::thread::yield_now();
        }
    }

    /// Takes a row out, and links its neighbours with each other. Not to be called by two threads at once, nor while another
    /// inserts: the library would clear the edges of a row that took the slot meanwhile.
    ///
    /// # Errors
    /// When the library refuses; the row is still in the graph then.
    pub(crate) fn remove(&self, row: u32) -> Result<(), GraphError> {
        let method = InplaceDeleteMethod::VisitedAndTopK { k_value: REMOVAL_CANDIDATES, l_value: REMOVAL_LIST };
        let removal = self.nodes.inplace_delete(Strategy, &Context, &row, REMOVAL_EDGES, method);
        let Err(error) = ready(removal).unwrap_or_else(|| Err(ANNError::message(WAITS))) else { return Ok(()) };
        // The first step takes it out, the others only mend what is left.
        match ready(self.nodes.provider().status_by_external_id(&Context, &row)) {
            Some(Ok(ElementStatus::Deleted)) => Ok(()),
            Some(Ok(ElementStatus::Valid) | Err(_)) | None => Err(GraphError::Remove { row, reason: reason(&error) }),
        }
    }

    /// The nearest rows to `query` that a walk with a list of `list` meets; at most so many.
    pub(crate) fn search(&self, query: &[f32], list: usize) -> Result<Candidates, GraphError> {
        let mut found: Vec<Neighbor<u32>> = Vec::with_capacity(list);
        let search = self.nodes.search(knn(list)?, &Strategy, &Context, query, &mut found);
        let stats = settle(search)?;
        // The library has the nearest first, by the negated inner product.
        let candidate = |near: &Neighbor<u32>| Candidate { row: *near.id(), score: -near.distance() };
        Ok(Candidates { rows: found.iter().map(candidate).collect(), distances: stats.cmps.into() })
    }

    /// How many rows it has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The memory that the graph takes beside the embeddings given to it, in bytes, about: its own copy of them, and
    /// its edges.
    pub(crate) fn bytes(&self, dimension: usize) -> usize {
        self.capacity * (dimension + self.made.degree_max() + 2) * 4
    }
}

/// The direction of the mean, where every walk starts.
fn middle(vectors: &Vectors, rows: &RoaringBitmap) -> Box<[f32]> {
    let mut sum = vec![0f64; vectors.dimension()];
    for row in rows {
        for (sum, x) in sum.iter_mut().zip(vectors.row(row)) {
            *sum += f64::from(*x);
        }
    }
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length < 1e-9 {
        // Vectors that cancel out have no middle; any of them will do.
        return rows.min().map_or_else(|| sum.iter().map(|_| 1.0).collect(), |row| vectors.row(row).into());
    }
    sum.iter().map(|x| (x / length) as f32).collect()
}

const WAITS: &str = "the library waits for a runtime that is not there";

fn knn(list: usize) -> Result<Knn, GraphError> {
    Knn::new(list, None).map_err(|error| GraphError::Search { reason: error.to_string() })
}

fn settle<T>(future: impl Future<Output = Result<T, ANNError>>) -> Result<T, GraphError> {
    match ready(future) {
        Some(result) => result.map_err(|error| refused(&error)),
        None => Err(GraphError::Search { reason: WAITS.to_owned() }),
    }
}

fn refused(error: &ANNError) -> GraphError {
    GraphError::Search { reason: reason(error) }
}

/// The result of a future that waits for nothing; absent where it does wait.
fn ready<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut context = TaskContext::from_waker(Waker::noop());
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        std::thread::yield_now();
    }
    None
}

/// Whether no slot was found, which is no fault and happens to every shard that changes.
///
/// Under `RUST_BACKTRACE=1` the text of an error ends with a backtrace, and to name the functions in there std reads what the program knows of
/// itself: a third of a second the first time, and 80 MB for good. This form has none.
fn is_without_slot(error: &ANNError) -> bool {
    format!("{error:#?}").contains(NO_SLOT)
}

/// The one line of the library's error that says what happened: the rest is its type, its source lines, and a backtrace, which is not asked
/// for.
fn reason(error: &ANNError) -> String {
    let mut text = Until { text: String::new(), end: BEFORE_PLACE };
    // It fails as it comes to the end.
    let _ = write!(text, "{error}");
    let said = text.text.trim_end_matches(BEFORE_PLACE);
    said.lines().map(str::trim).find(|line| !line.is_empty() && *line != "ANNError").unwrap_or("no reason").to_owned()
}

/// Takes a text as far as `end`.
struct Until<'a> {
    text: String,
    end: &'a str,
}

impl Write for Until<'_> {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let from = self.text.len();
        self.text.push_str(part);
        // It may begin in the part before.
        let seen = self.text.floor_char_boundary(from.saturating_sub(self.end.len()));
        match self.text[seen..].find(self.end) {
            Some(at) => {
                self.text.truncate(seen + at + self.end.len());
                Err(std::fmt::Error)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
