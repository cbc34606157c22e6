//! Opening a shard: out of the parts that a file holds, or that were made of ads.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use roaring::RoaringBitmap;
use turret_retrieval::item::AttributeKind;
use turret_retrieval::revision::Revision;
use turret_retrieval::vector::UnitVector;

use super::calibrate::Lists;
use super::recent::Recent;
use super::upkeep::Upkeep;
use super::{OpenError, Progress, ShardIndex, Stage, calibrate};
use crate::attributes::Postings;
use crate::cells::Cells;
use crate::format::{Origin, ReadError, StoredGraph, read};
use crate::graph::{Graph, GraphError, Made};
use crate::names::Names;
use crate::planner::Planner;
use crate::rows::first_rows;
use crate::settings::IndexSettings;
use crate::vectors::Vectors;
use crate::view::{Counts, View};
use crate::writer::Writer;

/// A shard that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The shard.
    pub index: ShardIndex,
    /// All changes up to this one are in it; none where it is as it was built.
    pub until: Revision,
    /// Where its graph is from.
    pub graph: GraphOrigin,
    /// With how many of the caller's queries its graph was measured now, since the file has nothing that was measured by these settings;
    /// 0 where ads stood in for them.
    pub measured_with: Option<usize>,
}

/// Where the graph of a shard is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphOrigin {
    /// It needs none.
    Unneeded,
    /// Its edges were in the file.
    Restored,
    /// It was built, which takes a thousand times as long.
    Built {
        /// What was wrong with that of the file.
        why: String,
    },
}

/// What a shard is made of.
pub(super) struct Parts {
    pub(super) vectors: Vectors,
    pub(super) names: Names,
    pub(super) postings: Postings,
    pub(super) kinds: BTreeMap<Box<str>, AttributeKind>,
    /// And which rows it has.
    pub(super) graph: Option<(Graph, RoaringBitmap)>,
    /// Of all rows, where they are known.
    pub(super) cells: Option<Cells>,
    pub(super) writer: Writer,
}

impl ShardIndex {
    /// Opens the shard at `path`, and checks that it answers as the one that was written did; `observe` is told how far that is,
    /// and may break off, but not while the graph is measured or cells are made that the file lacks. A graph that the file does not have, or that was made otherwise than
    /// `settings` say, is built. What the file says was measured of the graph is taken for granted where it was by `settings`; else
    /// it is measured with what `queries` gives, as [`build`](Self::build) does, which takes seconds.
    ///
    /// # Errors
    /// The first thing wrong with the file or a query, or why the graph could not be built. Only [`ReadError::Io`] can be worth another try.
    pub fn open(
        path: &Path,
        origin: &Origin<'_>,
        settings: &IndexSettings,
        queries: &dyn Fn() -> Vec<UnitVector>,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Opened, OpenError> {
        let mut of_file = |done, total| observe(Progress { stage: Stage::Read, done, total });
        let contents = read(path, origin, Made::with(settings), &mut of_file)?;
        let of_section = |section: &str, rule: String| ReadError::Section {
            path: path.to_owned(),
            section: section.to_owned(),
            rule,
        };
        let vectors = Vectors::from_rows(contents.dimension, &contents.vectors);
        drop(contents.vectors);
        let names = contents.names;
        let writer = Writer::new(&names, contents.registers, contents.absent)
            .map_err(|row| of_section("ids", format!("row {row}: ad {} is there twice", names.get(row).id)))?;
        let of_graph = |source| OpenError::Graph { path: path.to_owned(), source };
        let (graph, from) = match contents.graph {
            _ if !Planner::new(settings).wants_graph(vectors.len()) => (None, GraphOrigin::Unneeded),
            StoredGraph::Found(Ok(adjacency)) => {
                let capacity = Graph::capacity_for(vectors.len());
                let graph = Graph::restore(&vectors, &adjacency, capacity, settings).map_err(of_graph)?;
                (Some((graph, adjacency.linked())), GraphOrigin::Restored)
            }
            StoredGraph::Found(Err(why)) => {
                (Self::graph_of(&vectors, settings, observe).map_err(of_graph)?, GraphOrigin::Built { why })
            }
            StoredGraph::Missing => {
                let why = "the file has none".to_owned();
                (Self::graph_of(&vectors, settings, observe).map_err(of_graph)?, GraphOrigin::Built { why })
            }
        };
        let postings = Postings::new([contents.segment]);
        let cells = contents.cells.map(|parts| Cells::from_parts(parts, contents.dimension));
        let parts = Parts { vectors, names, postings, kinds: contents.kinds, graph, cells, writer };
        let is_restored = from == GraphOrigin::Restored;
        // What was measured of another graph or of other cells says nothing of these.
        let is_same = is_restored && parts.cells.is_some();
        let known = contents.known.filter(|known| is_same && calibrate::fits(&known.calibration, settings));
        let queries = (parts.graph.is_some() && known.is_none()).then(queries);
        let asked = queries.as_deref().unwrap_or_default();
        calibrate::check(asked, contents.dimension)?;
        let lists = known.map_or(Lists::MeasuredBy(asked), Lists::Known);
        let index = Self::of(parts, settings, lists).map_err(of_graph)?;
        index.verify(&contents.probes, is_restored).map_err(|rule| of_section("probes", rule))?;
        Ok(Opened { index, until: contents.until, graph: from, measured_with: queries.map(|queries| queries.len()) })
    }

    /// The graph of all rows of `vectors`, where so many need one, and which these are.
    pub(super) fn graph_of(
        vectors: &Vectors,
        settings: &IndexSettings,
        observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<(Graph, RoaringBitmap)>, GraphError> {
        let rows = vectors.len();
        if !Planner::new(settings).wants_graph(rows) {
            return Ok(None);
        }
        let mut observe =
            |done: usize| observe(Progress { stage: Stage::Graph, done: done as u64, total: rows as u64 });
        let all = first_rows(rows as u32);
        let graph = Graph::build(vectors, &all, Graph::capacity_for(rows), settings, &mut observe)?;
        Ok(Some((graph, all)))
    }

    pub(super) fn of(parts: Parts, settings: &IndexSettings, lists: Lists<'_>) -> Result<Self, GraphError> {
        let Parts { vectors, names, postings, kinds, graph, cells, writer } = parts;
        let mut live = writer.present.clone();
        live -= writer.paused();
        let (graph, linked) = graph.unzip();
        let linked = linked.unwrap_or_default();
        let unlinked = if graph.is_some() { &writer.present - &linked } else { RoaringBitmap::new() };
        let cells =
            graph.is_some().then(|| cells.unwrap_or_else(|| Cells::of(&vectors, &writer.present, settings.threads)));
        let counts = Counts { ads: writer.present.len() as usize, linked: linked.len() as usize, free: 0, born: 0 };
        let mut view = View {
            vectors: Arc::new(vectors),
            names: Arc::new(names),
            live: Arc::new(live.into()),
            unlinked: Arc::new(unlinked),
            postings: Arc::new(postings),
            kinds: Arc::new(kinds),
            graph: graph.map(Arc::new),
            cells: cells.map(Arc::new),
            measured: None,
            counts,
            era: Arc::default(),
        };
        let measured = lists.of(&view, settings)?;
        view.counts.born = measured.as_ref().map_or(0, |(_, born)| *born);
        view.measured = measured.map(|(measured, _)| Arc::new(measured));
        Ok(Self {
            settings: settings.clone(),
            planner: Planner::new(settings),
            now: RwLock::new(Arc::new(view)),
            recent: Recent::default(),
            overhauling: Mutex::default(),
            upkeep: Mutex::new(Upkeep::new(linked)),
            writer: Mutex::new(writer),
        })
    }
}
