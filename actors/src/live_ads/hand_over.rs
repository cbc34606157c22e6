//! Handing changes over: embedded by the ad tower of a generation, and given to its shards.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::ActorRef;
use ractor::rpc::CallResult;
use tokio::sync::{Notify, watch};
use turret_index::{ShardAd, ShardChange, ShardContent};
use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::{AdId, GenerationId};
use turret_retrieval::live_ad::{Content, LiveAd};
use turret_retrieval::revision::Revision;
use turret_retrieval::vector::UnitVector;
use turret_store::AdJournal;

use super::homes::{as_told, is_told, told};
use super::known::Known;
use crate::depot::Depot;
use crate::offload::{Offload, Panicked};
use crate::protocol::{
    ApplyAsk, CHANGES_MAX, EmbedAdsAsk, IndexRequest, InferenceRequest, Refusal, ReplayAsk, ReplayPage,
};
use crate::routing::{RoutingReader, workers};
use crate::wire::{Inbox, Wire};
use crate::{groups, index_shard, inference_worker};

/// For one page of embeddings, and for one shard to take it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks for generations and shards that have started meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Manifests that are kept: of the generations that run, and a few that did.
const MANIFESTS_MAX: usize = 8;
/// Before what could not be handed over is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct HandOver {
    journal: Arc<AdJournal>,
    depot: Depot,
    routing: RoutingReader,
    thread: Offload,
    /// Those that were asked for: a manifest never changes.
    manifests: Arc<Mutex<HashMap<GenerationId, Arc<Manifest>>>>,
    known: Known,
}

impl HandOver {
    pub(super) fn new(journal: Arc<AdJournal>, depot: Depot, routing: RoutingReader, thread: Offload) -> Self {
        Self { journal, depot, routing, thread, manifests: Arc::default(), known: Known::default() }
    }

    /// Hands over for ever, and tells how far each generation is.
    pub(super) async fn run(&self, news: &Notify, tell: &watch::Sender<HashMap<GenerationId, Revision>>) {
        let mut positions: HashMap<GenerationId, (Arc<Manifest>, Revision)> = HashMap::new();
        loop {
            let generations = groups::indexed_generations();
            positions.retain(|id, _| generations.contains(id));
            tell.send_modify(|known| known.retain(|id, _| generations.contains(id)));
            let mut wait = LOOK_EVERY;
            // The one that serves first, and a page each in turn: whoever is behind holds up nobody.
            let serving = self.routing.table().manifest.id.clone();
            let (first, others): (Vec<_>, Vec<_>) = generations.into_iter().partition(|id| *id == serving);
            for id in first.into_iter().chain(others) {
                match self.next_page(&id, &mut positions, tell).await {
                    Ok(true) => wait = Duration::ZERO,
                    Ok(false) => {}
                    Err(why) => {
                        tracing::warn!(generation = %id, %why, "changes of ads could not be handed over; tried again");
                        wait = wait.min(AGAIN_AFTER);
                    }
                }
            }
            // A note that comes while nobody waits is kept for the next wait.
            drop(tokio::time::timeout(wait, news.notified()).await);
        }
    }

    /// Hands a page over; whether there was one.
    async fn next_page(
        &self,
        id: &GenerationId,
        positions: &mut HashMap<GenerationId, (Arc<Manifest>, Revision)>,
        tell: &watch::Sender<HashMap<GenerationId, Revision>>,
    ) -> Result<bool, Refusal> {
        let (manifest, at) = match positions.get(id) {
            Some((manifest, at)) => (manifest.clone(), *at),
            None => {
                let manifest = self.manifest(id).await?;
                let at = manifest.ads_until;
                (manifest, at)
            }
        };
        let page = self.page(at).await?;
        let last = page.last().map(LiveAd::at);
        if last.is_some() {
            self.hand_over(&manifest, page).await?;
        }
        let at = last.unwrap_or(at);
        positions.insert(id.clone(), (manifest, at));
        tell.send_modify(|known| {
            known.insert(id.clone(), at);
        });
        Ok(last.is_some())
    }

    async fn page(&self, after: Revision) -> Result<Vec<LiveAd>, Refusal> {
        let journal = self.journal.clone();
        let read = self.thread.run(move || journal.since(after, CHANGES_MAX)).await;
        read.map_err(|Panicked| Refusal::Failed("the journal panicked".to_owned()))?
            .map_err(|error| Refusal::Failed(error.to_string()))
    }

    async fn manifest(&self, id: &GenerationId) -> Result<Arc<Manifest>, Refusal> {
        let known = || self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(manifest) = known().get(id) {
            return Ok(manifest.clone());
        }
        // Another node's generation need not lie on this machine.
        let manifest = self.depot.manifest(id).await.map_err(|error| Refusal::Failed(error.to_string()))?;
        let manifest = Arc::new(manifest);
        let mut known = known();
        if known.len() >= MANIFESTS_MAX {
            known.clear();
        }
        known.insert(id.clone(), manifest.clone());
        Ok(manifest)
    }

    /// What a shard that starts must know, page by page of the journal.
    pub(super) async fn replay(&self, ask: &ReplayAsk) -> Result<ReplayPage, Refusal> {
        let manifest = self.manifest(&ask.generation).await?;
        let page = self.page(ask.after).await?;
        let (until, is_last) = (page.last().map_or(ask.after, LiveAd::at), page.len() < CHANGES_MAX);
        let of_shard = |ad: &LiveAd| is_told(&manifest, &ad.id, ask.shard) && ad.is_news_after(manifest.ads_until);
        let mut changes = self.embedded(&manifest, page.into_iter().filter(of_shard).collect()).await?;
        changes.iter_mut().for_each(|change| self.spare(&manifest, change));
        let changes = changes.iter().map(|change| as_told(&manifest, change, ask.shard)).collect();
        Ok(ReplayPage { changes, until, is_last })
    }

    async fn hand_over(&self, manifest: &Arc<Manifest>, page: Vec<LiveAd>) -> Result<(), Refusal> {
        for (shard, mut changes) in told(manifest, self.embedded(manifest, page).await?) {
            for change in &mut changes {
                self.spare(manifest, change);
            }
            // One that starts meanwhile asks for what it missed.
            for replica in ractor::pg::get_members(&groups::index(shard, &manifest.id)) {
                for (ad, at) in apply(&replica.into(), &manifest.id, changes.clone()).await? {
                    self.known.refused(&manifest.id, &ad, at);
                }
            }
        }
        Ok(())
    }

    /// Leaves an ad as it is where the index will not have it otherwise: in other shards too, which would be told that it is not
    /// theirs.
    fn spare(&self, manifest: &Manifest, change: &mut ShardChange) {
        if self.known.is_refused(&manifest.id, &change.id, change.content_at) {
            change.content = ShardContent::AsBuilt;
        }
    }

    /// Whether the index of a generation will never have an ad as it is since `at`.
    pub(super) fn is_refused(&self, generation: &GenerationId, ad: &AdId, at: Revision) -> bool {
        self.known.is_refused(generation, ad, at)
    }

    /// The changes as the shards of a generation take them.
    async fn embedded(&self, manifest: &Manifest, ads: Vec<LiveAd>) -> Result<Vec<ShardChange>, Refusal> {
        let mut changes = Vec::with_capacity(ads.len());
        let mut embeddings = self.embeddings(manifest, &ads).await?;
        for ad in ads {
            let is_shown = is_shown(manifest, &ad);
            let content = match ad.content {
                _ if ad.content_at <= manifest.ads_until => ShardContent::AsBuilt,
                Content::AsBuilt => ShardContent::AsBuilt,
                Content::Is(promoted) if is_shown => {
                    let missing = || Refusal::Failed("the worker embedded fewer ads than it was given".to_owned());
                    let embedding = embeddings.remove(&ad.id).ok_or_else(missing)?;
                    ShardContent::Is(Box::new(ShardAd { ad: promoted.ad, embedding }))
                }
                Content::Is(_) | Content::Deleted => ShardContent::Nothing,
                Content::Patched(patch) => ShardContent::Patched(patch),
            };
            let LiveAd { id, content_at, paused, paused_at, .. } = ad;
            changes.push(ShardChange { id, content, content_at, paused, paused_at });
        }
        Ok(changes)
    }

    /// What the ad tower of a generation makes of those of `ads` that it shows as they were changed.
    async fn embeddings(&self, manifest: &Manifest, ads: &[LiveAd]) -> Result<HashMap<AdId, UnitVector>, Refusal> {
        let (mut embeddings, mut unknown, mut items) = (HashMap::new(), Vec::new(), Vec::new());
        for ad in ads.iter().filter(|ad| is_shown(manifest, ad)) {
            let Content::Is(promoted) = &ad.content else { continue };
            match self.known.embedding(&manifest.id, &ad.id, ad.content_at) {
                Some(embedding) => drop(embeddings.insert(ad.id.clone(), embedding)),
                None => {
                    unknown.push(ad);
                    items.push(promoted.item.clone());
                }
            }
        }
        for (ad, embedding) in unknown.into_iter().zip(embed(&manifest.id, items).await?) {
            self.known.embedded(&manifest.id, &ad.id, ad.content_at, &embedding);
            embeddings.insert(ad.id.clone(), embedding);
        }
        Ok(embeddings)
    }
}

/// Whether a generation shows an ad as it was changed: what the index was built with is as built, unless it changed since.
fn is_shown(manifest: &Manifest, ad: &LiveAd) -> bool {
    match &ad.content {
        Content::Is(promoted) => ad.content_at > manifest.ads_until && promoted.ad.is_active(),
        Content::AsBuilt | Content::Deleted | Content::Patched(_) => false,
    }
}

async fn embed(
    generation: &GenerationId,
    items: Vec<turret_retrieval::item::Item>,
) -> Result<Vec<UnitVector>, Refusal> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let none = || Refusal::Failed("no inference worker serves this generation".to_owned());
    let worker = workers(generation).into_iter().next().ok_or_else(none)?;
    let remaining_us = CALL_TIMEOUT.as_micros() as u64;
    let ask = EmbedAdsAsk { generation: generation.clone(), items, remaining_us };
    let embed = |reply| -> inference_worker::Msg { Inbox::Request(InferenceRequest::EmbedAds(Wire::new(ask), reply)) };
    match worker.call(embed, Some(CALL_TIMEOUT)).await {
        Ok(CallResult::Success(answer)) => {
            answer.open().map_err(|error| Refusal::Unreadable(error.to_string())).flatten()
        }
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => {
            Err(Refusal::Failed("the inference worker did not answer".to_owned()))
        }
    }
}

/// Has a shard take changes over. Those that it will never take, and since when the ads are so, are left out, so that they hold up
/// no other.
async fn apply(
    shard: &ActorRef<index_shard::Msg>,
    generation: &GenerationId,
    changes: Vec<ShardChange>,
) -> Result<Vec<(AdId, Revision)>, Refusal> {
    match call(shard, generation, changes.clone()).await {
        Err(Refusal::Conflict(_)) => {}
        other => return other.map(|()| Vec::new()),
    }
    let mut refused = Vec::new();
    for change in changes {
        let (ad, at) = (change.id.clone(), change.content_at);
        match call(shard, generation, vec![change]).await {
            Err(Refusal::Conflict(why)) => {
                tracing::error!(%ad, %generation, why, "an ad cannot be changed in this index");
                refused.push((ad, at));
            }
            other => other?,
        }
    }
    Ok(refused)
}

async fn call(
    shard: &ActorRef<index_shard::Msg>,
    generation: &GenerationId,
    changes: Vec<ShardChange>,
) -> Result<(), Refusal> {
    let ask = ApplyAsk { generation: generation.clone(), changes };
    let apply = |reply| -> index_shard::Msg { Inbox::Request(IndexRequest::Apply(Wire::new(ask), reply)) };
    match shard.call(apply, Some(CALL_TIMEOUT)).await {
        Ok(CallResult::Success(answer)) => {
            answer.open().map_err(|error| Refusal::Unreadable(error.to_string())).flatten()
        }
        // It has ended, or will be asked again.
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => {
            Err(Refusal::Failed("the shard did not answer".to_owned()))
        }
    }
}
