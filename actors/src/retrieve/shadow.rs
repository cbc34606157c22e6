//! What the graph misses, measured on what is asked: a share of the answers is compared with those of an exact scan.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use turret_retrieval::budget::Budget;
use turret_retrieval::ids::{AdId, GenerationId};

use super::RetrieveRequest;
use super::gather::Gathered;
use super::scatter;
use crate::metrics::Metrics;
use crate::protocol::QueryEmbedding;
use crate::routing::RoutingTable;

/// How long a scan may take; nobody waits for it.
const BUDGET: Duration = Duration::from_secs(5);
/// How much a new comparison counts beside those before it.
const WEIGHT: f64 = 0.05;

/// Compares one of every few answers with an exact scan, one at a time.
#[derive(Clone)]
pub(super) struct Shadow {
    /// 0 for never.
    every: u64,
    answers: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
    means: Arc<Mutex<Means>>,
    metrics: Metrics,
}

/// Of one generation at a time: the latest that was compared.
#[derive(Default)]
struct Means {
    generation: Option<GenerationId>,
    by_selectivity: HashMap<&'static str, f64>,
}

impl Shadow {
    pub(super) fn new(every: u64, metrics: Metrics) -> Self {
        Self { every, answers: Arc::default(), permits: Arc::new(Semaphore::new(1)), means: Arc::default(), metrics }
    }

    /// Whether the next answer is to be compared: its turn has come, and no other is being.
    pub(super) fn due(&self) -> Option<OwnedSemaphorePermit> {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        if self.every == 0 || !number.is_multiple_of(self.every) {
            return None;
        }
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Compares what was found with what an exact scan finds; ends by its budget.
    pub(super) fn compare(
        &self,
        permit: OwnedSemaphorePermit,
        table: Arc<RoutingTable>,
        request: RetrieveRequest,
        query: QueryEmbedding,
        found: &Gathered,
    ) {
        let ads: HashSet<AdId> = found.candidates.iter().map(|candidate| candidate.hit.ad.clone()).collect();
        let selectivity = selectivity(found, request.filter.is_some());
        let own = self.clone();
        tokio::spawn(async move {
            let request = RetrieveRequest { budget: Budget::new(Instant::now().into_std(), BUDGET), ..request };
            let scanned = scatter::scatter(&table, &request, query, (request.k, true)).await;
            let Ok(scanned) = scanned.map(|gather| gather.finish(request.k, &table.manifest.shard_ads)) else { return };
            if scanned.coverage.is_full() && !scanned.candidates.is_empty() {
                let kept = scanned.candidates.iter().filter(|candidate| ads.contains(&candidate.hit.ad)).count();
                own.observe(&table.manifest.id, selectivity, kept as f64 / scanned.candidates.len() as f64);
            }
            drop(permit);
        });
    }

    fn observe(&self, generation: &GenerationId, selectivity: &'static str, recall: f64) {
        let mut means = self.means.lock().unwrap_or_else(PoisonError::into_inner);
        if means.generation.as_ref() != Some(generation) {
            self.metrics.shadow_recall.reset();
            *means = Means { generation: Some(generation.clone()), ..Means::default() };
        }
        let mean = means.by_selectivity.entry(selectivity).or_insert(recall);
        *mean += WEIGHT * (recall - *mean);
        self.metrics.shadow_recall.with_label_values(&[generation.as_str(), selectivity]).set(*mean);
        self.metrics.shadow_compared.with_label_values(&[selectivity]).inc();
    }
}

/// The share of ads that pass the filter, in a few classes: the mean of what the shards say.
fn selectivity(found: &Gathered, is_filtered: bool) -> &'static str {
    let shares: Vec<f64> = found.plans.iter().filter_map(|plan| plan.selectivity).collect();
    if !is_filtered || shares.is_empty() {
        return "unfiltered";
    }
    match shares.iter().sum::<f64>() / shares.len() as f64 {
        share if share < 0.01 => "below_1_percent",
        share if share < 0.1 => "1_to_10_percent",
        share if share < 0.5 => "10_to_50_percent",
        _ => "above_50_percent",
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn a_miss_lowers_the_mean_of_its_class_and_another_generation_begins_anew() {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let shadow = Shadow::new(1, metrics.clone());
        let [first, second] = ["g-1", "g-2"].map(|id| GenerationId::new(id).unwrap());
        let recall = |generation: &GenerationId, class| {
            metrics.shadow_recall.with_label_values(&[generation.as_str(), class]).get()
        };
        shadow.observe(&first, "unfiltered", 1.0);
        shadow.observe(&first, "unfiltered", 0.0);
        shadow.observe(&first, "below_1_percent", 0.5);
        assert_eq!([recall(&first, "unfiltered"), recall(&first, "below_1_percent")], [0.95, 0.5]);
        shadow.observe(&second, "unfiltered", 0.25);
        assert_eq!(recall(&second, "unfiltered"), 0.25);
        assert_eq!(recall(&first, "unfiltered"), 0.0, "its series is gone, and this one is new");
        assert_eq!(metrics.shadow_compared.with_label_values(&["unfiltered"]).get(), 3);
    }
}
