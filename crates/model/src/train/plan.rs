//! Which part of the log each step draws from.

use std::ops::RangeInclusive;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The order in which parts are visited: in every epoch each part once, in an order of its own, for as many steps as it
/// has of the log. A pure function of the step, so that there is nothing to keep in a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    seed: u64,
    // Of each part, in 0..=1; they sum to 1.
    shares: Vec<f64>,
    epoch_steps: usize,
}

/// Steps that draw from one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) part: usize,
    /// Counted from 1.
    pub(super) steps: RangeInclusive<usize>,
}

impl Plan {
    /// An epoch of about `epoch_steps` over parts with these `shares` of the draws.
    pub(super) fn new(seed: u64, shares: Vec<f64>, epoch_steps: f64) -> Self {
        // Short logs of many parts: each gets a step of its own at least on average.
        let epoch_steps = (epoch_steps.ceil() as usize).max(shares.len()).max(1);
        Self { seed, shares, epoch_steps }
    }

    /// The visits that make up `steps`, in order.
    pub(super) fn visits(&self, steps: RangeInclusive<usize>) -> impl Iterator<Item = Visit> + Send + use<> {
        let plan = self.clone();
        let (mut next, last) = steps.into_inner();
        let mut epoch: Option<(usize, Vec<Visit>)> = None;
        std::iter::from_fn(move || {
            if next > last {
                return None;
            }
            if let [_] = plan.shares[..] {
                let steps = next..=last;
                next = last + 1;
                return Some(Visit { part: 0, steps });
            }
            let number = (next - 1) / plan.epoch_steps;
            if epoch.as_ref().is_none_or(|(known, _)| *known != number) {
                epoch = Some((number, plan.epoch(number)));
            }
            let (_, visits) = epoch.as_ref()?;
            let visit = visits.iter().find(|visit| visit.steps.contains(&next))?;
            let steps = next..=last.min(*visit.steps.end());
            next = steps.end() + 1;
            Some(Visit { part: visit.part, steps })
        })
    }

    /// The visits of epoch `number`, counted from 0; together they cover its steps.
    fn epoch(&self, number: usize) -> Vec<Visit> {
        let mut order: Vec<usize> = (0..self.shares.len()).filter(|part| self.shares[*part] > 0.0).collect();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        // Far from the streams of the steps, which count from 1.
        random.set_stream(u64::MAX - number as u64);
        order.shuffle(&mut random);
        let first = number * self.epoch_steps + 1;
        let (mut sum, mut start) = (0.0, first);
        let mut visits = Vec::with_capacity(order.len());
        for (place, part) in order.iter().enumerate() {
            sum += self.shares[*part];
            let is_last = place + 1 == order.len();
            let end = if is_last { self.epoch_steps } else { (sum * self.epoch_steps as f64).round() as usize };
            let end = first + end.min(self.epoch_steps);
            if start < end {
                visits.push(Visit { part: *part, steps: start..=end - 1 });
                start = end;
            }
        }
        visits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(plan: &Plan, steps: RangeInclusive<usize>) -> Vec<Visit> {
        plan.visits(steps).collect()
    }

    #[test]
    fn one_part_is_visited_once() {
        let plan = Plan::new(1, vec![1.0], 10.0);
        assert_eq!(visits(&plan, 1..=35), [Visit { part: 0, steps: 1..=35 }]);
        assert_eq!(plan.visits(RangeInclusive::new(36, 35)).count(), 0);
    }

    #[test]
    fn every_epoch_visits_every_part_for_its_share_of_the_steps() {
        let plan = Plan::new(1, vec![0.5, 0.0, 0.3, 0.2], 100.0);
        let all = visits(&plan, 1..=300);
        for epoch in 0..3 {
            let own: Vec<&Visit> = all.iter().filter(|visit| (visit.steps.start() - 1) / 100 == epoch).collect();
            let mut lengths: Vec<(usize, usize)> =
                own.iter().map(|visit| (visit.part, visit.steps.clone().count())).collect();
            lengths.sort_unstable();
            assert_eq!(lengths, [(0, 50), (2, 30), (3, 20)]);
        }
        assert!(all.windows(2).all(|pair| pair[0].steps.end() + 1 == *pair[1].steps.start()));
        let order = |epoch: usize| all[3 * epoch..3 * epoch + 3].iter().map(|visit| visit.part).collect::<Vec<_>>();
        assert!(order(0) != order(1) || order(1) != order(2), "each epoch has an order of its own");
    }

    #[test]
    fn a_plan_that_goes_on_is_the_rest_of_the_whole_plan() {
        let plan = Plan::new(7, vec![0.25; 4], 40.0);
        let part_of = |visits: &[Visit], step: usize| {
            visits.iter().find(|visit| visit.steps.contains(&step)).map(|visit| visit.part)
        };
        let whole = visits(&plan, 1..=200);
        for from in [1, 2, 17, 40, 41, 133] {
            let rest = visits(&plan, from..=200);
            assert_eq!(*rest[0].steps.start(), from);
            assert!((from..=200).all(|step| part_of(&rest, step) == part_of(&whole, step)));
        }
    }

    #[test]
    fn more_parts_than_steps_are_still_a_plan() {
        let plan = Plan::new(3, vec![0.1; 10], 0.5);
        assert_eq!(visits(&plan, 1..=10).len(), 10);
    }
}
