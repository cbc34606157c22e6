//! A simulated day: the floor and the auction, request after request, until the budgets are spent.

use super::auction::{Bid, Budgets, Micros, auction};
use super::generators::Generator;
use super::market::Market;

/// Which generators proposed an ad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proposers(u8);

impl Proposers {
    pub(super) const ALL: Self = Self((1 << Generator::ALL.len()) - 1);

    pub(super) fn only(generator: Generator) -> Self {
        Self(1 << generator as u8)
    }

    #[must_use]
    pub(super) fn and(self, generator: Generator) -> Self {
        Self(self.0 | Self::only(generator).0)
    }

    pub(super) fn has(self, generator: Generator) -> bool {
        self.0 & Self::only(generator).0 != 0
    }

    fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What each of them is credited with of one impression.
    pub(super) fn share(self) -> f64 {
        1.0 / f64::from(self.0.count_ones().max(1))
    }
}

/// An ad that somebody proposed for a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) ad: u32,
    pub(super) advertiser: u32,
    pub(super) proposers: Proposers,
    /// The ranker's probability of a click.
    pub(super) score: f32,
    /// The planted probability of a click.
    pub(super) truth: f32,
    /// How well it suits the user by what is withheld from every model.
    pub(super) relevance: f32,
}

/// Under what a day is simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules {
    /// Ads whose score is below are dropped.
    pub(super) floor: f32,
    /// Slots of a request.
    pub(super) slots: usize,
    /// The least price of an impression.
    pub(super) reserve: Micros,
}

/// An impression.
#[derive(Clone, Copy, Debug)]
pub(super) struct Impression {
    pub(super) proposers: Proposers,
    pub(super) relevance: f32,
    /// The planted probability of a click.
    pub(super) truth: f32,
    pub(super) price: Micros,
    /// That times the value of a click for the advertiser.
    pub(super) value: f64,
}

/// What a day came to.
#[derive(Debug, Default)]
pub(super) struct Day {
    pub(super) impressions: Vec<Impression>,
}

/// Simulates a day with the ads that any of `among` proposed; `pools` are the ads of each request, in the order of time.
pub(super) fn simulate(pools: &[Vec<Entry>], market: &Market, rules: &Rules, among: Proposers) -> Day {
    let mut budgets = Budgets::new(market.budgets.clone());
    let mut day = Day::default();
    let mut bids = Vec::new();
    for pool in pools {
        bids.clear();
        let competing = pool.iter().filter(|entry| entry.proposers.meets(among) && entry.score >= rules.floor);
        bids.extend(competing.map(|entry| Bid {
            ad: entry.ad,
            advertiser: entry.advertiser,
            amount: Micros::of(f64::from(entry.score) * market.click_values[entry.advertiser as usize]),
        }));
        for sale in auction(&mut bids, rules.slots, rules.reserve, &mut budgets) {
            let sold = pool.iter().find(|entry| entry.ad == sale.bid.ad).expect("what is sold was proposed");
            day.impressions.push(Impression {
                proposers: sold.proposers,
                relevance: sold.relevance,
                truth: sold.truth,
                price: sale.price,
                value: f64::from(sold.truth) * market.click_values[sold.advertiser as usize],
            });
        }
    }
    day
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        (0u32..30, 1u8..32, 0.0f32..1.0, 0.0f32..1.0).prop_map(|(ad, proposers, score, relevance)| Entry {
            ad,
            advertiser: ad % 7,
            proposers: Proposers(proposers),
            score,
            truth: score / 2.0,
            relevance,
        })
    }

    fn pools() -> impl Strategy<Value = Vec<Vec<Entry>>> {
        let pool = prop::collection::vec(entry(), 0..20).prop_map(|mut pool| {
            pool.sort_by_key(|entry| entry.ad);
            pool.dedup_by_key(|entry| entry.ad);
            pool
        });
        prop::collection::vec(pool, 0..20)
    }

    proptest! {
        #[test]
        fn impressions_are_shared_out_whole_and_nobody_overspends(
            pools in pools(),
            floor in 0.0f32..0.8,
            slots in 1usize..5,
            seed in 0u64..50,
        ) {
            let market = Market::draw(&[3; 7], 0.8, 4.0, seed);
            let rules = Rules { floor, slots, reserve: Micros(10_000) };
            let day = simulate(&pools, &market, &rules, Proposers::ALL);
            prop_assert!(day.impressions.len() <= slots * pools.len());
            let credited: f64 = Generator::ALL
                .iter()
                .flat_map(|own| day.impressions.iter().filter(|sold| sold.proposers.has(*own)))
                .map(|sold| sold.proposers.share())
                .sum();
            prop_assert!((credited - day.impressions.len() as f64).abs() < 1e-9);
            let spent: u64 = day.impressions.iter().map(|sold| sold.price.0).sum();
            prop_assert!(spent <= market.budgets.iter().map(|budget| budget.0).sum());
            prop_assert!(day.impressions.iter().all(|sold| sold.price >= rules.reserve));
        }

        #[test]
        fn alone_a_generator_sells_only_what_it_proposed(pools in pools(), seed in 0u64..50) {
            let market = Market::draw(&[3; 7], 0.8, 40.0, seed);
            let rules = Rules { floor: 0.1, slots: 2, reserve: Micros(10_000) };
            for own in Generator::ALL {
                let day = simulate(&pools, &market, &rules, Proposers::only(own));
                prop_assert!(day.impressions.iter().all(|sold| sold.proposers.has(own)));
            }
        }
    }

    #[test]
    fn the_floor_drops_and_the_budget_ends_a_day() {
        let entry = |ad, score| Entry {
            ad,
            advertiser: ad,
            proposers: Proposers::only(Generator::Random),
            score,
            truth: 0.1,
            relevance: 0.5,
        };
        let market = Market { click_values: vec![1.0; 3], budgets: vec![Micros(700_000), Micros(0), Micros(900_000)] };
        let rules = Rules { floor: 0.2, slots: 1, reserve: Micros(100_000) };
        let pools = vec![vec![entry(0, 0.5), entry(1, 0.9), entry(2, 0.19)]; 9];
        let day = simulate(&pools, &market, &rules, Proposers::ALL);
        // A tenth for each impression, as long as the bid of half a unit is affordable.
        assert_eq!(day.impressions.iter().map(|sold| sold.price.0).collect::<Vec<_>>(), [100_000; 3]);
    }
}
