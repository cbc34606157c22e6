//! The names, labels and types of every metric, committed: dashboards and alerts are written against them.

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use turret_actors::metrics::Families;

/// One metric: `name{label,…} type`.
fn line(metric: &dyn Collector, registry: &Registry) -> String {
    let described = metric.desc();
    let [described] = &described[..] else { panic!("a field is one metric, this is {}", described.len()) };
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == described.fq_name);
    let family = family.unwrap_or_else(|| panic!("{} is not registered", described.fq_name));
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => panic!("{} has no type that dashboards use", described.fq_name),
    };
    match &described.variable_labels[..] {
        [] => format!("{} {kind}", described.fq_name),
        labels => format!("{}{{{}}} {kind}", described.fq_name, labels.join(",")),
    }
}

/// A metric with labels is gathered only once it has a value.
fn labels(metric: &dyn Collector) -> Vec<&'static str> {
    metric.desc().iter().flat_map(|described| described.variable_labels.iter().map(|_| "x")).collect()
}

fn catalogue() -> String {
    let registry = Registry::new();
    // Every field is named, so that a new metric does not compile until it stands here.
    let Families {
        requests,
        request_duration,
        stage_duration,
        coverage,
        search_duration,
        searches_in_flight,
        search_plans,
        search_distances,
        search_selectivity,
        search_list,
        search_early_stopped,
        index_ads,
        index_bytes,
        index_bytes_per_ad,
        calibrated_list,
        calibrated_recall,
        index_generation,
        index_opens,
        snapshot_duration,
        snapshot_bytes,
        snapshot_last,
        user_lookups,
        write_group_asks,
        retention,
        shadow_recall,
        shadow_compared,
        rollouts,
        refresh_users,
        batch_rows,
        queue_rows,
        inference_refused,
        inference_fallback,
        refresh_last_success,
        peers,
        actor_restarts,
        wire_rejected,
        ready,
    } = Families::new(&registry).expect("a new registry knows none of the names");
    let counters: [&IntCounterVec; 14] = [
        &index_opens,
        &requests,
        &search_plans,
        &search_distances,
        &search_early_stopped,
        &user_lookups,
        &retention,
        &shadow_compared,
        &rollouts,
        &refresh_users,
        &inference_refused,
        &inference_fallback,
        &actor_restarts,
        &wire_rejected,
    ];
    let gauges: [&IntGaugeVec; 7] =
        [&searches_in_flight, &snapshot_bytes, &queue_rows, &peers, &index_ads, &index_bytes, &calibrated_list];
    let histograms: [&HistogramVec; 5] =
        [&request_duration, &stage_duration, &search_duration, &snapshot_duration, &batch_rows];
    counters.iter().for_each(|counter| counter.with_label_values(&labels(*counter)).inc());
    gauges.iter().for_each(|gauge| gauge.with_label_values(&labels(*gauge)).set(1));
    histograms.iter().for_each(|histogram| histogram.with_label_values(&labels(*histogram)).observe(1.0));
    for gauge in [&index_generation, &snapshot_last, &shadow_recall, &index_bytes_per_ad, &calibrated_recall] {
        gauge.with_label_values(&labels(gauge)).set(1.0);
    }

    let alone: [&dyn Collector; 11] = [
        &coverage,
        &write_group_asks,
        &search_selectivity,
        &search_list,
        &index_bytes_per_ad,
        &calibrated_recall,
        &index_generation,
        &snapshot_last,
        &shadow_recall,
        &refresh_last_success,
        &ready,
    ];
    let counters = counters.iter().map(|counter| line(*counter, &registry));
    let gauges = gauges.iter().map(|gauge| line(*gauge, &registry));
    let histograms = histograms.iter().map(|histogram| line(*histogram, &registry));
    let alone = alone.iter().map(|metric| line(*metric, &registry));
    let mut lines: Vec<String> = counters.chain(gauges).chain(histograms).chain(alone).collect();
    lines.sort();
    assert_eq!(lines.len(), registry.gather().len(), "a registered metric is not listed here");
    lines.join("\n") + "\n"
}

#[test]
fn the_catalogue_is_the_committed_one() {
    let (committed, rendered) = (include_str!("metrics_catalogue.txt"), catalogue());
    assert!(
        committed == rendered,
        "actors/tests/metrics_catalogue.txt is not what the node offers\n--- committed\n{committed}--- rendered\n{rendered}"
    );
}
