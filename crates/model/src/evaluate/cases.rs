//! Test cases: a target, what was known of its user before the cut, and what the user looked at just before.

use std::collections::HashSet;
use std::ops::Range;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::dataset::{Dataset, Row};

use crate::examples::NEIGHBOUR_MS;
use crate::settings::Split;

/// One test case. Numbers index [`Dataset::events`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    pub(super) user: u32,
    /// What the encoder may see.
    pub(super) history: Range<usize>,
    /// The event just before the target.
    pub(super) context: usize,
    /// The event to be found.
    pub(super) target: usize,
}

/// The cases of `split`; with `cases_max` a sample of them. In the order of users, then time.
pub(super) fn of(data: &Dataset, split: &Split, cases_max: Option<usize>, random: &mut ChaCha8Rng) -> Vec<Case> {
    let users = 0..data.users.len() as u32;
    let mut cases: Vec<Case> = match split {
        Split::Temporal { cut_ms, until_ms } => {
            users.flat_map(|user| of_sessions(data, user, *cut_ms..*until_ms)).collect()
        }
        Split::LeaveOneOut => users.filter_map(|user| of_last(data, user)).collect(),
    };
    if let Some(max) = cases_max.filter(|max| *max < cases.len()) {
        cases.shuffle(random);
        cases.truncate(max);
        cases.sort_by_key(|case| case.target);
    }
    cases
}

/// The last event of every session within `times` that has an event before it there.
fn of_sessions(data: &Dataset, user: u32, times: Range<i64>) -> Vec<Case> {
    let all = data.range_of(user);
    let rows = data.events_of(user);
    let from = all.start + rows.partition_point(|row| row.at < times.start);
    let to = all.start + rows.partition_point(|row| row.at < times.end);
    let mut numbers: Vec<usize> = (from..to).collect();
    let row = |number: &usize| &data.events()[*number];
    // Sessions of one user may overlap; within one, the order stays that of time.
    numbers.sort_by_key(|number| row(number).session);
    let sessions = numbers.chunk_by(|a, b| is_one_session(row(a), row(b)));
    let mut cases: Vec<Case> = sessions
        .filter_map(|session| match session {
            [.., context, target] => Some(Case { user, history: all.start..from, context: *context, target: *target }),
            [_] | [] => None,
        })
        .collect();
    cases.sort_by_key(|case| case.target);
    cases
}

fn is_one_session(a: &Row, b: &Row) -> bool {
    a.session == b.session && (a.session.is_some() || b.at - a.at <= NEIGHBOUR_MS)
}

/// The last event, with the one before it as the context. An order has no midnight, so the history holds that too.
fn of_last(data: &Dataset, user: u32) -> Option<Case> {
    let all = data.range_of(user);
    (all.len() >= 3).then(|| Case { user, history: all.start..all.end - 1, context: all.end - 2, target: all.end - 1 })
}

/// For each case, the context event of another one.
pub(super) fn shuffled_contexts(cases: &[Case], random: &mut ChaCha8Rng) -> Vec<usize> {
    let mut contexts: Vec<usize> = cases.iter().map(|case| case.context).collect();
    // Sattolo's algorithm: one cycle through all, so that no case keeps its own.
    for last in (1..contexts.len()).rev() {
        contexts.swap(last, random.random_range(0..last));
    }
    contexts
}

/// The share of the targets whose item occurs among the training events, which end at `ends`.
pub(super) fn ceiling(data: &Dataset, cases: &[Case], ends: &[usize]) -> f64 {
    let known: HashSet<u32> = (0..data.users.len() as u32)
        .flat_map(|user| &data.events()[data.range_of(user).start..ends[user as usize]])
        .map(|row| row.item)
        .collect();
    let found = cases.iter().filter(|case| known.contains(&data.events()[case.target].item)).count();
    found as f64 / cases.len() as f64
}
