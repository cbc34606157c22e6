//! From the stores of a node to files.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use turret_data::{PartitionHeader, PartitionWriter, USERS_PER_BATCH};
use turret_retrieval::ids::PartitionId;

use super::{Moved, NodePartitions, Step, Watch, all_or_none, file_name, found, temporary};

/// Writes a file in `out` for each partition that the node's data directory holds, wherever it is placed.
///
/// Other files there are left alone. Memory holds the users of a page and a row group.
///
/// # Errors
/// When there is no partition, one is in use or cannot be read, a file is there already or cannot be written, or `observe`
/// breaks off; no file is left then, unless the disk refuses when files get their names.
pub fn export(node: &NodePartitions, out: &Path, observe: &mut Watch<'_>) -> anyhow::Result<Vec<Moved>> {
    let partitions = stored(node)?;
    all_or_none(out, &partitions, || write_all(node, out, &partitions, observe))
}

/// The partitions in the node's data directory.
fn stored(node: &NodePartitions) -> anyhow::Result<Vec<PartitionId>> {
    let partitions = match fs::metadata(&node.dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        _ => found(&node.dir, |name| Some(name))?,
    };
    if let Some(beyond) = partitions.iter().find(|partition| partition.0 >= node.partitions) {
        bail!("{} is there, and users.partitions is {}", node.dir_of(*beyond).display(), node.partitions);
    }
    if partitions.is_empty() {
        bail!("node {} has no user partitions in {}", node.node, node.dir.display());
    }
    Ok(partitions)
}

fn write_all(
    node: &NodePartitions,
    out: &Path,
    partitions: &[PartitionId],
    observe: &mut Watch<'_>,
) -> anyhow::Result<Vec<Moved>> {
    let mut all = Vec::with_capacity(partitions.len());
    let mut users = 0;
    for (done, partition) in (0..).zip(partitions) {
        let dir = node.dir_of(*partition);
        let store = node.open(&dir)?;
        let generations = store.imported_generations().with_context(|| dir.display().to_string())?;
        let header = PartitionHeader { partition: *partition, partitions: node.partitions, generations };
        let mut writer = PartitionWriter::create(&temporary(out, *partition), header)?;
        let mut moved = Moved { partition: partition.0, file: file_name(*partition), ..Moved::default() };
        let mut next = None;
        loop {
            let page = store.kept_users(next.as_ref(), USERS_PER_BATCH).with_context(|| dir.display().to_string())?;
            for user in &page.users {
                writer.append(user).with_context(|| dir.display().to_string())?;
                moved.count(user);
            }
            users += page.users.len() as u64;
            if observe(Step { done, total: partitions.len() as u64, users }).is_break() {
                bail!("the export was broken off");
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        writer.finish()?;
        all.push(moved);
    }
    Ok(all)
}
