//! The auction: one ad of an advertiser, slots in the order of bids, each at the price of the next bid.

/// Money, in millionths of the currency. Whole numbers, so that accounts are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Micros(pub(super) u64);

impl Micros {
    /// Rounded down; nothing where `amount` is negative or not a number.
    pub(super) fn of(amount: f64) -> Self {
        // The cast saturates, and makes 0 of what is not a number.
        Self((amount * 1e6) as u64)
    }

    /// In the currency.
    pub(super) fn amount(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// What an ad would pay for one impression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bid {
    /// The ad.
    pub(super) ad: u32,
    /// Who pays, as a position in [`Budgets`].
    pub(super) advertiser: u32,
    /// At most this.
    pub(super) amount: Micros,
}

/// A slot that was sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sale {
    /// The bid that won it.
    pub(super) bid: Bid,
    /// What was paid: the next bid, or the reserve where there is none.
    pub(super) price: Micros,
}

/// What each advertiser may still spend.
#[derive(Clone, Debug)]
pub(super) struct Budgets {
    left: Vec<Micros>,
}

impl Budgets {
    /// Before anything is spent; by advertiser.
    pub(super) fn new(budgets: Vec<Micros>) -> Self {
        Self { left: budgets }
    }

    /// What `advertiser` may still spend.
    pub(super) fn left(&self, advertiser: u32) -> Micros {
        self.left[advertiser as usize]
    }

    /// A bidder never pays more than its bid, so whoever can afford the bid cannot overspend.
    fn affords(&self, bid: &Bid) -> bool {
        bid.amount <= self.left(bid.advertiser)
    }

    fn charge(&mut self, sale: &Sale) {
        let left = &mut self.left[sale.bid.advertiser as usize];
        let rest = left.0.checked_sub(sale.price.0);
        left.0 = rest.expect("a price is at most the bid, and the bid was affordable");
    }
}

/// Sells up to `slots` slots and charges the winners.
///
/// Bids below `reserve`, or above what is left of the advertiser's budget, do not count; of one advertiser the highest
/// counts. The highest bids win, ties by ad number; each pays the next bid that counts, or the reserve. Sorts `bids`.
pub(super) fn auction(bids: &mut Vec<Bid>, slots: usize, reserve: Micros, budgets: &mut Budgets) -> Vec<Sale> {
    bids.retain(|bid| bid.amount >= reserve && budgets.affords(bid));
    bids.sort_unstable_by(|a, b| b.amount.cmp(&a.amount).then(a.ad.cmp(&b.ad)));
    let mut ranked: Vec<Bid> = Vec::with_capacity(slots + 1);
    for bid in bids.iter() {
        if ranked.iter().all(|other| other.advertiser != bid.advertiser) {
            ranked.push(*bid);
        }
        if ranked.len() > slots {
            break;
        }
    }
    let next = |position: usize| ranked.get(position + 1).map_or(reserve, |bid| bid.amount);
    let sales: Vec<Sale> = ranked
        .iter()
        .take(slots)
        .enumerate()
        .map(|(position, bid)| Sale { bid: *bid, price: next(position) })
        .collect();
    sales.iter().for_each(|sale| budgets.charge(sale));
    sales
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bid() -> impl Strategy<Value = Bid> {
        (0u32..40, 0u32..8, 0u64..50).prop_map(|(ad, advertiser, amount)| Bid {
            ad,
            advertiser,
            amount: Micros(amount),
        })
    }

    proptest! {
        #[test]
        fn nobody_overspends_and_prices_lie_between_the_next_bid_and_the_own(
            rounds in prop::collection::vec(prop::collection::vec(bid(), 0..20), 1..20),
            budgets in prop::collection::vec((0u64..200).prop_map(Micros), 8),
            slots in 1usize..6,
            reserve in (0u64..20).prop_map(Micros),
        ) {
            let mut left = Budgets::new(budgets.clone());
            let mut spent = [0; 8];
            for round in &rounds {
                let before = left.clone();
                let sales = auction(&mut round.clone(), slots, reserve, &mut left);
                prop_assert!(sales.len() <= slots);
                for (position, sale) in sales.iter().enumerate() {
                    prop_assert!(round.contains(&sale.bid));
                    prop_assert!(sale.price <= sale.bid.amount && sale.price >= reserve);
                    prop_assert!(sale.bid.amount <= before.left(sale.bid.advertiser));
                    if let Some(next) = sales.get(position + 1) {
                        prop_assert_eq!(sale.price, next.bid.amount);
                    }
                    let others = &sales[..position];
                    prop_assert!(others.iter().all(|other| other.bid.advertiser != sale.bid.advertiser));
                    spent[sale.bid.advertiser as usize] += sale.price.0;
                }
                // Whoever lost and could have paid bid no more than the cheapest winner paid.
                let cheapest = sales.last().map_or(reserve, |sale| sale.price);
                for loser in round.iter().filter(|bid| sales.iter().all(|sale| sale.bid.advertiser != bid.advertiser)) {
                    let counted = loser.amount >= reserve && loser.amount <= before.left(loser.advertiser);
                    prop_assert!(!counted || (sales.len() == slots && loser.amount <= cheapest));
                }
            }
            for (advertiser, (spent, budget)) in (0u32..).zip(spent.iter().zip(&budgets)) {
                prop_assert!(*spent <= budget.0);
                prop_assert_eq!(left.left(advertiser), Micros(budget.0 - spent));
            }
        }
    }

    #[test]
    fn winners_pay_the_next_advertisers_bid() {
        let bid = |ad, advertiser, amount| Bid { ad, advertiser, amount: Micros(amount) };
        let mut bids = vec![bid(1, 0, 90), bid(2, 0, 80), bid(3, 1, 70), bid(4, 2, 40), bid(5, 3, 9)];
        let mut budgets = Budgets::new(vec![Micros(100), Micros(69), Micros(50), Micros(50)]);
        let sales = auction(&mut bids, 3, Micros(10), &mut budgets);
        let told: Vec<(u32, u64)> = sales.iter().map(|sale| (sale.bid.ad, sale.price.0)).collect();
        assert_eq!(told, [(1, 40), (4, 10)]);
        assert_eq!((budgets.left(0), budgets.left(1), budgets.left(2)), (Micros(60), Micros(69), Micros(40)));
    }
}
