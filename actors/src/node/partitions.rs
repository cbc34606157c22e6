//! The user partitions of a node.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use turret_retrieval::ids::PartitionId;

use super::{NodeSettings, StartError};
use crate::durable::{read_json, replace_json};
use crate::generation::Generation;
use crate::groups;
use crate::inference_worker::encoder;
use crate::metrics::Metrics;
use crate::offload::{Offload, OffloadError};
use crate::placement::Placement;
use crate::routing::RoutingReader;
use crate::supervisor::Child;
use crate::user_partition::{UserPartition, pace::Pace};

/// Threads that write users and refresh states; they mostly wait for the disk.
const STORE_THREADS: usize = 2;
/// Jobs that may wait for them.
const STORE_QUEUE: usize = 256;
/// Counts of the users of a partition, and pages of a refresh, that may wait for their thread; a refresh has one for each partition.
const SCAN_QUEUE: usize = 1_024;
/// Erasures whose traces may be looked for at once; the receipts of those beyond say that theirs are not known.
const TRACES_QUEUE: usize = 16;
/// What says in how many partitions the users of a directory are kept; a larger one is none.
const KEPT: &str = "partitions.json";
const KEPT_BYTES_MAX: u64 = 1 << 10;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// In all, of all nodes.
    partitions: u32,
}

/// Blocking: whether the users in `data_dir` are kept in as many partitions as `generation` has; the first to ask settles it.
///
/// In others they would be looked for where they are not, and an erasure would leave them where they are.
pub(super) fn check(data_dir: &Path, generation: &Generation) -> Result<(), StartError> {
    let (path, published) = (data_dir.join(KEPT), generation.manifest.partitions());
    let failed = |source| StartError::Kept { path: path.clone(), source };
    let generation = &generation.manifest.id;
    let other = |kept| StartError::Partitions { path: path.clone(), kept, generation: generation.clone(), published };
    match read_json::<Kept>(&path, KEPT_BYTES_MAX) {
        Ok(Kept { partitions }) if partitions == published => Ok(()),
        Ok(Kept { partitions }) => Err(other(partitions)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Users may have been kept here before that was written down.
            if let Some(kept) = more_than(&data_dir.join("users"), published) {
                return Err(other(kept));
            }
            replace_json(&path, &Kept { partitions: published }).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// How many partitions there must have been at least, where `users` has one that is not among the first `published`.
fn more_than(users: &Path, published: u32) -> Option<u32> {
    let entries = std::fs::read_dir(users).ok()?.flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|number| *number >= published).max().map(|number| number.saturating_add(1))
}

/// Those of `generation` that are placed on this node.
pub(super) fn of(
    settings: &NodeSettings,
    placement: &Placement,
    (generation, is_elsewhere): (&Generation, bool),
    loads: &Offload,
    routing: &RoutingReader,
    metrics: &Metrics,
) -> Result<Vec<Child>, OffloadError> {
    let reads = Offload::new("users", settings.search_threads, settings.search_queue)?;
    let writes = Offload::new("store", STORE_THREADS, STORE_QUEUE)?;
    let scans = Offload::new("scan", 1, SCAN_QUEUE)?;
    let pages = Offload::new("page", 1, SCAN_QUEUE)?;
    let traces = Offload::new("traces", 1, TRACES_QUEUE)?;
    let pace = Pace::on(settings.inference_device);
    let child = |partition: PartitionId| {
        let actor = UserPartition {
            partition,
            dir: settings.data_dir.join(format!("users/{:04}", partition.0)),
            settings: settings.store.clone(),
            retention: settings.retention,
            state_precision: settings.state_precision,
            // As a worker of this node would have.
            encoders: encoder::count(&settings.inference, settings.inference_device),
            pace: pace.clone(),
            generation: generation.clone(),
            reads: reads.clone(),
            writes: writes.clone(),
            loads: loads.clone(),
            pages: pages.clone(),
            scans: scans.clone(),
            traces: traces.clone(),
            is_elsewhere,
            routing: routing.clone(),
            metrics: metrics.clone(),
        };
        Child::new(groups::actor(&format!("users-{partition}"), &settings.name), move || (actor.clone(), ()))
    };
    Ok(placement.of(&generation.manifest).partitions.into_iter().map(child).collect())
}
