//! Retention: what is too old is forgotten, page by page, in the background.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use turret_retrieval::ids::UserId;
use turret_store::{PartitionStore, Retention};

use super::{Msg, Note, UserPartition};
use crate::clock::now_ms;
use crate::offload::Panicked;
use crate::wire::note;

/// From the end of one sweep to the next.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// Between the pages of a sweep: other writes go on.
const BETWEEN_PAGES: Duration = Duration::from_millis(20);

impl UserPartition {
    /// Has the next page swept after `wait`; none where everything is kept.
    pub(super) fn sweep_after(&self, wait: Duration, after: Option<UserId>, myself: &ActorRef<Msg>) {
        if self.retention == Retention::default() {
            return;
        }
        let myself = myself.clone();
        // One sweep of a partition at a time; the task ends with its wait.
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            note(&myself, Note::SweepDue(after));
        });
    }

    /// Sweeps the page behind `after`.
    pub(super) fn sweep(&self, store: &Arc<PartitionStore>, after: Option<UserId>, myself: &ActorRef<Msg>) {
        let Ok(slot) = self.writes.reserve() else {
            return self.sweep_after(BETWEEN_PAGES, after, myself);
        };
        let (own, store, myself) = (self.clone(), store.clone(), myself.clone());
        let retention = self.retention;
        slot.run(
            move || store.sweep(after.as_ref(), retention, now_ms()),
            move |done| match done {
                Ok(Ok(swept)) => {
                    let counts =
                        [("events", swept.events), ("silent_users", swept.silent_users), ("erasures", swept.erasures)];
                    for (what, count) in counts {
                        own.metrics.retention.with_label_values(&[what]).inc_by(count);
                    }
                    note(&myself, Note::Swept(swept.next));
                }
                Ok(Err(error)) => {
                    tracing::error!(partition = %own.partition, %error, "retention could not be kept");
                    note(&myself, Note::Swept(None));
                }
                Err(Panicked) => note(&myself, Note::StorePanicked),
            },
        );
    }

    /// Goes on behind a page, or waits for the next sweep.
    pub(super) fn swept(&self, next: Option<UserId>, myself: &ActorRef<Msg>) {
        let wait = if next.is_some() { BETWEEN_PAGES } else { SWEEP_EVERY };
        self.sweep_after(wait, next, myself);
    }
}
