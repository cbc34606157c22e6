//! What each phase of a publication does.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use ractor::rpc::CallResult;
use tokio::time::Instant;
use turret_retrieval::budget::DEADLINE_MAX;
use turret_retrieval::ids::GenerationId;

use super::gates::Candidate;
use super::journal::Turn;
use super::plan::{Effect, Event, Phase, RolloutPlan};
use super::tally::Tally;
use super::verdict::fault;
use super::{Msg, Rollout};
use crate::depot::Wanted;
use crate::generation::Generation;
use crate::groups;
use crate::offload::Panicked;
use crate::protocol::{GateReport, WatchReport};
use crate::refresh;
use crate::routing::{self, RoutingTable};

/// For a generation to be loaded, its graphs built, and its users imported.
const PREPARE_MAX: Duration = Duration::from_secs(3_600);
/// Between two looks at what goes on.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For the routing actor, which answers at once.
const ROUTING_TIMEOUT: Duration = Duration::from_secs(5);

type Tell<'a> = &'a (dyn Fn(Msg) + Send + Sync);

impl Rollout {
    /// Writes the plan down and does what its phase has to do; what comes of it, where anything does.
    pub(super) async fn perform(
        &self,
        plan: &RolloutPlan,
        (task, turn): (u64, Turn),
        replaced: Option<Arc<Tally>>,
        tell: Tell<'_>,
    ) -> Option<Event> {
        let (journal, written) = (self.journal.clone(), plan.clone());
        let written = self.files.run(move || journal.write(turn, &written)).await;
        if let Err(error) = written.unwrap_or_else(|Panicked| Err(std::io::Error::other("writing panicked"))) {
            tracing::error!(%error, phase = ?plan.phase, "the plan of a publication cannot be written");
            // Going back must not depend on the disk; going forward does.
            let goes_back = matches!(plan.phase, Phase::RollingBack { .. } | Phase::Retiring { .. });
            if !goes_back {
                return Some(Event::Failed(format!("the plan cannot be written: {error}")));
            }
        }
        let done = match plan.effect()? {
            Effect::Prepare => self.prepare(plan, task, tell).await,
            Effect::Gate => self.gate(plan, task, tell).await,
            Effect::Activate(id) => self.activate(plan, &id).await,
            Effect::Watch => self.watch(plan, task, tell).await,
            Effect::Retire(id) => self.retire(plan, &id, replaced.as_ref()).await,
        };
        Some(match done {
            Ok(()) => Event::Done,
            Err(why) => Event::Failed(why),
        })
    }

    async fn open(&self, id: &GenerationId) -> Result<Generation, String> {
        let (first, id) = (self.first.clone(), id.clone());
        let opened = self.files.run(move || first.beside(&id)).await;
        opened.map_err(|Panicked| "reading the manifest panicked".to_owned())?.map_err(|error| error.to_string())
    }

    async fn candidate(&self, plan: &RolloutPlan) -> Result<Candidate<'_>, String> {
        Ok(Candidate { own: self, from: self.open(&plan.from).await?.manifest, to: self.open(&plan.to).await? })
    }

    async fn prepare(&self, plan: &RolloutPlan, task: u64, tell: Tell<'_>) -> Result<(), String> {
        // From a directory nothing is copied.
        let go_on = |_| std::ops::ControlFlow::Continue(());
        self.depot.fetch(&plan.to, Wanted::Everything, &go_on).await.map_err(|error| error.to_string())?;
        let candidate = self.candidate(plan).await?;
        passed(candidate.counts(), task, tell)?;
        passed(candidate.digests().await, task, tell)?;
        passed(candidate.memory(), task, tell)?;
        let (id, manifest) = (&plan.to, candidate.to.manifest.clone());
        self.serving.start(&candidate.to).await.map_err(|error| error.to_string())?;
        self.users().import(id, PREPARE_MAX).await.map_err(|error| error.to_string())?;
        let placed = self.placement.of(&manifest);
        let ends = Instant::now() + PREPARE_MAX;
        while !placed.is_ready(&RoutingTable::beside(manifest.clone())) {
            if Instant::now() > ends {
                return Err(format!("it was not loaded within {} s", PREPARE_MAX.as_secs()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn gate(&self, plan: &RolloutPlan, task: u64, tell: Tell<'_>) -> Result<(), String> {
        let candidate = self.candidate(plan).await?;
        // From here on a refresh makes the states of both.
        self.route(&plan.from, Some(&plan.to)).await?;
        let (old, new) = (self.routing.table(), Arc::new(RoutingTable::beside(candidate.to.manifest.clone())));
        passed(candidate.live_ads().await, task, tell)?;
        passed(candidate.probes(&new).await, task, tell)?;
        passed(candidate.states().await, task, tell)?;
        passed(candidate.shadow(&old, &new).await, task, tell)
    }

    async fn activate(&self, plan: &RolloutPlan, id: &GenerationId) -> Result<(), String> {
        let generation = self.open(id).await?;
        // It runs, unless the node has been started again meanwhile.
        self.serving.start(&generation).await.map_err(|error| error.to_string())?;
        let make_current = async || self.depot.make_current(id).await.map_err(|error| error.to_string());
        if matches!(plan.phase, Phase::RollingBack { .. }) {
            // Callers first: whatever the disk does, they get answers of the old one again.
            self.route(id, plan.standby()).await?;
            make_current().await
        } else {
            make_current().await?;
            self.route(id, plan.standby()).await?;
            self.refresh_rest(plan).await
        }
    }

    /// Users who were not here lately get their states in turn.
    async fn refresh_rest(&self, plan: &RolloutPlan) -> Result<(), String> {
        let (from, to) = (self.open(&plan.from).await?, self.open(&plan.to).await?);
        if from.manifest.versions.encoder == to.manifest.versions.encoder {
            return Ok(());
        }
        let Some(refresh) = ActorRef::<refresh::Msg>::where_is(groups::actor("refresh", &self.node)) else {
            // The next one that is due makes them.
            tracing::warn!("the refresh actor is restarting; states follow with the next refresh");
            return Ok(());
        };
        // Gone meanwhile, the next one that is due makes them.
        drop(refresh.cast(refresh::Msg::OtherEncoder));
        Ok(())
    }

    async fn watch(&self, plan: &RolloutPlan, task: u64, tell: Tell<'_>) -> Result<(), String> {
        if let Some(standby) = plan.standby() {
            // It runs, but where the node has been started again meanwhile.
            self.serving.start(&self.open(standby).await?).await.map_err(|error| error.to_string())?;
        }
        let ends = Instant::now() + self.settings.watch;
        loop {
            let now = self.routing.table().tally.counts();
            let left = ends.saturating_duration_since(Instant::now());
            let before = plan.judged_by(now.requests);
            tell(Msg::Watched(task, WatchReport { before, now, remaining_ms: left.as_millis() as u64 }));
            if let Some(why) = fault(&before, &now, &self.settings.bounds, left.is_zero()) {
                return Err(why);
            }
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY.min(left)).await;
        }
    }

    async fn retire(&self, plan: &RolloutPlan, id: &GenerationId, replaced: Option<&Arc<Tally>>) -> Result<(), String> {
        self.route(plan.serving(), None).await?;
        // Requests that pinned it are answered first; none takes longer than the longest deadline.
        let ends = Instant::now() + DEADLINE_MAX;
        while replaced.is_some_and(|tally| tally.running() > 0) && Instant::now() < ends {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.serving.stop(id).await;
        // An old copy that stays costs room, and no answer.
        if let Err(error) = self.depot.forget_old(&[plan.from.clone(), plan.to.clone()]).await {
            tracing::warn!(%error, "old generation stays in the cache");
        }
        Ok(())
    }

    /// Has requests routed to `serving` from now on.
    async fn route(&self, serving: &GenerationId, standby: Option<&GenerationId>) -> Result<(), String> {
        let manifest = self.open(serving).await?.manifest;
        let standby = match standby {
            Some(standby) => Some(self.open(standby).await?.manifest),
            None => None,
        };
        let gone = || "the routing actor is restarting".to_owned();
        let actor = ActorRef::<routing::Msg>::where_is(groups::actor("routing", &self.node)).ok_or_else(gone)?;
        let served = actor.call(|reply| routing::Msg::Serve(manifest, standby, reply), Some(ROUTING_TIMEOUT)).await;
        match served {
            Ok(CallResult::Success(())) => Ok(()),
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(gone()),
        }
    }
}

/// Tells of a gate, and whether what comes behind it may go on.
fn passed(report: GateReport, task: u64, tell: Tell<'_>) -> Result<(), String> {
    let judged = if report.passed { Ok(()) } else { Err(format!("{}: {}", report.name, report.detail)) };
    tell(Msg::Gated(task, report));
    judged
}
