//! What is wrong with a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system says so.
    #[error("{path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {rule}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it broke.
        rule: String,
    },
}

impl FileError {
    /// Makes what the system said of `path` an error.
    pub(crate) fn disk(path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Disk { path: path.to_owned(), source }
    }

    /// The file at `path` broke a rule.
    pub(crate) fn malformed(path: &Path, rule: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), rule: rule.into() }
    }
}

/// The whole file at `path`, of at most `bytes_max` bytes. No more is read of what has no length, such as a pipe.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(FileError::disk(path))?;
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::disk(path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(FileError::malformed(path, format!("is longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}
