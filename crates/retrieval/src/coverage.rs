//! How much of the index answered.

use serde::{Deserialize, Serialize};

use crate::ids::ShardId;

/// The prefix of the reason given for a shard that answered and may lack changes of its ads.
pub const UNVERIFIED: &str = "unverified";

/// The prefix of the reason given for a shard whose time was up before it had compared all that it had to.
pub const EARLY_STOPPED: &str = "early_stopped";

/// What became of one shard in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardOutcome {
    /// It answered in time.
    Answered,
    /// It answered in time, and does not know whether it has every change of its ads.
    Unverified,
    /// No answer within the budget.
    Timeout,
    /// No live replica is known.
    Absent,
    /// It refused: too much work is queued.
    Overloaded,
    /// It refused: it serves another generation.
    OtherGeneration,
    /// It answered with an error, or its actor died.
    Failed,
}

impl ShardOutcome {
    /// Whether its ads are in the answer.
    fn has_answered(self) -> bool {
        matches!(self, Self::Answered | Self::Unverified)
    }

    /// The prefix of the reason given for a shard that did not answer as it should.
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Answered => None,
            Self::Unverified => Some(UNVERIFIED),
            Self::Timeout => Some("shard_timeout"),
            Self::Absent => Some("shard_absent"),
            Self::Overloaded => Some("shard_overloaded"),
            Self::OtherGeneration => Some("shard_other_generation"),
            Self::Failed => Some("shard_failed"),
        }
    }
}

/// How complete an answer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Shards, by number.
    pub shards: ShardCounts,
    /// Share of the generation's ads that the answering shards hold, in [0, 1]: what was looked through.
    pub documents: f64,
    /// Expected recall against an answer of all shards, in [0, 1]. With hash partitioning every shard is a fair
    /// sample, so this equals `documents`; where shards are clusters it is what probes found in shards as near. Less what shards that
    /// stopped early had not come to: of a scan that is the share of rows not compared, which is a fair estimate as
    /// ads, or some dozens that lie together, stand in no order of nearness; of a walk the share of hits not met.
    pub estimated_recall: f64,
    /// Why it is not complete: `shard_timeout:5`, in the order of shards.
    pub reasons: Vec<String>,
}

/// Shards, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardCounts {
    /// Asked.
    pub asked: u32,
    /// Answered in time.
    pub answered: u32,
    /// Of those, the ones whose time was up before they had compared all that they had to.
    pub early_stopped: u32,
}

impl Coverage {
    /// Coverage of an answer. `shard_ads[s]` is the number of ads in shard `s`; `outcomes` has one entry a shard.
    pub fn of(outcomes: &[(ShardId, ShardOutcome)], shard_ads: &[u64]) -> Self {
        let total: u64 = shard_ads.iter().sum();
        let answered = outcomes.iter().filter(|(_, outcome)| outcome.has_answered());
        let held: u64 = answered.clone().map(|(shard, _)| shard_ads.get(shard.0 as usize).copied().unwrap_or(0)).sum();
        let documents = if total == 0 { 1.0 } else { held as f64 / total as f64 };
        let mut missing: Vec<(ShardId, &str)> =
            outcomes.iter().filter_map(|(shard, outcome)| Some((*shard, outcome.reason()?))).collect();
        missing.sort_unstable();
        Self {
            shards: ShardCounts { asked: outcomes.len() as u32, answered: answered.count() as u32, early_stopped: 0 },
            documents,
            estimated_recall: documents,
            reasons: missing.into_iter().map(|(shard, reason)| format!("{reason}:{shard}")).collect(),
        }
    }

    /// The same of shards that are no fair samples: `shares[s]` of the best ads are expected in shard `s`. Of the ads in all
    /// shards, none is missing.
    pub fn expecting(mut self, outcomes: &[(ShardId, ShardOutcome)], shares: &[f64]) -> Self {
        let answered = outcomes.iter().filter(|(_, outcome)| outcome.has_answered());
        let expected: f64 = answered.map(|(shard, _)| shares.get(shard.0 as usize).copied().unwrap_or(0.0)).sum();
        self.estimated_recall = if self.documents < 1.0 { expected.clamp(0.0, 1.0) } else { 1.0 };
        self
    }

    /// Tells of shards that answered with the best of what they had come to: with each, the share of it, in [0, 1]. `shares[s]` of the
    /// best ads are expected in shard `s`.
    pub fn tell_of_stopped(&mut self, stopped: &[(ShardId, f64)], shares: &[f64]) {
        for (shard, compared) in stopped {
            let held = shares.get(shard.0 as usize).copied().unwrap_or(0.0);
            let missed = if compared.is_finite() { 1.0 - compared.clamp(0.0, 1.0) } else { 1.0 };
            self.estimated_recall = (self.estimated_recall - held * missed).max(0.0);
            self.shards.early_stopped += 1;
            self.reasons.push(format!("{EARLY_STOPPED}:{shard}"));
        }
        let shard = |reason: &String| reason.rsplit_once(':').and_then(|(_, shard)| shard.parse::<u32>().ok());
        self.reasons.sort_by_key(shard);
    }

    /// Whether every shard that was asked answered as it should.
    pub fn is_full(&self) -> bool {
        self.shards.answered == self.shards.asked && self.reasons.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_counts_documents_not_shards() {
        let outcomes = [
            (ShardId(2), ShardOutcome::Timeout),
            (ShardId(0), ShardOutcome::Answered),
            (ShardId(1), ShardOutcome::Absent),
        ];
        let coverage = Coverage::of(&outcomes, &[70, 20, 10]);
        assert_eq!(coverage.shards, ShardCounts { asked: 3, answered: 1, early_stopped: 0 });
        assert!((coverage.documents - 0.7).abs() < 1e-12);
        assert_eq!(coverage.reasons, ["shard_absent:1", "shard_timeout:2"]);
        assert!(!coverage.is_full());
        assert!(Coverage::of(&[], &[]).is_full());
    }

    #[test]
    fn where_shards_are_clusters_the_expected_recall_is_what_the_answering_ones_are_expected_to_hold() {
        let shares = [0.7, 0.25, 0.05];
        let asked = |second| [(ShardId(0), ShardOutcome::Answered), (ShardId(1), second)];
        let of = |outcomes: &[_]| Coverage::of(outcomes, &[10, 20, 70]).expecting(outcomes, &shares);
        let full = of(&asked(ShardOutcome::Answered));
        assert_eq!((full.shards.asked, full.is_full()), (2, true), "nobody asked the third");
        assert!((full.documents - 0.3).abs() < 1e-12 && (full.estimated_recall - 0.95).abs() < 1e-12);
        let part = of(&asked(ShardOutcome::Timeout));
        assert!(!part.is_full() && (part.estimated_recall - 0.7).abs() < 1e-12);
        let all = [0, 1, 2].map(|shard| (ShardId(shard), ShardOutcome::Answered));
        assert_eq!(of(&all).estimated_recall, 1.0);
    }

    #[test]
    fn an_unverified_shard_counts_and_is_told_of() {
        let outcomes = [(ShardId(0), ShardOutcome::Answered), (ShardId(1), ShardOutcome::Unverified)];
        let coverage = Coverage::of(&outcomes, &[70, 30]);
        assert_eq!((coverage.shards.answered, coverage.documents), (2, 1.0));
        assert_eq!((coverage.reasons[0].as_str(), coverage.is_full()), ("unverified:1", false));
    }
    #[test]
    fn a_shard_that_stopped_early_counts_for_what_it_compared() {
        let outcomes = [(ShardId(0), ShardOutcome::Answered), (ShardId(1), ShardOutcome::Unverified)];
        let mut coverage = Coverage::of(&outcomes, &[70, 30]);
        coverage.tell_of_stopped(&[(ShardId(1), f64::NAN), (ShardId(0), 0.5)], &[0.7, 0.3]);
        assert_eq!(coverage.shards, ShardCounts { asked: 2, answered: 2, early_stopped: 2 });
        assert_eq!(coverage.reasons, ["early_stopped:0", "unverified:1", "early_stopped:1"]);
        assert!((coverage.estimated_recall - 0.35).abs() < 1e-12 && coverage.documents == 1.0);
        assert!(!coverage.is_full());
    }
}
