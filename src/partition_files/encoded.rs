//! From a data set and a model to files.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use turret_actors::clock::now_ms;
use turret_data::{PartitionHeader, PartitionWriter};
use turret_retrieval::ids::PartitionId;
use turret_retrieval::kept::{KeptUser, StoredState};
use turret_retrieval::revision::Revision;

use super::{Moved, all_or_none, file_name, temporary};
use crate::encode::{EncodedUser, Encoding};

/// Encodes every user and writes a file in `out` for each partition, as if a node that had learnt of them now had been exported.
///
/// # Errors
/// When a history cannot be encoded, a file is there already or cannot be written, or `observe` breaks off; no file is left then.
pub fn write_encoded(
    encoding: &Encoding<'_>,
    out: &Path,
    observe: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<Vec<Moved>> {
    let partitions: Vec<PartitionId> = (0..encoding.partitions).map(PartitionId).collect();
    all_or_none(out, &partitions, || write_all(encoding, out, &partitions, observe))
}

fn write_all(
    encoding: &Encoding<'_>,
    out: &Path,
    partitions: &[PartitionId],
    observe: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<Vec<Moved>> {
    let made_at_ms = now_ms();
    let now = Revision::mint(made_at_ms, Revision::NONE);
    let mut all: Vec<Moved> = partitions
        .iter()
        .map(|partition| Moved { partition: partition.0, file: file_name(*partition), ..Moved::default() })
        .collect();
    // Users come partition by partition; the next is begun when the one before is whole.
    let begin = |at: usize| -> anyhow::Result<PartitionWriter> {
        let partition = partitions[at];
        let header = PartitionHeader { partition, partitions: encoding.partitions, generations: Vec::new() };
        Ok(PartitionWriter::create(&temporary(out, partition), header)?)
    };
    let (mut at, mut writer) = (0, begin(0)?);
    let mut take = |EncodedUser { user, partition, events, sequence }: EncodedUser<'_>| {
        let log_at = if events.is_empty() { Revision::NONE } else { now };
        let state = sequence.zip(events.last()).map(|(sequence, last)| StoredState {
            encoder: encoding.model.encoder_version().clone(),
            made_at_ms,
            covers_until_ms: last.timestamp_ms,
            covers: log_at,
            sequence,
        });
        let demographics_at = if user.demographics.is_unknown() { Revision::NONE } else { now };
        let kept = KeptUser {
            user: user.id.clone(),
            demographics: user.demographics.clone(),
            demographics_at,
            log_at,
            erased: None,
            events,
            states: state.into_iter().collect(),
        };
        while at < partition.0 as usize {
            at += 1;
            std::mem::replace(&mut writer, begin(at)?).finish()?;
        }
        writer.append(&kept)?;
        all[at].count(&kept);
        Ok(())
    };
    encoding.run(observe, &mut take)?;
    if all.iter().all(|moved| moved.users == 0) {
        bail!("the data set has no users");
    }
    for next in at + 1..partitions.len() {
        std::mem::replace(&mut writer, begin(next)?).finish()?;
    }
    writer.finish()?;
    Ok(all)
}
