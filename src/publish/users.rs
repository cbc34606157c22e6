//! The users of a generation: what is known of each, with the sequence state that the published encoder makes of it.

use std::ops::ControlFlow;
use std::path::Path;

use turret_actors::generation::users_file;
use turret_retrieval::ids::PartitionId;
use turret_retrieval::revision::Revision;
use turret_store::{SnapshotUser, SnapshotWriter, StoredState};

use super::{Publication, Step};
use crate::encode::EncodedUser;

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
    let mut writers = (0..publication.partitions)
        .map(|partition| SnapshotWriter::create(&dir.join(users_file(PartitionId(partition)))))
        .collect::<Result<Vec<_>, _>>()?;
    let encoder = publication.model.encoder_version();
    let (mut states, mut state_bytes) = (0, 0);
    let mut take = |EncodedUser { user, partition, events, sequence }: EncodedUser<'_>| {
        states += u64::from(sequence.is_some());
        state_bytes += sequence.as_ref().map_or(0, |sequence| sequence.bytes().len() as u64);
        let state = sequence.zip(events.last()).map(|(sequence, last)| StoredState {
            encoder: encoder.clone(),
            made_at_ms,
            covers_until_ms: last.timestamp_ms,
            covers: Revision::NONE,
            sequence,
        });
        let (user, demographics) = (user.id.clone(), user.demographics.clone());
        Ok(writers[partition.0 as usize].append(&SnapshotUser { user, demographics, events, state })?)
    };
    publication.encoding().run(&mut |done, total| observe(Step::Users(done, total)), &mut take)?;
    let of_partitions = writers.into_iter().map(SnapshotWriter::finish).collect::<Result<Vec<_>, _>>()?;
    Ok(Written { of_partitions, states, state_bytes })
}
