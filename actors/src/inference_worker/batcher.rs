//! Pure: which rows are computed next.
//!
//! Three lanes for two takers. Requests and changed ads share one: there is no timer, a batch is whatever waited while the one
//! before was computed; requests go first, but after [`ONLINE_RUN_MAX`] of their batches in a row waiting ads have their turn.
//! Histories have another, which takes nothing from the first. Work whose time has passed is handed back instead of being computed;
//! time is what has passed since an epoch of the caller's. The shape follows text-embeddings-inference's queue.

use std::collections::VecDeque;
use std::time::Duration;

/// Online batches in a row while ads wait.
pub const ONLINE_RUN_MAX: u32 = 8;

/// Who waits for the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A request.
    Online,
    /// A change of ads.
    Ads,
    /// The daily refresh.
    Refresh,
}

impl Lane {
    /// The value of the label `lane`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Ads => "ads",
            Self::Refresh => "refresh",
        }
    }
}

/// The bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct BatcherSettings {
    /// Online rows in one batch.
    pub batch_rows_max: usize,
    /// Online rows that may wait.
    pub online_queue_rows_max: usize,
    /// Jobs that may wait in each of the other lanes; one job is one batch.
    pub refresh_queue_jobs_max: usize,
}

/// What waits, each until its time.
type Queue<J> = VecDeque<(Duration, J)>;

/// Rows that wait, by lane.
pub struct Batcher<O, A, R> {
    settings: BatcherSettings,
    online: Queue<O>,
    ads: Queue<A>,
    refresh: Queue<R>,
    online_run: u32,
}

/// What to do next for requests and ads.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<O, A> {
    /// Compute these requests together.
    Online(Vec<O>),
    /// Compute this job.
    Ads(A),
    /// Nothing waits.
    Idle,
}

/// What is not computed, for its time had passed.
#[derive(Debug, PartialEq, Eq)]
pub struct Expired<O, A> {
    /// Requests.
    pub online: Vec<O>,
    /// Jobs of ads.
    pub ads: Vec<A>,
}

impl<O, A, R> Batcher<O, A, R> {
    /// An empty queue.
    pub fn new(settings: BatcherSettings) -> Self {
        Self { settings, online: VecDeque::new(), ads: VecDeque::new(), refresh: VecDeque::new(), online_run: 0 }
    }

    /// Queues a request that is worth computing until `ends`.
    ///
    /// # Errors
    /// Gives it back when the lane is full.
    pub fn push_online(&mut self, row: O, ends: Duration) -> Result<(), O> {
        push(&mut self.online, self.settings.online_queue_rows_max, row, ends)
    }

    /// Queues ads that are worth embedding until `ends`.
    ///
    /// # Errors
    /// Gives them back when the lane is full.
    pub fn push_ads(&mut self, job: A, ends: Duration) -> Result<(), A> {
        push(&mut self.ads, self.settings.refresh_queue_jobs_max, job, ends)
    }

    /// Queues histories that are worth encoding until `ends`.
    ///
    /// # Errors
    /// Gives them back when the lane is full.
    pub fn push_refresh(&mut self, job: R, ends: Duration) -> Result<(), R> {
        push(&mut self.refresh, self.settings.refresh_queue_jobs_max, job, ends)
    }

    /// Takes the next batch of requests or ads, and all that was passed over because its time had passed by `now`.
    pub fn next(&mut self, now: Duration) -> (Next<O, A>, Expired<O, A>) {
        let mut expired = Expired { online: Vec::new(), ads: Vec::new() };
        if self.online_run >= ONLINE_RUN_MAX
            && let Some(job) = self.take_ads(now, &mut expired.ads)
        {
            return (Next::Ads(job), expired);
        }
        let mut batch = Vec::new();
        while batch.len() < self.settings.batch_rows_max
            && let Some(row) = take(&mut self.online, now, &mut expired.online)
        {
            batch.push(row);
        }
        if !batch.is_empty() {
            self.online_run += 1;
            return (Next::Online(batch), expired);
        }
        match self.take_ads(now, &mut expired.ads) {
            Some(job) => (Next::Ads(job), expired),
            None => (Next::Idle, expired),
        }
    }

    fn take_ads(&mut self, now: Duration, expired: &mut Vec<A>) -> Option<A> {
        let job = take(&mut self.ads, now, expired)?;
        self.online_run = 0;
        Some(job)
    }

    /// Takes the next histories, and all before them whose time had passed by `now`.
    pub fn next_refresh(&mut self, now: Duration) -> (Option<R>, Vec<R>) {
        let mut expired = Vec::new();
        (take(&mut self.refresh, now, &mut expired), expired)
    }

    /// Rows that wait in `lane`.
    pub fn waiting(&self, lane: Lane) -> usize {
        match lane {
            Lane::Online => self.online.len(),
            Lane::Ads => self.ads.len(),
            Lane::Refresh => self.refresh.len(),
        }
    }
}

fn push<J>(queue: &mut Queue<J>, jobs_max: usize, job: J, ends: Duration) -> Result<(), J> {
    if queue.len() >= jobs_max {
        return Err(job);
    }
    queue.push_back((ends, job));
    Ok(())
}

/// The first that is worth computing after `now`; those before it have expired.
fn take<J>(queue: &mut Queue<J>, now: Duration, expired: &mut Vec<J>) -> Option<J> {
    while let Some((ends, job)) = queue.pop_front() {
        if ends > now {
            return Some(job);
        }
        expired.push(job);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Online { lives_ms: u64 },
        Ads { lives_ms: u64 },
        Refresh { lives_ms: u64 },
        Next { after_ms: u64 },
        NextRefresh,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u64..20).prop_map(|lives_ms| Step::Online { lives_ms }),
            1 => (0u64..20).prop_map(|lives_ms| Step::Ads { lives_ms }),
            1 => (0u64..20).prop_map(|lives_ms| Step::Refresh { lives_ms }),
            2 => (0u64..5).prop_map(|after_ms| Step::Next { after_ms }),
            1 => Just(Step::NextRefresh),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        #[test]
        fn every_row_comes_out_once_and_no_lane_starves(steps in steps()) {
            let settings = BatcherSettings { batch_rows_max: 3, online_queue_rows_max: 20, refresh_queue_jobs_max: 4 };
            let mut batcher = Batcher::new(settings);
            let mut now = Duration::ZERO;
            let (mut pushed, mut out, mut run) = (0u32, 0u32, 0u32);
            for step in steps {
                match step {
                    Step::Online { lives_ms } => {
                        let ends = now + Duration::from_millis(lives_ms);
                        let full = batcher.waiting(Lane::Online) == 20;
                        let accepted = batcher.push_online(ends, ends).is_ok();
                        prop_assert_eq!(accepted, !full);
                        pushed += u32::from(accepted);
                    }
                    Step::Ads { lives_ms } => {
                        let ends = now + Duration::from_millis(lives_ms);
                        pushed += u32::from(batcher.push_ads(ends, ends).is_ok());
                    }
                    Step::Refresh { lives_ms } => {
                        let ends = now + Duration::from_millis(lives_ms);
                        pushed += u32::from(batcher.push_refresh(ends, ends).is_ok());
                    }
                    Step::NextRefresh => {
                        let (next, expired) = batcher.next_refresh(now);
                        prop_assert!(next.is_none_or(|ends| ends > now));
                        prop_assert!(expired.iter().all(|ends| *ends <= now));
                        prop_assert!(next.is_some() || batcher.waiting(Lane::Refresh) == 0);
                        out += u32::from(next.is_some()) + expired.len() as u32;
                    }
                    Step::Next { after_ms } => {
                        now += Duration::from_millis(after_ms);
                        let (next, expired) = batcher.next(now);
                        let mut all = expired.online.iter().chain(&expired.ads);
                        prop_assert!(all.all(|ends| *ends <= now));
                        out += (expired.online.len() + expired.ads.len()) as u32;
                        match next {
                            Next::Online(rows) => {
                                prop_assert!(!rows.is_empty() && rows.len() <= 3);
                                prop_assert!(rows.iter().all(|ends| *ends > now));
                                out += rows.len() as u32;
                                run += 1;
                                let ads_wait = batcher.waiting(Lane::Ads) > 0;
                                prop_assert!(!ads_wait || run <= ONLINE_RUN_MAX);
                            }
                            Next::Ads(ends) => {
                                prop_assert!(ends > now);
                                out += 1;
                                run = 0;
                            }
                            Next::Idle => {
                                prop_assert_eq!(batcher.waiting(Lane::Ads) + batcher.waiting(Lane::Online), 0);
                            }
                        }
                    }
                }
                let waiting: usize =
                    [Lane::Online, Lane::Ads, Lane::Refresh].map(|lane| batcher.waiting(lane)).iter().sum();
                prop_assert_eq!(pushed, out + waiting as u32);
            }
        }
    }
}
