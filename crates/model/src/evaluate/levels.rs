//! Metrics of ranks: recall at every cut-off, and NDCG.

use std::collections::BTreeMap;

use super::report::CUT_OFFS;

/// How far down NDCG looks.
const NDCG_AT: usize = 10;
/// Levels that a rank may have: each of the first ten places, the cut-offs beyond, and further down.
const LEVELS: usize = NDCG_AT + CUT_OFFS.len();

/// The ranks of one case, as far as metrics tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    /// Of the target.
    pub(super) item: u8,
    /// Of the first item of its advertiser.
    pub(super) advertiser: u8,
}

impl Levels {
    /// The level of a case that the metric leaves out.
    pub(super) const UNDEFINED: u8 = LEVELS as u8;

    /// The level of a rank.
    pub(super) fn level(rank: Option<u32>) -> u8 {
        let Some(rank) = rank.map(|rank| rank as usize) else { return LEVELS as u8 - 1 };
        let beyond = CUT_OFFS.iter().filter(|k| **k <= rank).count();
        (if beyond == 0 { rank } else { NDCG_AT + beyond - 1 }) as u8
    }
}

/// How many cases have which levels.
#[derive(Clone, Default)]
pub(super) struct Histogram {
    item: [u32; LEVELS + 1],
    advertiser: [u32; LEVELS + 1],
}

impl Histogram {
    /// Numbers of a histogram: recall at each cut-off, NDCG, the advertisers' recall at each cut-off.
    pub(super) const METRICS: usize = 2 * CUT_OFFS.len() + 1;

    pub(super) fn add(&mut self, levels: Levels) {
        self.item[usize::from(levels.item)] += 1;
        self.advertiser[usize::from(levels.advertiser)] += 1;
    }

    /// All metrics, in the order of [`keys`]; not a number where no case defines one.
    pub(super) fn metrics(&self) -> [f64; Self::METRICS] {
        let mut metrics = [0.0; Self::METRICS];
        let (recalls, rest) = metrics.split_at_mut(CUT_OFFS.len());
        let (ndcg, advertisers) = rest.split_at_mut(1);
        fill_recalls(&self.item, recalls);
        fill_recalls(&self.advertiser, advertisers);
        let cases: u32 = self.item[..LEVELS].iter().sum();
        let gains = (0..NDCG_AT).map(|rank| f64::from(self.item[rank]) / (rank as f64 + 2.0).log2());
        ndcg[0] = gains.sum::<f64>() / f64::from(cases);
        metrics
    }
}

fn fill_recalls(counts: &[u32; LEVELS + 1], recalls: &mut [f64]) {
    let cases: u32 = counts[..LEVELS].iter().sum();
    let mut hits: u32 = counts[..NDCG_AT].iter().sum();
    for (number, recall) in recalls.iter_mut().enumerate() {
        *recall = f64::from(hits) / f64::from(cases);
        hits += counts[NDCG_AT + number];
    }
}

/// What the metrics are called.
pub(super) fn keys() -> [String; Histogram::METRICS] {
    std::array::from_fn(|number| match number.checked_sub(CUT_OFFS.len()) {
        None => format!("recall@{}", CUT_OFFS[number]),
        Some(0) => format!("ndcg@{NDCG_AT}"),
        Some(advertiser) => format!("advertiser_recall@{}", CUT_OFFS[advertiser - 1]),
    })
}

/// The metrics of `cases`, without those that none defines.
pub(super) fn metrics(cases: impl Iterator<Item = Levels>) -> BTreeMap<String, f64> {
    let mut histogram = Histogram::default();
    cases.for_each(|levels| histogram.add(levels));
    keys().into_iter().zip(histogram.metrics()).filter(|(_, value)| value.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_and_ndcg_are_those_of_a_hand_count() {
        let level = |rank| Levels { item: Levels::level(rank), advertiser: Levels::UNDEFINED };
        let ranks = [Some(0), Some(9), Some(10), None];
        let found = metrics(ranks.into_iter().map(level));
        assert_eq!((found["recall@10"], found["recall@20"], found["recall@1000"]), (0.5, 0.75, 0.75));
        assert!((found["ndcg@10"] - (1.0 + 1.0 / 11f64.log2()) / 4.0).abs() < 1e-12);
        assert!(found.keys().all(|key| !key.starts_with("advertiser")), "{found:?}");
    }

    #[test]
    fn every_cut_off_parts_the_rank_before_it_from_the_one_at_it() {
        for k in CUT_OFFS {
            let level = Levels::level;
            assert!(level(Some(k as u32 - 1)) < level(Some(k as u32)), "{k}");
            let both = [k as u32 - 1, k as u32].map(|rank| Levels { item: level(Some(rank)), advertiser: level(None) });
            let found = metrics(both.into_iter());
            assert_eq!((found[&format!("recall@{k}")], found[&format!("advertiser_recall@{k}")]), (0.5, 0.0));
        }
        assert_eq!(Levels::level(Some(1_000)), Levels::level(None));
    }
}
