//! Cases: a target, what was known of its user before the cut, and what the user looked at just before.

use std::collections::HashSet;
use std::ops::Range;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use turret_retrieval::dataset::{Dataset, Row};
use turret_retrieval::event::EventType;

use crate::examples::NEIGHBOUR_MS;
use crate::settings::{CaseChoice, EvaluationSettings, Part, Split};

const DAY_MS: i64 = 86_400_000;

/// One case. Ranges are of [`Dataset::events`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    /// None: one that the data set does not know.
    pub(super) user: Option<u32>,
    /// What the encoder may see.
    pub(super) history: Range<usize>,
    pub(super) context: Looked,
    /// The item to be found.
    pub(super) target: u32,
    /// What the user did before the target; it decides which items are not ranked.
    pub(super) past: Range<usize>,
}

/// What the user looked at when the request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// An item.
    Item(u32),
    /// What a request of the log says.
    Request(u32),
}

/// The cases of `split`; with `cases_max` a sample of them. In the order of users, then time.
pub(super) fn of(data: &Dataset, split: &Split, settings: &EvaluationSettings, random: &mut ChaCha8Rng) -> Vec<Case> {
    let users = 0..data.users.len() as u32;
    let cases: Vec<Case> = match split {
        Split::Temporal { cut_ms, until_ms, .. } => {
            users.flat_map(|user| of_sessions(data, user, *cut_ms..*until_ms, settings)).collect()
        }
        Split::LeaveOneOut { part, history_gap_events } => {
            users.filter_map(|user| left_out(data, user, *part, *history_gap_events, settings)).collect()
        }
    };
    sample(cases, settings.cases_max, random)
}

/// At most `cases_max` of `cases`, in their order.
pub(super) fn sample(cases: Vec<Case>, cases_max: Option<usize>, random: &mut ChaCha8Rng) -> Vec<Case> {
    let Some(max) = cases_max.filter(|max| *max < cases.len()) else { return cases };
    let mut chosen: Vec<usize> = (0..cases.len()).collect();
    chosen.shuffle(random);
    chosen.truncate(max);
    let chosen: HashSet<usize> = chosen.into_iter().collect();
    cases.into_iter().enumerate().filter(|(number, _)| chosen.contains(number)).map(|(_, case)| case).collect()
}

/// The chosen events of every session within `times`, in the order of time.
fn of_sessions(data: &Dataset, user: u32, times: Range<i64>, settings: &EvaluationSettings) -> Vec<Case> {
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
        .flat_map(|session| pairs(data, session, settings))
        .map(|(context, target)| Case {
            user: Some(user),
            history: all.start..from,
            context: Looked::Item(data.events()[context].item),
            target: data.events()[target].item,
            past: all.start..target,
        })
        .collect();
    cases.sort_by_key(|case| case.past.end);
    cases
}

/// Contexts and targets of a session, as numbers of events.
fn pairs(data: &Dataset, session: &[usize], settings: &EvaluationSettings) -> Vec<(usize, usize)> {
    let row = |number: usize| &data.events()[number];
    let pair = |at: usize| {
        let target = session[at];
        let mut before = session[..at].iter().copied().filter(|number| may_be_context(row(*number), settings));
        let context = match settings.cases {
            CaseChoice::FirstContext => before.next(),
            CaseChoice::Last | CaseChoice::Each => before.next_back(),
        };
        let pair = (context?, target);
        (is_target(row(target), settings) && !is_label(data, pair, settings)).then_some(pair)
    };
    let mut pairs = (0..session.len()).filter_map(pair);
    match settings.cases {
        CaseChoice::Each => pairs.collect(),
        CaseChoice::Last | CaseChoice::FirstContext => pairs.next_back().into_iter().collect(),
    }
}

fn is_one_session(a: &Row, b: &Row) -> bool {
    a.session == b.session && (a.session.is_some() || b.at - a.at <= NEIGHBOUR_MS)
}

fn is_target(row: &Row, settings: &EvaluationSettings) -> bool {
    settings.target_events.is_empty() || settings.target_events.contains(&row.kind)
}

fn may_be_context(row: &Row, settings: &EvaluationSettings) -> bool {
    settings.target_events.is_empty() || row.kind == EventType::View
}

/// Whether the context would be the label's. Where every event is a target, such a label is not ranked anyway.
fn is_label(data: &Dataset, (context, target): (usize, usize), settings: &EvaluationSettings) -> bool {
    let rows = data.events();
    !settings.target_events.is_empty() && rows[context].item == rows[target].item
}

/// The last event, or the one before it, with what came just before as the context. An order has no midnight, so the
/// history holds that too, unless the split leaves a gap.
fn left_out(data: &Dataset, user: u32, part: Part, gap: usize, settings: &EvaluationSettings) -> Option<Case> {
    let all = data.range_of(user);
    // Training keeps at least the first event.
    if all.len() < 3 {
        return None;
    }
    let target = match part {
        Part::Test => all.end - 1,
        Part::Validation => all.end - 2,
    };
    let (row, context) = (&data.events()[target], &data.events()[target - 1]);
    (is_target(row, settings) && !is_label(data, (target - 1, target), settings)).then(|| Case {
        user: Some(user),
        history: all.start..(target - gap.min(target - all.start)),
        context: Looked::Item(context.item),
        target: row.item,
        past: all.start..target,
    })
}

/// `cases` with histories that end `days` before the cut.
pub(super) fn aged(data: &Dataset, split: &Split, cases: &[Case], days: u32) -> Vec<Case> {
    let Split::Temporal { cut_ms, .. } = split else { return cases.to_vec() };
    let end_ms = cut_ms - i64::from(days) * DAY_MS;
    let aged = |case: &Case| {
        let Range { start, end } = case.history;
        let known = data.events()[start..end].partition_point(|row| row.at < end_ms);
        Case { history: start..start + known, ..case.clone() }
    };
    cases.iter().map(aged).collect()
}

/// The items that are not ranked for a case, sorted, without repetitions: what its user saw before, and with chosen
/// targets only what the user had done one of those to, and the subject itself.
pub(super) fn unranked(data: &Dataset, case: &Case, settings: &EvaluationSettings) -> Vec<u32> {
    let past = data.events()[case.past.clone()].iter();
    let mut items: Vec<u32> = past.filter(|row| is_target(row, settings)).map(|row| row.item).collect();
    if let Looked::Item(subject) = case.context {
        items.push(subject);
    }
    items.sort_unstable();
    items.dedup();
    items
}

/// For each case, the context of another one.
pub(super) fn shuffled_contexts(cases: &[Case], random: &mut ChaCha8Rng) -> Vec<Looked> {
    let mut contexts: Vec<Looked> = cases.iter().map(|case| case.context).collect();
    // Sattolo's algorithm: one cycle through all, so that no case keeps its own.
    for last in (1..contexts.len()).rev() {
        contexts.swap(last, random.random_range(0..last));
    }
    contexts
}
