//! A task that ends with who owns it: a killed actor runs no code of its own any more.

use tokio::task::AbortHandle;

/// Ends its task when dropped.
pub(crate) struct Task(AbortHandle);

impl Task {
    /// Starts `work`, which must bear to be given up at any await.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
