//! Building a graph: rows inserted by several threads at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use roaring::RoaringBitmap;
use turret_retrieval::hashing::stable_hash;

use super::{Graph, GraphError, Linked, NO_SLOT};
use crate::vectors::Vectors;

/// Slots are searched for in bounded steps, so that an insert may miss the free ones and must be tried again.
const SLOT_TRIES_MAX: usize = 1_000;
/// Inserts between two reports of a thread.
const REPORT_ROWS: usize = 256;
/// Of the order of insertion.
const ORDER_SEED: u64 = 3;

/// Inserts `rows` into a graph with room for them. `observe` is told how many are in, and may break off.
pub(super) fn insert_all(
    graph: &Graph,
    vectors: &Vectors,
    rows: &RoaringBitmap,
    threads: usize,
    observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<(), GraphError> {
    let insertion = Insertion {
        graph,
        vectors,
        order: insertion_order(rows),
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
fn insertion_order(rows: &RoaringBitmap) -> Vec<u32> {
    let mut order: Vec<u32> = rows.iter().collect();
    order.sort_by_cached_key(|row| stable_hash(ORDER_SEED, &row.to_le_bytes()));
    order
}

struct Insertion<'a> {
    graph: &'a Graph,
    vectors: &'a Vectors,
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
        match self.graph.insert(row, self.vectors.row(row), SLOT_TRIES_MAX)? {
            Linked::Yes => Ok(()),
            Linked::NoRoom => Err(GraphError::Insert { row, reason: NO_SLOT.to_owned() }),
        }
    }
}
