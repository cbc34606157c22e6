//! The users of a generation: what is known of each, with the sequence state that the published encoder makes of it.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use turret_actors::generation::users_file;
use turret_actors::inference_worker::encode;
use turret_retrieval::dataset::{Dataset, Row};
use turret_retrieval::event::Event;
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::PartitionId;
use turret_retrieval::revision::Revision;
use turret_store::{SnapshotUser, SnapshotWriter, StoredState};

use super::{Publication, Step};

/// Users encoded at once.
const ENCODE_ROWS: usize = 128;

/// What was written.
pub(super) struct Written {
    /// How many users each partition holds.
    pub(super) of_partitions: Vec<u64>,
    /// Users with a sequence state.
    pub(super) states: u64,
    /// The bytes of all their states.
    pub(super) state_bytes: u64,
}

/// Encodes every user and writes one snapshot a partition.
pub(super) fn write(
    publication: &Publication<'_>,
    dir: &Path,
    made_at_ms: i64,
    observe: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> anyhow::Result<Written> {
    let dataset = publication.dataset;
    let mut writers = (0..publication.partitions)
        .map(|partition| SnapshotWriter::create(&dir.join(users_file(PartitionId(partition)))))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut states, mut state_bytes) = (0, 0);
    // Users of like history length are encoded together: a batch is as long as its longest.
    let mut order: Vec<u32> = (0..dataset.users.len() as u32).collect();
    order.sort_by_key(|user| (dataset.range_of(*user).len(), *user));
    for (batch, users) in order.chunks(ENCODE_ROWS).enumerate() {
        let histories: Vec<Vec<Event>> =
            users.iter().map(|user| latest(dataset, *user, publication.events_per_user_max)).collect();
        let slices: Vec<&[Event]> = histories.iter().map(Vec::as_slice).collect();
        let sequences = encode(publication.model, &slices, publication.state_precision)?;
        for ((user, events), sequence) in users.iter().zip(histories).zip(sequences) {
            let known = &dataset.users[*user as usize];
            states += u64::from(sequence.is_some());
            state_bytes += sequence.as_ref().map_or(0, |sequence| sequence.bytes().len() as u64);
            let state = sequence.zip(events.last()).map(|(sequence, last)| StoredState {
                encoder: publication.model.encoder_version().clone(),
                made_at_ms,
                covers_until_ms: last.timestamp_ms,
                covers: Revision::NONE,
                sequence,
            });
            let partition = partition_of(&known.id, publication.partitions);
            writers[partition.0 as usize].append(&SnapshotUser {
                user: known.id.clone(),
                demographics: known.demographics.clone(),
                events,
                state,
            })?;
        }
        if observe(Step::Users((batch * ENCODE_ROWS + users.len()) as u64, order.len() as u64)).is_break() {
            bail!("publication was broken off");
        }
    }
    let of_partitions = writers.into_iter().map(SnapshotWriter::finish).collect::<Result<Vec<_>, _>>()?;
    Ok(Written { of_partitions, states, state_bytes })
}

/// The latest events of a user, oldest first.
pub(super) fn latest(dataset: &Dataset, user: u32, events_max: usize) -> Vec<Event> {
    let rows = dataset.events_of(user);
    let event = |row: &Row| Event {
        item_id: dataset.items[row.item as usize].id.clone(),
        event_type: row.kind,
        timestamp_ms: row.at,
        event_id: None,
    };
    rows[rows.len().saturating_sub(events_max)..].iter().map(event).collect()
}
