//! The one bridge from actors to blocking or heavy work: a fixed number of threads, a bounded queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Runs closures on threads of its own.
#[derive(Clone)]
pub struct Offload {
    pool: Arc<rayon::ThreadPool>,
    permits: Arc<Semaphore>,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more work is queued than the limit allows")]
pub struct Busy;

/// The work panicked; the panic was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work panicked")]
pub struct Panicked;

/// Why threads could not be made.
#[derive(Debug, thiserror::Error)]
#[error("threads could not be started")]
pub struct OffloadError(#[from] rayon::ThreadPoolBuildError);

impl Offload {
    /// `threads` threads called `name-…`, and room for `queue` more jobs than are running.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(name: &'static str, threads: usize, queue: usize) -> Result<Self, OffloadError> {
        Self::with(name, threads, queue, || ())
    }

    /// As [`new`](Self::new), of threads that the system runs while no other wants the core, and takes off it as soon as one does
    /// (`SCHED_IDLE`); where it does not offer that, they are like any others, and a warning says so.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn idle(name: &'static str, threads: usize, queue: usize) -> Result<Self, OffloadError> {
        Self::with(name, threads, queue, move || {
            let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
                tracing::warn!(name, %error, "background work runs at the priority of requests");
            }
        })
    }

    fn with(
        name: &'static str,
        threads: usize,
        queue: usize,
        begin: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, OffloadError> {
        let threads = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |i| format!("{name}-{i}"))
            .start_handler(move |_| begin())
            .build()?;
        Ok(Self { pool: Arc::new(pool), permits: Arc::new(Semaphore::new(threads + queue)) })
    }

    /// Takes a place in the queue, so that the caller can still refuse with what it would move into the work.
    ///
    /// # Errors
    /// [`Busy`] at once when the queue is full.
    pub fn reserve(&self) -> Result<Slot, Busy> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Busy)?;
        Ok(Slot { pool: self.pool.clone(), permit })
    }

    /// Runs `work`, waiting for room in the queue first: for callers that are themselves bounded.
    ///
    /// # Errors
    /// When the work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // The receiver may have been dropped with its future; the work was done all the same.
        Slot { pool: self.pool.clone(), permit }.run(work, move |result| drop(sender.send(result)));
        receiver.await.unwrap_or(Err(Panicked))
    }
}

/// A place in the queue of an [`Offload`].
pub struct Slot {
    pool: Arc<rayon::ThreadPool>,
    permit: OwnedSemaphorePermit,
}

impl Slot {
    /// Runs `work` and hands its result, or the news that it panicked, to `done`, on the same thread.
    pub fn run<T>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, Panicked>) + Send + 'static,
    ) {
        let permit = self.permit;
        self.pool.spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
            drop(permit);
            done(result);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_panic_is_an_answer() {
        let offload = Offload::new("test", 1, 1).unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let first = tell.clone();
        offload.reserve().unwrap().run(move || held.recv().is_ok(), move |result| first.send(result).unwrap());
        let second = offload.reserve().unwrap();
        second.run(|| -> bool { std::panic::resume_unwind(Box::new(())) }, move |r| tell.send(r).unwrap());
        assert_eq!(offload.reserve().err(), Some(Busy));
        hold.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), Ok(true));
        assert_eq!(told.recv().unwrap(), Err(Panicked));
    }

    #[tokio::test]
    async fn the_permit_is_back_before_the_answer_is() {
        let offload = Offload::new("test", 1, 0).unwrap();
        for i in 0..50 {
            assert_eq!(offload.run(move || i).await, Ok(i));
        }
    }
}
