//! Pure: how one generation takes the place of another, and how it goes back.
//!
//! The plan is written down before each phase begins, so that what is on disk is never behind what is done. One plan at a
//! time; an ended one stays to be looked at until the next begins.

use serde::{Deserialize, Serialize};
use turret_retrieval::ids::GenerationId;

use super::tally::Counts;

/// Starts of the node in one watch, beyond the first, that are taken for the operator's.
const RESTARTS_MAX: u32 = 1;
/// From so many requests on, twenty that were slow as the node started are less than one in a hundred.
const WARM_REQUESTS: u64 = 2_001;

/// Where a plan is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The new generation is started beside the one that serves.
    Preparing,
    /// It is judged before a single answer comes from it.
    Gating,
    /// It is made current.
    Activating,
    /// It serves, and is watched.
    Watching,
    /// The old one is made current again.
    RollingBack {
        /// Why.
        why: String,
    },
    /// The one that lost is stopped, once its last request is answered.
    Retiring {
        /// What came of the plan.
        outcome: Outcome,
    },
    /// Nothing is going on.
    Ended {
        /// What came of the plan.
        outcome: Outcome,
    },
}

/// What came of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new generation serves.
    Published,
    /// It did not pass, and has answered nobody.
    Refused {
        /// Which gate, and with which figures.
        why: String,
    },
    /// It has served, and the old one serves again.
    RolledBack {
        /// Why.
        why: String,
    },
}

/// How generation `to` takes the place of `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutPlan {
    /// Counts the plans of a data directory.
    pub run: u64,
    /// The generation that served when it began.
    pub from: GenerationId,
    /// The generation that is to serve.
    pub to: GenerationId,
    /// Where it is.
    pub phase: Phase,
    /// When it began: milliseconds since 1970-01-01 UTC.
    pub started_at_ms: i64,
    /// When its phase began.
    pub phase_at_ms: i64,
    /// How often the node was started again during the watch.
    pub restarts: u32,
    /// What requests of `from` came to before `to` served, from then on: what `to` is judged by. Plans of earlier versions have none.
    #[serde(default)]
    pub before: Option<Counts>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What the phase had to do is done; a watch has passed without a fault.
    Done,
    /// It could not be done, or the watch found a fault.
    Failed(String),
    /// An operator wants the old generation.
    RollBack,
}

/// What a phase has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a generation's actors and have its users imported.
    Prepare,
    /// Judge it.
    Gate,
    /// Make this one current, the other its standby.
    Activate(GenerationId),
    /// Compare what it does with what the old one did.
    Watch,
    /// Stop this one.
    Retire(GenerationId),
}

impl RolloutPlan {
    /// The beginning of a plan.
    pub fn new(run: u64, from: GenerationId, to: GenerationId, now_ms: i64) -> Self {
        let (phase, restarts, before) = (Phase::Preparing, 0, None);
        Self { run, from, to, phase, started_at_ms: now_ms, phase_at_ms: now_ms, restarts, before }
    }

    /// Whether anything is left to do.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// What its phase has to do; nothing when it has ended.
    pub fn effect(&self) -> Option<Effect> {
        Some(match &self.phase {
            Phase::Preparing => Effect::Prepare,
            Phase::Gating => Effect::Gate,
            Phase::Activating => Effect::Activate(self.to.clone()),
            Phase::Watching => Effect::Watch,
            Phase::RollingBack { .. } => Effect::Activate(self.from.clone()),
            Phase::Retiring { outcome } => Effect::Retire(self.loser(outcome).clone()),
            Phase::Ended { .. } => return None,
        })
    }

    /// The generation that answers, or is just being made to; for a plan that has ended, as it ended.
    pub fn serving(&self) -> &GenerationId {
        match &self.phase {
            Phase::Preparing | Phase::Gating | Phase::RollingBack { .. } => &self.from,
            Phase::Activating | Phase::Watching => &self.to,
            Phase::Retiring { outcome } | Phase::Ended { outcome } => self.winner(outcome),
        }
    }

    /// The generation that must be ready to take the other's place, and whose states a refresh makes too.
    pub fn standby(&self) -> Option<&GenerationId> {
        match &self.phase {
            Phase::Preparing | Phase::Gating | Phase::RollingBack { .. } => Some(&self.to),
            Phase::Activating | Phase::Watching => Some(&self.from),
            Phase::Retiring { .. } | Phase::Ended { .. } => None,
        }
    }

    fn winner(&self, outcome: &Outcome) -> &GenerationId {
        match outcome {
            Outcome::Published => &self.to,
            Outcome::Refused { .. } | Outcome::RolledBack { .. } => &self.from,
        }
    }

    fn loser(&self, outcome: &Outcome) -> &GenerationId {
        if self.winner(outcome) == &self.to { &self.from } else { &self.to }
    }

    /// What the new generation, which has answered so many `requests`, is compared with. The first requests of a node that was started
    /// again are slow, whichever generation answers: latencies are compared once they are too few to be what p99 tells of.
    pub fn judged_by(&self, requests: u64) -> Counts {
        let before = self.before.unwrap_or_default();
        let is_warm = self.restarts == 0 || requests >= WARM_REQUESTS;
        Counts { p99_us: before.p99_us.filter(|_| is_warm), ..before }
    }

    /// Goes on to the next phase; says whether there is one. What comes too late changes nothing.
    pub fn take(&mut self, event: Event, now_ms: i64) -> bool {
        let retiring = |outcome| Phase::Retiring { outcome };
        let asked = || "an operator asked for it".to_owned();
        let next = match (&self.phase, event) {
            (Phase::Preparing, Event::Done) => Phase::Gating,
            (Phase::Gating, Event::Done) => Phase::Activating,
            (Phase::Preparing | Phase::Gating, Event::Failed(why)) => retiring(Outcome::Refused { why }),
            (Phase::Preparing | Phase::Gating, Event::RollBack) => retiring(Outcome::Refused { why: asked() }),
            (Phase::Activating, Event::Done) => Phase::Watching,
            (Phase::Watching, Event::Done) => retiring(Outcome::Published),
            (Phase::Activating | Phase::Watching, Event::Failed(why)) => Phase::RollingBack { why },
            (Phase::Activating | Phase::Watching, Event::RollBack) => Phase::RollingBack { why: asked() },
            (Phase::RollingBack { why }, Event::Done) => retiring(Outcome::RolledBack { why: why.clone() }),
            (Phase::Retiring { outcome }, Event::Done) => Phase::Ended { outcome: outcome.clone() },
            (Phase::RollingBack { .. } | Phase::Retiring { .. } | Phase::Ended { .. }, _) => return false,
        };
        self.phase = next;
        self.phase_at_ms = now_ms;
        true
    }

    /// The plan of a node that has been started again, and the generation to serve, where `current` is what stands on disk.
    ///
    /// Whoever made another generation current meanwhile has decided. What had answered nobody is given up; a watch goes on,
    /// once; everything else ends as it would have.
    #[must_use]
    pub fn after_restart(mut self, current: &GenerationId, now_ms: i64) -> (Self, GenerationId) {
        let ended = |outcome| Phase::Ended { outcome };
        let why = |text: &str| text.to_owned();
        let is_another = ![&self.from, &self.to].contains(&current);
        // Written before the watch began: where it is no more so, somebody went back.
        let went_back = self.phase == Phase::Watching && *current == self.from;
        if is_another || went_back {
            let text = why("another generation was made current while the node was down");
            let outcome = match self.phase {
                Phase::Preparing | Phase::Gating => Outcome::Refused { why: text },
                Phase::Retiring { outcome } | Phase::Ended { outcome } => outcome,
                Phase::Activating | Phase::Watching | Phase::RollingBack { .. } => Outcome::RolledBack { why: text },
            };
            self.phase = ended(outcome);
            self.phase_at_ms = now_ms;
            return (self, current.clone());
        }
        let phase = match self.phase {
            Phase::Preparing | Phase::Gating => {
                ended(Outcome::Refused { why: why("the node ended before it was activated") })
            }
            Phase::Activating => ended(Outcome::RolledBack { why: why("the node ended while it was activated") }),
            Phase::Watching if self.restarts < RESTARTS_MAX => Phase::Watching,
            Phase::Watching => ended(Outcome::RolledBack { why: why("the node ended twice while it was watched") }),
            Phase::RollingBack { why } => ended(Outcome::RolledBack { why }),
            Phase::Retiring { outcome } | Phase::Ended { outcome } => {
                self.phase = ended(outcome);
                return (self, current.clone());
            }
        };
        self.restarts += u32::from(phase == Phase::Watching);
        let never_served = matches!(&phase, Phase::Ended { outcome: Outcome::Refused { .. } });
        self.phase = phase;
        self.phase_at_ms = now_ms;
        let serve = if never_served { current.clone() } else { self.serving().clone() };
        (self, serve)
    }
}

#[cfg(test)]
mod tests;
