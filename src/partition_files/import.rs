//! From files to the stores of a node.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use turret_data::PartitionReader;
use turret_retrieval::ids::PartitionId;

use super::{Moved, NodePartitions, Step, Watch, file_name, found, sync_dir};

/// What was put back, and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What the partitions hold now.
    pub partitions: Vec<Moved>,
    /// Files of partitions that are placed on other nodes: they were left alone.
    pub elsewhere: Vec<String>,
    /// Partitions that are placed on this node, and of which there is no file.
    pub missing: Vec<u32>,
}

/// Puts the users in the files of `from` back, into those partitions that are placed on the node. Each of them must be empty.
///
/// Stores are made beside, and take their places when all of them are whole. Memory holds the users of a batch, and
/// `users.cache_bytes`.
///
/// # Errors
/// When there is no file to import, one is not a sound file of its partition, a partition is in use or not empty, a store cannot
/// be written, or `observe` breaks off; the partitions are as they were then, unless the disk refuses when stores take their
/// places: each of them is whole or empty even then.
pub fn import(node: &NodePartitions, from: &Path, observe: &mut Watch<'_>) -> anyhow::Result<Imported> {
    let files = found(from, |name| name.strip_prefix("users-")?.strip_suffix(".parquet"))?;
    let (here, elsewhere): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| node.placed.contains(file));
    if here.is_empty() && elsewhere.is_empty() {
        bail!("{} holds no file such as {}", from.display(), file_name(PartitionId(0)));
    }
    if here.is_empty() {
        bail!("{} holds no file of a partition that is placed on node {}", from.display(), node.node);
    }
    let mut total = 0;
    for partition in &here {
        total += open(node, from, *partition)?.users();
        check_empty(node, *partition)?;
    }
    fs::create_dir_all(&node.dir).with_context(|| format!("cannot make {}", node.dir.display()))?;
    let moved = restore_all(node, from, &here, total, observe).and_then(|moved| put_in_place(node, &here, moved));
    if moved.is_err() {
        // The half-made is of no use; the error is what matters.
        for partition in &here {
            drop(fs::remove_dir_all(temporary(node, *partition)));
        }
    }
    let missing = node.placed.iter().filter(|placed| !here.contains(placed)).map(|placed| placed.0).collect();
    Ok(Imported { partitions: moved?, elsewhere: elsewhere.into_iter().map(file_name).collect(), missing })
}

/// Opens the file of a partition, and checks that it is one of this cluster.
fn open(node: &NodePartitions, from: &Path, partition: PartitionId) -> anyhow::Result<PartitionReader> {
    let path = from.join(file_name(partition));
    let reader = PartitionReader::open(&path)?;
    let header = reader.header();
    if header.partitions != node.partitions {
        let (path, of) = (path.display(), header.partitions);
        bail!("{path}: is of {of} partitions, and users.partitions is {}", node.partitions);
    }
    if header.partition != partition {
        bail!("{}: is of partition {}, by its name of {partition}", path.display(), header.partition);
    }
    Ok(reader)
}

/// A partition that is not there is empty.
fn check_empty(node: &NodePartitions, partition: PartitionId) -> anyhow::Result<()> {
    let dir = node.dir_of(partition);
    if dir.exists() && !node.open(&dir)?.is_empty().with_context(|| dir.display().to_string())? {
        bail!("{} is not empty: an import restores, it does not merge", dir.display());
    }
    Ok(())
}

fn temporary(node: &NodePartitions, partition: PartitionId) -> PathBuf {
    node.dir_of(partition).with_extension("tmp")
}

fn restore_all(
    node: &NodePartitions,
    from: &Path,
    partitions: &[PartitionId],
    total: u64,
    observe: &mut Watch<'_>,
) -> anyhow::Result<Vec<Moved>> {
    let mut all = Vec::with_capacity(partitions.len());
    let mut users = 0;
    for partition in partitions {
        let dir = temporary(node, *partition);
        if dir.exists() {
            // Of a process that was killed.
            fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
        }
        let mut reader = open(node, from, *partition)?;
        let store = node.open(&dir)?;
        let mut moved = Moved { partition: partition.0, file: file_name(*partition), ..Moved::default() };
        while let Some(some) = reader.next_users()? {
            for user in &some {
                let place = || format!("{}, row {}", from.join(&moved.file).display(), moved.users);
                store.restore(user).with_context(place)?;
                moved.count(user);
            }
            users += some.len() as u64;
            if observe(Step { done: users, total, users }).is_break() {
                bail!("the import was broken off");
            }
        }
        store.finish_restore(&reader.header().generations).with_context(|| dir.display().to_string())?;
        drop(store);
        sync_dir(&dir)?;
        all.push(moved);
    }
    Ok(all)
}

/// Gives the stores their places, when all of them are on the disk.
fn put_in_place(node: &NodePartitions, partitions: &[PartitionId], moved: Vec<Moved>) -> anyhow::Result<Vec<Moved>> {
    // Once more: a node may have started meanwhile.
    partitions.iter().try_for_each(|partition| check_empty(node, *partition))?;
    for partition in partitions {
        let dir = node.dir_of(*partition);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
        }
        fs::rename(temporary(node, *partition), &dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    sync_dir(&node.dir)?;
    Ok(moved)
}
