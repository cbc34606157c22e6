//! What metrics say of a shard and its searches.

use std::collections::BTreeSet;

use prometheus::{Histogram, IntGauge};
use turret_index::ShardIndex;
use turret_retrieval::ids::{GenerationId, ShardId};

use super::snapshots::SnapshotFile;
use crate::metrics::Metrics;
use crate::protocol::SearchReply;

/// What the ads and rows of a shard are: the values of the label `state`.
const STATES: [&str; 4] = ["live", "paused", "unlinked", "dead"];
/// What its memory is taken by: those of the label `part`.
const PARTS: [&str; 4] = ["vectors", "graph", "postings", "ids"];

/// Counts a search.
pub(super) fn searched(metrics: &Metrics, found: &SearchReply) {
    let plan = found.plan.name();
    metrics.search_plans.with_label_values(&[plan]).inc();
    metrics.search_distances.with_label_values(&[plan]).inc_by(found.distances);
    if let Some(selectivity) = found.selectivity {
        metrics.search_selectivity.observe(selectivity);
    }
    if found.list > 0 {
        metrics.search_list.observe(f64::from(found.list));
    }
    if found.early_stopped {
        metrics.search_early_stopped.with_label_values(&[plan]).inc();
    }
}

/// The series of one shard of one generation, beside which another may run. They go when this does, with the state of the actor,
/// however that ended; the supervisor's wait before it starts another is far longer than that takes.
pub(super) struct Series {
    metrics: Metrics,
    shard: String,
    generation: String,
    /// Of every search, looked up once. How long searches take adds up over generations, and stays.
    in_flight: IntGauge,
    search_duration: Histogram,
    /// The numbers of ads that lists are measured for.
    calibrated: BTreeSet<String>,
}

impl Series {
    pub(super) fn of(metrics: &Metrics, shard: ShardId, generation: &GenerationId) -> Self {
        let (shard, generation) = (shard.to_string(), generation.to_string());
        Self {
            in_flight: metrics.searches_in_flight.with_label_values(&[&shard, &generation]),
            search_duration: metrics.search_duration.with_label_values(&[&shard]),
            metrics: metrics.clone(),
            shard,
            generation,
            calibrated: BTreeSet::new(),
        }
    }

    fn labels(&self) -> [&str; 2] {
        [&self.shard, &self.generation]
    }

    fn labels_and<'a>(&'a self, third: &'a str) -> [&'a str; 3] {
        [&self.shard, &self.generation, third]
    }

    /// Searches that are queued or running, and how long they take.
    pub(super) fn of_search(&self) -> (IntGauge, Histogram) {
        (self.in_flight.clone(), self.search_duration.clone())
    }

    /// Tells what the shard is made of now, and what was measured of its lists.
    pub(super) fn index(&mut self, index: &ShardIndex) {
        let stats = index.stats();
        let counts = [stats.ads - stats.paused, stats.paused, stats.unlinked, stats.dead];
        for (state, count) in STATES.iter().zip(counts) {
            self.metrics.index_ads.with_label_values(&self.labels_and(state)).set(count as i64);
        }
        let bytes = [stats.vector_bytes, stats.graph_bytes, stats.posting_bytes, stats.id_bytes];
        for (part, bytes) in PARTS.iter().zip(bytes) {
            self.metrics.index_bytes.with_label_values(&self.labels_and(part)).set(bytes as i64);
        }
        self.metrics.index_bytes_per_ad.with_label_values(&self.labels()).set(stats.bytes_per_ad());
        let points = index.calibration().map(|calibration| calibration.points).unwrap_or_default();
        let measured: BTreeSet<String> = points.iter().map(|point| point.k.to_string()).collect();
        self.calibrated.difference(&measured).for_each(|k| self.forget_calibrated(k));
        for point in points {
            let k = point.k.to_string();
            self.metrics.calibrated_list.with_label_values(&self.labels_and(&k)).set(i64::from(point.list));
            self.metrics.calibrated_recall.with_label_values(&self.labels_and(&k)).set(point.recall);
        }
        self.calibrated = measured;
    }

    /// Tells of the snapshot that lies on the disk.
    pub(super) fn snapshot(&self, file: SnapshotFile) {
        self.metrics.snapshot_bytes.with_label_values(&self.labels()).set(file.bytes as i64);
        self.metrics.snapshot_last.with_label_values(&self.labels()).set(file.written_at_ms as f64 / 1e3);
    }

    fn forget_calibrated(&self, k: &str) {
        drop(self.metrics.calibrated_list.remove_label_values(&self.labels_and(k)));
        drop(self.metrics.calibrated_recall.remove_label_values(&self.labels_and(k)));
    }
}

/// A series that is not there needs no removal.
impl Drop for Series {
    fn drop(&mut self) {
        let own = self.labels();
        drop(self.metrics.searches_in_flight.remove_label_values(&own));
        for state in STATES {
            drop(self.metrics.index_ads.remove_label_values(&self.labels_and(state)));
        }
        for part in PARTS {
            drop(self.metrics.index_bytes.remove_label_values(&self.labels_and(part)));
        }
        drop(self.metrics.index_bytes_per_ad.remove_label_values(&own));
        self.calibrated.iter().for_each(|k| self.forget_calibrated(k));
        drop(self.metrics.snapshot_bytes.remove_label_values(&own));
        drop(self.metrics.snapshot_last.remove_label_values(&own));
    }
}
