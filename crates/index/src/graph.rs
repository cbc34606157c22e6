//! The graph over the embeddings of a shard: the one place that names diskann.
//!
//! Its answers are candidates only. Their distances are thrown away; whoever asked scores them anew, so that a graph
//! and a scan agree on every score to the bit.
//!
//! The filtered searches of the library are not used. They return what passes among all that they met, also far from
//! the query, and there is no telling whether nearer ads were met at all: with filters that say where an ad lies, as
//! categories do, recall@10 fell to 0.75. The candidates of a plain search are the nearest that the walk knows; where
//! enough of them pass, the answer is as good as one without a filter, and where not, the caller knows.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context as TaskContext, Poll, Waker};

use diskann::ANNError;
use diskann::graph::search::Knn;
use diskann::graph::{DiskANNIndex, config};
use diskann::neighbor::Neighbor;
use diskann_inmem::num::{Capacity, MaxDegree};
use diskann_inmem::repr::Full;
use diskann_inmem::{Context, Provider, Strategy, store};
use diskann_utils::views::rowmajor;
use diskann_vector::distance::Metric;
use turret_retrieval::hashing::stable_hash;

use crate::settings::IndexSettings;

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
/// Slots are searched for in bounded steps, so that an insert may miss the free ones and must be tried again.
const SLOT_RETRIES_MAX: usize = 1_000;
const NO_SLOT: &str = "could not allocate a new slot";
/// Every future of diskann-inmem is ready at once; more polls than this mean that one waits for a runtime.
const POLLS_MAX: usize = 1_000;
/// Inserts between two reports of a thread.
const REPORT_ROWS: usize = 256;
/// Of the order of insertion.
const ORDER_SEED: u64 = 3;

type Nodes = DiskANNIndex<Provider<Full<f32>, u32>>;

/// A built graph. Immutable; any number of threads may search it.
pub(crate) struct Graph {
    nodes: Nodes,
    capacity: usize,
    degree_max: usize,
}

/// The rows nearest to a query that a walk met, and how many distances it computed.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    pub(crate) rows: Vec<u32>,
    pub(crate) distances: u64,
}

impl Graph {
    /// Builds the graph of `vectors`, `[rows, dimension]`, row-major, unit length, at least one row.
    ///
    /// `observe` is told the rows inserted, and may break off. With one thread the graph depends on nothing but
    /// `vectors` and `settings`.
    pub(crate) fn build(
        vectors: &[f32],
        dimension: usize,
        settings: &IndexSettings,
        observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Self, GraphError> {
        let rows = vectors.len() / dimension;
        // A quarter more than is needed: the library may fail to find a free slot among few.
        let capacity = rows + rows / 4 + 64;
        let degree_max = (settings.degree as f64 * DEGREE_SLACK).ceil() as usize;
        let nodes = empty(vectors, dimension, capacity, degree_max, settings)?;
        insert_all(&nodes, vectors, dimension, settings.threads.clamp(1, rows.max(1)), observe)?;
        Ok(Self { nodes, capacity, degree_max })
    }

    /// The nearest rows to `query` that a walk with a list of `list` meets; at most so many.
    pub(crate) fn search(&self, query: &[f32], list: usize) -> Result<Candidates, GraphError> {
        let mut found: Vec<Neighbor<u32>> = Vec::with_capacity(list);
        let search = self.nodes.search(knn(list)?, &Strategy, &Context, query, &mut found);
        let stats = settle(search)?;
        Ok(Candidates { rows: found.iter().map(|neighbor| *neighbor.id()).collect(), distances: stats.cmps.into() })
    }

    /// The memory that the graph takes beside the embeddings given to it, in bytes, about: its own copy of them, and
    /// its edges.
    pub(crate) fn bytes(&self, dimension: usize) -> usize {
        self.capacity * (dimension + self.degree_max + 2) * 4
    }
}

fn empty(
    vectors: &[f32],
    dimension: usize,
    capacity: usize,
    degree_max: usize,
    settings: &IndexSettings,
) -> Result<Nodes, GraphError> {
    let refuse = |reason: String| GraphError::Settings { reason };
    // Written so that NaN fails too.
    if !(settings.alpha >= 1.0 && settings.alpha.is_finite()) {
        return Err(refuse(format!("alpha {} is not at least 1", settings.alpha)));
    }
    // Both are allocated for every ad or every thread before anything is inserted.
    if settings.degree > DEGREE_MAX || settings.build_list > BUILD_LIST_MAX {
        let (degree, list) = (settings.degree, settings.build_list);
        return Err(refuse(format!("degree {degree} or build list {list} is above {DEGREE_MAX} or {BUILD_LIST_MAX}")));
    }
    let metric = Metric::InnerProduct;
    let max = config::MaxDegree::new(degree_max);
    let config = config::Builder::new_with(settings.degree, max, settings.build_list, metric.into(), |builder| {
        builder.alpha(settings.alpha);
    })
    .build()
    .map_err(|error| refuse(error.to_string()))?;
    let start = rowmajor::Owned::row_vector(middle(vectors, dimension));
    let mut threads = store::Config::new();
    threads.epoch_guard_slots(GUARDS);
    let full = Full::<f32>::config(Capacity::new(capacity), MaxDegree::new(degree_max), metric, start)
        .map_err(|error| refuse(error.to_string()))?
        .store(threads);
    let provider = Provider::new(full).map_err(|error| refuse(reason(&error)))?;
    Ok(DiskANNIndex::new(config, provider, None))
}

/// The direction of the mean, where every walk starts.
fn middle(vectors: &[f32], dimension: usize) -> Box<[f32]> {
    let mut sum = vec![0f64; dimension];
    for vector in vectors.chunks_exact(dimension) {
        for (sum, x) in sum.iter_mut().zip(vector) {
            *sum += f64::from(*x);
        }
    }
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length < 1e-9 {
        // Vectors that cancel out have no middle; any of them will do.
        return vectors.iter().take(dimension).copied().collect();
    }
    sum.iter().map(|x| (x / length) as f32).collect()
}

fn insert_all(
    nodes: &Nodes,
    vectors: &[f32],
    dimension: usize,
    threads: usize,
    observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<(), GraphError> {
    let insertion = Insertion {
        nodes,
        vectors,
        dimension,
        order: insertion_order(vectors.len() / dimension),
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let (report, reports) = channel();
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let (insertion, report) = (&insertion, report.clone());
                scope.spawn(move || insertion.work(&report))
            })
            .collect();
        drop(report);
        let (mut done, mut stopped) = (0, false);
        // Ends when the last worker has dropped its sender.
        for rows in reports {
            done += rows;
            if !stopped && observe(done).is_break() {
                stopped = true;
                insertion.stop.store(true, Ordering::Relaxed);
            }
        }
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        for result in results {
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        if stopped { Err(GraphError::Stopped) } else { Ok(()) }
    })
}

/// Rows in an order that has nothing to do with theirs: ads inserted cluster by cluster, as ids that name their
/// advertiser would sort them, are linked worse.
fn insertion_order(rows: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rows as u32).collect();
    order.sort_by_cached_key(|row| stable_hash(ORDER_SEED, &row.to_le_bytes()));
    order
}

struct Insertion<'a> {
    nodes: &'a Nodes,
    vectors: &'a [f32],
    dimension: usize,
    order: Vec<u32>,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Insertion<'_> {
    /// Takes rows until none is left, or one fails, or another thread or the caller stops it.
    fn work(&self, report: &Sender<usize>) -> Result<(), GraphError> {
        let mut unreported = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(row) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            if let Err(error) = self.insert(*row) {
                self.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
            unreported += 1;
            if unreported == REPORT_ROWS {
                // The receiver outlives the workers; were it gone, nobody would want the report.
                let _ = report.send(std::mem::take(&mut unreported));
            }
        }
        let _ = report.send(unreported);
        Ok(())
    }

    fn insert(&self, row: u32) -> Result<(), GraphError> {
        let start = row as usize * self.dimension;
        let vector = &self.vectors[start..start + self.dimension];
        let mut tries = 0;
        loop {
            let Some(inserted) = ready(self.nodes.insert(&Strategy, &Context, &row, vector)) else {
                return Err(GraphError::Insert { row, reason: WAITS.to_owned() });
            };
            let Err(error) = inserted else { return Ok(()) };
            let reason = reason(&error);
            tries += 1;
            if !reason.contains(NO_SLOT) || tries == SLOT_RETRIES_MAX {
                return Err(GraphError::Insert { row, reason });
            }
            std::thread::yield_now();
        }
    }
}

const WAITS: &str = "the library waits for a runtime that is not there";

fn knn(list: usize) -> Result<Knn, GraphError> {
    Knn::new(list, None).map_err(|error| GraphError::Search { reason: error.to_string() })
}

fn settle<T>(search: impl Future<Output = Result<T, ANNError>>) -> Result<T, GraphError> {
    match ready(search) {
        Some(result) => result.map_err(|error| GraphError::Search { reason: reason(&error) }),
        None => Err(GraphError::Search { reason: WAITS.to_owned() }),
    }
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

/// The one line of the library's error that says what happened: the rest is its type, its source lines, its backtrace.
fn reason(error: &ANNError) -> String {
    let text = error.to_string();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && *line != "ANNError").unwrap_or("no reason");
    let cause = text.lines().map(str::trim).find(|line| line.contains(NO_SLOT)).unwrap_or(line);
    cause.split(" -- (").next().unwrap_or(cause).to_owned()
}

#[cfg(test)]
mod tests;
