//! Pure: what the shards answered, put together.

use turret_index::FoundAd;
use turret_retrieval::coverage::{Coverage, ShardOutcome};
use turret_retrieval::crowding::{Crowding, Taken};
use turret_retrieval::ids::ShardId;
use turret_retrieval::merge::merge_within;
use turret_retrieval::topk::Hit;

use crate::protocol::{Refusal, SearchReply};

/// One candidate with where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The ad and its score.
    pub hit: Hit,
    /// Its score for the same user without the context, where that was asked.
    pub score_without_context: Option<f32>,
    /// The advertiser, where the ad names one.
    pub advertiser: Option<Box<str>>,
    /// The shard that found it.
    pub shard: ShardId,
}

/// What stands beside a hit while the lists are merged.
#[derive(Clone)]
struct Beside {
    score_without_context: Option<f32>,
    advertiser: Option<Box<str>>,
    crowd: Option<Box<str>>,
    shard: ShardId,
}

/// The answers of the shards of one request, as they come in.
pub struct Gather {
    outcomes: Vec<Option<ShardOutcome>>,
    /// Whether the shard was asked.
    asked: Vec<bool>,
    /// Where the best ads are expected; absent where shards are fair samples.
    shares: Option<Vec<f64>>,
    lists: Vec<Vec<(Hit, Beside)>>,
    exhausted: bool,
    plans: Vec<ShardPlan>,
    /// Shards whose time was up, with the share of their work that was done.
    stopped: Vec<(ShardId, f64)>,
    /// The most ads of one value.
    crowd_max: Option<u32>,
}

/// How one shard searched.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardPlan {
    /// The shard.
    pub shard: ShardId,
    /// What it did.
    pub plan: turret_index::Plan,
    /// Share of its ads that pass the filter, where there was one.
    pub selectivity: Option<f64>,
    /// Share of those near the query that was expected to pass, where the plan depended on it.
    pub selectivity_near: Option<f64>,
    /// The longest candidate list of a walk; 0 where nothing was walked.
    pub list: u32,
    /// Ads that it compared with the query.
    pub distances: u64,
}

/// All that was gathered.
#[derive(Debug)]
pub struct Gathered {
    /// The best, in the order of [`Hit`].
    pub candidates: Vec<Candidate>,
    /// How complete they are.
    pub coverage: Coverage,
    /// Every shard there is answered, and none holds a further ad that passes the filter.
    pub exhausted: bool,
    /// How the shards that answered searched, by shard.
    pub plans: Vec<ShardPlan>,
}

impl Gather {
    /// Before the first answer of `shards` shards, all of which are asked, for this crowding.
    pub fn new(shards: u32, crowding: Option<&Crowding>) -> Self {
        Self {
            outcomes: vec![None; shards as usize],
            asked: vec![true; shards as usize],
            shares: None,
            lists: Vec::new(),
            exhausted: true,
            plans: Vec::new(),
            stopped: Vec::new(),
            crowd_max: crowding.map(|crowding| crowding.max),
        }
    }

    /// The same, of which no shard is asked yet.
    pub fn of_few(shards: u32, crowding: Option<&Crowding>) -> Self {
        Self { asked: vec![false; shards as usize], ..Self::new(shards, crowding) }
    }

    /// A shard is asked.
    pub fn ask(&mut self, shard: ShardId) {
        if let Some(asked) = self.asked.get_mut(shard.0 as usize) {
            *asked = true;
        }
    }

    /// By shard, the share of the best ads that it is expected to hold.
    pub fn expect(&mut self, shares: Option<Vec<f64>>) {
        self.shares = shares;
    }

    /// As far as which ad the best `k` that pass the filter reach, counted with those that do not: by what the shards that answered
    /// say of the filter. Infinite where they know of none that passes.
    pub fn reach(&self, k: usize) -> f64 {
        let passing: Vec<f64> = self.plans.iter().filter_map(|plan| plan.selectivity).collect();
        if passing.is_empty() {
            return k as f64;
        }
        k as f64 / (passing.iter().sum::<f64>() / passing.len() as f64)
    }

    /// Whether there are `k` ads already.
    pub fn has(&self, k: usize) -> bool {
        self.best(k).len() == k
    }

    /// Takes in what a shard answered; only its first answer counts.
    pub fn take(&mut self, shard: ShardId, answer: Result<SearchReply, ShardOutcome>) {
        let Some(slot @ None) = self.outcomes.get_mut(shard.0 as usize) else { return };
        match answer {
            Ok(reply) => {
                *slot = Some(if reply.verified { ShardOutcome::Answered } else { ShardOutcome::Unverified });
                self.exhausted &= reply.exhausted;
                let SearchReply { plan, selectivity, selectivity_near, list, distances, .. } = reply;
                self.plans.push(ShardPlan { shard, plan, selectivity, selectivity_near, list, distances });
                if reply.early_stopped {
                    self.stopped.push((shard, reply.compared));
                }
                // A score that is no number would make the order of the answer depend on chance.
                let sound = reply.ads.into_iter().filter(|ad| ad.hit.score.is_finite());
                self.lists.push(sound.map(|ad| beside(ad, shard)).collect());
            }
            Err(outcome) => *slot = Some(outcome),
        }
    }

    /// Whether every shard has been heard of that was asked.
    pub fn is_complete(&self) -> bool {
        self.outcomes.iter().zip(&self.asked).all(|(outcome, asked)| outcome.is_some() || !asked)
    }

    fn best(&self, k: usize) -> Vec<(Hit, Beside)> {
        let mut taken = self.crowd_max.map(Taken::new);
        let admits = |ad: &Beside| taken.as_mut().is_none_or(|taken| taken.admits(ad.crowd.as_deref()));
        merge_within(&self.lists, k, admits)
    }

    /// The best `k` of what came; a shard not heard of timed out. `shard_ads[s]` is the number of ads in shard `s`.
    pub fn finish(mut self, k: usize, shard_ads: &[u64]) -> Gathered {
        let outcomes: Vec<(ShardId, ShardOutcome)> = (0u32..)
            .zip(self.outcomes.iter().zip(&self.asked))
            .filter(|(_, (_, asked))| **asked)
            .map(|(shard, (outcome, _))| (ShardId(shard), outcome.unwrap_or(ShardOutcome::Timeout)))
            .collect();
        let mut coverage = Coverage::of(&outcomes, shard_ads);
        let held: Vec<f64>;
        let shares = match &self.shares {
            Some(shares) => {
                coverage = coverage.expecting(&outcomes, shares);
                shares
            }
            None => {
                let total = shard_ads.iter().sum::<u64>().max(1) as f64;
                held = shard_ads.iter().map(|ads| *ads as f64 / total).collect();
                &held
            }
        };
        coverage.tell_of_stopped(&self.stopped, shares);
        let candidates = self
            .best(k)
            .into_iter()
            .map(|(hit, Beside { score_without_context, advertiser, shard, .. })| Candidate {
                hit,
                score_without_context,
                advertiser,
                shard,
            })
            .collect::<Vec<_>>();
        self.plans.sort_by_key(|plan| plan.shard);
        let is_of_all = self.asked.iter().all(|asked| *asked);
        let exhausted = self.exhausted && is_of_all && coverage.is_full() && candidates.len() < k;
        Gathered { candidates, coverage, exhausted, plans: self.plans }
    }
}

fn beside(ad: FoundAd, shard: ShardId) -> (Hit, Beside) {
    let score_without_context = ad.baseline_score.filter(|score| score.is_finite());
    (ad.hit, Beside { score_without_context, advertiser: ad.advertiser, crowd: ad.crowd, shard })
}

/// What a shard's refusal means for coverage.
pub fn outcome_of(refusal: &Refusal) -> ShardOutcome {
    match refusal {
        Refusal::OtherVersion { .. } => ShardOutcome::OtherGeneration,
        Refusal::Overloaded => ShardOutcome::Overloaded,
        Refusal::Expired => ShardOutcome::Timeout,
        Refusal::Starting => ShardOutcome::Absent,
        Refusal::Unreadable(_)
        | Refusal::Failed(_)
        | Refusal::Conflict(_)
        | Refusal::Unreachable(_)
        | Refusal::NotFinite => ShardOutcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use turret_retrieval::ids::AdId;

    use super::*;

    fn reply(ads: &[(u64, f32)], exhausted: bool) -> SearchReply {
        let found = |(ad, score): &(u64, f32)| FoundAd {
            hit: Hit { ad: AdId::from(*ad), score: *score },
            advertiser: None,
            baseline_score: None,
            crowd: None,
        };
        SearchReply {
            ads: ads.iter().map(found).collect(),
            exhausted,
            plan: turret_index::Plan::Exact,
            selectivity: None,
            selectivity_near: None,
            list: 0,
            distances: 0,
            early_stopped: false,
            compared: 1.0,
            verified: true,
        }
    }

    #[test]
    fn a_late_shard_leaves_the_answer_partial() {
        let mut gather = Gather::new(3, None);
        gather.take(ShardId(2), Ok(reply(&[(9, 0.5)], true)));
        gather.take(ShardId(0), Ok(reply(&[(1, 0.9), (2, 0.1)], true)));
        gather.take(ShardId(0), Err(ShardOutcome::Failed));
        assert!(!gather.is_complete());
        let gathered = gather.finish(10, &[5, 3, 2]);
        let ads: Vec<&str> = gathered.candidates.iter().map(|candidate| candidate.hit.ad.as_str()).collect();
        assert_eq!(ads, ["1", "9", "2"]);
        assert_eq!(gathered.candidates[1].shard, ShardId(2));
        assert!((gathered.coverage.documents - 0.7).abs() < 1e-12);
        assert_eq!(gathered.coverage.reasons, ["shard_timeout:1"]);
        // Shard 1 may hold more, so nobody can say that the filter is exhausted.
        assert!(!gathered.exhausted);
    }

    #[test]
    fn shards_that_nobody_asked_are_missing_from_no_answer_and_may_hold_more() {
        let mut gather = Gather::of_few(3, None);
        assert!(gather.is_complete());
        gather.ask(ShardId(2));
        gather.ask(ShardId(0));
        gather.expect(Some(vec![0.2, 0.1, 0.7]));
        gather.take(ShardId(2), Ok(SearchReply { selectivity: Some(0.1), ..reply(&[(9, 0.5)], true) }));
        assert!(!gather.is_complete() && gather.has(1) && !gather.has(2));
        gather.take(ShardId(0), Ok(SearchReply { selectivity: Some(0.3), ..reply(&[], true) }));
        assert!(gather.is_complete() && (gather.reach(10) - 50.0).abs() < 1e-9);
        let gathered = gather.finish(10, &[5, 3, 2]);
        assert_eq!((gathered.coverage.shards.asked, gathered.coverage.is_full()), (2, true));
        assert!((gathered.coverage.documents - 0.7).abs() < 1e-12);
        assert!((gathered.coverage.estimated_recall - 0.9).abs() < 1e-12);
        assert!(!gathered.exhausted, "shard 1 was not asked");
    }

    #[test]
    fn what_an_unverified_shard_found_is_in_the_answer_that_tells_of_it() {
        let mut gather = Gather::new(2, None);
        gather.take(ShardId(0), Ok(reply(&[(1, 0.9)], true)));
        gather.take(ShardId(1), Ok(SearchReply { verified: false, ..reply(&[(2, 0.8)], true) }));
        let gathered = gather.finish(5, &[1, 1]);
        assert_eq!((gathered.candidates.len(), &gathered.coverage.reasons[..]), (2, &["unverified:1".to_owned()][..]));
        assert!(!gathered.exhausted && !gathered.coverage.is_full());
    }

    #[test]
    fn what_a_shard_found_before_its_time_was_up_is_in_the_answer_that_tells_of_it() {
        let mut gather = Gather::new(2, None);
        gather.take(ShardId(0), Ok(reply(&[(1, 0.9)], true)));
        let stopped = SearchReply { early_stopped: true, compared: 0.25, ..reply(&[(2, 0.8)], false) };
        gather.take(ShardId(1), Ok(stopped));
        let gathered = gather.finish(5, &[1, 1]);
        let coverage = &gathered.coverage;
        assert_eq!((gathered.candidates.len(), &coverage.reasons[..]), (2, &["early_stopped:1".to_owned()][..]));
        assert_eq!((coverage.shards.answered, coverage.shards.early_stopped), (2, 1));
        assert!((coverage.estimated_recall - 0.625).abs() < 1e-12 && coverage.documents == 1.0);
        assert!(!gathered.exhausted && !coverage.is_full());
    }

    #[test]
    fn a_crowding_holds_over_all_shards() {
        let crowding = Crowding { field: "advertiser_id".into(), max: 1 };
        let of = |ads: &[(u64, f32)], crowd: &str| {
            let mut reply = reply(ads, true);
            reply.ads.iter_mut().for_each(|ad| ad.crowd = Some(crowd.into()));
            reply
        };
        let mut gather = Gather::new(3, Some(&crowding));
        gather.take(ShardId(0), Ok(of(&[(1, 0.9)], "adv1")));
        gather.take(ShardId(1), Ok(of(&[(2, 0.8)], "adv1")));
        gather.take(ShardId(2), Ok(of(&[(3, 0.7)], "adv2")));
        let ads: Vec<AdId> = gather.finish(5, &[1; 3]).candidates.into_iter().map(|ad| ad.hit.ad).collect();
        assert_eq!(ads, [AdId::from(1), AdId::from(3)]);
    }

    #[test]
    fn exhausted_needs_every_shard_to_say_so() {
        let mut gather = Gather::new(2, None);
        gather.take(ShardId(0), Ok(reply(&[(1, 0.9)], true)));
        gather.take(ShardId(1), Ok(reply(&[], true)));
        assert!(gather.finish(2, &[1, 1]).exhausted);
        let mut gather = Gather::new(2, None);
        gather.take(ShardId(0), Ok(reply(&[(1, 0.9)], true)));
        gather.take(ShardId(1), Ok(reply(&[(2, 0.8)], true)));
        assert!(!gather.finish(2, &[1, 1]).exhausted);
    }

    proptest! {
        #[test]
        fn any_order_of_answers_gives_one_answer(
            scores in prop::collection::vec(prop::collection::vec(-8i8..8, 0..8), 1..5),
            seed in any::<u64>(),
        ) {
            let shards = scores.len() as u32;
            let replies: Vec<SearchReply> = scores
                .iter()
                .zip(0u64..)
                .map(|(list, shard)| {
                    let ads: Vec<_> = list.iter().zip(0u64..).map(|(s, i)| (shard * 100 + i, f32::from(*s))).collect();
                    reply(&ads, false)
                })
                .collect();
            let gather_in = |order: Vec<u32>| {
                let mut gather = Gather::new(shards, None);
                for shard in order {
                    gather.take(ShardId(shard), Ok(replies[shard as usize].clone()));
                }
                gather.finish(5, &vec![1; shards as usize]).candidates
            };
            let turn = (seed % u64::from(shards)) as u32;
            prop_assert_eq!(
                gather_in((0..shards).collect()),
                gather_in((0..shards).map(|i| (i + turn) % shards).rev().collect())
            );
        }
    }
}
