//! Where a target stands, and what stands before it.

use std::cmp::Ordering;

use turret_retrieval::topk::TopK;

/// How many of the first items are kept to measure diversity.
pub(super) const TOP: usize = 100;

/// One ranked case.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    /// The target's place, from 0; none where the target is not ranked.
    pub(super) rank: Option<u32>,
    /// The place of the first item of the target's advertiser.
    pub(super) advertiser: AdvertiserRank,
    /// The first [`TOP`] items.
    pub(super) top: Vec<u32>,
}

/// The place of the first item of an advertiser, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdvertiserRank {
    /// The target has no advertiser.
    Unknown,
    /// All of its items are left out of the ranking.
    Unranked,
    /// Here.
    At(u32),
}

/// An item with its score; the better one is the smaller.
struct Scored {
    score: f32,
    item: u32,
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.item.cmp(&other.item))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scored {}

/// Ranks all items by `scores`, ties by number, without those in `unranked`, which is sorted.
///
/// `siblings` are the items of the target's advertiser, the target among them; none where it has no advertiser.
pub(super) fn judge(scores: &[f32], target: u32, siblings: Option<&[u32]>, unranked: &[u32]) -> Judged {
    let is_ranked = |item: u32| unranked.binary_search(&item).is_err();
    let rank = is_ranked(target).then(|| place(scores, target, unranked));
    let advertiser = match siblings {
        None => AdvertiserRank::Unknown,
        Some(siblings) => {
            let scored = siblings.iter().map(|item| Scored { score: scores[*item as usize], item: *item });
            match (scored.filter(|scored| is_ranked(scored.item)).min(), rank) {
                (None, _) => AdvertiserRank::Unranked,
                (Some(first), Some(rank)) if first.item == target => AdvertiserRank::At(rank),
                (Some(first), _) => AdvertiserRank::At(place(scores, first.item, unranked)),
            }
        }
    };
    let mut top = TopK::new(TOP);
    let mut floor = f32::NEG_INFINITY;
    for (item, score) in (0..).zip(scores) {
        if *score >= floor && is_ranked(item) {
            top.push(Scored { score: *score, item });
            floor = top.threshold().map_or(f32::NEG_INFINITY, |worst| worst.score);
        }
    }
    let top = top.into_sorted().into_iter().map(|scored| scored.item).collect();
    Judged { rank, advertiser, top }
}

/// How many ranked items stand before `item`.
fn place(scores: &[f32], item: u32, unranked: &[u32]) -> u32 {
    let own = scores[item as usize];
    // Counted over all items first: a plain loop over floats is what the compiler does well.
    let better = scores.iter().filter(|score| **score > own).count();
    let ties = scores[..item as usize].iter().filter(|score| **score == own).count();
    let is_before = |other: u32, score: f32| score > own || (score == own && other < item);
    let skipped = unranked.iter().filter(|other| is_before(**other, scores[**other as usize])).count();
    (better + ties - skipped) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_are_places_in_the_sorted_list(
            scores in prop::collection::vec((0u8..6).prop_map(f32::from), 1..40),
            target in 0usize..40,
            unranked in prop::collection::btree_set(0u32..40, 0..10),
        ) {
            let target = (target % scores.len()) as u32;
            let unranked: Vec<u32> = unranked.into_iter().filter(|item| (*item as usize) < scores.len()).collect();
            let mut order: Vec<u32> = (0..scores.len() as u32).filter(|item| !unranked.contains(item)).collect();
            order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
            let place = |wanted: &dyn Fn(u32) -> bool| order.iter().position(|item| wanted(*item)).map(|at| at as u32);
            // Three advertisers take turns.
            let siblings: Vec<u32> = (0..scores.len() as u32).filter(|item| item % 3 == target % 3).collect();
            let judged = judge(&scores, target, Some(&siblings), &unranked);
            prop_assert_eq!(judged.rank, place(&|item| item == target));
            let first = place(&|item| item % 3 == target % 3);
            prop_assert_eq!(judged.advertiser, first.map_or(AdvertiserRank::Unranked, AdvertiserRank::At));
            prop_assert_eq!(judge(&scores, target, None, &unranked).advertiser, AdvertiserRank::Unknown);
            order.truncate(TOP);
            prop_assert_eq!(judged.top, order);
        }
    }
}
