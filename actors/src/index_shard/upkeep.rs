//! The work that changes of ads leave behind: small steps behind the changes that wait, large ones where shards are loaded.

use ractor::ActorRef;
use turret_index::Due;

use super::{AGAIN_AFTER, IndexShard, Msg, Note, State};
use crate::offload::Panicked;
use crate::task::Task;
use crate::wire::note;

impl IndexShard {
    /// Has a step of upkeep done behind the changes that wait already, unless one is.
    pub(super) fn maintain(&self, myself: &ActorRef<Msg>, state: &mut State) {
        let Some(index) = state.index.clone().filter(|_| !state.maintaining) else { return };
        // Where the queue is full, the last of those changes tells of itself.
        let Ok(slot) = self.changes.reserve() else { return };
        state.maintaining = true;
        let myself = myself.clone();
        slot.run(
            move || index.maintain().map_err(|error| error.to_string()),
            move |due| match due {
                Ok(due) => note(&myself, Note::Maintained(due)),
                Err(Panicked) => note(&myself, Note::Panicked),
            },
        );
    }

    pub(super) fn maintained(&self, due: Result<Due, String>, myself: &ActorRef<Msg>, state: &mut State) {
        state.maintaining = false;
        let due = due.unwrap_or_else(|error| {
            tracing::error!(shard = %self.shard, error, "the graph refused an ad; it is found by comparing, and tried again");
            Due { later: true, ..Due::default() }
        });
        if due.overhaul {
            self.overhaul(myself, state);
        }
        if due.step {
            self.maintain(myself, state);
        } else if due.later {
            let myself = myself.clone();
            state.waiting = Some(Task::spawn(async move {
                tokio::time::sleep(AGAIN_AFTER).await;
                note(&myself, Note::Changed);
            }));
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
            Err(error) => {
                tracing::error!(shard = %self.shard, error, "no new graph could be made; the shard goes on without");
            }
        }
    }
}
