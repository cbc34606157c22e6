//! Splitting a data set that does not fit into memory into parts on disk, each of whole users.
//!
//! The events are walked once, and each is appended to the file of its user's part; users of the users file likewise.
//! In memory are the items, one buffer for each part, and whichever parts are read. The files are of this process
//! alone: they lie below a directory that is locked while they are used, and removed after.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use turret_retrieval::dataset::{Clock, Part, PartError, Parts};
use turret_retrieval::hashing::{reduce, stable_hash};
use turret_retrieval::item::Item;

use crate::events;
use crate::fault::{Faults, ReadError};
use crate::gathered::Gathered;
use crate::intern::{Interned, RawId};
use crate::progress::{Counter, Progress};
use crate::read::Files;
use crate::source::DataSource;
use crate::users;

pub(crate) mod records;

use records::{PartFile, PartWriter, Record, Records};

/// Events of one part that keep its memory near 200 MB.
pub const EVENTS_PER_PART: u64 = 2_000_000;
/// The most parts, each an open file; above it, parts hold more events.
const PARTS_MAX: u64 = 512;
/// What a part's place among its users' hashes depends on.
const HASH_SEED: u64 = 3;

/// How a data set would be split, and what that would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartsPlan {
    /// Events, as their files say.
    pub events: u64,
    /// Parts, 1..=512.
    pub parts: u32,
    /// What the parts take on disk at most: with ids of text as long as ids may be, a session for every event, and every
    /// demographic fact of every user.
    pub disk_bytes_max: u64,
}

/// Why no parts were made. What was written is removed.
#[derive(Debug, thiserror::Error)]
pub enum PartingError {
    /// The data set is faulty, or the caller asked to stop.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Another process uses the directory.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The disk refused. Retryable when it no longer does.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl PartingError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl PartsPlan {
    /// Plans parts of about `events_per_part` events (at least 1), such as [`EVENTS_PER_PART`]. Reads no rows.
    ///
    /// # Errors
    /// Files that cannot be read at all.
    pub fn of(source: &DataSource, events_per_part: u64) -> Result<Self, ReadError> {
        let files = Files::open(source, &mut Faults::stop_at_first(&source.dir))?;
        let events = files.events.rows();
        let users = files.users.as_ref().map_or(0, crate::table::Table::rows);
        Ok(Self {
            events,
            parts: events.div_ceil(events_per_part.max(1)).clamp(1, PARTS_MAX) as u32,
            disk_bytes_max: files.events.record_bytes_max() + users * records::USER_BYTES_MAX,
        })
    }

    /// Splits `source` into parts below `dir`, which is made, and removed with the log. What a killed process left there
    /// is removed first.
    ///
    /// The same data set gives the same parts on any machine.
    ///
    /// # Errors
    /// See [`PartingError`]; the first fault of the data set ends it.
    pub fn split(
        &self,
        source: &DataSource,
        dir: &Path,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<PartedLog, PartingError> {
        let room = Room::take(dir)?;
        let faults = &mut Faults::stop_at_first(&source.dir);
        let mut files = Files::open(source, faults)?;
        let counter = &mut Counter::new(files.rows(), progress);
        let mut catalogue = files.items(source, faults, counter)?;
        let mut writers = Writers::create(dir, self.parts)?;
        if let Some(table) = files.users.take() {
            users::walk(table, faults, counter, &mut |id, demographics| {
                // What the disk refuses is told when the files are finished.
                let _told_later = writers.write(id, &Record::User { id: id.canonical(), demographics });
                // Whether it is there twice shows where its part is read.
                Interned::New(0)
            })?;
        }
        files.ads(&mut catalogue, faults, counter)?;
        let take = &mut |found: events::Found<'_>| writers.write(found.user, &Record::event(found));
        let surveyed = events::walk(&files.events, source, &mut catalogue, faults, counter, take);
        // Where the disk refused, the walk was interrupted: the cause is told, not that.
        let parts = writers.finish()?;
        Ok(PartedLog { items: catalogue.items.into(), clock: surveyed?.clock, parts, _room: room })
    }
}

/// The files of all parts while they are filled.
struct Writers {
    parts: Vec<PartWriter>,
    // A walk over rows has faults of its own kind, so the disk's first is kept until it has ended.
    refused: Option<PartingError>,
}

impl Writers {
    fn create(dir: &Path, parts: u32) -> Result<Self, PartingError> {
        let create = |number| {
            let path = dir.join(format!("part-{number:03}"));
            PartWriter::create(&path).map_err(PartingError::at(&path))
        };
        Ok(Self { parts: (0..parts).map(create).collect::<Result<_, _>>()?, refused: None })
    }

    /// Appends a record; breaks off once the disk has refused one.
    fn write(&mut self, user: RawId<'_>, record: &Record<'_>) -> ControlFlow<()> {
        if self.refused.is_some() {
            return ControlFlow::Break(());
        }
        let number = reduce(hash(user), self.parts.len() as u32);
        let part = &mut self.parts[number as usize];
        match part.write(record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(source) => {
                self.refused = Some(PartingError::Io { path: part.path().to_owned(), source });
                ControlFlow::Break(())
            }
        }
    }

    fn finish(self) -> Result<Vec<PartFile>, PartingError> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let finish = |part: PartWriter| {
            let path = part.path().to_owned();
            part.finish().map_err(PartingError::at(&path))
        };
        self.parts.into_iter().map(finish).collect()
    }
}

/// The same for `7` and `"7"`.
fn hash(user: RawId<'_>) -> u64 {
    match user.canonical() {
        RawId::Integer(number) => stable_hash(HASH_SEED, &number.to_le_bytes()),
        id @ (RawId::Large(_) | RawId::Text(_)) => stable_hash(HASH_SEED, id.text().as_bytes()),
    }
}

/// A data set in parts on disk. They are removed when it is dropped.
pub struct PartedLog {
    items: Arc<[Item]>,
    clock: Clock,
    parts: Vec<PartFile>,
    _room: Room,
}

impl PartedLog {
    /// How many events there are in all parts.
    pub fn events(&self) -> u64 {
        self.parts.iter().map(|part| part.events).sum()
    }

    /// What the parts take on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    fn gather(&self, part: &PartFile) -> Result<Gathered, records::RecordError> {
        let mut gathered = Gathered::with_capacity(part.events as usize);
        let mut records = Records::open(part, self.items.len())?;
        while let Some(record) = records.next()? {
            match record {
                Record::User { id, demographics } => {
                    if let Interned::Known(_) = gathered.user(id, demographics) {
                        return Err(records::RecordError::Repeated { user: id.text().into_owned() });
                    }
                }
                Record::Event(found) => gathered.event(found),
            }
        }
        Ok(gathered)
    }
}

impl Parts for PartedLog {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn count(&self) -> usize {
        self.parts.len()
    }

    fn read(&self, number: usize) -> Result<Part<'_>, PartError> {
        let gathered =
            self.gather(&self.parts[number]).map_err(|source| PartError { number, source: Box::new(source) })?;
        Ok(Part::Read(Box::new(gathered.into_dataset(Arc::clone(&self.items), Vec::new(), self.clock))))
    }
}

/// The directory of the parts, locked by this process.
struct Room {
    dir: PathBuf,
    _lock: File,
}

impl Room {
    fn take(dir: &Path) -> Result<Self, PartingError> {
        fs::create_dir_all(dir).map_err(PartingError::at(dir))?;
        let path = dir.join("lock");
        let lock = File::options().create(true).append(true).open(&path).map_err(PartingError::at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(PartingError::InUse { dir: dir.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(PartingError::Io { path, source }),
        }
        let room = Self { dir: dir.to_owned(), _lock: lock };
        room.remove_parts().map_err(PartingError::at(dir))?;
        Ok(room)
    }

    /// Only files of the names that parts have: the directory may be somebody's by mistake.
    fn remove_parts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("part-") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        drop(self.remove_parts());
        drop(fs::remove_file(self.dir.join("lock")));
        drop(fs::remove_dir(&self.dir));
    }
}

#[cfg(test)]
mod tests;
