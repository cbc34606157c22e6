//! Pure: how far a refresh has come.
//!
//! Partition by partition, page by page. A page that fails is asked again, [`ATTEMPTS_MAX`] times in all, then the
//! partition is given up on until the next run: pages are idempotent, and nobody's state is worse than before.

use std::time::Duration;

use turret_retrieval::ids::{PartitionId, UserId};

/// Attempts at one page.
pub const ATTEMPTS_MAX: u32 = 5;

/// What came back for a page.
#[derive(Clone, Debug)]
pub enum PageEvent {
    /// The page is done.
    Done {
        /// Users whose state was recomputed.
        refreshed: u32,
        /// Where the partition continues.
        next: Option<UserId>,
    },
    /// Time was up: the rest of the page is still to be done.
    Part {
        /// Users whose state was recomputed.
        refreshed: u32,
    },
    /// The partition did not answer, or refused.
    Failed,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for a page, after a wait.
    Ask {
        /// Of this partition.
        partition: PartitionId,
        /// Behind this user.
        after: Option<UserId>,
        /// Zero unless the last attempt failed.
        wait: Duration,
    },
    /// Every partition is done or given up on.
    Finished,
}

/// The cursor of one run.
#[derive(Clone, Debug)]
pub struct Cursor {
    partitions: u32,
    partition: u32,
    after: Option<UserId>,
    failures: u32,
    /// Users whose state was recomputed.
    pub refreshed: u64,
    /// Partitions that are done.
    pub done: u32,
    /// Partitions given up on.
    pub failed: u32,
}

impl Cursor {
    /// Before the first page of `partitions` partitions.
    pub fn new(partitions: u32) -> Self {
        Self { partitions, partition: 0, after: None, failures: 0, refreshed: 0, done: 0, failed: 0 }
    }

    /// How many partitions there are to do.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// What to do first, or now.
    pub fn step(&self) -> Step {
        if self.partition >= self.partitions {
            return Step::Finished;
        }
        let wait = Duration::from_millis(if self.failures == 0 { 0 } else { 100 << self.failures.min(6) });
        Step::Ask { partition: PartitionId(self.partition), after: self.after.clone(), wait }
    }

    /// Takes in what the asked page came to.
    pub fn take(&mut self, event: PageEvent) {
        match event {
            PageEvent::Done { refreshed, next } => {
                self.refreshed += u64::from(refreshed);
                self.failures = 0;
                match next {
                    Some(user) => self.after = Some(user),
                    None => {
                        self.done += 1;
                        self.turn();
                    }
                }
            }
            PageEvent::Part { refreshed } if refreshed > 0 => {
                self.refreshed += u64::from(refreshed);
                self.failures = 0;
            }
            PageEvent::Part { .. } | PageEvent::Failed => {
                self.failures += 1;
                if self.failures >= ATTEMPTS_MAX {
                    self.failed += 1;
                    self.turn();
                }
            }
        }
    }

    fn turn(&mut self) {
        self.partition += 1;
        self.after = None;
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_run_visits_every_partition_once_and_ends(
            outcomes in prop::collection::vec((any::<bool>(), any::<bool>(), 0u32..50), 400),
            partitions in 1u32..8,
        ) {
            let mut cursor = Cursor::new(partitions);
            let (mut refreshed, mut last) = (0u64, 0);
            for (i, (fails, more, users)) in outcomes.into_iter().enumerate() {
                let Step::Ask { partition, .. } = cursor.step() else { break };
                prop_assert!(partition.0 >= last && partition.0 < partitions);
                last = partition.0;
                if fails {
                    cursor.take(PageEvent::Failed);
                } else {
                    refreshed += u64::from(users);
                    let next = more.then(|| UserId::from(i as u64));
                    cursor.take(PageEvent::Done { refreshed: users, next });
                }
            }
            prop_assert_eq!(cursor.refreshed, refreshed);
            if cursor.step() == Step::Finished {
                prop_assert_eq!(cursor.done + cursor.failed, partitions);
            }
        }
    }

    #[test]
    fn the_rest_of_a_page_is_asked_for_again_while_there_is_progress() {
        let mut cursor = Cursor::new(1);
        let first = cursor.step();
        for _ in 0..2 * ATTEMPTS_MAX {
            cursor.take(PageEvent::Part { refreshed: 7 });
            assert_eq!(cursor.step(), first);
        }
        (0..ATTEMPTS_MAX).for_each(|_| cursor.take(PageEvent::Part { refreshed: 0 }));
        assert_eq!((cursor.step(), cursor.refreshed, cursor.failed), (Step::Finished, 70, 1));
    }

    #[test]
    fn a_partition_that_never_answers_is_given_up_on() {
        let mut cursor = Cursor::new(2);
        let mut waits = vec![];
        for _ in 0..ATTEMPTS_MAX {
            let Step::Ask { partition, wait, .. } = cursor.step() else { unreachable!("partitions are left") };
            assert_eq!(partition, PartitionId(0));
            waits.push(wait.as_millis());
            cursor.take(PageEvent::Failed);
        }
        assert_eq!(waits, [0, 200, 400, 800, 1600]);
        assert_eq!(cursor.step(), Step::Ask { partition: PartitionId(1), after: None, wait: Duration::ZERO });
        cursor.take(PageEvent::Done { refreshed: 3, next: None });
        assert_eq!((cursor.step(), cursor.done, cursor.failed, cursor.refreshed), (Step::Finished, 1, 1, 3));
    }
}
