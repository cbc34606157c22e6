//! Group commit: writes that wait while a flush is going on share the next one.
//!
//! There is no timer: a group is whatever came while the one before was written. Answers follow the flush.

use ractor::{ActorRef, RpcReplyPort};
use turret_store::{Change, PartitionStore, Write, WriteError};

use super::{Msg, Note, Reply, UserPartition, answer};
use crate::clock::now_ms;
use crate::offload::Panicked;
use crate::protocol::{Refusal, WriteAsk, WriteReply};
use crate::wire::{Wire, note};

/// Asks that may wait for the group before theirs.
const ASKS_MAX: usize = 256;
/// Changes in them, an event each: what a partition writes in about a third of a second.
const CHANGES_MAX: usize = 10_000;

/// The asks that wait, and whether a group is being written.
#[derive(Default)]
pub(super) struct Group {
    waiting: Vec<Asked>,
    changes: usize,
    is_writing: bool,
}

type Asked = (WriteAsk, RpcReplyPort<Wire<Result<WriteReply, Refusal>>>);

impl Group {
    /// Takes an ask in; gives its reply port back where too many wait.
    pub(super) fn push(&mut self, ask: WriteAsk, reply: Reply<WriteReply>) -> Result<(), Reply<WriteReply>> {
        let changes = self.changes + ask.writes.iter().map(changes_of).sum::<usize>();
        let is_full = self.waiting.len() >= ASKS_MAX || changes > CHANGES_MAX;
        if is_full && !self.waiting.is_empty() {
            return Err(reply);
        }
        self.changes = changes;
        self.waiting.push((ask, reply));
        Ok(())
    }

    /// The group before has been written.
    pub(super) fn written(&mut self) {
        self.is_writing = false;
    }
}

fn changes_of(write: &Write) -> usize {
    match &write.change {
        Change::Append(events) => events.len(),
        Change::Describe(_) | Change::Erase => 1,
    }
}

impl UserPartition {
    /// Writes what waits, unless a group is being written.
    pub(super) fn commit(&self, store: &std::sync::Arc<PartitionStore>, group: &mut Group, myself: &ActorRef<Msg>) {
        if group.is_writing || group.waiting.is_empty() {
            return;
        }
        let asked = std::mem::take(&mut group.waiting);
        group.changes = 0;
        let Ok(slot) = self.writes.reserve() else {
            asked.into_iter().for_each(|(_, reply)| answer(reply, Err(Refusal::Overloaded)));
            return;
        };
        group.is_writing = true;
        self.metrics.write_group_asks.observe(asked.len() as f64);
        let (store, myself) = (store.clone(), myself.clone());
        slot.run(
            move || write(&store, asked),
            // A group that panicked has dropped its replies, which its callers take for no answer. A store that could not be
            // written must be opened again.
            move |done: Result<bool, Panicked>| {
                note(&myself, if done == Ok(true) { Note::Written } else { Note::StorePanicked });
            },
        );
    }
}

/// Blocking: writes all, flushes once, answers each. Says whether the store can be written.
fn write(store: &PartitionStore, asked: Vec<Asked>) -> bool {
    let (asks, replies): (Vec<WriteAsk>, Vec<_>) = asked.into_iter().unzip();
    let counts: Vec<usize> = asks.iter().map(|ask| ask.writes.len()).collect();
    let writes: Vec<Write> = asks.into_iter().flat_map(|ask| ask.writes).collect();
    let failed = |error: WriteError| Refusal::Failed(error.to_string());
    match store.write(&writes, now_ms()) {
        Ok(outcomes) => {
            let mut outcomes = outcomes.into_iter().map(|outcome| outcome.map_err(failed));
            for (reply, count) in replies.into_iter().zip(counts) {
                answer(reply, Ok(WriteReply { outcomes: outcomes.by_ref().take(count).collect() }));
            }
            true
        }
        Err(error) => {
            let refusal = failed(error);
            replies.into_iter().for_each(|reply| answer(reply, Err(refusal.clone())));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use turret_retrieval::event::{Event, EventType};
    use turret_retrieval::ids::{ItemId, UserId};

    use super::*;

    fn ask(events: usize) -> WriteAsk {
        let event = Event { item_id: ItemId::from(1), event_type: EventType::View, timestamp_ms: 0, event_id: None };
        let write = |change| Write { user: UserId::from(1), change };
        WriteAsk { writes: vec![write(Change::Append(vec![event; events])), write(Change::Erase)] }
    }

    #[test]
    fn a_group_is_bounded_by_asks_and_by_changes_and_takes_one_of_any_size() {
        let port = || ractor::concurrency::oneshot().0.into();
        let mut group = Group::default();
        assert!(group.push(ask(CHANGES_MAX + 1), port()).is_ok());
        assert!(group.push(ask(0), port()).is_err());
        let mut group = Group::default();
        assert!(group.push(ask(CHANGES_MAX - 3), port()).is_ok());
        assert!(group.push(ask(0), port()).is_ok());
        assert!(group.push(ask(1), port()).is_err());
        let mut group = Group::default();
        (0..ASKS_MAX).for_each(|_| assert!(group.push(ask(0), port()).is_ok()));
        assert!(group.push(ask(0), port()).is_err());
    }
}
