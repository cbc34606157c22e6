//! Who may pay what: values and budgets, drawn for one simulated day.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::auction::Micros;

/// The deviation of the logarithm of budgets.
const BUDGET_SPREAD: f64 = 1.0;

/// The advertisers of a simulated day.
///
/// What a click is worth is log-normal with the median 1; budgets are log-normal around the advertiser's share of the
/// ads, and all of them together about what the day would cost at a click rate and the median value.
pub(super) struct Market {
    /// What a click is worth to each, in the currency.
    pub(super) click_values: Vec<f64>,
    /// What each may spend.
    pub(super) budgets: Vec<Micros>,
}

impl Market {
    /// Draws a market for advertisers with `ads` ads each. `bid_spread` is the deviation of the logarithm of a click's
    /// value, `day_cost` what the day would cost.
    ///
    /// One seed draws the same order of values and the same budgets whatever the spread.
    pub(super) fn draw(ads: &[u32], bid_spread: f64, day_cost: f64, seed: u64) -> Self {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let total = f64::from(ads.iter().sum::<u32>().max(1));
        let mut market = Self { click_values: Vec::new(), budgets: Vec::new() };
        for ads in ads {
            let [value, budget] = normals(random);
            market.click_values.push((bid_spread * value).exp());
            let share = f64::from(*ads) / total;
            market.budgets.push(Micros::of(day_cost * share * (BUDGET_SPREAD * budget).exp()));
        }
        market
    }
}

/// Two independent numbers of mean 0 and deviation 1, by Box and Muller.
pub(super) fn normals(random: &mut ChaCha8Rng) -> [f64; 2] {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    let (sine, cosine) = (std::f64::consts::TAU * random.random::<f64>()).sin_cos();
    [radius * cosine, radius * sine]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_log_normal_and_budgets_follow_the_ads() {
        let ads: Vec<u32> = (0..4_000).map(|advertiser| 1 + advertiser % 2 * 3).collect();
        let market = Market::draw(&ads, 0.8, 1_000.0, 5);
        let logs: Vec<f64> = market.click_values.iter().map(|value| value.ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let deviation = (logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / logs.len() as f64).sqrt();
        assert!(mean.abs() < 0.05 && (deviation - 0.8).abs() < 0.03, "{mean} {deviation}");
        let budgets = |parity| market.budgets.iter().skip(parity).step_by(2).map(|budget| budget.amount()).sum::<f64>();
        let ratio = budgets(1) / budgets(0);
        assert!((3.4..4.6).contains(&ratio), "{ratio}");
        let wider = Market::draw(&ads, 1.6, 1_000.0, 5);
        assert_eq!(market.budgets, wider.budgets);
    }
}
