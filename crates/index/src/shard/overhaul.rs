//! The large work that changes leave behind: the postings become one segment, and another graph is made beside the one that is
//! searched, where that is too small, much too large, or worn.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use roaring::RoaringBitmap;

use super::upkeep::{MERGED_ROWS_MAX, SLOT_TRIES_MAX, Upkeep};
use super::{Progress, ShardIndex, Stage, calibrate};
use crate::cells::Cells;
use crate::graph::{Graph, GraphError, Linked};
use crate::vectors::Vectors;
use crate::view::{Measured, View};

/// Dead rows, or one for so many ads, for which all postings are written anew.
const GONE_MIN: u64 = 256;
const GONE_ONE_IN: u64 = 64;
/// A graph that so much of is taken is replaced by a larger one.
const FULL_PERCENT: usize = 95;
/// A graph that less than this is taken of is replaced by a smaller one, where it is not small.
const EMPTY_PERCENT: usize = 15;
const SMALL_CAPACITY: usize = 4_096;
/// A graph is worn when so many times its rows were taken out of it: each time loses some 0.002 of recall@100.
const WORN_TIMES: u64 = 3;
/// Rounds in which a new graph catches up with changes, and how many may be left for upkeep.
const ROUNDS_MAX: usize = 8;
const ROUND_ROWS_MIN: u64 = 512;

/// A graph that was made beside the one that is searched.
struct Grown {
    graph: Arc<Graph>,
    cells: Cells,
    /// The rows that the cells have.
    settled: RoaringBitmap,
    measured: Option<Measured>,
    /// The rows that the graph has.
    inside: RoaringBitmap,
}

impl ShardIndex {
    /// Does the large part of what changes left behind, where it is due; changes and searches go on meanwhile. `observe` is
    /// told how far a graph is that is built, and may break off, but not while cells are made or a graph is measured, which takes seconds. Two
    /// threads do it one after the other.
    ///
    /// # Errors
    /// When a graph could not be built or measured: the shard goes on as it was, and the work stays due.
    pub fn overhaul(&self, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<(), GraphError> {
        // What a panic left is set right below.
        let _alone = self.overhauling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut upkeep) = self.upkeep() {
            upkeep.unpin();
        }
        self.compact();
        self.regrow(observe)?;
        // Nobody must see a dead row because of us.
        let is_due = self.is_measure_due(&self.view());
        if is_due { self.measure_again() } else { Ok(()) }
    }

    pub(super) fn is_overhaul_due(&self, upkeep: &Upkeep, view: &View) -> bool {
        are_postings_worn(upkeep, view) || self.capacity_due(upkeep, view).is_some() || self.is_measure_due(view)
    }

    /// The capacity of the graph that the shard should have instead, where it should have another.
    fn capacity_due(&self, upkeep: &Upkeep, view: &View) -> Option<usize> {
        let ads = view.counts.ads;
        let with_room = ads + ads / 2 + 1_024;
        let Some(graph) = &view.graph else { return self.planner.wants_graph(ads).then_some(with_room) };
        let taken = ads.saturating_mul(100) / graph.capacity();
        if taken >= FULL_PERCENT {
            return Some(with_room);
        }
        let is_loose = taken < EMPTY_PERCENT && graph.capacity() > SMALL_CAPACITY;
        let is_worn = upkeep.removed > WORN_TIMES * (ads as u64).max(ROUND_ROWS_MIN);
        (ads > 0 && (is_loose || is_worn)).then(|| Graph::capacity_for(ads))
    }

    /// Makes one segment of all, without the rows that are gone, which may be taken again then.
    fn compact(&self) {
        let (postings, gone) = {
            let Some(upkeep) = self.upkeep() else { return };
            let Ok(mut writer) = self.writer.lock() else { return };
            let view = self.view();
            if !are_postings_worn(&upkeep, &view) {
                return;
            }
            // They stay as they are until they are replaced.
            writer.kept_segments = view.postings.segments();
            (view.postings.clone(), upkeep.gone.clone())
        };
        let whole = postings.merged(&gone);
        let Some(mut upkeep) = self.upkeep() else { return };
        let Ok(mut writer) = self.writer.lock() else { return };
        let mut next = (*self.view()).clone();
        let now = Arc::make_mut(&mut next.postings);
        now.replace(std::mem::take(&mut writer.kept_segments), whole);
        if next.kinds.keys().any(|name| !next.postings.has(name)) {
            Arc::make_mut(&mut next.kinds).retain(|name, _| next.postings.has(name));
        }
        upkeep.gone -= &gone;
        writer.free |= gone;
        next.counts.free = writer.free.len() as usize;
        self.publish(next);
    }

    /// Makes another graph, where one is due, and has the next view use it.
    fn regrow(&self, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<(), GraphError> {
        let Some((capacity, view, rows)) = self.pin_where_due() else { return Ok(()) };
        let grown = self.grown(capacity, view, rows, observe);
        let Some(mut upkeep) = self.upkeep() else { return Ok(()) };
        let Ok(mut writer) = self.writer.lock() else { return Ok(()) };
        let Grown { graph, mut cells, settled, measured, inside } = match grown {
            Ok(grown) => grown,
            Err(error) => {
                upkeep.unpin();
                return Err(error);
            }
        };
        // Those that the new graph has must be taken out of it; the step that does so tells which they are.
        writer.put_back(std::mem::take(&mut upkeep.held).into_iter().collect());
        *upkeep = Upkeep { gone: std::mem::take(&mut upkeep.gone), ..Upkeep::new(inside) };
        let mut next = (*self.view()).clone();
        // Lists that were measured of the one before say nothing of this one.
        (next.graph, next.measured) = (Some(graph), measured.map(Arc::new));
        (&writer.present - settled).iter().for_each(|row| cells.settle(row, next.vectors.row(row)));
        next.cells = Some(Arc::new(cells));
        next.unlinked = Arc::new(&writer.present - &upkeep.linked);
        next.counts.linked = upkeep.linked.len() as usize;
        self.publish(next);
        Ok(())
    }

    /// The capacity of a graph that is due, the view of now, without its era, and the rows of now, which are not to be taken again.
    fn pin_where_due(&self) -> Option<(usize, View, RoaringBitmap)> {
        let mut upkeep = self.upkeep()?;
        let writer = self.writer.lock().ok()?;
        let view = self.view();
        let capacity = self.capacity_due(&upkeep, &view)?;
        upkeep.pinned = Some(writer.present.clone());
        let view = View { era: Arc::default(), ..(*view).clone() };
        Some((capacity, view, writer.present.clone()))
    }

    /// A graph and cells of `rows`, which are all of `view`, what was measured of them then, and of what changed meanwhile.
    fn grown(
        &self,
        capacity: usize,
        mut view: View,
        rows: RoaringBitmap,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Grown, GraphError> {
        let total = rows.len();
        let mut built = |done: usize| observe(Progress { stage: Stage::Graph, done: done as u64, total });
        let graph = Arc::new(Graph::build(&view.vectors, &rows, capacity, &self.settings, &mut built)?);
        let cells = Arc::new(Cells::of(&view.vectors, &rows, self.settings.threads));
        (view.graph, view.unlinked, view.cells) = (Some(graph.clone()), Arc::default(), Some(cells.clone()));
        // Nobody takes a row out of it meanwhile.
        let live = || view.live.clone();
        let queries = self.recent.take();
        let measured = calibrate::measured(&view, &self.settings, &queries, view.measured.as_deref(), &live)?;
        drop(view);
        let mut cells = Arc::unwrap_or_clone(cells);
        let (mut inside, mut settled) = (rows.clone(), rows);
        for _ in 0..ROUNDS_MAX {
            let Some((vectors, present)) = self.pin_more() else { break };
            let (died, born) = (&inside - &present, &present - &inside);
            (&present - &settled).iter().for_each(|row| cells.settle(row, vectors.row(row)));
            settled |= &present;
            if died.len() + born.len() < ROUND_ROWS_MIN {
                break;
            }
            // What it refuses is left to upkeep, which tries again and tells of it.
            inside -= died.iter().filter(|row| graph.remove(*row).is_ok()).collect::<RoaringBitmap>();
            for row in born {
                match graph.insert(row, vectors.row(row), SLOT_TRIES_MAX) {
                    Ok(Linked::Yes) => drop(inside.insert(row)),
                    Ok(Linked::NoRoom) => break,
                    Err(_) => {}
                }
            }
            if built(total as usize).is_break() {
                return Err(GraphError::Stopped);
            }
        }
        Ok(Grown { graph, cells, settled, measured, inside })
    }

    /// The rows of now, which are not to be taken again either.
    fn pin_more(&self) -> Option<(Arc<Vectors>, RoaringBitmap)> {
        let mut upkeep = self.upkeep()?;
        let writer = self.writer.lock().ok()?;
        if let Some(pinned) = &mut upkeep.pinned {
            *pinned |= &writer.present;
        }
        Some((self.view().vectors.clone(), writer.present.clone()))
    }
}

impl Upkeep {
    /// No graph is being made any more.
    fn unpin(&mut self) {
        self.pinned = None;
        self.gone |= std::mem::take(&mut self.held);
    }
}

fn are_postings_worn(upkeep: &Upkeep, view: &View) -> bool {
    let (first, others) = view.postings.sizes();
    upkeep.gone.len() > GONE_MIN.max(view.counts.ads as u64 / GONE_ONE_IN) || others > MERGED_ROWS_MAX.max(first / 4)
}
