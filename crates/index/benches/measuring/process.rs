//! The time of the process.

use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads of this process so far, in seconds, by a clock.
pub(crate) fn cpu_of_process() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
