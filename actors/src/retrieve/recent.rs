//! What was asked lately, to judge the next generation by.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use turret_retrieval::ids::UserId;

use super::RetrieveRequest;

/// Requests whose users are remembered.
const USERS_MAX: usize = 16_384;
/// Whole requests that are remembered: one of every [`REQUESTS_EVERY`].
const REQUESTS_MAX: usize = 256;
const REQUESTS_EVERY: u64 = 8;
/// A filter of more conditions and values is not remembered: 256 of the largest would take half a gigabyte.
const FILTER_SIZE_MAX: usize = 256;

/// The latest requests of a node.
#[derive(Debug, Default)]
pub struct Recent {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    users: VecDeque<UserId>,
    requests: VecDeque<RetrieveRequest>,
}

impl Recent {
    /// Remembers `request`, and forgets the oldest beyond the bounds.
    pub(crate) fn note(&self, request: &RetrieveRequest) {
        let mut seen = self.seen();
        if let Some(user) = &request.user {
            if seen.users.len() == USERS_MAX {
                seen.users.pop_front();
            }
            seen.users.push_back(user.clone());
        }
        seen.count += 1;
        let is_small = request.filter.as_ref().is_none_or(|filter| filter.size() <= FILTER_SIZE_MAX);
        if is_small && (seen.count - 1).is_multiple_of(REQUESTS_EVERY) {
            if seen.requests.len() == REQUESTS_MAX {
                seen.requests.pop_front();
            }
            seen.requests.push_back(request.clone());
        }
    }

    /// The users of the latest requests with how many those were, most of them first.
    pub fn users(&self) -> Vec<(UserId, u64)> {
        let mut counts: HashMap<UserId, u64> = HashMap::new();
        for user in &self.seen().users {
            *counts.entry(user.clone()).or_default() += 1;
        }
        let mut users: Vec<_> = counts.into_iter().collect();
        users.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        users
    }

    /// At most `count` of the latest requests, the latest first.
    pub fn requests(&self, count: usize) -> Vec<RetrieveRequest> {
        self.seen().requests.iter().rev().take(count).cloned().collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use turret_retrieval::budget::Budget;
    use turret_retrieval::user::Demographics;

    use super::*;

    fn request(user: u64) -> RetrieveRequest {
        RetrieveRequest {
            user: Some(UserId::from(user)),
            context: None,
            demographics: Demographics::default(),
            filter: None,
            crowding: None,
            k: 1 + user as usize,
            budget: Budget::new(Instant::now().into_std(), Duration::from_secs(1)),
            max_state_age_ms: None,
            compares_without_context: false,
            min_coverage: None,
        }
    }

    #[test]
    fn users_are_counted_and_the_oldest_forgotten() {
        let recent = Recent::default();
        (0..USERS_MAX as u64).for_each(|user| recent.note(&request(user)));
        for user in [7, 9, 9] {
            recent.note(&request(user));
        }
        let users = recent.users();
        assert_eq!(users.iter().map(|(_, count)| count).sum::<u64>(), USERS_MAX as u64);
        assert_eq!(users[..2], [(UserId::from(9), 3), (UserId::from(7), 2)]);
        assert!(users.iter().all(|(user, _)| *user != UserId::from(2)), "the first three have made room");
        let latest = recent.requests(usize::MAX);
        assert_eq!(latest.len(), REQUESTS_MAX);
        assert!(latest.windows(2).skip(1).all(|pair| pair[0].k == pair[1].k + REQUESTS_EVERY as usize));
        assert_eq!(recent.requests(2).len(), 2);
    }
}
