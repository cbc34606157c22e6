//! Writing a shard to a file while it serves.

use std::io;
use std::path::Path;
use std::sync::Arc;

use turret_retrieval::revision::Revision;

use super::ShardIndex;
use crate::blocks::Blocks;
use crate::change::{Absent, Registers};
use crate::format::calibration::{self, Known};
use crate::format::{Body, Kind, Sink, WriteError, absent, cells, columns, edges, listed, probes, replace, sibling};
use crate::graph::{Graph, GraphError, NOT_LINKED};
use crate::search::SearchError;
use crate::view::{Measured, View};

/// Rows whose edges are copied at a time: upkeep waits for so many, less than a millisecond.
const EDGE_ROWS: usize = 512;
/// In place of the place of a row that is no ad.
const NONE: u32 = u32::MAX;

/// A shard that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The length of the file.
    pub bytes: u64,
    /// How many ads are in it, paused ones too.
    pub ads: usize,
}

/// A shard at one moment, with what its writer knew of it.
pub(super) struct Picture {
    pub(super) view: View,
    pub(super) registers: Blocks<Registers>,
    absent: Absent,
    /// Rows of ads, ascending: a place in it is a row of the file.
    pub(super) rows: Vec<u32>,
    /// The place of each row.
    places: Vec<u32>,
}

impl Picture {
    /// Where a row stands in the file; absent where it is no ad.
    pub(super) fn place(&self, row: u32) -> Option<u32> {
        self.places.get(row as usize).copied().filter(|place| *place != NONE)
    }
}

/// Why a file was not written.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    Graph(GraphError),
    Broken,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<GraphError> for Fault {
    fn from(error: GraphError) -> Self {
        Self::Graph(error)
    }
}

impl ShardIndex {
    /// Writes the shard as it is now to `path`, for [`open`](Self::open): written beside it, flushed and renamed. `until` says that
    /// all changes up to that one have been made here, before this call; those after it may be missing or be there. Only who asks
    /// for `generation` will be given the shard.
    ///
    /// Searches and changes go on meanwhile: changes wait for microseconds, upkeep for a millisecond at a time. Takes 8 bytes of
    /// memory a row, and 100 bytes an ad that is not there. Not to be called twice at once for one `path`.
    ///
    /// # Errors
    /// When the file cannot be written, or a change panicked before; what `path` held is still there.
    pub fn snapshot(&self, path: &Path, generation: &str, until: Revision) -> Result<Written, WriteError> {
        let temporary = sibling(path);
        let written = self.picture().ok_or(Fault::Broken).and_then(|picture| {
            let written = self.write(&picture, &temporary, generation, until)?;
            replace(&temporary, path)?;
            Ok(written)
        });
        written.map_err(|fault| {
            // The half-written file is of no use; the error is what matters.
            drop(std::fs::remove_file(&temporary));
            let path = path.to_owned();
            match fault {
                Fault::Io(source) => WriteError::Io { path, source },
                Fault::Graph(error) => WriteError::Search { path, source: SearchError::Graph(error) },
                Fault::Broken => WriteError::Broken { path },
            }
        })
    }

    pub(super) fn write(
        &self,
        picture: &Picture,
        path: &Path,
        generation: &str,
        until: Revision,
    ) -> Result<Written, Fault> {
        let Picture { view, rows, .. } = picture;
        let known = view.measured.as_ref().map(|measured| known(view, measured));
        let sections =
            7 + [view.graph.is_some(), known.is_some(), view.cells.is_some()].into_iter().filter(|is| *is).count();
        let mut sink = Sink::create(path, sections)?;
        sink.section::<Fault>(Kind::Position, |body| {
            body.put(&until.bits().to_le_bytes())?;
            Ok(body.put(generation.as_bytes())?)
        })?;
        sink.section::<Fault>(Kind::Vectors, |body| {
            let mut bytes = Vec::new();
            for row in rows {
                bytes.clear();
                bytes.extend(view.vectors.row(*row).iter().flat_map(|x| x.to_le_bytes()));
                body.put(&bytes)?;
            }
            Ok(())
        })?;
        let names = rows.iter().map(|row| view.names.get(*row));
        sink.section(Kind::Ids, |body| listed::write_ids(body, names))?;
        let place = |row| picture.place(row);
        sink.section(Kind::Attributes, |body| columns::write(body, &view.postings, &view.kinds, place))?;
        let registers = (0..).zip(rows).map(|(place, row)| (place, *picture.registers.get(*row)));
        sink.section(Kind::Registers, |body| listed::write_registers(body, registers))?;
        sink.section(Kind::Absent, |body| absent::write(body, &picture.absent))?;
        if let Some(graph) = &view.graph {
            sink.section(Kind::Graph, |body| self.write_edges(body, graph, picture))?;
        }
        let asked = picture.probes()?;
        sink.section(Kind::Probes, |body| probes::write(body, &asked))?;
        if let Some(known) = &known {
            sink.section(Kind::Calibration, |body| calibration::write(body, known))?;
        }
        if let Some(of_rows) = &view.cells {
            sink.section(Kind::Cells, |body| cells::write(body, &of_rows.parts_of(rows)))?;
        }
        let bytes = sink.finish(view.vectors.dimension(), rows.len())?;
        Ok(Written { bytes, ads: rows.len() })
    }

    /// The shard of now; absent where it is broken.
    pub(super) fn picture(&self) -> Option<Picture> {
        let writer = self.writer.lock().ok()?;
        let (view, (registers, absent), present) = (self.view(), writer.known(), writer.present.clone());
        drop(writer);
        // Without its era: nobody sees a dead row because of us, and one that is taken again costs an edge.
        let view = View { era: Arc::default(), ..(*view).clone() };
        let rows: Vec<u32> = present.iter().collect();
        let mut places = vec![NONE; view.vectors.len()];
        (0..).zip(&rows).for_each(|(place, row)| places[*row as usize] = place);
        Some(Picture { view, registers, absent, rows, places })
    }

    /// Some rows at a time, between which the graph changes: what leads to rows that went meanwhile is left out, and what came is
    /// no row of the picture. A row that was not linked then has no edges, whatever the graph says now: rows that were written
    /// before may lack those that lead to it, so that no walk would meet it.
    fn write_edges(&self, body: &mut Body<'_>, graph: &Graph, picture: &Picture) -> Result<(), Fault> {
        let place = |row| picture.place(row);
        let of_start = {
            let _steady = self.upkeep().ok_or(Fault::Broken)?;
            graph.edges_of_start(place)?
        };
        edges::write_head(body, graph.made(), graph.start(), &of_start)?;
        let (mut words, unlinked) = (Vec::new(), &picture.view.unlinked);
        for rows in picture.rows.chunks(EDGE_ROWS) {
            words.clear();
            {
                let _steady = self.upkeep().ok_or(Fault::Broken)?;
                for of_one in rows.chunk_by(|a, b| unlinked.contains(*a) == unlinked.contains(*b)) {
                    if unlinked.contains(of_one[0]) {
                        words.extend(of_one.iter().map(|_| NOT_LINKED));
                    } else {
                        graph.edges_of(of_one, place, &mut words)?;
                    }
                }
            }
            edges::put(body, &words)?;
            // Whoever waits for the graph is to have it now.
            std::thread::yield_now();
        }
        Ok(())
    }
}

fn known(view: &View, measured: &Measured) -> Known {
    let born = view.counts.born.saturating_sub(measured.born);
    Known { calibration: measured.calibration.clone(), born: u32::try_from(born).unwrap_or(u32::MAX) }
}
