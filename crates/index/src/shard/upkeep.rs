//! The small work that changes leave behind: rows are linked into the graph and taken out of it, segments are merged.

use std::ops::ControlFlow;
use std::sync::{Arc, MutexGuard};

use roaring::RoaringBitmap;

use super::ShardIndex;
use crate::graph::{GraphError, Linked};
use crate::view::{Counts, View};

/// Rows that one step links, and as many that it takes out of the graph: a change waits for one step at most, some
/// milliseconds.
const STEP_ROWS: usize = 8;
/// Ads that are compared with every query before changes wait for them to be linked.
const UNLINKED_MAX: u64 = 2_048;
/// Dead rows in the graph before changes wait for them to be taken out.
const DYING_MAX: usize = 4_096;
/// Ads of a graph that are compared with every query, or as many as are compared as fast as it is walked, before changes wait for
/// an overhaul; without a graph, twice as many.
const SCANNED_MIN: usize = 4_096;
/// Dead rows, or half of the ads, before changes wait for an overhaul.
const DEAD_MIN: usize = 4_096;
/// Segments are merged in a step up to so many rows together, which takes some milliseconds; the rest is for an overhaul.
pub(super) const MERGED_ROWS_MAX: u64 = 1 << 14;
/// Looks for a slot of the graph before a row is left for a later step.
pub(super) const SLOT_TRIES_MAX: usize = 16;

/// What is known of the graph that the view has, and of dead rows.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Rows that the graph has.
    pub(super) linked: RoaringBitmap,
    /// Dead rows that the graph does not have, and that are still in the postings.
    pub(super) gone: RoaringBitmap,
    /// Rows that another graph is being made of; they are not to be taken again before that is done.
    pub(super) pinned: Option<RoaringBitmap>,
    /// Dead rows that wait for that.
    pub(super) held: RoaringBitmap,
    /// Rows that were taken out of this graph.
    pub(super) removed: u64,
    /// The graph found no slot although it should have some.
    pub(super) is_full: bool,
    /// The row that is linked next, or the first after it that is to be: so one that is refused holds up no other.
    pub(super) next_row: u32,
}

/// What upkeep is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Another step of [`ShardIndex::maintain`], at once.
    pub step: bool,
    /// What cannot be done now, because searches still see it: a step of [`ShardIndex::maintain`] when they are done.
    pub later: bool,
    /// An [`ShardIndex::overhaul`], on another thread: it takes up to minutes.
    pub overhaul: bool,
}

/// The graph refused a row. All else was done, and the row is tried again: the ad is found, or not found, all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// The first refusal.
    pub error: GraphError,
    /// What is due: never a step at once.
    pub due: Due,
}

impl Upkeep {
    pub(super) fn new(linked: RoaringBitmap) -> Self {
        Self { linked, ..Self::default() }
    }
}

impl ShardIndex {
    /// Does a small part of what changes left behind, in some milliseconds; changes and searches go on meanwhile.
    ///
    /// # Errors
    /// When the graph refuses a row, with what is due all the same.
    pub fn maintain(&self) -> Result<Due, Refused> {
        let Some(mut upkeep) = self.upkeep() else { return Ok(Due::default()) };
        let unlinked = self.unlink(&mut upkeep);
        let outcome = unlinked.and(self.link(&mut upkeep));
        let Ok(writer) = self.writer.lock() else { return Ok(Due::default()) };
        let mut view = self.view();
        let mut postings = (*view.postings).clone();
        postings.merge(writer.kept_segments, MERGED_ROWS_MAX);
        let linked = upkeep.linked.len() as usize;
        if postings.segments() < view.postings.segments() || linked != view.counts.linked {
            let counts = Counts { linked, ..view.counts };
            self.publish(View { postings: Arc::new(postings), counts, ..(*view).clone() });
            view = self.view();
        }
        let step = outcome.is_ok() && (writer.has_unseen() || (!view.unlinked.is_empty() && !upkeep.is_full));
        let due = Due {
            step,
            later: !step && (writer.dying() > 0 || !view.unlinked.is_empty()),
            overhaul: upkeep.pinned.is_none() && self.is_overhaul_due(&upkeep, &view),
        };
        outcome.map(|()| due).map_err(|error| Refused { error, due })
    }

    /// The upkeep, unless it panicked before: then nothing is done any more.
    pub(super) fn upkeep(&self) -> Option<MutexGuard<'_, Upkeep>> {
        self.upkeep.lock().ok()
    }

    /// Takes some dead rows that nobody sees out of the graph. One that it does not let go of waits behind all others.
    fn unlink(&self, upkeep: &mut Upkeep) -> Result<(), GraphError> {
        let Ok(mut writer) = self.writer.lock() else { return Ok(()) };
        let rows = writer.unseen(STEP_ROWS);
        drop(writer);
        let graph = self.view().graph.clone();
        let (mut refused, mut outcome) = (Vec::new(), Ok(()));
        for row in rows {
            if let Some(graph) = graph.as_ref().filter(|_| upkeep.linked.contains(row)) {
                if let Err(error) = graph.remove(row) {
                    refused.push(row);
                    outcome = outcome.and(Err(error));
                    continue;
                }
                upkeep.linked.remove(row);
                upkeep.removed += 1;
                upkeep.is_full = false;
            }
            let is_pinned = upkeep.pinned.as_ref().is_some_and(|pinned| pinned.contains(row));
            if is_pinned {
                upkeep.held.insert(row)
            } else {
                upkeep.gone.insert(row)
            };
        }
        if let Ok(mut writer) = self.writer.lock() {
            writer.put_back(refused);
        }
        outcome
    }

    /// Links some rows that the graph does not have. One that dies meanwhile is linked too, and taken out like any other: it
    /// cannot be taken again before this upkeep has seen to it.
    fn link(&self, upkeep: &mut Upkeep) -> Result<(), GraphError> {
        let view = self.view();
        let Some(graph) = view.graph.clone() else { return Ok(()) };
        let (ahead, behind) = (view.unlinked.range(upkeep.next_row..), view.unlinked.range(..upkeep.next_row));
        let (vectors, rows) = (view.vectors.clone(), ahead.chain(behind).take(STEP_ROWS).collect::<Vec<_>>());
        // Nobody must see a dead row because of us.
        drop(view);
        if rows.is_empty() {
            return Ok(());
        }
        let (mut linked, mut outcome) = (RoaringBitmap::new(), Ok(()));
        for row in rows {
            upkeep.next_row = row + 1;
            match graph.insert(row, vectors.row(row), SLOT_TRIES_MAX) {
                Ok(Linked::Yes) => {
                    linked.insert(row);
                    upkeep.is_full = false;
                }
                Ok(Linked::NoRoom) => {
                    upkeep.is_full = true;
                    break;
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        upkeep.linked |= &linked;
        let Ok(_writer) = self.writer.lock() else { return outcome };
        let mut next = (*self.view()).clone();
        *Arc::make_mut(&mut next.unlinked) -= linked;
        next.counts.linked = upkeep.linked.len() as usize;
        self.publish(next);
        outcome
    }

    /// Does the work of those who should have done it, where so much is left that searches or memory would suffer.
    pub(super) fn catch_up(&self) {
        loop {
            let dying = self.writer.lock().map_or(0, |writer| writer.dying());
            if self.view().unlinked.len() <= UNLINKED_MAX && dying <= DYING_MAX {
                break;
            }
            // What fails is tried again at the next change; the ads are found all the same.
            if !self.maintain().is_ok_and(|due| due.step) {
                break;
            }
        }
        let view = self.view();
        let ads = view.counts.ads;
        let scanned = match view.graph {
            Some(_) => view.unlinked.len() as usize,
            None if self.planner.wants_graph(ads) => ads / 2,
            None => 0,
        };
        let dead = view.vectors.len() - ads - view.counts.free;
        if scanned > SCANNED_MIN.max(self.settings.exact_below_ads) || dead > DEAD_MIN.max(ads / 2) {
            drop(view);
            drop(self.overhaul(&mut |_| ControlFlow::Continue(())));
        }
    }
}
