//! The time of a thread.

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread so far, in seconds: by a clock, for what `/proc` tells moves by milliseconds.
pub(crate) fn cpu_of_thread() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
