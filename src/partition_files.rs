//! The user partitions of a node in Parquet files, and back: the glue between their stores and their files.
//!
//! Works on stores that no node has open. What is written is written beside, flushed and renamed when all of it is there, so that
//! what is broken off leaves nothing.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;
use turret_actors::clock::now_ms;
use turret_actors::node::Role;
use turret_actors::placement::partitions_of;
use turret_retrieval::ids::{NodeName, PartitionId};
use turret_retrieval::kept::KeptUser;
use turret_store::{PartitionStore, StoreSettings};

use crate::config::{Config, NodeConfig};

mod encoded;
mod export;
mod import;

pub use encoded::write_encoded;
pub use export::export;
pub use import::{Imported, import};

/// The user partitions of one node.
pub struct NodePartitions {
    node: NodeName,
    /// Where they are: one directory each, called by its number.
    dir: PathBuf,
    /// How many there are in all nodes.
    partitions: u32,
    /// Those that the configuration places here.
    placed: Vec<PartitionId>,
    settings: StoreSettings,
}

/// What a partition held that was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Which.
    pub partition: u32,
    /// The name of its file.
    pub file: String,
    /// Users, with those of whom only the mark of an erasure is left.
    pub users: u64,
    /// Users who were erased and whose mark is kept.
    pub erased: u64,
    /// Their events.
    pub events: u64,
    /// Their states.
    pub states: u64,
}

/// How far the work is.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What is done: partitions in an export, whose users are not counted before; users in an import.
    pub done: u64,
    /// Of how many.
    pub total: u64,
    /// Users done, over all partitions.
    pub users: u64,
}

/// Is told of each step; a break asks the work to stop.
type Watch<'a> = dyn FnMut(Step) -> ControlFlow<()> + 'a;

impl NodePartitions {
    /// Those of the node `own` of `config`.
    pub fn of(config: &Config, own: &NodeConfig) -> Self {
        let with_users = config.nodes.iter().filter(|node| node.roles.contains(&Role::Users));
        let with_users: Vec<NodeName> = with_users.map(|node| node.name.clone()).collect();
        let (partitions, settings) = (config.users.partitions, config.users.settings.clone());
        Self {
            node: own.name.clone(),
            dir: config.node_settings(own).data_dir.join("users"),
            partitions,
            placed: partitions_of(&own.name, &with_users, partitions),
            settings,
        }
    }

    fn dir_of(&self, partition: PartitionId) -> PathBuf {
        self.dir.join(format!("{:04}", partition.0))
    }

    /// Opens a store, or makes it.
    fn open(&self, dir: &Path) -> anyhow::Result<PartitionStore> {
        match PartitionStore::open(dir, self.settings.clone(), now_ms()) {
            Ok(store) => Ok(store),
            Err(error) if error.is_in_use() => {
                bail!("{} is in use: stop node {} first", dir.display(), self.node)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Moved {
    fn count(&mut self, user: &KeptUser) {
        self.users += 1;
        self.erased += u64::from(user.erased.is_some());
        self.events += user.events.len() as u64;
        self.states += user.states.len() as u64;
    }
}

/// The name of a partition's file.
fn file_name(partition: PartitionId) -> String {
    format!("users-{:04}.parquet", partition.0)
}

fn temporary(out: &Path, partition: PartitionId) -> PathBuf {
    out.join(format!("{}.tmp", file_name(partition)))
}

/// Has `write` write the [`temporary`] files of `partitions`, and gives them their names when all are on the disk. What is not
/// whole is removed; files that are there already are an error.
fn all_or_none(
    out: &Path,
    partitions: &[PartitionId],
    write: impl FnOnce() -> anyhow::Result<Vec<Moved>>,
) -> anyhow::Result<Vec<Moved>> {
    let is_new = !out.exists();
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    if let Some(there) = partitions.iter().map(|partition| out.join(file_name(*partition))).find(|path| path.exists()) {
        bail!("{} is there already", there.display());
    }
    let moved = write().and_then(|moved| put_in_place(out, partitions, moved));
    if moved.is_err() {
        // The half-made is of no use; the error is what matters.
        for partition in partitions {
            drop(fs::remove_file(temporary(out, *partition)));
        }
        if is_new {
            drop(fs::remove_dir(out));
        }
    }
    moved
}

fn put_in_place(out: &Path, partitions: &[PartitionId], moved: Vec<Moved>) -> anyhow::Result<Vec<Moved>> {
    for partition in partitions {
        let path = out.join(file_name(*partition));
        fs::rename(temporary(out, *partition), &path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    sync_dir(out)?;
    if let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    Ok(moved)
}

/// The partitions in `dir` whose entries `parse` knows by their names, in order.
fn found(dir: &Path, parse: fn(&str) -> Option<&str>) -> anyhow::Result<Vec<PartitionId>> {
    let listed = || -> io::Result<Vec<PartitionId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let is_number = |text: &&str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
            let digits = name.to_str().and_then(parse).filter(is_number);
            found.extend(digits.and_then(|digits| digits.parse().ok()).map(PartitionId));
        }
        found.sort_unstable();
        Ok(found)
    };
    listed().with_context(|| dir.display().to_string())
}

fn sync_dir(dir: &Path) -> anyhow::Result<()> {
    turret_actors::durable::sync_dir(dir).with_context(|| format!("cannot flush {}", dir.display()))
}

#[cfg(test)]
mod tests;
