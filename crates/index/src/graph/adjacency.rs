//! The edges of a graph, taken out of it and put into another.
//!
//! In between a row is named by its *place* among the rows that are kept, so that nothing depends on how the library numbers
//! its slots. The point where walks begin has the slot behind all others.

use std::sync::atomic::{AtomicUsize, Ordering};

use diskann::graph::AdjacencyList;
use diskann::graph::glue::{PruneAccessor as _, PruneStrategy as _};
use diskann::provider::{DataProvider as _, Guard as _, NeighborAccessor as _, NeighborAccessorMut as _, SetElement};
use diskann_inmem::provider::PruneAccessor;
use diskann_inmem::{Context, Strategy};
use roaring::RoaringBitmap;

use super::{DEGREE_SLACK, Graph, GraphError, refused, settle};
use crate::settings::IndexSettings;
use crate::vectors::Vectors;

/// In place of the number of edges of a row that the graph does not have.
pub(crate) const NOT_LINKED: u32 = u32::MAX;
/// What made the edges. Another version may choose others, or search them otherwise.
pub(crate) const LIBRARY: &str = "diskann-inmem 0.61.0";
/// Rows that a thread restores at a time.
const CHUNK_ROWS: usize = 1_024;

/// What a graph was made with: one that was made otherwise is not what the settings ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Made {
    pub(crate) degree: u32,
    pub(crate) build_list: u32,
    pub(crate) alpha: f32,
}

impl Made {
    pub(crate) fn with(settings: &IndexSettings) -> Self {
        // Larger ones are refused before anything is made.
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        Self { degree: number(settings.degree), build_list: number(settings.build_list), alpha: settings.alpha }
    }

    /// The most edges of a row.
    pub(crate) fn degree_max(&self) -> usize {
        (f64::from(self.degree) * DEGREE_SLACK).ceil() as usize
    }
}

/// The edges of a graph of rows `0..n`.
pub(crate) struct Adjacency {
    /// The vector of the point where walks begin.
    pub(crate) start: Box<[f32]>,
    /// Its edges, then for each row their number, or [`NOT_LINKED`], and its edges. Some may lead to rows that are not linked.
    pub(crate) words: Vec<u32>,
    /// How many edges the start has.
    pub(crate) start_degree: usize,
    /// Where in `words` each row begins.
    pub(crate) rows: Vec<u32>,
}

impl Adjacency {
    /// The rows that the graph has.
    pub(crate) fn linked(&self) -> RoaringBitmap {
        (0..self.rows.len() as u32).filter(|row| self.of(*row).is_some()).collect()
    }

    fn of_start(&self) -> &[u32] {
        &self.words[..self.start_degree]
    }

    /// The edges of a row; absent where the graph does not have it.
    fn of(&self, row: u32) -> Option<&[u32]> {
        let at = self.rows[row as usize] as usize;
        let degree = self.words[at];
        (degree != NOT_LINKED).then(|| &self.words[at + 1..at + 1 + degree as usize])
    }
}

impl Graph {
    /// What it was made with.
    pub(crate) fn made(&self) -> Made {
        self.made
    }

    /// The vector of the point where walks begin.
    pub(crate) fn start(&self) -> &[f32] {
        &self.start
    }

    /// Adds the number and the edges of each of `rows` to `words`, as places: `place` gives that of a row, where it has one. Not
    /// to be called while another thread changes the graph: edges of a row that is going would be missing.
    pub(crate) fn edges_of(
        &self,
        rows: &[u32],
        place: impl Fn(u32) -> Option<u32>,
        words: &mut Vec<u32>,
    ) -> Result<(), GraphError> {
        let provider = self.nodes.provider();
        let mut accessor = self.accessor()?;
        let mut list = AdjacencyList::new();
        for row in rows {
            let at = words.len();
            words.push(NOT_LINKED);
            let Ok(slot) = provider.to_internal_id(&Context, row) else { continue };
            settle(accessor.neighbors().get_neighbors(slot, &mut list))?;
            words.extend(list.iter().filter_map(|slot| place(provider.to_external_id(&Context, *slot).ok()?)));
            words[at] = (words.len() - at - 1) as u32;
        }
        Ok(())
    }

    /// The edges of the start, as places.
    pub(crate) fn edges_of_start(&self, place: impl Fn(u32) -> Option<u32>) -> Result<Vec<u32>, GraphError> {
        let provider = self.nodes.provider();
        let mut accessor = self.accessor()?;
        let mut list = AdjacencyList::new();
        settle(accessor.neighbors().get_neighbors(self.capacity as u32, &mut list))?;
        Ok(list.iter().filter_map(|slot| place(provider.to_external_id(&Context, *slot).ok()?)).collect())
    }

    /// The graph of `adjacency` over the rows of `vectors`, with `capacity` slots, made by several threads as the settings say.
    pub(crate) fn restore(
        vectors: &Vectors,
        adjacency: &Adjacency,
        capacity: usize,
        settings: &IndexSettings,
    ) -> Result<Self, GraphError> {
        let graph = Self::empty(adjacency.start.clone(), capacity, settings)?;
        let slots = graph.set_all(vectors, adjacency, settings.threads)?;
        graph.connect_all(adjacency, &slots, settings.threads)?;
        let mut accessor = graph.accessor()?;
        let start: Vec<u32> = slots_of(adjacency.of_start(), &slots).collect();
        settle(accessor.neighbors().set_neighbors(capacity as u32, &start))?;
        drop(accessor);
        Ok(graph)
    }

    fn accessor(&self) -> Result<PruneAccessor<'_>, GraphError> {
        Strategy.prune_accessor(self.nodes.provider(), &Context, 0).map_err(|error| refused(&error))
    }

    /// Gives every row of the graph a slot; which, by row.
    fn set_all(&self, vectors: &Vectors, adjacency: &Adjacency, threads: usize) -> Result<Vec<u32>, GraphError> {
        let mut slots = vec![NOT_LINKED; adjacency.rows.len()];
        let chunks: Vec<&mut [u32]> = slots.chunks_mut(CHUNK_ROWS).collect();
        in_parallel(threads, chunks, |chunk, slots| {
            for (row, slot) in (first_row(chunk)..).zip(slots.iter_mut()) {
                if adjacency.of(row).is_some() {
                    let set = self.nodes.provider().set_element(&Context, &row, vectors.row(row));
                    *slot = settle(set).map_err(|error| error.of_row(row))?.id();
                }
            }
            Ok(())
        })?;
        Ok(slots)
    }

    fn connect_all(&self, adjacency: &Adjacency, slots: &[u32], threads: usize) -> Result<(), GraphError> {
        in_parallel(threads, slots.chunks(CHUNK_ROWS).collect(), |chunk, own| {
            let mut accessor = self.accessor()?;
            let mut edges = Vec::new();
            for (row, slot) in (first_row(chunk)..).zip(own) {
                let Some(of_row) = adjacency.of(row) else { continue };
                edges.clear();
                edges.extend(slots_of(of_row, slots));
                settle(accessor.neighbors().set_neighbors(*slot, &edges)).map_err(|error| error.of_row(row))?;
            }
            Ok(())
        })
    }
}

impl GraphError {
    /// The same of an insertion.
    fn of_row(self, row: u32) -> Self {
        match self {
            Self::Search { reason } => Self::Insert { row, reason },
            Self::Settings { .. } | Self::Insert { .. } | Self::Remove { .. } | Self::Stopped => self,
        }
    }
}

/// Where edges lead, as slots.
fn slots_of(edges: &[u32], slots: &[u32]) -> impl Iterator<Item = u32> {
    edges.iter().map(|row| slots[*row as usize]).filter(|slot| *slot != NOT_LINKED)
}

fn first_row(chunk: usize) -> u32 {
    (chunk * CHUNK_ROWS) as u32
}

/// Does `work` on each chunk, several at once; the first error, if any.
fn in_parallel<T: Send>(
    threads: usize,
    chunks: Vec<T>,
    work: impl Fn(usize, T) -> Result<(), GraphError> + Sync,
) -> Result<(), GraphError> {
    let threads = threads.clamp(1, chunks.len().max(1));
    let (next, count) = (AtomicUsize::new(0), chunks.len());
    let chunks: Vec<_> = chunks.into_iter().map(|chunk| std::sync::Mutex::new(Some(chunk))).collect();
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(());
            }
            // Each is taken once.
            let chunk = chunks[at].lock().ok().and_then(|mut chunk| chunk.take());
            chunk.map_or(Ok(()), |chunk| work(at, chunk))?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        results.into_iter().try_for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
