//! Logs, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Installs the subscriber. `RUST_LOG` chooses what is shown; `info` by default, ractor's own chatter at `warn`.
pub fn install() {
    let standard = "info,ractor=warn,ractor_cluster=warn";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(standard));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second installation, in tests, changes nothing.
    drop(subscriber.try_init());
}
