//! Snapshots of a shard on its node: where they lie, when one is written, and what it claims.
//!
//! A snapshot says up to which revision all changes are in it; what it says too much would be lost at the next start, what it says
//! too little is made twice, which changes nothing. So a shard does not go by what is handed to it, of which it cannot tell what
//! it missed: before it is written it asks the journal for all changes since the last one, makes them, and claims so many.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use ractor::ActorRef;
use tokio::sync::watch;
use tokio::time::Instant;
use turret_index::{ShardIndex, Written};
use turret_retrieval::ids::{GenerationId, ShardId};
use turret_retrieval::revision::Revision;

use super::{CHANGES_WAIT, IndexShard, Msg, Note, Reached, State};
use crate::clock::now_ms;
use crate::generation::shard_file;
use crate::offload::Panicked;
use crate::task::Task;
use crate::wire::note;

/// When a shard is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// After so many changes; at least 1.
    pub after_changes: u64,
    /// Or so long after a change.
    pub interval: Duration,
}

/// The snapshots of a node.
#[derive(Clone, Debug)]
pub struct Snapshots {
    /// Where they lie, in a directory for each generation.
    pub dir: PathBuf,
    /// When they are written.
    pub settings: SnapshotSettings,
}

impl Snapshots {
    fn file(&self, generation: &GenerationId, shard: ShardId) -> PathBuf {
        self.dir.join(generation.as_str()).join(format!("{:04}.snapshot", shard.0))
    }

    /// Removes those of a generation.
    pub(crate) fn forget(&self, generation: &str) {
        let dir = self.dir.join(generation);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %error, "snapshots of a generation that is gone cannot be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes those of all other generations.
    pub(crate) fn forget_all_but(&self, generations: &[&GenerationId]) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_kept = generations.iter().any(|kept| name == *kept.as_str());
            if let Some(gone) = name.to_str().filter(|_| !is_kept) {
                self.forget(gone);
            }
        }
    }
}

/// A snapshot on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapshotFile {
    /// Its length.
    pub(super) bytes: u64,
    /// When it was written: milliseconds since 1970-01-01 UTC.
    pub(super) written_at_ms: i64,
}

impl SnapshotFile {
    /// Blocking: the one at `path`; none where the system tells nothing of it.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        let written_at = file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self { bytes: file.len(), written_at_ms: written_at.as_millis() as i64 })
    }
}

/// What is known of when the next one is due.
#[derive(Default)]
pub(super) struct Pace {
    /// All changes up to this one are made; absent before it is known.
    made: Option<Revision>,
    /// Changes that may not be in the last snapshot.
    changes: u64,
    writing: Option<Task>,
    /// Until a snapshot is due, whatever came.
    timer: Option<Task>,
}

impl Pace {
    /// Some changes are to be made.
    pub(super) fn count(&mut self, changes: usize) {
        self.changes += changes as u64;
    }
}

impl IndexShard {
    /// Where the snapshot of this shard lies.
    pub(super) fn snapshot_file(&self) -> PathBuf {
        self.snapshots.file(&self.generation.manifest.id, self.shard)
    }

    /// What the snapshot is of: the published file that it began with, and not another that was given the same name.
    pub(super) fn lineage(&self) -> String {
        let (manifest, path) = (&self.generation.manifest, shard_file(self.shard));
        let file = manifest.files.iter().find(|file| file.path == path);
        format!("{} {}", manifest.id, file.map_or_else(String::new, |file| file.sha256.to_string()))
    }

    /// All changes up to there are made.
    pub(super) fn reached(&self, reached: Reached, myself: &ActorRef<Msg>, state: &mut State) {
        state.pace.made = state.pace.made.max(Some(reached.made));
        state.pace.changes += reached.changes;
        self.look_at_pace(myself, state);
    }

    /// Has a snapshot written where it is due, or sees to it that it will be.
    pub(super) fn look_at_pace(&self, myself: &ActorRef<Msg>, state: &mut State) {
        if state.pace.changes >= self.snapshots.settings.after_changes {
            self.snapshot(myself, state);
        } else if state.pace.changes > 0 {
            self.wait(myself, state);
        }
    }

    fn wait(&self, myself: &ActorRef<Msg>, state: &mut State) {
        if state.pace.timer.is_none() {
            let (interval, myself) = (self.snapshots.settings.interval, myself.clone());
            state.pace.timer = Some(Task::spawn(async move {
                tokio::time::sleep(interval).await;
                note(&myself, Note::SnapshotDue);
            }));
        }
    }

    pub(super) fn snapshot_due(&self, myself: &ActorRef<Msg>, state: &mut State) {
        // One that is being written looks for itself when it is done.
        state.pace.timer = None;
        self.snapshot(myself, state);
    }

    /// Has a snapshot written, unless one is.
    fn snapshot(&self, myself: &ActorRef<Msg>, state: &mut State) {
        let (Some(index), Some(made), None) = (state.index.clone(), state.pace.made, &state.pace.writing) else {
            return;
        };
        state.pace.changes = 0;
        state.pace.timer = None;
        let (own, myself) = (self.clone(), myself.clone());
        state.pace.writing = Some(Task::spawn(async move {
            let reached = watch::Sender::new(Reached::at(made));
            // Where the control node does not tell, less is claimed.
            let told = tokio::time::timeout(CHANGES_WAIT, own.catch_up(&index, &reached, &myself)).await;
            let reached = *reached.borrow();
            let shard = own.clone();
            let written = shard.loads.run(move || own.write(&index, reached.made)).await;
            let outcome = written.unwrap_or_else(|Panicked| Err("writing panicked".to_owned()));
            tracing::debug!(shard = %shard.shard, is_complete = told.is_ok(), ?outcome, "snapshot");
            note(&myself, Note::Snapshot(outcome, reached));
        }));
    }

    /// Blocking.
    fn write(&self, index: &ShardIndex, until: Revision) -> Result<Written, String> {
        let (begun, path) = (Instant::now(), self.snapshot_file());
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| format!("{}: {error}", path.display()))?;
        let written = index.snapshot(&path, &self.lineage(), until).map_err(|error| error.to_string())?;
        let shard = self.shard.to_string();
        self.metrics.snapshot_duration.with_label_values(&[&shard]).observe(begun.elapsed().as_secs_f64());
        Ok(written)
    }

    pub(super) fn snapshot_done(
        &self,
        outcome: Result<Written, String>,
        reached: Reached,
        myself: &ActorRef<Msg>,
        state: &mut State,
    ) {
        state.pace.writing = None;
        // What came was counted before, or will be.
        state.pace.made = state.pace.made.max(Some(reached.made));
        match outcome {
            Ok(written) => {
                state.series.snapshot(SnapshotFile { bytes: written.bytes, written_at_ms: now_ms() });
                self.look_at_pace(myself, state);
            }
            Err(why) => {
                tracing::error!(shard = %self.shard, why, "no snapshot was written; tried again");
                state.pace.changes += 1;
                // Not at once.
                self.wait(myself, state);
            }
        }
    }
}
