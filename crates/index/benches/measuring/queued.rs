//! What a thread waits for a processor.

/// How long this thread was ready so far and had no processor, in seconds.
pub(crate) fn queued_of_thread() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    stat.split_whitespace().nth(1).and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds second") / 1e9
}
