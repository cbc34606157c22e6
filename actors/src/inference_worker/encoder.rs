//! A thread that encodes histories, one job after the other.
//!
//! A worker has one for each core of the CPU, and each computes alone: jobs are of a millisecond, and threads that shared one would wait for each
//! other, and be woken, for a good part of that.

use std::num::NonZero;
use std::thread::available_parallelism;

use turret_model::DeviceName;

use super::batcher::BatcherSettings;
use crate::offload::{Offload, OffloadError};

/// See the module.
#[derive(Clone)]
pub struct Encoder {
    thread: Offload,
    /// In its place while requests come: it leaves the core to all others. Nobody waits for what it holds: it computes only.
    idle: Offload,
}

/// How many a worker on this machine has. A partition has twice as many jobs under way, and the worker refuses none of them.
pub fn count(settings: &BatcherSettings, device: DeviceName) -> usize {
    match device {
        DeviceName::Cpu => {
            available_parallelism().map_or(1, NonZero::get).min(settings.refresh_queue_jobs_max / 2).max(1)
        }
        // Which computes one thing at a time, however many ask.
        DeviceName::Cuda(_) => 1,
    }
}

impl Encoder {
    /// So many of them.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn several(count: usize) -> Result<Vec<Self>, OffloadError> {
        // A worker that is started again may find the one before still at its last job.
        let one = || Ok(Self { thread: Offload::new("encode", 1, 1)?, idle: Offload::idle("encode-idle", 1, 1)? });
        (0..count).map(|_| one()).collect()
    }

    /// Where it runs, while requests come or while none do.
    pub(super) fn thread(&self, is_asked: bool) -> &Offload {
        if is_asked { &self.idle } else { &self.thread }
    }
}
