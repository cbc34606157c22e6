//! Cases from a log of requests: the ads that were delivered are what is to be found.

use std::collections::{HashMap, HashSet};

use rand_chacha::ChaCha8Rng;
use turret_retrieval::context::{Context, Surface};
use turret_retrieval::dataset::Dataset;
use turret_retrieval::ids::{AdId, UserId};

use super::EvaluateError;
use super::cases::{Case, Looked, sample};
use crate::settings::{EvaluationSettings, Split};

/// A request as a log has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Who asked; unknown to the data set is a user without a history.
    pub user: UserId,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Where the ads were to be shown.
    pub surface: Surface,
    /// What the user looked at or searched for.
    pub context: Context,
    /// The ads that were shown.
    pub delivered: Vec<AdId>,
}

/// One case for each delivered ad of the requests that `split` tests on. In the order of users, then time.
///
/// The history is what was known at the cut, as for every other case of a temporal split.
pub(super) fn cases(
    data: &Dataset,
    split: &Split,
    requests: &[Request],
    settings: &EvaluationSettings,
    random: &mut ChaCha8Rng,
) -> Result<Vec<Case>, EvaluateError> {
    let Split::Temporal { cut_ms, until_ms, .. } = *split else { return Err(EvaluateError::LogNeedsTimes) };
    let users: HashMap<&UserId, u32> = data.users.iter().map(|user| &user.id).zip(0..).collect();
    let promoted = promoted(data);
    let mut tested: Vec<(u32, &Request)> =
        (0..).zip(requests).filter(|(_, request)| (cut_ms..until_ms).contains(&request.at_ms)).collect();
    // Unknown users stand first, each by themselves.
    tested.sort_by_key(|(_, request)| (users.get(&request.user).copied(), &request.user, request.at_ms));
    let of_request = |(number, request): (u32, &Request)| {
        let user = users.get(&request.user).copied();
        let known = user.map_or(0..0, |user| {
            let start = data.range_of(user).start;
            start..start + data.events_of(user).partition_point(|row| row.at < cut_ms)
        });
        let targets = request.delivered.iter().filter_map(|ad| promoted.get(ad).copied());
        let case = move |target| Case {
            user,
            history: known.clone(),
            context: Looked::Request(number),
            target,
            past: known.clone(),
        };
        targets.map(case).collect::<Vec<_>>()
    };
    let cases = tested.into_iter().flat_map(of_request).collect();
    Ok(sample(cases, settings.cases_max, random))
}

/// The items that no ad promotes, sorted.
pub(super) fn unpromoted(data: &Dataset) -> Vec<u32> {
    let promoted: HashSet<u32> = promoted(data).into_values().collect();
    (0..data.items.len() as u32).filter(|item| !promoted.contains(item)).collect()
}

/// The item of each ad.
fn promoted(data: &Dataset) -> HashMap<&AdId, u32> {
    let items: HashMap<_, u32> = data.items.iter().map(|item| &item.id).zip(0..).collect();
    data.ads.iter().filter_map(|ad| Some((&ad.id, *items.get(&ad.item)?))).collect()
}
