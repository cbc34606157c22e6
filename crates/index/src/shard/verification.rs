//! Whether a shard that was opened is the one that was written: the same queries are asked of both.

use std::collections::{BTreeMap, HashSet};

use roaring::RoaringBitmap;
use turret_retrieval::topk::Hit;
use xxhash_rust::xxh3::Xxh3;

use super::ShardIndex;
use super::snapshot::Picture;
use crate::change::Registers;
use crate::format::probes::{K, Probe, Probes};
use crate::graph::{Graph, GraphError};
use crate::names::Name;
use crate::view::View;
use turret_retrieval::item::Attributes;

/// Queries of a file.
const PROBES: usize = 16;
/// The candidate list of a walk that is asked for their best.
const LIST: usize = 100;
/// A walk of a graph that was restored meets all that it met before, but one in so many: edges that led to dead rows are gone.
const MISSED_ONE_IN: u32 = 8;

impl Picture {
    /// What the file must answer: queries that are rows spread over all.
    pub(super) fn probes(&self) -> Result<Probes, GraphError> {
        let live = self.view.live.len();
        let every = (live / PROBES as u64).max(1) as usize;
        let rows: Vec<u32> = self.view.live.bitmap().iter().step_by(every).take(PROBES).collect();
        let queries: Vec<&[f32]> = rows.iter().map(|row| self.view.vectors.row(*row)).collect();
        let best = self.view.scan_many(&queries, K);
        let met = match &self.view.graph {
            Some(graph) => met(graph, &self.view, queries.iter().copied().zip(best.iter().map(Vec::as_slice)))?,
            None => 0,
        };
        let attributes = self.view.postings.attributes(&rows.iter().copied().collect(), &self.view.kinds);
        let attributes = attributes.into_iter().filter_map(|(row, of_row)| Some((self.place(row)?, of_row)));
        let ads = self.rows.iter().map(|row| (self.view.names.get(*row), *self.registers.get(*row)));
        let digest = digest(ads, &attributes.collect());
        let probe = |((row, query), best): ((&u32, &[f32]), Vec<Hit>)| {
            self.place(*row).map(|row| Probe { row, query: query.to_vec(), best })
        };
        let probes = rows.iter().zip(queries).zip(best).filter_map(probe).collect();
        Ok(Probes { probes, met, digest })
    }
}

impl ShardIndex {
    /// Checks a shard that nobody has changed yet; walks of its graph where that is the one that was written.
    ///
    /// # Errors
    /// With the first answer that is another.
    pub(super) fn verify(&self, probes: &Probes, is_restored: bool) -> Result<(), String> {
        let view = self.view();
        let queries: Vec<&[f32]> = probes.probes.iter().map(|probe| probe.query.as_slice()).collect();
        for (at, (probe, best)) in probes.probes.iter().zip(view.scan_many(&queries, K)).enumerate() {
            let same = |(a, b): (&Hit, &Hit)| a.ad == b.ad && a.score.to_bits() == b.score.to_bits();
            if best.len() != probe.best.len() || !best.iter().zip(&probe.best).all(same) {
                return Err(format!("probe {at} finds other ads than it did"));
            }
            if view.vectors.row(probe.row) != probe.query {
                return Err(format!("probe {at} is not row {}", probe.row));
            }
        }
        if let Some(graph) = view.graph.as_ref().filter(|_| is_restored) {
            let asked = probes.probes.iter().map(|probe| (probe.query.as_slice(), probe.best.as_slice()));
            let now = met(graph, &view, asked).map_err(|error| error.to_string())?;
            if now < probes.met - probes.met / MISSED_ONE_IN {
                return Err(format!("walks of the graph meet {now} of their ads, they met {}", probes.met));
            }
        }
        let rows: RoaringBitmap = probes.probes.iter().map(|probe| probe.row).collect();
        let registers = self.writer.lock().map_err(|_| "the writer panicked".to_owned())?.known().0;
        let ads = (0..view.vectors.len() as u32).map(|row| (view.names.get(row), *registers.get(row)));
        if digest(ads, &view.postings.attributes(&rows, &view.kinds)) != probes.digest {
            return Err("the digest of what was read is another than that of what was written".to_owned());
        }
        Ok(())
    }
}

/// How many of the best of each query a walk meets, with those that the graph does not have.
fn met<'a>(
    graph: &Graph,
    view: &View,
    probes: impl Iterator<Item = (&'a [f32], &'a [Hit])>,
) -> Result<u32, GraphError> {
    let mut met = 0;
    for (query, best) in probes {
        let candidates = graph.search(query, LIST)?.rows;
        // The graph may be further than the view.
        let rows =
            candidates.into_iter().map(|met| met.row).filter(|row| view.live.has(*row)).chain(view.unlinked.iter());
        let ids: HashSet<&str> = rows.map(|row| view.names.get(row).id).collect();
        met += best.iter().filter(|hit| ids.contains(hit.ad.as_str())).count() as u32;
    }
    Ok(met)
}

fn digest<'a>(ads: impl Iterator<Item = (Name<'a>, Registers)>, attributes: &BTreeMap<u32, Attributes>) -> u64 {
    let mut digest = Xxh3::new();
    let mut text = |text: &str| {
        digest.update(&(text.len() as u32).to_le_bytes());
        digest.update(text.as_bytes());
    };
    let mut registers = Xxh3::new();
    for (name, Registers { content_at, paused, paused_at }) in ads {
        text(name.id);
        text(name.advertiser.unwrap_or_default());
        for number in [content_at.bits(), u64::from(paused), paused_at.bits()] {
            registers.update(&number.to_le_bytes());
        }
    }
    digest.update(&registers.digest().to_le_bytes());
    // Names and kinds have one order.
    digest.update(&postcard::to_stdvec(attributes).unwrap_or_default());
    digest.digest()
}
