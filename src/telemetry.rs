//! Logs, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Who logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A node: every change of its state.
    Node,
    /// A command, which prints what it has to say: only what went wrong.
    Tool,
}

/// Installs the subscriber. `RUST_LOG` chooses what is shown in place of the program's own choice.
pub fn install(program: Program) {
    let standard = match program {
        Program::Node => "info,ractor=warn,ractor_cluster=warn",
        Program::Tool => "warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(standard));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second installation, in tests, changes nothing.
    drop(subscriber.try_init());
}
