//! The shards, each written as a node will index it, and what the index finds, measured when it is made: queries of some of the
//! users, asked of every shard and of an exact scan.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context as _, bail};
use turret_actors::durable::write_flushed;
use turret_actors::generation::{PROBES, shard_file};
use turret_index::{Search, ShardAd, ShardIndex, Stage};
use turret_model::HeadInput;
use turret_retrieval::calibration::Calibration;
use turret_retrieval::event::Event;
use turret_retrieval::generation::{BuiltRecall, Probe, Probes};
use turret_retrieval::ids::{GenerationId, ShardId};
use turret_retrieval::merge::merge;
use turret_retrieval::partitioning::Partitioning;
use turret_retrieval::revision::Revision;
use turret_retrieval::topk::Hit;
use turret_retrieval::vector::UnitVector;

use super::shards::{KS, built_recall};
use super::{Publication, Step};

/// The most queries.
const PROBES_MAX: usize = 128;
/// Ads that each asks for.
const K: usize = 100;

/// What was measured of the shards.
pub(super) struct Measured {
    pub(super) recall: BuiltRecall,
    pub(super) partitioning: Partitioning,
    /// By shard.
    pub(super) calibrations: Vec<Option<Calibration>>,
    /// Memory of all shards together.
    pub(super) index_bytes: u64,
}

/// Indexes and writes the shards of generation `id`, which hold `shards`, clusters where there are centroids, and its probes; says what
/// the index finds of these, and how it is partitioned.
pub(super) fn write(
    publication: &Publication<'_>,
    (dir, id): (&Path, &GenerationId),
    shards: Vec<Vec<ShardAd>>,
    centroids: Option<Vec<UnitVector>>,
    observe: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> anyhow::Result<Measured> {
    let queries = queries(publication)?;
    let total: u64 = shards.iter().map(|ads| ads.len() as u64).sum();
    let k = K.min(total.max(1) as usize);
    // Where clusters are asked it counts how far the best ads lie apart, and more of them do further.
    let k_exact = centroids.as_ref().and(KS.last()).map_or(k, |k| (*k).min(total.max(1) as usize));
    let mut found: Vec<Vec<Vec<(Hit, ())>>> = queries.iter().map(|_| Vec::new()).collect();
    let mut exact: Vec<Vec<(Hit, ShardId)>> = queries.iter().map(|_| Vec::new()).collect();
    let measuring = Probes::measuring(queries.iter().cloned());
    let (mut before, mut calibrations, mut index_bytes) = (0, Vec::new(), 0);
    for (shard, ads) in (0u32..).map(ShardId).zip(shards) {
        let count = ads.len() as u64;
        let mut go_on = |progress: turret_index::Progress| match progress.stage {
            Stage::Read => ControlFlow::Continue(()),
            Stage::Graph => observe(Step::Index(before + progress.done, total)),
        };
        let index = ShardIndex::build(publication.model.dimension(), ads, publication.index, &measuring, &mut go_on)?;
        calibrations.push(index.calibration());
        index_bytes += index.stats().bytes() as u64;
        // A node replays all pauses, which are not built in.
        index.snapshot(&dir.join(shard_file(shard)), id.as_str(), Revision::NONE)?;
        for (query, found) in queries.iter().zip(&mut found) {
            let search = Search { vector: query, baseline: None, crowding: None, k, filter: None, exact: false };
            found.push(index.search(&search)?.ads.into_iter().map(|ad| (ad.hit, ())).collect());
        }
        for (hits, exact) in index.scan_many(&queries, k_exact)?.into_iter().zip(&mut exact) {
            let hits = hits.into_iter().map(|hit| (hit, shard)).collect();
            *exact = merge(&[std::mem::take(exact), hits], k_exact);
        }
        before += count;
        if observe(Step::Index(before, total)).is_break() {
            bail!("publication was broken off");
        }
    }
    let partitioning = publication.spread.partitioning(centroids, &queries, &exact);
    let recall = built_recall(k, &partitioning, &queries, &found, &exact);
    let best = |ads: Vec<(Hit, ShardId)>| ads.into_iter().take(k).map(|(hit, _)| hit.ad).collect();
    let probes = queries.into_iter().zip(exact).map(|(vector, exact)| Probe { vector, ads: best(exact) }).collect();
    let path = dir.join(PROBES);
    let text = serde_json::to_vec(&Probes { k: k as u32, probes })?;
    write_flushed(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Measured { recall, partitioning, calibrations, index_bytes })
}

/// Query embeddings of users spread evenly over all, without a context.
fn queries(publication: &Publication<'_>) -> anyhow::Result<Vec<UnitVector>> {
    let (dataset, model, encoding) = (publication.dataset, publication.model, publication.encoding());
    let every = dataset.users.len().div_ceil(PROBES_MAX).max(1);
    let users: Vec<u32> = (0..dataset.users.len() as u32).step_by(every).collect();
    let histories: Vec<Vec<Event>> = users.iter().map(|user| encoding.latest(*user)).collect();
    let slices: Vec<&[Event]> = histories.iter().map(Vec::as_slice).collect();
    let states = model.encode(&slices)?;
    let inputs: Vec<HeadInput<'_>> = users
        .iter()
        .zip(&states)
        .map(|(user, state)| HeadInput {
            state: Some(&state[..]).filter(|state| !state.is_empty()),
            context: None,
            demographics: &dataset.users[*user as usize].demographics,
        })
        .collect();
    Ok(model.embed_queries(&inputs)?)
}
