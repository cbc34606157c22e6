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
    /// The first [`TOP`] items; none where the arm has no ranking to show.
    pub(super) top: Option<Vec<u32>>,
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

/// Ranks all items by `scores`, ties by number, without those in `seen`, which is sorted.
pub(super) fn judge(scores: &[f32], target: u32, seen: &[u32]) -> Judged {
    let own = scores[target as usize];
    let is_before = |item: u32, score: f32| score > own || (score == own && item < target);
    // Counted over all items first: a plain loop over floats is what the compiler does well.
    let better = scores.iter().filter(|score| **score > own).count();
    let ties = scores[..target as usize].iter().filter(|score| **score == own).count();
    let skipped = seen.iter().filter(|item| is_before(**item, scores[**item as usize])).count();
    let rank = seen.binary_search(&target).is_err().then(|| (better + ties - skipped) as u32);
    let mut top = TopK::new(TOP);
    let mut floor = f32::NEG_INFINITY;
    for (item, score) in (0..).zip(scores) {
        if *score >= floor && seen.binary_search(&item).is_err() {
            top.push(Scored { score: *score, item });
            floor = top.threshold().map_or(f32::NEG_INFINITY, |worst| worst.score);
        }
    }
    let top = top.into_sorted().into_iter().map(|scored| scored.item).collect();
    Judged { rank, top: Some(top) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_rank_is_the_place_in_the_sorted_list(
            scores in prop::collection::vec((0u8..6).prop_map(f32::from), 1..40),
            target in 0usize..40,
            seen in prop::collection::btree_set(0u32..40, 0..10),
        ) {
            let target = (target % scores.len()) as u32;
            let seen: Vec<u32> = seen.into_iter().filter(|item| (*item as usize) < scores.len()).collect();
            let mut order: Vec<u32> = (0..scores.len() as u32).filter(|item| !seen.contains(item)).collect();
            order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
            let judged = judge(&scores, target, &seen);
            prop_assert_eq!(judged.rank, order.iter().position(|item| *item == target).map(|rank| rank as u32));
            order.truncate(TOP);
            prop_assert_eq!(judged.top, Some(order));
        }
    }
}
