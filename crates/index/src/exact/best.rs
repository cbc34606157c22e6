//! The least of the best of some numbers, about.

/// It is told to one of so many parts of what the numbers span, as a power of 2.
const HALVINGS: u32 = 12;

/// A number that the `k`-th largest of `numbers`, all of which are numbers, is not below, and above by no more than a 2,048th of what they span;
/// minus infinity where they are fewer than `k`, or `k` is 0.
///
/// Halving what they span and counting again takes less than putting them in order: processors count eight at once, and foresee it.
pub(crate) fn least_of_best(k: usize, numbers: &[f32]) -> f32 {
    if k == 0 || numbers.len() < k {
        return f32::NEG_INFINITY;
    }
    debug_assert!(!numbers.iter().any(|x| x.is_nan()));
    let ends = (f32::INFINITY, f32::NEG_INFINITY);
    let (mut reached, mut most) = numbers.iter().fold(ends, |(least, most), x| (least.min(*x), most.max(*x)));
    for _ in 0..HALVINGS {
        let middle = f32::midpoint(reached, most);
        let count: u32 = numbers.iter().map(|x| u32::from(*x >= middle)).sum();
        if count as usize >= k {
            reached = middle;
        } else {
            most = middle;
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn as_many_reach_it_and_it_is_hardly_less(
            numbers in prop::collection::vec(prop_oneof![-1.0f32..1.0, Just(0.5), Just(-0.25)], 0..300),
            k in 0usize..300,
        ) {
            let found = least_of_best(k, &numbers);
            let mut ordered = numbers.clone();
            ordered.sort_by(|a, b| b.total_cmp(a));
            match k.checked_sub(1).and_then(|at| ordered.get(at)) {
                None => prop_assert_eq!(found, f32::NEG_INFINITY),
                Some(least) => {
                    let part = (ordered[0] - ordered[ordered.len() - 1]) / (1 << (HALVINGS - 1)) as f32;
                    prop_assert!((least - part..=*least).contains(&found), "{found} for {least}");
                }
            }
        }
    }
}
