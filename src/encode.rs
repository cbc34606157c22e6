//! The offline half of the model over a whole data set: the sequence state of every user.

use std::ops::ControlFlow;

use anyhow::bail;
use turret_actors::inference_worker::encode;
use turret_model::Model;
use turret_retrieval::dataset::{Dataset, Row};
use turret_retrieval::event::Event;
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::PartitionId;
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::user::User;
use turret_store::kept_of;

/// Users encoded at once.
const BATCH_USERS: usize = 128;
/// Users whose states are held until they are handed on in order: at most 25 KiB each at 100 events and 64 dimensions.
const WINDOW_USERS: usize = 2_048;

/// Whose histories are encoded, and how.
pub struct Encoding<'a> {
    /// Whose.
    pub dataset: &'a Dataset,
    /// By which model.
    pub model: &'a Model,
    /// How many user partitions there are.
    pub partitions: u32,
    /// The latest events that are read of each user.
    pub events_per_user_max: usize,
    /// How exactly states are kept.
    pub precision: Precision,
}

/// A user with what the encoder made of the history.
pub struct EncodedUser<'a> {
    /// Who, and the demographics.
    pub user: &'a User,
    /// Where the user belongs.
    pub partition: PartitionId,
    /// The latest events, oldest first.
    pub events: Vec<Event>,
    /// The state; none without an event.
    pub sequence: Option<SequenceState>,
}

impl Encoding<'_> {
    /// Hands every user to `take`: partition by partition, in the order of the bytes of their ids. `observe` is told of users
    /// done and of how many, and may break off.
    ///
    /// # Errors
    /// When a history cannot be encoded, `take` fails, or `observe` breaks off.
    pub fn run(
        &self,
        observe: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
        take: &mut dyn FnMut(EncodedUser<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let users = &self.dataset.users;
        let mut order: Vec<(PartitionId, u32)> =
            (0u32..).zip(users).map(|(row, user)| (partition_of(&user.id, self.partitions), row)).collect();
        let id = |row: u32| users[row as usize].id.as_str();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| id(a.1).cmp(id(b.1))));
        let (mut done, total) = (0, order.len() as u64);
        for window in order.chunks(WINDOW_USERS) {
            let rows: Vec<u32> = window.iter().map(|(_, row)| *row).collect();
            let histories: Vec<Vec<Event>> = rows.iter().map(|row| self.latest(*row)).collect();
            let sequences = self.encode(&histories, &mut |users| observe(done + users, total))?;
            for (((partition, row), events), sequence) in window.iter().zip(histories).zip(sequences) {
                take(EncodedUser { user: &users[*row as usize], partition: *partition, events, sequence })?;
            }
            done += window.len() as u64;
        }
        Ok(())
    }

    /// The states of histories, in their order.
    fn encode(
        &self,
        histories: &[Vec<Event>],
        observe: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> anyhow::Result<Vec<Option<SequenceState>>> {
        // Like lengths together: a batch is as long as its longest.
        let mut by_length: Vec<usize> = (0..histories.len()).collect();
        by_length.sort_by_key(|position| histories[*position].len());
        let mut sequences = vec![None; histories.len()];
        let mut done = 0;
        for batch in by_length.chunks(BATCH_USERS) {
            let slices: Vec<&[Event]> = batch.iter().map(|position| histories[*position].as_slice()).collect();
            for (position, sequence) in batch.iter().zip(encode(self.model, &slices, self.precision)?) {
                sequences[*position] = sequence;
            }
            done += batch.len() as u64;
            if observe(done).is_break() {
                bail!("encoding was broken off");
            }
        }
        Ok(sequences)
    }

    /// The latest events of a user, oldest first.
    pub fn latest(&self, user: u32) -> Vec<Event> {
        let rows = self.dataset.events_of(user);
        let event = |row: &Row| Event {
            item_id: self.dataset.items[row.item as usize].id.clone(),
            event_type: row.kind,
            timestamp_ms: row.at,
            event_id: None,
        };
        let mut latest: Vec<Event> =
            rows[rows.len().saturating_sub(self.events_per_user_max)..].iter().map(event).collect();
        // As the log of a node would keep them.
        latest.drain(..latest.len() - kept_of(&latest, self.events_per_user_max));
        latest
    }
}
