//! What a shard is made of.

use crate::change::Registers;
use crate::settings::Backend;
use crate::view::View;

/// What a shard is made of, at one moment. Cheap: nothing is walked but the list of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexStats {
    /// How many ads, paused ones too.
    pub ads: usize,
    /// How many of them are paused.
    pub paused: usize,
    /// How many of them the graph does not have yet, where there is one: they are compared with every query.
    pub unlinked: usize,
    /// Rows that ads take, took or may take again.
    pub rows: usize,
    /// Rows of ads that died and whose rows may not be taken yet.
    pub dead: usize,
    /// Parts of the postings.
    pub segments: usize,
    /// The length of an embedding.
    pub dimension: usize,
    /// What searches; never [`Backend::Auto`].
    pub backend: Backend,
    /// Memory of the embeddings that scans read.
    pub vector_bytes: usize,
    /// Memory of the graph with its own copy of the embeddings, and of the cells, about; 0 where there is none.
    pub graph_bytes: usize,
    /// Memory of the postings, about.
    pub posting_bytes: usize,
    /// Memory of ids, advertisers and of what is known of each ad's changes, about.
    pub id_bytes: usize,
}

/// What a row takes beside its embedding and its name: its place in the table, its registers.
const ROW_BYTES: usize = 5 + size_of::<Registers>();

impl IndexStats {
    pub(crate) fn of(view: &View) -> Self {
        let (counts, rows) = (view.counts, view.vectors.len());
        Self {
            ads: counts.ads,
            paused: counts.ads - view.live.len() as usize,
            unlinked: view.unlinked.len() as usize,
            rows,
            dead: rows - counts.ads - counts.free,
            segments: view.postings.segments(),
            dimension: view.vectors.dimension(),
            backend: if view.graph.is_some() { Backend::DiskAnn } else { Backend::Exact },
            vector_bytes: view.vectors.bytes(),
            graph_bytes: view.graph.as_ref().map_or(0, |graph| graph.bytes(view.vectors.dimension()))
                + view.cells.as_ref().map_or(0, |cells| cells.bytes()),
            posting_bytes: view.postings.bytes(),
            id_bytes: view.names.bytes() + rows * ROW_BYTES,
        }
    }

    /// Memory of everything, in bytes.
    pub fn bytes(&self) -> usize {
        self.vector_bytes + self.graph_bytes + self.posting_bytes + self.id_bytes
    }

    /// Memory of everything for each ad, in bytes; of one ad where there is none.
    pub fn bytes_per_ad(&self) -> f64 {
        self.bytes() as f64 / self.ads.max(1) as f64
    }
}
