//! The merge of per-shard results.

use std::collections::HashSet;

use crate::topk::Hit;

/// Merges per-shard results into the best `k` overall.
///
/// The lists need no particular order; an ad present in several is kept once, at its best score. The result is sorted
/// (score descending, then ad id ascending) and does not depend on the order of `lists`. O(n log n) for n hits in all.
pub fn merge<T: Clone>(lists: &[Vec<(Hit, T)>], k: usize) -> Vec<(Hit, T)> {
    merge_within(lists, k, |_| true)
}

/// The same, less those that `admits` passes over; it is asked of each ad once, the best first, until there are `k`.
pub fn merge_within<T: Clone>(lists: &[Vec<(Hit, T)>], k: usize, mut admits: impl FnMut(&T) -> bool) -> Vec<(Hit, T)> {
    let mut all: Vec<&(Hit, T)> = lists.iter().flatten().collect();
    // Stable, by the hit alone: which list a hit came from decides nothing but the payload of an exact duplicate.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let mut seen = HashSet::with_capacity(k.min(all.len()));
    let mut best = Vec::with_capacity(k.min(all.len()));
    for row in all {
        if best.len() == k {
            break;
        }
        if seen.insert(&row.0.ad) && admits(&row.1) {
            best.push(row.clone());
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::AdId;
    use crate::topk::TopK;

    fn hits(raw: &[(u64, i8)]) -> Vec<(Hit, ())> {
        raw.iter().map(|(ad, score)| (Hit { ad: AdId::from(*ad), score: f32::from(*score) / 8.0 }, ())).collect()
    }

    proptest! {
        #[test]
        fn a_merge_is_the_top_k_of_the_union(
            lists in prop::collection::vec(prop::collection::vec((0u64..1_000_000, -8i8..8), 0..20), 0..6),
            k in 0usize..40,
        ) {
            // Shards are disjoint, so ids are made distinct.
            let mut next = 0;
            let lists: Vec<_> = lists
                .iter()
                .map(|list| hits(&list.iter().map(|(id, score)| { next += 1; (id * 1000 + next, *score) }).collect::<Vec<_>>()))
                .collect();
            let mut oracle = TopK::new(k);
            lists.iter().flatten().for_each(|(hit, ())| if k > 0 { oracle.push(hit.clone()) });
            let merged: Vec<Hit> = merge(&lists, k).into_iter().map(|(hit, ())| hit).collect();
            prop_assert_eq!(&merged, &oracle.into_sorted());

            let mut reversed = lists.clone();
            reversed.reverse();
            prop_assert_eq!(&merged, &merge(&reversed, k).into_iter().map(|(hit, ())| hit).collect::<Vec<_>>());
            let again = merge(&[merge(&lists, k)], k);
            prop_assert_eq!(merged, again.into_iter().map(|(hit, ())| hit).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_ad_in_two_lists_is_kept_once_at_its_best_score() {
        let merged = merge(&[hits(&[(1, 3), (2, 2)]), hits(&[(1, 5)])], 10);
        let flat: Vec<_> = merged.iter().map(|(hit, ())| (hit.ad.as_str(), hit.score)).collect();
        assert_eq!(flat, [("1", 0.625), ("2", 0.25)]);
    }
}
