//! Pure: whether what a new generation does is worse than what the old one did.

use super::tally::Counts;

/// How much worse it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WatchBounds {
    /// By how much the share of requests may rise that fail, or miss a shard: 0..=1.
    pub failed_rise_max: f64,
    /// By how much the share may rise that find no ad: 0..=1.
    pub empty_rise_max: f64,
    /// How many times the old one's p99 the new one's may be: above 1.
    pub p99_ratio_max: f64,
}

/// Fewer requests than this prove nothing, unless there were no more, some at least, and most of them went wrong.
const REQUESTS_MIN: u64 = 50;
const FEW_MIN: u64 = 3;
const WRONG_OF_FEW: f64 = 0.5;
/// Latencies below this are not worth going back for.
const P99_FLOOR_US: f64 = 5_000.0;

/// Why the generation that did `now` must go back to the one that did `before`; nothing where it need not, or nobody can
/// tell yet. The window `is_over` where no more requests are waited for.
pub fn fault(before: &Counts, now: &Counts, bounds: &WatchBounds, is_over: bool) -> Option<String> {
    let few = if now.requests >= REQUESTS_MIN {
        0.0
    } else if is_over && now.requests >= FEW_MIN {
        WRONG_OF_FEW
    } else {
        return None;
    };
    let share = |part: u64, of: &Counts| part as f64 / of.requests.max(1) as f64;
    let rose = |name: &str, before: f64, now: f64, max: f64| {
        let percent = |share: f64| 100.0 * share;
        let (was, is, more) = (percent(before), percent(now), percent(max));
        (now > before + max && now > few)
            .then(|| format!("{is:.1} % of requests {name}, {was:.1} % before; the limit is {more:.1} points more"))
    };
    let failed = rose("failed", share(before.failed, before), share(now.failed, now), bounds.failed_rise_max);
    let empty = || rose("found no ad", share(before.empty, before), share(now.empty, now), bounds.empty_rise_max);
    let slower = || {
        let was = before.p99_us.filter(|_| before.requests.min(now.requests) >= REQUESTS_MIN)?;
        let (is, was, max) = (now.p99_us? as f64, was as f64, bounds.p99_ratio_max);
        (is > max * was.max(P99_FLOOR_US))
            .then(|| format!("p99 is {:.1} ms, it was {:.1} ms; the limit is {max} times that", is / 1e3, was / 1e3))
    };
    failed.or_else(empty).or_else(slower)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: WatchBounds = WatchBounds { failed_rise_max: 0.02, empty_rise_max: 0.05, p99_ratio_max: 2.0 };

    fn counts(requests: u64, failed: u64, empty: u64, p99_ms: f64) -> Counts {
        Counts { requests, empty, failed, p99_us: Some((p99_ms * 1e3) as u64) }
    }

    #[test]
    fn the_fault_is_named_with_its_figures() {
        let before = counts(1_000, 10, 20, 10.0);
        let fault = |now| fault(&before, &now, &BOUNDS, false).unwrap_or_default();
        assert_eq!(fault(counts(100, 3, 7, 19.9)), "");
        assert_eq!(fault(counts(49, 49, 0, 1.0)), "", "too few to tell");
        assert!(fault(counts(100, 4, 0, 1.0)).contains("4.0 % of requests failed, 1.0 % before"));
        assert!(fault(counts(100, 0, 8, 1.0)).contains("8.0 % of requests found no ad, 2.0 % before"));
        assert!(fault(counts(100, 0, 0, 20.1)).contains("p99 is 20.1 ms, it was 10.0 ms"));
    }

    #[test]
    fn of_few_requests_most_must_have_gone_wrong_when_the_window_is_over() {
        let before = counts(1_000, 0, 0, 1.0);
        let fault = |now| fault(&before, &now, &BOUNDS, true).unwrap_or_default();
        assert!(fault(counts(3, 2, 0, 1.0)).contains("66.7 % of requests failed, 0.0 % before"));
        assert!(fault(counts(49, 0, 49, 1.0)).contains("100.0 % of requests found no ad"));
        assert_eq!(fault(counts(4, 2, 0, 1.0)), "");
        assert_eq!(fault(counts(2, 2, 2, 1.0)), "", "somebody may just have given up");
        assert_eq!(fault(counts(0, 0, 0, 1.0)), "");
        assert_eq!(fault(counts(49, 0, 0, 900.0)), "", "of few nobody can tell a p99");
        assert!(fault(counts(100, 3, 0, 1.0)).contains("3.0 % of requests failed"));
    }

    #[test]
    fn latency_is_compared_only_where_there_was_enough_before_and_it_matters() {
        let slow = counts(100, 0, 0, 9.0);
        assert_eq!(fault(&counts(49, 0, 0, 1.0), &slow, &BOUNDS, false), None);
        assert_eq!(fault(&counts(500, 0, 0, 1.0), &slow, &BOUNDS, false), None, "below the floor");
        assert!(fault(&counts(500, 0, 0, 1.0), &counts(100, 0, 0, 11.0), &BOUNDS, false).is_some());
    }
}
