//! Every metric of a node, in one struct; names occur here and nowhere else.
//!
//! Labels come from closed enums or from the configuration, never from users, ads or requests; and from the generations that run
//! here, of which two may: what is so, of a shard of one, carries its name and goes with it. What was counted of a shard, and what took how
//! long, adds up over them.

use std::ops::Deref;
use std::sync::Arc;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Bucket bounds for durations, in seconds: 10 µs to 10 s, about three a decade.
const DURATION_BUCKETS: &[f64] =
    &[1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

const ROW_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

const SELECTIVITY_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0];

const LIST_BUCKETS: &[f64] = &[32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 16_384.0];

const RATIO_BUCKETS: &[f64] = &[0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0];

/// Handles to the metrics of one node. Cheap to clone: requests do.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

impl Metrics {
    /// Registers every metric with `registry`.
    ///
    /// # Errors
    /// As [`Families::new`].
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self(Arc::new(Families::new(registry)?)))
    }
}

impl Deref for Metrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.0
    }
}

/// What is measured.
pub struct Families {
    /// HTTP requests, by outcome.
    pub requests: IntCounterVec,
    /// Their durations.
    pub request_duration: HistogramVec,
    /// The stages of a retrieval.
    pub stage_duration: HistogramVec,
    /// Share of the ads that answered.
    pub coverage: Histogram,
    /// Searches of one shard.
    pub search_duration: HistogramVec,
    /// Searches that are running or queued.
    pub searches_in_flight: IntGaugeVec,
    /// Searches of shards by how they searched.
    pub search_plans: IntCounterVec,
    /// Ads compared with a query, by how the shard searched.
    pub search_distances: IntCounterVec,
    /// Share of a shard's ads that pass the filter of a search.
    pub search_selectivity: Histogram,
    /// Candidate lists of walks.
    pub search_list: Histogram,
    /// Searches whose time was up before they had compared all that they had to.
    pub search_early_stopped: IntCounterVec,
    /// What the ads and rows of a shard are.
    pub index_ads: IntGaugeVec,
    /// The memory of a shard, by part.
    pub index_bytes: IntGaugeVec,
    /// The memory of a shard for each of its ads.
    pub index_bytes_per_ad: GaugeVec,
    /// The candidate list that reaches the target, by the number of ads asked for.
    pub calibrated_list: IntGaugeVec,
    /// The recall that was measured with it.
    pub calibrated_recall: GaugeVec,
    /// The generation a shard serves, as the time it was made.
    pub index_generation: GaugeVec,
    /// Shards opened, by what was opened.
    pub index_opens: IntCounterVec,
    /// How long it took to write a shard.
    pub snapshot_duration: HistogramVec,
    /// The length of a shard's snapshot.
    pub snapshot_bytes: IntGaugeVec,
    /// When a shard was written last.
    pub snapshot_last: GaugeVec,
    /// User look-ups.
    pub user_lookups: IntCounterVec,
    /// Asks whose writes shared one flush.
    pub write_group_asks: Histogram,
    /// What was forgotten because it was old.
    pub retention: IntCounterVec,
    /// What share of an exact scan's ads the answers have, by generation and selectivity.
    pub shadow_recall: GaugeVec,
    /// Answers that were compared with an exact scan.
    pub shadow_compared: IntCounterVec,
    /// Publications, by what came of them.
    pub rollouts: IntCounterVec,
    /// Users refreshed.
    pub refresh_users: IntCounterVec,
    /// Rows in a batch of the inference worker.
    pub batch_rows: HistogramVec,
    /// Rows that wait for the inference worker.
    pub queue_rows: IntGaugeVec,
    /// What inference workers and this node's own head refused, by why.
    pub inference_refused: IntCounterVec,
    /// Query embeddings that this node's own head computed, by why no worker did.
    pub inference_fallback: IntCounterVec,
    /// When the last refresh ended well.
    pub refresh_last_success: Gauge,
    /// Peers, by what we believe of them.
    pub peers: IntGaugeVec,
    /// Actors restarted.
    pub actor_restarts: IntCounterVec,
    /// Messages that could not be read.
    pub wire_rejected: IntCounterVec,
    /// Whether the node is ready.
    pub ready: IntGauge,
}

impl Families {
    /// Registers every metric with `registry`.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, text: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, text), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, text: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, text), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let histogram = |name: &str, text: &str, labels: &[&str], buckets: &[f64]| -> Result<_, prometheus::Error> {
            let options = HistogramOpts::new(name, text).buckets(buckets.to_vec());
            let metric = HistogramVec::new(options, labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let shares = |name: &str, text: &str, labels: &[&str]| -> Result<GaugeVec, prometheus::Error> {
            let metric = GaugeVec::new(Opts::new(name, text), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let plain = |name: &str, text: &str, buckets: &[f64]| -> Result<Histogram, prometheus::Error> {
            let metric = Histogram::with_opts(HistogramOpts::new(name, text).buckets(buckets.to_vec()))?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let index_generation = GaugeVec::new(
            Opts::new("turret_index_generation", "Creation time of the generation served, in seconds since 1970"),
            &["shard"],
        )?;
        registry.register(Box::new(index_generation.clone()))?;
        let snapshot_last = GaugeVec::new(
            Opts::new(
                "turret_index_snapshot_timestamp_seconds",
                "When a shard was last written, in seconds since 1970",
            ),
            &["shard", "generation"],
        )?;
        registry.register(Box::new(snapshot_last.clone()))?;
        let shadow_recall = GaugeVec::new(
            Opts::new(
                "turret_shadow_recall_at_k",
                "Share of an exact scan's ads that sampled answers have, moving mean",
            ),
            &["generation", "selectivity"],
        )?;
        registry.register(Box::new(shadow_recall.clone()))?;
        let refresh_last_success = Gauge::new(
            "turret_refresh_last_success_timestamp_seconds",
            "When the last refresh ended without a failed partition, in seconds since 1970",
        )?;
        registry.register(Box::new(refresh_last_success.clone()))?;
        let ready = IntGauge::new("turret_node_ready", "1 when everything placed on this node serves")?;
        registry.register(Box::new(ready.clone()))?;
        let coverage = Histogram::with_opts(
            HistogramOpts::new(
                "turret_retrieve_coverage_ratio",
                "Expected recall of the shards that answered, against all",
            )
            .buckets(RATIO_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(coverage.clone()))?;
        let write_group_asks = Histogram::with_opts(
            HistogramOpts::new("turret_user_write_group_asks", "Requests whose writes shared one flush")
                .buckets(ROW_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(write_group_asks.clone()))?;
        Ok(Self {
            requests: counter("turret_gateway_requests_total", "Retrieval requests by outcome", &["outcome"])?,
            request_duration: histogram(
                "turret_gateway_request_duration_seconds",
                "Duration of retrieval requests, from arrival to answer",
                &["outcome"],
                DURATION_BUCKETS,
            )?,
            stage_duration: histogram(
                "turret_retrieve_stage_duration_seconds",
                "Duration of one stage of a retrieval",
                &["stage"],
                DURATION_BUCKETS,
            )?,
            coverage,
            search_duration: histogram(
                "turret_index_search_duration_seconds",
                "Duration of one shard search, without its time in the queue",
                &["shard"],
                DURATION_BUCKETS,
            )?,
            searches_in_flight: gauges(
                "turret_index_searches_in_flight",
                "Searches queued or running",
                &["shard", "generation"],
            )?,
            search_plans: counter("turret_search_plans_total", "Searches of shards by how they searched", &["plan"])?,
            search_distances: counter(
                "turret_search_distances_total",
                "Ads compared with a query, by how the shard searched",
                &["plan"],
            )?,
            search_selectivity: plain(
                "turret_search_selectivity_ratio",
                "Share of a shard's ads that pass the filter of a search",
                SELECTIVITY_BUCKETS,
            )?,
            search_list: plain(
                "turret_search_list_entries",
                "Longest candidate list of a search that walked the graph",
                LIST_BUCKETS,
            )?,
            search_early_stopped: counter(
                "turret_search_early_stopped_total",
                "Searches of shards whose time was up before they were done, by how they searched",
                &["plan"],
            )?,
            index_ads: gauges(
                "turret_index_ads",
                "Ads of a shard, and rows of dead ones, by state",
                &["shard", "generation", "state"],
            )?,
            index_bytes: gauges(
                "turret_index_bytes",
                "Memory of a shard, about, by part",
                &["shard", "generation", "part"],
            )?,
            index_bytes_per_ad: shares(
                "turret_index_bytes_per_ad",
                "Memory of a shard for each of its ads, about",
                &["shard", "generation"],
            )?,
            calibrated_list: gauges(
                "turret_index_calibrated_list_entries",
                "Candidate list that reaches the target recall, by the ads asked for",
                &["shard", "generation", "k"],
            )?,
            calibrated_recall: shares(
                "turret_index_calibrated_recall",
                "Mean recall measured with the calibrated list, by the ads asked for",
                &["shard", "generation", "k"],
            )?,
            index_generation,
            index_opens: counter("turret_index_opens_total", "Shards opened, by what was opened", &["from"])?,
            snapshot_duration: histogram(
                "turret_index_snapshot_duration_seconds",
                "Duration of writing one shard, without the changes asked for before",
                &["shard"],
                DURATION_BUCKETS,
            )?,
            snapshot_bytes: gauges(
                "turret_index_snapshot_bytes",
                "Bytes of a shard's snapshot",
                &["shard", "generation"],
            )?,
            snapshot_last,
            user_lookups: counter("turret_user_lookups_total", "User look-ups by result", &["result"])?,
            write_group_asks,
            retention: counter("turret_user_retention_total", "What was forgotten because it was old", &["what"])?,
            shadow_recall,
            shadow_compared: counter(
                "turret_shadow_compared_total",
                "Answers that were compared with an exact scan",
                &["selectivity"],
            )?,
            rollouts: counter("turret_rollouts_total", "Publications by what came of them", &["outcome"])?,
            refresh_users: counter("turret_user_refresh_users_total", "Users refreshed by result", &["result"])?,
            batch_rows: histogram("turret_inference_batch_rows", "Rows in one batch", &["lane"], ROW_BUCKETS)?,
            queue_rows: gauges("turret_inference_queue_rows", "Rows that wait", &["lane"])?,
            inference_refused: counter(
                "turret_inference_refused_total",
                "Asks that an inference worker or the node's own head refused",
                &["reason"],
            )?,
            inference_fallback: counter(
                "turret_inference_fallback_total",
                "Query embeddings that the node's own head computed, by why no worker did",
                &["reason"],
            )?,
            refresh_last_success,
            peers: gauges("turret_cluster_peers", "Peers by state", &["state"])?,
            actor_restarts: counter("turret_actor_restarts_total", "Actors restarted", &["kind"])?,
            wire_rejected: counter("turret_wire_rejected_total", "Messages that could not be read", &["reason"])?,
            ready,
        })
    }

    /// Restarts of actors on this node, of every kind.
    pub fn restarts(&self) -> u64 {
        KINDS.iter().map(|kind| self.actor_restarts.with_label_values(&[kind]).get()).sum()
    }
}

/// The kinds of supervised actors: the values of the label `kind`.
pub const KINDS: &[&str] = &["index_shard", "user_partition", "inference_worker", "service"];
