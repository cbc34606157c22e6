//! Which run goes on, on disk, so that a node that starts again goes on with it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::{read_json, replace_json};

/// A journal larger than this is none.
const BYTES_MAX: u64 = 4 << 10;

/// The last run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastRun {
    /// Counts the runs of a directory.
    pub(crate) run: u64,
    /// When it started: milliseconds since 1970-01-01 UTC.
    pub(crate) started_at_ms: i64,
    /// Whether it had not ended yet.
    pub(crate) goes_on: bool,
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal of the node whose own directory is `data_dir`.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join("refresh.json") }
    }

    /// The last run; what cannot be read is none, for a run more costs little.
    pub(crate) fn read(&self) -> LastRun {
        read_json(&self.path, BYTES_MAX).unwrap_or_default()
    }

    /// Writes it down, flushed.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn write(&self, last: &LastRun) -> io::Result<()> {
        replace_json(&self.path, last)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_run_is_read_and_what_is_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::of(&dir.path().join("node"));
        assert_eq!(journal.read(), LastRun::default());
        let last = LastRun { run: 7, started_at_ms: 5, goes_on: true };
        journal.write(&last).unwrap();
        assert_eq!(journal.read(), last);
        fs::write(&journal.path, "{").unwrap();
        assert_eq!(journal.read(), LastRun::default());
    }
}
