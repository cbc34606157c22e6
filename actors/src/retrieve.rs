//! One retrieval: an async function over a routing snapshot, never an actor and never through one mailbox.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use turret_retrieval::budget::Budget;
use turret_retrieval::context::Context;
use turret_retrieval::coverage::Coverage;
use turret_retrieval::crowding::Crowding;
use turret_retrieval::filter::Filter;
use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::{AdId, EncoderVersion, UserId};
use turret_retrieval::tier::{History, Tier};
use turret_retrieval::user::Demographics;

use crate::local_head::LocalHeads;
use crate::metrics::Metrics;
use crate::protocol::{EmbedAsk, Embedded, QueryEmbedding, StateView};
use crate::rollout::tally::End;
use crate::routing::{RoutingReader, RoutingTable};

pub mod gather;
mod history;
pub mod inference;
pub mod recent;
mod route;
mod scatter;
mod shadow;

use gather::{Candidate, ShardPlan};
use history::{LookedUp, judge, view};
use inference::Inference;
use recent::Recent;
use shadow::Shadow;

/// What is asked.
#[derive(Clone, Debug)]
pub struct RetrieveRequest {
    /// The user, where there is one.
    pub user: Option<UserId>,
    /// What the user is looking at.
    pub context: Option<Context>,
    /// What the caller knows of the user; goes before what is stored.
    pub demographics: Demographics,
    /// Only ads that pass.
    pub filter: Option<Filter>,
    /// At most so many ads of one value.
    pub crowding: Option<Crowding>,
    /// How many, 1..=[`K_MAX`](turret_retrieval::topk::K_MAX).
    pub k: usize,
    /// How long it may take, from arrival.
    pub budget: Budget,
    /// A state older than this is not used.
    pub max_state_age_ms: Option<i64>,
    /// Whether each candidate is scored without the context as well.
    pub compares_without_context: bool,
    /// The least recall that is to be expected; less is of no use to the caller.
    pub min_coverage: Option<f64>,
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    /// The generation that it is of, all of it.
    pub manifest: Arc<Manifest>,
    /// The ads, best first.
    pub candidates: Vec<Candidate>,
    /// Fewer than `k`, and no more exist that pass the filter.
    pub exhausted: bool,
    /// How complete it is.
    pub coverage: Coverage,
    /// How personal it is.
    pub user_state: UserState,
    /// Who computed its query embedding.
    pub inference: Inference,
    /// How the shards searched.
    pub plans: Vec<ShardPlan>,
    /// What each stage took.
    pub timings: Timings,
}

/// How personal an answer is, and why not more.
#[derive(Clone, Debug, PartialEq)]
pub struct UserState {
    /// What the sequence state was worth.
    pub history: History,
    /// Whether the model knew anything of the context given.
    pub context_used: bool,
    /// Both together.
    pub tier: Tier,
    /// Age of the state used.
    pub age_ms: Option<i64>,
    /// The encoder that made it.
    pub encoder: Option<EncoderVersion>,
    /// Why no state was used, where the user may have one: the partition could not be asked, or the state is too old or of another encoder.
    pub reason: Option<&'static str>,
}

/// What each stage took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Asking the user's partition.
    pub state: Duration,
    /// The query embedding.
    pub inference: Duration,
    /// Asking the shards.
    pub scatter: Duration,
    /// Putting their answers together.
    pub merge: Duration,
}

/// Why nothing is answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// More requests are running than the limit allows. Retryable.
    #[error("too many requests are running")]
    Overloaded,
    /// The deadline passed before the shards could be asked.
    #[error("the deadline passed in stage `{stage}`")]
    DeadlineExceeded {
        /// Where.
        stage: &'static str,
    },
    /// No inference worker answered, and this node's own head gave nothing either, or it has none. Retryable.
    #[error("no inference worker of this generation answered: {why}")]
    NoInference {
        /// What the last one said.
        why: String,
    },
}

/// Answers retrievals. One per node; cheap to clone.
#[derive(Clone)]
pub struct Retriever {
    routing: RoutingReader,
    permits: Arc<Semaphore>,
    recent: Arc<Recent>,
    shadow: Shadow,
    heads: LocalHeads,
    metrics: Metrics,
}

/// A generation that a request holds fast from its arrival to its answer, whatever is published meanwhile.
pub struct Pinned {
    table: Arc<RoutingTable>,
    began: Instant,
    end: Option<End>,
}

impl Pinned {
    /// What is pinned.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.table.manifest
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.table.tally.ended(self.end.map(|end| (end, self.began.elapsed())));
    }
}

impl Retriever {
    /// At most `in_flight_max` retrievals run at once; the next is refused.
    /// One of every `shadow_every` answers is compared with that of an exact scan; 0 for none. `heads` answer in the place of
    /// workers.
    pub fn new(
        routing: RoutingReader,
        in_flight_max: usize,
        shadow_every: u64,
        heads: LocalHeads,
        metrics: Metrics,
    ) -> Self {
        let shadow = Shadow::new(shadow_every, metrics.clone());
        let permits = Arc::new(Semaphore::new(in_flight_max));
        Self { routing, permits, recent: Arc::default(), shadow, heads, metrics }
    }

    /// The routing table of now.
    pub fn table(&self) -> Arc<RoutingTable> {
        self.routing.table()
    }

    /// What was asked lately.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Holds the generation of now fast for one request.
    pub fn pin(&self) -> Pinned {
        let began = Instant::now();
        loop {
            let table = self.routing.table();
            table.tally.began();
            let pinned = Pinned { table, began, end: None };
            // Where another has been activated between the two, the first may be stopped already.
            if Arc::ptr_eq(&pinned.table.tally, &self.routing.table().tally) {
                return pinned;
            }
        }
    }

    /// Retrieves the best ads within the request's budget.
    ///
    /// A shard that does not answer in time is missing from the coverage, never an error; a user partition that does not
    /// is a lower tier.
    ///
    /// # Errors
    /// When nothing could be retrieved at all; see [`Rejection`].
    pub async fn retrieve(&self, mut pinned: Pinned, request: RetrieveRequest) -> Result<Answer, Rejection> {
        let Ok(_permit) = self.permits.try_acquire() else {
            // A generation that is too slow is found out by this.
            pinned.end = Some(End::Failed);
            return Err(Rejection::Overloaded);
        };
        self.recent.note(&request);
        // One that its caller gives up has had no answer either, as long as it waited.
        pinned.end = Some(End::Failed);
        let answer = self.answer(&pinned.table, &request, true).await;
        pinned.end = Some(match &answer {
            Ok(answer) if !answer.coverage.is_full() => End::Failed,
            Ok(answer) if request.min_coverage.is_some_and(|min| answer.coverage.estimated_recall < min) => End::Failed,
            Ok(answer) if answer.candidates.is_empty() => End::Empty,
            Ok(_) => End::Answered,
            Err(_) => End::Failed,
        });
        answer
    }

    /// The ads nearest to `query` in the generation of `table`, best first, as a request for the best `wanted` goes to its shards; of
    /// all of them, or none.
    ///
    /// # Errors
    /// When a shard does not answer within `budget`.
    pub(crate) async fn search(
        &self,
        table: &RoutingTable,
        query: QueryEmbedding,
        (k, wanted): (usize, usize),
        budget: Duration,
    ) -> Result<Vec<AdId>, String> {
        let request = RetrieveRequest {
            user: None,
            context: None,
            demographics: Demographics::default(),
            filter: None,
            crowding: None,
            k,
            budget: Budget::new(Instant::now().into_std(), budget),
            max_state_age_ms: None,
            compares_without_context: false,
            min_coverage: None,
        };
        let gather =
            scatter::scatter(table, &request, query, (wanted, false)).await.map_err(|error| error.to_string())?;
        let gathered = gather.finish(k, &table.manifest.shard_ads);
        if !gathered.coverage.is_full() {
            return Err(gathered.coverage.reasons.join(", "));
        }
        Ok(gathered.candidates.into_iter().map(|candidate| candidate.hit.ad).collect())
    }

    /// Retrieves from the generation of `table`, whether or not it serves: for who compares. No tally counts it.
    ///
    /// # Errors
    /// As [`Self::retrieve`].
    pub async fn rehearse(&self, table: &Arc<RoutingTable>, request: &RetrieveRequest) -> Result<Answer, Rejection> {
        self.answer(table, request, false).await
    }

    async fn answer(
        &self,
        table: &Arc<RoutingTable>,
        request: &RetrieveRequest,
        is_live: bool,
    ) -> Result<Answer, Rejection> {
        let mut timings = Timings::default();

        let started = Instant::now();
        let looked_up = self.look_up(table, request).await;
        timings.state = self.observe("user", started);
        let (state, mut user_state) = judge(&looked_up, request);
        let stored = looked_up.view.map(|view| view.demographics).unwrap_or_default();
        let demographics = request.demographics.clone().or(&stored);
        let demographics_known = !demographics.is_unknown();

        let started = Instant::now();
        let ask = EmbedAsk {
            generation: table.manifest.id.clone(),
            state,
            context: request.context.clone(),
            demographics,
            compares_without_context: request.compares_without_context,
            // Each that is asked is told its own.
            remaining_us: 0,
        };
        let (Embedded { query, context_used }, inference) = self.embed(table, ask, request.budget).await?;
        timings.inference = self.observe("embed", started);
        user_state.context_used = context_used;
        user_state.tier = Tier::of(user_state.history, context_used, demographics_known);

        let started = Instant::now();
        let due = if is_live { self.shadow.due().map(|permit| (permit, query.clone())) } else { None };
        let gather = scatter::scatter(table, request, query, (request.k, false)).await?;
        timings.scatter = self.observe("scatter", started);

        let started = Instant::now();
        let gathered = gather.finish(request.k, &table.manifest.shard_ads);
        timings.merge = self.observe("merge", started);
        self.metrics.coverage.observe(gathered.coverage.estimated_recall);
        if let Some((permit, query)) = due.filter(|_| gathered.coverage.is_full()) {
            self.shadow.compare(permit, table.clone(), request.clone(), query, &gathered);
        }
        Ok(Answer {
            manifest: table.manifest.clone(),
            candidates: gathered.candidates,
            exhausted: gathered.exhausted,
            coverage: gathered.coverage,
            user_state,
            inference,
            plans: gathered.plans,
            timings,
        })
    }

    async fn look_up(&self, table: &RoutingTable, request: &RetrieveRequest) -> LookedUp {
        let Some(user) = &request.user else { return LookedUp::default() };
        let (result, looked_up) = match view(table, user, request.budget).await {
            Ok(mut view) => {
                // It would have the head refuse the whole request.
                let is_other = |state: &mut StateView| *state.history.encoder() != table.manifest.versions.encoder;
                let other = view.as_mut().and_then(|view| view.state.take_if(is_other));
                let reason = other.map(|_| "state_of_other_encoder");
                let state = view.as_ref().and_then(|view| view.state.as_ref());
                let worth = state.map_or("missing", |state| if state.is_current { "fresh" } else { "stale" });
                (worth, LookedUp { view, reason })
            }
            Err(reason) => ("unavailable", LookedUp { view: None, reason: Some(reason) }),
        };
        self.metrics.user_lookups.with_label_values(&[result]).inc();
        looked_up
    }

    fn observe(&self, stage: &'static str, started: Instant) -> Duration {
        let took = started.elapsed();
        self.metrics.stage_duration.with_label_values(&[stage]).observe(took.as_secs_f64());
        took
    }
}

/// The granularity of tokio's timers.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Whether a reply port that was dropped means that time was up: a remote call's own timer drops it at the same moment
/// as the caller's ends, and either may be first.
fn is_late(asked: Instant, patience: Duration) -> bool {
    asked.elapsed() + TIMER_TICK >= patience
}
