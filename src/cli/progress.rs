//! Progress bars on a terminal, and Ctrl-C between two steps of long work.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Interrupted, tell};

/// Set by the first Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C a request to stop at the next step; a second one ends the process as usual.
pub(super) fn watch_interrupts() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                INTERRUPTED.store(true, Ordering::SeqCst);
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    })?;
    Ok(())
}

/// A bar on standard error; invisible where that is not a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar called `what`, whose steps are `unit`.
    pub(super) fn new(what: &str, unit: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = format!(
            "{{prefix:16}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}  {{msg}}  {{per_sec}}, {{eta}} left"
        );
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// The same bar of work whose first `done` steps were done before: they do not count for the time left.
    pub(super) fn after(self, done: u64) -> Self {
        self.0.set_position(done);
        self.0.reset_eta();
        self
    }

    /// Shows that `done` of `total` steps are done, and asks whether to go on.
    pub(super) fn at(&self, done: u64, total: u64, message: impl FnOnce() -> String) -> ControlFlow<()> {
        self.0.set_length(total);
        self.0.set_position(done);
        if !self.0.is_hidden() {
            self.0.set_message(message());
        }
        if INTERRUPTED.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Prints a line above the bar.
    pub(super) fn above(&self, line: &str) {
        self.0.suspend(|| tell(line));
    }

    /// Ends the work, successful or not.
    ///
    /// # Errors
    /// [`Interrupted`] in place of `result`'s error, when Ctrl-C was pressed.
    pub(super) fn end<T, E: Into<anyhow::Error>>(self, result: Result<T, E>) -> anyhow::Result<T> {
        self.0.finish_and_clear();
        match result {
            Ok(value) => Ok(value),
            Err(_) if INTERRUPTED.load(Ordering::SeqCst) => Err(Interrupted.into()),
            Err(error) => Err(error.into()),
        }
    }
}
