//! The time of a thread.

/// CPU time of this thread so far, in seconds. The system counts it by milliseconds.
pub(crate) fn cpu_of_thread() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds first") / 1e9
}
