//! Pure: the jobs of a refresh that are under way in a partition, and how far its run is once they are written.
//!
//! Users who were read together are encoded in the order of the lengths of their histories, not of their ids: a run is as far as
//! everybody before has a state, or needs none.

use std::time::Duration;

use turret_retrieval::ids::UserId;
use turret_store::{Dirty, StoredState};

/// Jobs for each encoder, one that is encoded and one that is written: a crash repeats these.
const PER_ENCODER: usize = 2;

/// Users who were read together.
#[derive(Debug, Default)]
pub(super) struct Portion {
    /// Behind whom they were read.
    pub(super) after: Option<UserId>,
    /// Up to whom.
    pub(super) until: Option<UserId>,
    /// Those who are in no job yet.
    pub(super) users: Vec<Dirty>,
}

/// What came of a job.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) states: Vec<(UserId, StoredState)>,
    /// From when it was asked for.
    pub(super) encoded_in: Duration,
    /// Whether requests come where it was encoded.
    pub(super) is_asked: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// Of each that is encoded, behind whom its users were read.
    encoding: Vec<Option<UserId>>,
    /// Those that wait for the flush that goes on; they share the next.
    encoded: usize,
    states: Vec<(UserId, StoredState)>,
    writing: usize,
    /// How long the longest of them was encoded.
    encoded_in: Duration,
    /// Whether requests come where they are encoded.
    is_asked: bool,
}

impl Jobs {
    pub(super) fn new(is_asked: bool) -> Self {
        Self { is_asked, ..Self::default() }
    }

    /// Whether requests come where they are encoded.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    fn count(&self) -> usize {
        self.encoding.len() + self.encoded + self.writing
    }

    /// How many may begin now. While requests come none begins before all others are written.
    pub(super) fn room(&self, encoders: usize) -> usize {
        match (self.is_asked, self.count()) {
            (false, count) => (encoders * PER_ENCODER).saturating_sub(count),
            (true, 0) => encoders,
            (true, _) => 0,
        }
    }

    /// One begins, of users who were read behind `after`.
    pub(super) fn begin(&mut self, after: Option<UserId>) {
        self.encoding.push(after);
    }

    /// One has ended, with nothing or with what [`finish`](Self::finish) takes in.
    pub(super) fn end(&mut self, after: &Option<UserId>) {
        let at = self.encoding.iter().position(|job| job == after).expect("a job that ends has begun");
        self.encoding.swap_remove(at);
    }

    /// One is encoded.
    pub(super) fn finish(&mut self, after: &Option<UserId>, made: Made) {
        self.end(after);
        self.encoded += 1;
        self.states.extend(made.states);
        let before = if self.is_asked { self.encoded_in } else { Duration::ZERO };
        self.encoded_in = made.encoded_in.max(before);
        self.is_asked = made.is_asked;
    }

    /// Up to whom all have their states once those stand in the store that are encoded; `now` are the users who follow.
    pub(super) fn whole_until(&self, now: &Portion) -> Option<UserId> {
        let lacking = self.encoding.iter().chain(Some(&now.after).filter(|_| !now.users.is_empty()));
        lacking.min().unwrap_or(&now.until).clone()
    }

    /// What is to be written now, if anything; while requests come all of it together, for a flush wakes many threads.
    pub(super) fn write(&mut self) -> Option<Vec<(UserId, StoredState)>> {
        let may = self.writing == 0 && self.encoded > 0 && (!self.is_asked || self.encoding.is_empty());
        may.then(|| {
            self.writing = std::mem::take(&mut self.encoded);
            std::mem::take(&mut self.states)
        })
    }

    /// That is written. While requests come, and no other is under way, how long they were encoded: a rest follows.
    pub(super) fn written(&mut self) -> Option<Duration> {
        self.writing = 0;
        if self.count() > 0 {
            return None;
        }
        let encoded_in = std::mem::take(&mut self.encoded_in);
        self.is_asked.then_some(encoded_in)
    }
}

#[cfg(test)]
mod tests {
    use turret_retrieval::revision::Revision;

    use super::*;

    fn id(name: &str) -> Option<UserId> {
        Some(UserId::new(name).unwrap())
    }

    fn made(is_asked: bool, ms: u64) -> Made {
        Made { states: Vec::new(), encoded_in: Duration::from_millis(ms), is_asked }
    }

    fn portion(after: Option<UserId>, until: Option<UserId>, users: usize) -> Portion {
        let user = |number: usize| Dirty { user: UserId::from(number as u64), events: vec![], log_at: Revision::NONE };
        Portion { after, until, users: (0..users).map(user).collect() }
    }

    #[test]
    fn a_run_is_no_further_than_those_whose_states_are_lacking() {
        let mut jobs = Jobs::new(false);
        // Two jobs of the users from the first to d, and one is left who is in none.
        let mut now = portion(None, id("d"), 1);
        jobs.begin(None);
        jobs.begin(None);
        jobs.finish(&None, made(false, 1));
        assert_eq!(jobs.whole_until(&now), None, "one is encoded, one waits");
        now.users.clear();
        assert_eq!(jobs.whole_until(&now), None, "one is encoded yet");
        // Those behind follow while that one goes on.
        let mut next = portion(id("d"), id("h"), 1);
        assert_eq!(jobs.whole_until(&next), None);
        jobs.begin(id("d"));
        jobs.finish(&id("d"), made(false, 1));
        assert_eq!(jobs.whole_until(&next), None, "whoever is later does not count");
        jobs.finish(&None, made(false, 1));
        assert_eq!(jobs.whole_until(&next), id("d"));
        next.users.clear();
        assert_eq!(jobs.whole_until(&next), id("h"));
        jobs.begin(id("d"));
        assert_eq!(jobs.whole_until(&portion(id("h"), id("m"), 0)), id("d"), "nobody of the next needs one");
        jobs.end(&id("d"));
        // At the end of a page nobody may be left, or nobody have been read.
        assert_eq!(jobs.whole_until(&portion(id("h"), id("m"), 0)), id("m"));
        assert_eq!(jobs.whole_until(&portion(None, None, 0)), None);
    }

    #[test]
    fn while_nobody_asks_each_core_has_one_to_encode_and_one_to_write() {
        let mut jobs = Jobs::new(false);
        (0..4).for_each(|_| jobs.begin(None));
        assert_eq!((jobs.room(2), jobs.room(3)), (0, 2));
        assert!(jobs.write().is_none(), "nothing is encoded");
        jobs.finish(&None, made(false, 1));
        jobs.finish(&None, made(false, 1));
        assert!(jobs.write().is_some());
        assert_eq!(jobs.room(2), 0);
        jobs.finish(&None, made(false, 1));
        assert!(jobs.write().is_none(), "it shares the next");
        assert_eq!(jobs.written(), None);
        assert_eq!(jobs.room(2), 2);
        assert!(jobs.write().is_some());
    }

    #[test]
    fn while_requests_come_all_are_written_together_and_a_rest_follows() {
        let mut jobs = Jobs::new(true);
        assert_eq!(jobs.room(3), 3);
        jobs.begin(None);
        jobs.begin(None);
        assert_eq!(jobs.room(3), 0, "what begins together rests together");
        jobs.finish(&None, made(true, 3));
        assert!(jobs.write().is_none());
        assert_eq!(jobs.room(3), 0);
        jobs.finish(&None, made(true, 2));
        assert!(jobs.write().is_some());
        assert_eq!(jobs.room(3), 0);
        assert_eq!(jobs.written(), Some(Duration::from_millis(3)), "the longest");
        assert_eq!(jobs.room(3), 3);
        assert_eq!(jobs.written(), Some(Duration::ZERO));
    }
}
