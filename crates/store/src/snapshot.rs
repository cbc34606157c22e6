//! The users that a generation ships for one partition, in one file.
//!
//! `TURRETUS`, a format byte, then for each user a `u32` length (little-endian, not 0) and a postcard record; at the end
//! a length of 0 and the number of users as `u64`. So a file cut short is known by itself.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use turret_retrieval::event::Event;
use turret_retrieval::ids::UserId;
use turret_retrieval::user::Demographics;

use crate::StoredState;

const MAGIC: &[u8; 8] = b"TURRETUS";
const FORMAT: u8 = 2;
/// The largest record accepted.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// One user of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotUser {
    /// Who.
    pub user: UserId,
    /// What is known.
    pub demographics: Demographics,
    /// The latest events, oldest first.
    pub events: Vec<Event>,
    /// What the generation's encoder made of them: its `covers` says nothing.
    pub state: Option<StoredState>,
}

#[derive(Serialize, Deserialize)]
struct UserBytes {
    user: UserId,
    demographics: Demographics,
    events: Vec<Event>,
    state: Option<StoredState>,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The system says so.
    #[error("{path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Not a snapshot of users.
    #[error("{path}: not a user snapshot")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another version of the format.
    #[error("{path}: format {found} where {FORMAT} is read")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format byte.
        found: u8,
    },
    /// It ends too early, or holds something else than it should.
    #[error("{path}: user {row}: {rule}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which user, from 0.
        row: u64,
        /// What it broke.
        rule: &'static str,
    },
}

/// Writes a snapshot, user by user.
pub struct SnapshotWriter {
    path: PathBuf,
    file: BufWriter<File>,
    users: u64,
}

impl SnapshotWriter {
    /// Starts a new file at `path`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self, SnapshotError> {
        let open = || {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(MAGIC)?;
            file.write_all(&[FORMAT])?;
            Ok(file)
        };
        let file = open().map_err(|source| SnapshotError::Disk { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, users: 0 })
    }

    /// Adds one user.
    ///
    /// # Errors
    /// When it cannot be written, or is larger than 4 MiB.
    pub fn append(&mut self, user: &SnapshotUser) -> Result<(), SnapshotError> {
        let bytes = postcard::to_stdvec(&UserBytes {
            user: user.user.clone(),
            demographics: user.demographics.clone(),
            events: user.events.clone(),
            state: user.state.clone(),
        })
        .expect("a user holds nothing that postcard refuses");
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(self.damaged("is larger than 4 MiB"));
        }
        self.users += 1;
        let length = (bytes.len() as u32).to_le_bytes();
        self.write(&length).and_then(|()| self.write(&bytes))
    }

    /// Ends the file and flushes it to the disk. Returns how many users it holds.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<u64, SnapshotError> {
        self.write(&0u32.to_le_bytes())?;
        self.write(&self.users.to_le_bytes())?;
        let flush = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flush.map_err(|source| SnapshotError::Disk { path: self.path.clone(), source })?;
        Ok(self.users)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_all(bytes).map_err(|source| SnapshotError::Disk { path: self.path.clone(), source })
    }

    fn damaged(&self, rule: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), row: self.users, rule }
    }
}

/// Reads a snapshot, user by user.
pub(crate) struct SnapshotReader {
    path: PathBuf,
    file: BufReader<File>,
    users: u64,
    buffer: Vec<u8>,
}

impl SnapshotReader {
    pub(crate) fn open(path: &Path) -> Result<Self, SnapshotError> {
        let path = path.to_owned();
        let mut head = [0; 9];
        let opened = File::open(&path).and_then(|file| {
            let mut file = BufReader::new(file);
            file.read_exact(&mut head).map(|()| file)
        });
        match opened {
            Ok(_) if head[..8] != MAGIC[..] => Err(SnapshotError::Foreign { path }),
            Ok(_) if head[8] != FORMAT => Err(SnapshotError::Format { path, found: head[8] }),
            Ok(file) => Ok(Self { path, file, users: 0, buffer: Vec::new() }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(SnapshotError::Foreign { path }),
            Err(source) => Err(SnapshotError::Disk { path, source }),
        }
    }

    /// Reads the record of the next user into the buffer; false at the end of a whole file.
    fn next_record(&mut self) -> Result<bool, SnapshotError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            return self.end().map(|()| false);
        }
        if length > RECORD_BYTES_MAX {
            return Err(self.damaged("is larger than 4 MiB"));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(length, 0);
        self.fill(&mut buffer)?;
        self.buffer = buffer;
        Ok(true)
    }

    /// The next user; none at the end of a whole file.
    pub(crate) fn next_user(&mut self) -> Result<Option<SnapshotUser>, SnapshotError> {
        if !self.next_record()? {
            return Ok(None);
        }
        let read: Result<(UserBytes, &[u8]), _> = postcard::take_from_bytes(&self.buffer);
        let Ok((bytes, [])) = read else { return Err(self.damaged("is malformed")) };
        self.users += 1;
        Ok(Some(SnapshotUser {
            user: bytes.user,
            demographics: bytes.demographics,
            events: bytes.events,
            state: bytes.state,
        }))
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        let mut count = [0; 8];
        self.fill(&mut count)?;
        if u64::from_le_bytes(count) != self.users {
            return Err(self.damaged("the number of users at the end is another"));
        }
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("there is more after the end")),
            Err(source) => Err(SnapshotError::Disk { path: self.path.clone(), source }),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), SnapshotError> {
        match self.file.read_exact(buffer) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged("the file is cut short")),
            Err(source) => Err(SnapshotError::Disk { path: self.path.clone(), source }),
        }
    }

    fn damaged(&self, rule: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), row: self.users, rule }
    }
}

/// Whether the snapshot at `path` ships `user`. Reads the whole file, where it does not.
///
/// # Errors
/// When it cannot be read, or is damaged before the user was found.
pub fn snapshot_holds(path: &Path, user: &UserId) -> Result<bool, SnapshotError> {
    let mut reader = SnapshotReader::open(path)?;
    while reader.next_record()? {
        // The id comes first.
        let Ok((id, _)) = postcard::take_from_bytes::<UserId>(&reader.buffer) else {
            return Err(reader.damaged("is malformed"));
        };
        if id == *user {
            return Ok(true);
        }
        reader.users += 1;
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
