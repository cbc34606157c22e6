//! The shape that callers see: the bodies of `POST /v1/candidates:retrieve`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use turret_actors::retrieve::Answer;
use turret_actors::retrieve::inference::Fallback;
use turret_retrieval::context::{Context, Surface};
use turret_retrieval::coverage::Coverage;
use turret_retrieval::crowding::Crowding;
use turret_retrieval::ids::{AdId, RequestId, UserId};
use turret_retrieval::tier::{History, Tier};
use turret_retrieval::user::Demographics;

/// A request. Unknown fields are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetrieveBody {
    #[serde(default)]
    pub(super) request_id: Option<RequestId>,
    #[serde(default)]
    pub(super) user_id: Option<UserId>,
    /// Checked, and not yet a feature: every surface uses the same model.
    #[serde(rename = "surface")]
    _surface: Surface,
    #[serde(default)]
    pub(super) context: Option<Context>,
    #[serde(default)]
    pub(super) demographics: Demographics,
    #[serde(default)]
    pub(super) filter: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) crowding: Option<Crowding>,
    pub(super) k: u64,
    #[serde(default)]
    pub(super) deadline_ms: Option<u64>,
    #[serde(default)]
    pub(super) min_coverage: Option<f64>,
    #[serde(default)]
    pub(super) max_state_age_s: Option<u64>,
    #[serde(default)]
    pub(super) explain: Vec<Explain>,
}

/// What an answer may explain on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Explain {
    /// What each candidate would score without the context.
    Scores,
    /// How each shard applied the filter.
    FilterPlan,
}

/// An answer.
#[derive(Debug, Serialize)]
pub(super) struct AnswerBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<RequestId>,
    status: &'static str,
    generation: GenerationBody,
    user_state: UserStateBody,
    inference: InferenceBody,
    candidates: Vec<CandidateBody>,
    exhausted: bool,
    coverage: Coverage,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filter_plan: Vec<ShardPlanBody>,
    timings_us: TimingsBody,
}

#[derive(Debug, Serialize)]
struct GenerationBody {
    id: String,
    encoder: String,
    head: String,
    index: String,
}

#[derive(Debug, Serialize)]
struct UserStateBody {
    history: History,
    context: &'static str,
    tier: Tier,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_s: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Who computed the query embedding, and why it was not a worker.
#[derive(Debug, Serialize)]
struct InferenceBody {
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct CandidateBody {
    ad_id: AdId,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    score_without_context: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advertiser_id: Option<Box<str>>,
    shard: u32,
}

#[derive(Debug, Serialize)]
struct ShardPlanBody {
    shard: u32,
    strategy: turret_index::Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    selectivity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selectivity_near: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<u32>,
    distances: u64,
}

#[derive(Debug, Serialize)]
struct TimingsBody {
    state: u64,
    inference: u64,
    scatter: u64,
    merge: u64,
    total: u64,
}

impl AnswerBody {
    pub(super) fn new(body: &RetrieveBody, answer: Answer, total: Duration) -> Self {
        let manifest = &answer.manifest;
        let user = answer.user_state;
        let us = |duration: Duration| duration.as_micros() as u64;
        let is_whole = answer.coverage.is_full() && user.reason.is_none();
        let plans = answer.plans.into_iter().map(|plan| ShardPlanBody {
            shard: plan.shard.0,
            strategy: plan.plan,
            selectivity: plan.selectivity,
            selectivity_near: plan.selectivity_near,
            list: Some(plan.list).filter(|list| *list > 0),
            distances: plan.distances,
        });
        let candidates = answer.candidates.into_iter().map(|candidate| CandidateBody {
            ad_id: candidate.hit.ad,
            score: candidate.hit.score,
            score_without_context: candidate.score_without_context,
            advertiser_id: candidate.advertiser,
            shard: candidate.shard.0,
        });
        Self {
            request_id: body.request_id.clone(),
            status: if is_whole { "full" } else { "degraded" },
            generation: GenerationBody {
                id: manifest.id.to_string(),
                encoder: manifest.versions.encoder.to_string(),
                head: manifest.versions.head.to_string(),
                index: manifest.versions.index.to_string(),
            },
            user_state: UserStateBody {
                history: user.history,
                context: if user.context_used { "used" } else { "none" },
                tier: user.tier,
                age_s: user.age_ms.map(|age_ms| age_ms / 1_000),
                encoder: user.encoder.map(|encoder| encoder.to_string()),
                reason: user.reason,
            },
            inference: InferenceBody {
                by: answer.inference.name(),
                reason: answer.inference.fallback().map(Fallback::name),
            },
            candidates: candidates.collect(),
            exhausted: answer.exhausted,
            coverage: answer.coverage,
            filter_plan: if body.explain.contains(&Explain::FilterPlan) { plans.collect() } else { Vec::new() },
            timings_us: TimingsBody {
                state: us(answer.timings.state),
                inference: us(answer.timings.inference),
                scatter: us(answer.timings.scatter),
                merge: us(answer.timings.merge),
                total: us(total),
            },
        }
    }
}
