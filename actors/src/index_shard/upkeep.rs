//! The work that changes of ads leave behind: small steps behind the changes that wait, large ones where shards are loaded.

use ractor::ActorRef;
use turret_index::{Due, Refused};

use super::{AGAIN_AFTER, IndexShard, Msg, Note, State};
use crate::offload::Panicked;
use crate::task::Task;
use crate::wire::note;

impl IndexShard {
    /// Has a step of upkeep done behind the changes that wait already, unless one is.
    pub(super) fn maintain(&self, myself: &ActorRef<Msg>, state: &mut State) {
        let Some(index) = state.index.clone().filter(|_| !state.maintaining) else { return };
        // Where the queue is full, perhaps of the work of others, nothing else may tell that upkeep is due.
        let Ok(slot) = self.changes.reserve() else { return wait(myself, state) };
        state.maintaining = true;
        let myself = myself.clone();
        slot.run(
            move || index.maintain(),
            move |due| match due {
                Ok(due) => note(&myself, Note::Maintained(due)),
                Err(Panicked) => note(&myself, Note::Panicked),
            },
        );
    }

    pub(super) fn maintained(&self, done: Result<Due, Refused>, myself: &ActorRef<Msg>, state: &mut State) {
        state.maintaining = false;
        let is_refused = done.is_err();
        let due = done.unwrap_or_else(|Refused { error, due }| {
            if !state.refused {
                tracing::error!(shard = %self.shard, %error, "the graph refused an ad; it is found by comparing, and tried again");
            }
            state.refused = true;
            Due { later: true, ..due }
        });
        if state.refused && !is_refused && !due.step && !due.later {
            state.refused = false;
            tracing::info!(shard = %self.shard, "the graph has taken all that it had refused");
        }
        if let Some(index) = &state.index {
            state.series.index(index);
        }
        if due.overhaul {
            self.overhaul(myself, state);
        }
        if due.step {
            self.maintain(myself, state);
        } else if due.later {
            wait(myself, state);
        }
    }

    fn overhaul(&self, myself: &ActorRef<Msg>, state: &mut State) {
        let Some(index) = state.index.clone().filter(|_| !state.overhauling) else { return };
        // Where the queue is full, it is due after the next change too.
        let Ok(slot) = self.loads.reserve() else { return };
        state.overhauling = true;
        let myself = myself.clone();
        slot.run(
            move || index.overhaul(&mut |_| std::ops::ControlFlow::Continue(())).map_err(|error| error.to_string()),
            move |outcome| match outcome {
                Ok(outcome) => note(&myself, Note::Overhauled(outcome)),
                Err(Panicked) => note(&myself, Note::Panicked),
            },
        );
    }

    pub(super) fn overhauled(&self, outcome: Result<(), String>, myself: &ActorRef<Msg>, state: &mut State) {
        state.overhauling = false;
        match outcome {
            Ok(()) => self.maintain(myself, state),
            // Steps that are due wait for nobody; another try at once would fail as this one did, so that it waits for the next step.
            Err(error) => {
                tracing::error!(shard = %self.shard, error, "a graph could not be made or measured; the shard goes on as it was");
            }
        }
    }
}

/// Has upkeep tried again in a while.
fn wait(myself: &ActorRef<Msg>, state: &mut State) {
    let myself = myself.clone();
    state.waiting = Some(Task::spawn(async move {
        tokio::time::sleep(AGAIN_AFTER).await;
        note(&myself, Note::Changed);
    }));
}
