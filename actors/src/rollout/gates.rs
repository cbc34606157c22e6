//! What a generation is judged by before a single answer comes from it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use turret_retrieval::budget::Budget;
use turret_retrieval::coverage::UNVERIFIED;
use turret_retrieval::generation::{Manifest, Probes};
use turret_retrieval::ids::{AdId, UserId};
use turret_retrieval::live_ad::LiveAd;
use turret_retrieval::revision::Revision;
use turret_retrieval::topk::K_MAX;

use super::{Rollout, memory};
use crate::generation::Generation;
use crate::live_ads::Ads;
use crate::offload::Panicked;
use crate::protocol::{EncoderOf, GateReport, QueryEmbedding};
use crate::retrieve::{Answer, Rejection, RetrieveRequest};
use crate::routing::RoutingTable;

/// For one probe or rehearsed request; nobody waits for it.
const BUDGET: Duration = Duration::from_secs(5);
/// For the shards to be told of all ads that have changed.
const HAND_OVER_MAX: Duration = Duration::from_secs(60);
/// Between two looks at how far they are.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For the states of one page of users.
const STATES_TIMEOUT: Duration = Duration::from_secs(60);
/// Users whose states are made by one call.
const STATES_USERS: usize = 256;

/// A generation that is judged, beside the one that serves.
pub(super) struct Candidate<'a> {
    pub(super) own: &'a Rollout,
    pub(super) from: Arc<Manifest>,
    pub(super) to: Generation,
}

impl Candidate<'_> {
    /// Before anything of it is started.
    pub(super) async fn digests(&self) -> GateReport {
        let to = self.to.clone();
        let verified = self.own.loads.run(move || to.verify("")).await;
        let files = self.to.manifest.files.len();
        report(
            "digests",
            match verified {
                Ok(Ok(())) => Ok(format!("{files} files are those that were published")),
                Ok(Err(error)) => Err(error.to_string()),
                Err(Panicked) => Err("reading the files panicked".to_owned()),
            },
        )
    }

    /// Before anything of it is started.
    pub(super) fn memory(&self) -> GateReport {
        report("memory", memory::judge(&self.to.manifest, memory::available()))
    }

    /// Whether it is of the size of the one before, and cut as the users are.
    pub(super) fn counts(&self) -> GateReport {
        report("counts", counts(&self.from, &self.to.manifest, self.own.settings.ads_change_max))
    }

    /// Whether its shards were told of every change of an ad that was made before they are judged.
    pub(super) async fn live_ads(&self) -> GateReport {
        report("live_ads", self.caught_up().await)
    }

    async fn caught_up(&self) -> Result<String, String> {
        let ends = Instant::now() + HAND_OVER_MAX;
        let mut latest = None;
        loop {
            // The control node's actor may be starting again.
            let why = match Ads.handed_over(self.to.manifest.id.clone()).await {
                Ok(told) if told.until >= *latest.get_or_insert(told.latest) => {
                    return Ok(format!("{} changed ads have been handed to its shards", told.changed));
                }
                Ok(told) => format!("{} ads have changed, and its shards were not told of all", told.changed),
                Err(error) => error.to_string(),
            };
            if Instant::now() > ends {
                return Err(format!("{why}, within {} s", HAND_OVER_MAX.as_secs()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether its shards find for its own probes what an exact scan found when it was built.
    pub(super) async fn probes(&self, table: &Arc<RoutingTable>) -> GateReport {
        report("probes", self.probe(table).await)
    }

    async fn probe(&self, table: &Arc<RoutingTable>) -> Result<String, String> {
        let to = self.to.clone();
        let read = self.own.loads.run(move || to.probes()).await.map_err(|Panicked| "reading panicked".to_owned())?;
        let probes: Probes = read.map_err(|error| error.to_string())?;
        // Ads that changed since are no fault of the index: they count on neither side, and take nobody's place.
        let changed = changed_ads().await?;
        let k = (probes.k as usize).saturating_add(changed.len()).min(K_MAX);
        let (mut found, mut expected, ends) = (0, 0, Instant::now() + HAND_OVER_MAX);
        for probe in &probes.probes {
            let query = QueryEmbedding {
                generation: self.to.manifest.id.clone(),
                vector: probe.vector.clone(),
                without_context: None,
            };
            let answer = loop {
                match self.own.retriever.search(table, query.clone(), (k, probes.k as usize), BUDGET).await {
                    // A shard still asks for what changed before it started.
                    Err(why) if why.contains(UNVERIFIED) && Instant::now() < ends => {
                        tokio::time::sleep(LOOK_EVERY).await
                    }
                    answer => break answer,
                }
            };
            let answer = answer.map_err(|why| format!("a probe failed: {why}"))?.into_iter();
            let ads: HashSet<AdId> = answer.filter(|ad| !changed.contains(ad)).take(probes.k as usize).collect();
            found += probe.ads.iter().filter(|ad| ads.contains(*ad)).count();
            expected += probe.ads.iter().filter(|ad| !changed.contains(*ad)).count();
        }
        let (recall, min) = (found as f64 / expected.max(1) as f64, self.own.settings.probe_recall_min);
        let count = probes.probes.len();
        let figures = format!(
            "recall@{} {recall:.4} of {count} probes, {:.4} when built; at least {min} is asked",
            probes.k, self.to.manifest.recall.recall
        );
        if recall >= min && !probes.probes.is_empty() { Ok(figures) } else { Err(figures) }
    }

    /// Whether the users who were here lately have states that its encoder made; makes them where they are missing.
    pub(super) async fn states(&self) -> GateReport {
        report("states", self.cover().await)
    }

    async fn cover(&self) -> Result<String, String> {
        let encoder = &self.to.manifest.versions.encoder;
        if *encoder == self.from.versions.encoder {
            return Ok(format!("{SAME_ENCODER} {encoder}"));
        }
        let share_min = self.own.settings.states_share_min;
        let recent = self.own.retriever.recent().users();
        let total: u64 = recent.iter().map(|(_, requests)| requests).sum();
        if total == 0 {
            return Ok(format!("no requests of a user were made lately, so no states of {encoder} are made ahead"));
        }
        let wanted = (share_min * total as f64).ceil() as u64;
        let by = EncoderOf { generation: self.to.manifest.id.clone(), encoder: encoder.clone() };
        let (mut covered, mut users) = (0, 0);
        // The most frequent first, until as many requests as are wanted would find a state, or nobody is left.
        for page in recent.chunks(STATES_USERS) {
            if covered >= wanted {
                break;
            }
            let names: Vec<UserId> = page.iter().map(|(user, _)| user.clone()).collect();
            let lacking = self.own.users().refresh(&names, &by, STATES_TIMEOUT).await;
            let lacking: HashSet<UserId> = lacking.map_err(|error| error.to_string())?.into_iter().collect();
            users += page.len();
            covered +=
                page.iter().filter(|(user, _)| !lacking.contains(user)).map(|(_, requests)| requests).sum::<u64>();
        }
        let share = covered as f64 / total as f64;
        let figures = format!(
            "states of {encoder} for {users} users who made {:.1} % of the latest {total} requests; at least {:.1} % are asked",
            100.0 * share,
            100.0 * share_min
        );
        if covered >= wanted { Ok(figures) } else { Err(figures) }
    }

    /// Whether it answers what the one that serves answers: requests of lately, asked of both.
    pub(super) async fn shadow(&self, old: &Arc<RoutingTable>, new: &Arc<RoutingTable>) -> GateReport {
        let requests = self.own.retriever.recent().requests(self.own.settings.shadow_requests);
        let mut pairs = Vec::new();
        for request in requests {
            let mut took = [Duration::ZERO; 2];
            let mut answers = Vec::new();
            for (table, took) in [old, new].into_iter().zip(&mut took) {
                let began = Instant::now();
                let request = RetrieveRequest { budget: Budget::new(began.into_std(), BUDGET), ..request.clone() };
                answers.push(self.own.retriever.rehearse(table, &request).await);
                *took = began.elapsed();
            }
            if let (Some(after), Some(before)) = (answers.pop(), answers.pop()) {
                pairs.push(Pair::of(before, after, took));
            }
        }
        report("shadow", compare(&pairs, self.own.settings.bounds.failed_rise_max))
    }
}

/// The ads that are not as built.
async fn changed_ads() -> Result<HashSet<AdId>, String> {
    let (mut changed, mut after) = (HashSet::new(), Revision::NONE);
    loop {
        let page = Ads.since(after).await.map_err(|error| error.to_string())?;
        let Some(last) = page.last().map(LiveAd::at) else { return Ok(changed) };
        changed.extend(page.into_iter().map(|ad| ad.id));
        after = last;
    }
}

/// What is said where no user needs another state.
const SAME_ENCODER: &str = "both have encoder";

fn report(name: &str, judged: Result<String, String>) -> GateReport {
    let passed = judged.is_ok();
    GateReport { name: name.into(), passed, detail: judged.unwrap_or_else(|why| why) }
}

/// Pure: whether the size of a generation is near that of the one before.
fn counts(from: &Manifest, to: &Manifest, change_max: f64) -> Result<String, String> {
    if from.partitions() != to.partitions() {
        return Err(format!(
            "{} user partitions where there are {}: their number is for the life of a data directory",
            to.partitions(),
            from.partitions()
        ));
    }
    let (was, is) = (from.ads(), to.ads());
    let change = (is as f64 - was as f64).abs() / was.max(1) as f64;
    let users = |manifest: &Manifest| manifest.partition_users.iter().sum::<u64>();
    let (users_were, users_are) = (users(from), users(to));
    let missing = users_were.saturating_sub(users_are) as f64 / users_were.max(1) as f64;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let (changed, gone, may) = (percent(change), percent(missing), percent(change_max));
    let figures = format!(
        "{is} ads, {was} before: {changed} changed; {users_are} users, {users_were} before: {gone} missing; at most {may} may"
    );
    if change <= change_max && is > 0 && missing <= change_max { Ok(figures) } else { Err(figures) }
}

/// One request, answered by both.
struct Pair {
    /// Whether the new one answered no worse: something where the old one did.
    is_sound: bool,
    /// The share of the old one's ads that the new one has too, where both answered.
    overlap: Option<f64>,
    took: [Duration; 2],
}

impl Pair {
    fn of(before: Result<Answer, Rejection>, after: Result<Answer, Rejection>, took: [Duration; 2]) -> Self {
        let ads = |answer: &Answer| -> HashSet<AdId> {
            answer.candidates.iter().map(|candidate| candidate.hit.ad.clone()).collect()
        };
        let is_full = |answer: &Result<Answer, Rejection>| {
            answer.as_ref().is_ok_and(|answer| answer.coverage.is_full() && !answer.candidates.is_empty())
        };
        let is_sound = is_full(&after) || !is_full(&before);
        let overlap =
            before.ok().zip(after.ok()).filter(|(before, _)| !before.candidates.is_empty()).map(|(before, after)| {
                let (before, after) = (ads(&before), ads(&after));
                before.intersection(&after).count() as f64 / before.len() as f64
            });
        Self { is_sound, overlap, took }
    }
}

/// Pure: what the comparison comes to. Overlap is told and not judged: another model should find other ads.
fn compare(pairs: &[Pair], failed_max: f64) -> Result<String, String> {
    if pairs.is_empty() {
        return Ok("no requests were made lately, so none are compared".to_owned());
    }
    let unsound = pairs.iter().filter(|pair| !pair.is_sound).count();
    let overlaps: Vec<f64> = pairs.iter().filter_map(|pair| pair.overlap).collect();
    let overlap = overlaps.iter().sum::<f64>() / overlaps.len().max(1) as f64;
    let median_ms = |side: usize| {
        let mut took: Vec<Duration> = pairs.iter().map(|pair| pair.took[side]).collect();
        took.sort_unstable();
        took[took.len() / 2].as_secs_f64() * 1e3
    };
    let figures = format!(
        "{} requests answered by both: {:.1} % of the ads are the same, {unsound} answered worse, median {:.2} ms where it was {:.2} ms",
        pairs.len(),
        100.0 * overlap,
        median_ms(1),
        median_ms(0)
    );
    if unsound as f64 <= failed_max * pairs.len() as f64 { Ok(figures) } else { Err(figures) }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::manifest;
    use super::*;

    #[test]
    fn a_generation_of_another_size_or_cut_is_refused_with_the_figures() {
        let of = |shard_ads: Vec<u64>| Manifest { shard_ads, ..manifest() };
        let from = of(vec![60, 40]);
        assert!(counts(&from, &of(vec![150]), 0.5).is_ok(), "the number of shards may change");
        let why = counts(&from, &of(vec![151]), 0.5).unwrap_err();
        assert!(
            why.contains("151 ads, 100 before: 51.0 % changed; 4 users, 4 before: 0.0 % missing; at most 50.0 % may"),
            "{why}"
        );
        let users = |partition_users: Vec<u64>| Manifest { partition_users, ..from.clone() };
        assert!(counts(&from, &users(vec![1, 1, 0, 0]), 0.5).is_ok());
        assert!(counts(&from, &users(vec![9, 9, 9, 9]), 0.5).is_ok(), "there may be more");
        let why = counts(&from, &users(vec![1, 0, 0, 0]), 0.5).unwrap_err();
        assert!(why.contains("1 users, 4 before: 75.0 % missing"), "{why}");
        assert!(counts(&from, &of(vec![0]), 1.0).is_err(), "nothing is never enough");
        let other = Manifest { partition_users: vec![1; 9], ..manifest() };
        assert!(counts(&from, &other, 1.0).unwrap_err().contains("9 user partitions where there are"));
    }

    #[test]
    fn requests_that_the_new_one_answers_worse_are_counted() {
        let ms = Duration::from_millis;
        let pair = |is_sound, overlap| Pair { is_sound, overlap, took: [ms(2), ms(3)] };
        let mut pairs: Vec<Pair> = (0..49).map(|_| pair(true, Some(0.5))).collect();
        pairs.push(pair(false, None));
        let told = compare(&pairs, 0.02).unwrap();
        let expected = "50 requests answered by both: 50.0 % of the ads are the same, 1 answered worse, \
                        median 3.00 ms where it was 2.00 ms";
        assert_eq!(told, expected);
        assert!(compare(&pairs, 0.01).is_err());
        assert!(compare(&[], 0.0).unwrap().contains("no requests"));
    }
}
