//! Settings of the numeric libraries that are read from the environment, once, before their first use.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Threads that candle and rayon use. Where it is unset, candle reads `/proc/cpuinfo` in every matrix product, which
/// makes a single query eighteen times slower.
const THREADS: &str = "RAYON_NUM_THREADS";
/// How long candle's idle threads spin. Their time belongs to the requests.
const SPIN: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";
/// Threads of candle's own pool, which adds up gradients; waiting for it takes longer than what it does.
const POOL: &str = "CANDLE_NUM_THREADS";

/// Starts this program again, in the same process, with these variables set where the caller left them unset.
///
/// A node gets one thread for a matrix product, because requests run side by side; everything else gets every core.
/// Returns where nothing is to be set, or where the program cannot be started again: it then runs as it is.
pub fn settle() {
    if [THREADS, SPIN, POOL].into_iter().all(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let serves = std::env::args_os().nth(1).is_some_and(|command| command == "serve");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut again = Command::new(program);
    again.args(std::env::args_os().skip(1));
    for (name, value) in [(THREADS, if serves { 1 } else { cores }), (SPIN, 0), (POOL, 1)] {
        if std::env::var_os(name).is_none() {
            again.env(name, value.to_string());
        }
    }
    // Only returns with an error; the program is merely slower then.
    drop(again.exec());
}
