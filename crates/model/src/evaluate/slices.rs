//! Parts of the cases: by country, by how much is known of the user, by whether target and context were known, by surface.

use std::collections::BTreeMap;

use turret_retrieval::context::Surface;

use super::cases::{Case, Looked};
use super::report::LeftOut;
use super::trial::Trial;

/// A part with fewer cases is merged with the other small ones.
const CASES_MIN: usize = 50;
/// Parts of one kind, at most; the smaller ones are merged.
const PARTS_MAX: usize = 12;
/// Users with fewer events in their history are warm, the others active.
const ACTIVE_EVENTS: usize = 10;
/// What merged parts are called.
const OTHER: &str = "other";

/// Whether training saw an item.
fn known_word(is_known: bool) -> String {
    if is_known { "in training" } else { "cold (never in training)" }.to_owned()
}

/// A part of the cases.
pub(super) struct Slice {
    pub(super) by: &'static str,
    pub(super) value: String,
    /// Their numbers, in order.
    pub(super) cases: Vec<u32>,
}

/// All parts.
pub(super) struct Slices {
    pub(super) list: Vec<Slice>,
    pub(super) left_out: Vec<LeftOut>,
    // By case: the numbers of the slices that it is in.
    of_case: Vec<Vec<u16>>,
}

impl Slices {
    /// The parts of `trial`'s cases. A kind with only one part is left out: that part is all cases.
    pub(super) fn of(trial: &Trial<'_>) -> Self {
        let mut slices = Self::none(trial.cases.len());
        slices.add(trial, "country", &|case| {
            let country = case.user.and_then(|user| trial.data.users[user as usize].demographics.country.as_deref());
            country.unwrap_or("unknown").to_owned()
        });
        slices.add(trial, "history", &|case| {
            let word = match case.history.len() {
                0 => "cold (no events)",
                1..ACTIVE_EVENTS => "warm (1 to 9 events)",
                _ => "active (10 events or more)",
            };
            word.to_owned()
        });
        slices.add(trial, "target", &|case| known_word(trial.known[case.target as usize]));
        if !trial.is_of_log() {
            slices.add(trial, "context", &|case| match case.context {
                Looked::Item(item) => known_word(trial.known[item as usize]),
                Looked::Request(_) => "of a request".to_owned(),
            });
        }
        if trial.is_of_log() {
            slices.add(trial, "surface", &|case| {
                let word = match trial.request(case).map(|request| request.surface) {
                    Some(Surface::RelatedPins) => "related_pins",
                    Some(Surface::Search) => "search",
                    Some(Surface::Home) => "home",
                    None => "unknown",
                };
                word.to_owned()
            });
        }
        slices
    }

    /// No parts of `cases` cases.
    pub(super) fn none(cases: usize) -> Self {
        Self { list: Vec::new(), left_out: Vec::new(), of_case: vec![Vec::new(); cases] }
    }

    /// The numbers of the slices that a case is in.
    pub(super) fn of_case(&self, case: usize) -> impl Iterator<Item = usize> {
        self.of_case[case].iter().map(|slice| usize::from(*slice))
    }

    fn add(&mut self, trial: &Trial<'_>, by: &'static str, value: &dyn Fn(&Case) -> String) {
        let mut parts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (number, case) in (0..).zip(&trial.cases) {
            parts.entry(value(case)).or_default().push(number);
        }
        let mut parts: Vec<(String, Vec<u32>)> = parts.into_iter().collect();
        if let [(value, _)] = parts.as_slice() {
            self.leave_out(by, format!("every case has the same: {value}"));
            return;
        }
        parts.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
        let large = parts.iter().take(PARTS_MAX).take_while(|(_, cases)| cases.len() >= CASES_MIN).count();
        let small = parts.split_off(large);
        let mut merged: Vec<u32> = small.iter().flat_map(|(_, cases)| cases).copied().collect();
        merged.sort_unstable();
        if merged.len() >= CASES_MIN {
            parts.push((OTHER.to_owned(), merged));
        } else if !merged.is_empty() {
            let names: Vec<&str> = small.iter().map(|(value, _)| value.as_str()).take(PARTS_MAX).collect();
            let why = format!("{} cases in all, {CASES_MIN} are needed: {}", merged.len(), names.join(", "));
            self.leave_out(by, why);
        }
        for (value, cases) in parts {
            let number = self.list.len() as u16;
            cases.iter().for_each(|case| self.of_case[*case as usize].push(number));
            self.list.push(Slice { by, value, cases });
        }
    }

    fn leave_out(&mut self, by: &str, why: String) {
        self.left_out.push(LeftOut { what: format!("slices by {by}"), why });
    }
}
