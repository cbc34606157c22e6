//! The plan on disk: replaced in one step and flushed, before each phase begins.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::RolloutPlan;
use crate::durable::{read_json, replace_json};

/// A plan larger than this is none.
const BYTES_MAX: u64 = 1 << 20;

/// Where a node keeps its plan. A clone is the same journal.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
    turns: Arc<AtomicU64>,
    written: Arc<Mutex<u64>>,
}

/// The right to write a plan down, older or newer than another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn(u64);

impl Journal {
    /// The journal of the node whose own directory is `data_dir`.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join("rollout.json"), turns: Arc::default(), written: Arc::default() }
    }

    /// The next turn. What is written in an earlier one, by a task that was given up, never stands over what is written in
    /// it.
    pub(crate) fn turn(&self) -> Turn {
        Turn(self.turns.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// The last plan, where there was one. What cannot be read is none: CURRENT says what to serve.
    pub(crate) fn read(&self) -> Option<RolloutPlan> {
        match read_json(&self.path, BYTES_MAX) {
            Ok(plan) => Some(plan),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the plan of the last publication cannot be read");
                None
            }
        }
    }

    /// Writes `plan` down, flushed, unless a later one stands there.
    ///
    /// # Errors
    /// When the disk does not take it; what stood there stands there still.
    pub(crate) fn write(&self, Turn(turn): Turn, plan: &RolloutPlan) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if turn < *written {
            return Ok(());
        }
        replace_json(&self.path, plan)?;
        *written = turn;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use turret_retrieval::ids::GenerationId;

    use super::*;
    use crate::rollout::plan::Event;

    #[test]
    fn the_last_plan_written_is_read_and_what_is_none_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(&dir.path().join("node"));
        assert_eq!(journal.read(), None);
        let id = |name| GenerationId::new(name).unwrap();
        let mut plan = RolloutPlan::new(7, id("g-1"), id("g-2"), 11);
        let late = journal.turn();
        journal.write(journal.turn(), &plan).unwrap();
        let first = plan.clone();
        plan.take(Event::Failed("digests".to_owned()), 12);
        journal.write(journal.turn(), &plan).unwrap();
        journal.write(late, &first).unwrap();
        assert_eq!(journal.read(), Some(plan), "what comes late is passed over");
        fs::write(&journal.path, "{").unwrap();
        assert_eq!(journal.read(), None);
    }
}
