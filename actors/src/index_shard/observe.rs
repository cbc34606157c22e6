//! What metrics say of a shard and its searches.

use turret_index::ShardIndex;

use crate::metrics::Metrics;
use crate::protocol::SearchReply;

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

/// Tells what the shard is made of now, and what was measured of its lists.
pub(super) fn shard(metrics: &Metrics, shard: &str, index: &ShardIndex) {
    let stats = index.stats();
    let counts = [
        ("live", stats.ads - stats.paused),
        ("paused", stats.paused),
        ("unlinked", stats.unlinked),
        ("dead", stats.dead),
    ];
    for (state, count) in counts {
        metrics.index_ads.with_label_values(&[shard, state]).set(count as i64);
    }
    let bytes = [
        ("vectors", stats.vector_bytes),
        ("graph", stats.graph_bytes),
        ("postings", stats.posting_bytes),
        ("ids", stats.id_bytes),
    ];
    for (part, bytes) in bytes {
        metrics.index_bytes.with_label_values(&[shard, part]).set(bytes as i64);
    }
    metrics.index_bytes_per_ad.with_label_values(&[shard]).set(stats.bytes_per_ad());
    for point in index.calibration().map(|calibration| calibration.points).unwrap_or_default() {
        let k = point.k.to_string();
        metrics.calibrated_list.with_label_values(&[shard, &k]).set(i64::from(point.list));
        metrics.calibrated_recall.with_label_values(&[shard, &k]).set(point.recall);
    }
}
