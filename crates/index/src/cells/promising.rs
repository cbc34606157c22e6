//! Cells by what their rows may score, the most promising first.

use crate::exact::{at_least, least_of_best};

/// Cells of which it is told from what score on so many lie, about.
const SAMPLE: usize = 256;
/// Cells that are put in order at least.
const ORDERED_MIN: usize = 8;
/// Parts of the scores that are put in order; those of one part are in none.
const PARTS: usize = 256;

/// The order is about that of the scores: whoever looks into cells has to know where to begin, and where to end. Most are never asked for, and
/// not put in order.
pub(super) struct Promising<'a> {
    scores: &'a [f32],
    /// Those that score `down_to` at least.
    ordered: Vec<(f32, u32)>,
    down_to: f32,
    next: usize,
    /// What a cell may score more than one before it, at most.
    disorder: f32,
}

impl<'a> Promising<'a> {
    /// Of which about `first` will be asked for.
    pub(super) fn new(scores: &'a [f32], first: usize) -> Self {
        let mut promising = Self { scores, ordered: Vec::new(), down_to: f32::INFINITY, next: 0, disorder: 0.0 };
        promising.order(first);
        promising
    }

    /// The next that may hold a row that scores `floor`, where there is one; `floor` is no lower than it was.
    pub(super) fn next(&mut self, floor: f32) -> Option<u32> {
        loop {
            if self.next == self.ordered.len() {
                if self.down_to <= floor {
                    return None;
                }
                self.order(self.ordered.len());
                continue;
            }
            let (score, cell) = self.ordered[self.next];
            self.next += 1;
            if score >= floor {
                return Some(cell);
            }
            if score + self.disorder < floor {
                return None;
            }
        }
    }

    /// How many may hold a row that scores `floor`; at least one.
    pub(super) fn reaching(&self, floor: f32) -> usize {
        self.scores.iter().filter(|score| **score >= floor).count().max(1)
    }

    /// Puts about so many more in order, at least one where there is one: a sample tells down to which score.
    fn order(&mut self, more: usize) {
        let one_in = (self.scores.len() / SAMPLE).max(1);
        let above = self.down_to;
        let sample: Vec<f32> = self.scores.iter().step_by(one_in).copied().filter(|score| *score < above).collect();
        self.down_to = least_of_best(more.max(ORDERED_MIN).div_ceil(one_in) + 1, &sample);
        let down_to = self.down_to;
        let mut found = Vec::with_capacity(2 * more.max(ORDERED_MIN));
        for (cell, score) in at_least(self.scores, down_to).filter(|(_, score)| *score < above) {
            found.push((score, cell));
        }
        self.put_in_order(&found);
    }

    /// Sorts some by the part that their score lies in, as a step of a radix sort does: comparing them would take longer than looking into
    /// half of them.
    fn put_in_order(&mut self, found: &[(f32, u32)]) {
        let (least, most) = found.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), (score, _)| {
            (least.min(*score), most.max(*score))
        });
        let per_part = (PARTS as f32 - 1.0) / (most - least).max(f32::MIN_POSITIVE);
        let part = |score: f32| (((most - score) * per_part) as usize).min(PARTS - 1);
        let mut ends = [0; PARTS];
        found.iter().for_each(|(score, _)| ends[part(*score)] += 1);
        let mut before = self.ordered.len();
        for end in &mut ends {
            (*end, before) = (before, before + *end);
        }
        self.ordered.resize(before, (0.0, 0));
        for (score, cell) in found {
            let place = &mut ends[part(*score)];
            self.ordered[*place] = (*score, *cell);
            *place += 1;
        }
        // A part's width, and as much again for what is rounded.
        self.disorder = 2.0 / per_part;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn all_that_reach_the_floor_come_once_and_the_best_come_early(
            scores in prop::collection::vec(prop_oneof![-1.0f32..1.0, Just(0.5), Just(-0.25)], 1..3_000),
            first in 0usize..400,
            floor in prop_oneof![Just(f32::NEG_INFINITY), Just(f32::INFINITY), -1.0f32..1.0],
        ) {
            let mut promising = Promising::new(&scores, first);
            let mut cells = Vec::new();
            while let Some(cell) = promising.next(floor) {
                cells.push(cell);
            }
            let mut expected: Vec<u32> = (0..scores.len() as u32).filter(|cell| scores[*cell as usize] >= floor).collect();
            prop_assert_eq!(promising.reaching(floor), expected.len().max(1));
            // No cell scores more than one before it by more than a part of what scores span.
            let mut least = f32::INFINITY;
            for cell in &cells {
                prop_assert!(scores[*cell as usize] <= least + 2.0 * 2.0 / (PARTS as f32 - 1.0));
                least = least.min(scores[*cell as usize]);
            }
            cells.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(cells, expected);
        }
    }
}
