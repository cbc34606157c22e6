//! The records of a part's file: a tag, an id, and what the tag asks for. Little-endian.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use turret_retrieval::event::EventType;
use turret_retrieval::ids::ID_BYTES_MAX;
use turret_retrieval::user::Demographics;

use crate::events::Found;
use crate::intern::RawId;

/// Bytes that a file gathers before it writes.
const BUFFER_BYTES: usize = 64 << 10;
/// What an id of text takes: its length, and its bytes.
pub(crate) const TEXT_ID_BYTES_MAX: u64 = 1 + ID_BYTES_MAX as u64;
/// What an id of integers takes: its length, and 8 bytes; or the text of one beyond 64 signed bits.
pub(crate) const INTEGER_ID_BYTES_MAX: u64 = 1 + 20;
/// What an event takes besides its ids: the tag, the item, the time.
pub(crate) const EVENT_BYTES: u64 = 1 + 4 + 8;
/// The most that a user takes: the tag, an id, the age, and two words of 16 bytes.
pub(super) const USER_BYTES_MAX: u64 = 1 + TEXT_ID_BYTES_MAX + 1 + 2 * 17;

/// The tag of a user; an event's is the code of its type.
const USER: u8 = 255;
/// In place of a length: an integer follows.
const INTEGER: u8 = 254;
/// In place of a length or an age: there is none.
const NONE: u8 = 255;

/// A user, or an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record<'a> {
    User { id: RawId<'a>, demographics: Demographics },
    Event(Found<'a>),
}

impl<'a> Record<'a> {
    pub(super) fn event(found: Found<'a>) -> Self {
        let session = found.session.map(RawId::canonical);
        Self::Event(Found { user: found.user.canonical(), session, ..found })
    }
}

/// A part's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartFile {
    path: PathBuf,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// Why a part is not what was written, or what was written is no data set.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("user `{user}` is there twice in the users file")]
    Repeated { user: String },
}

/// Fills a part's file.
pub(super) struct PartWriter {
    file: PartFile,
    to: BufWriter<File>,
    record: Vec<u8>,
}

impl PartWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let to = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(path)?);
        Ok(Self { file: PartFile { path: path.to_owned(), events: 0, bytes: 0 }, to, record: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(super) fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        let bytes = &mut self.record;
        bytes.clear();
        match record {
            Record::User { id, demographics } => {
                bytes.push(USER);
                put_id(bytes, *id);
                bytes.push(demographics.age.unwrap_or(NONE));
                for word in [&demographics.country, &demographics.gender] {
                    put_text(bytes, word.as_deref());
                }
            }
            Record::Event(found) => {
                bytes.push(found.kind as u8);
                put_id(bytes, found.user);
                bytes.extend(found.item.to_le_bytes());
                bytes.extend(found.at.to_le_bytes());
                match found.session {
                    Some(session) => put_id(bytes, session),
                    None => bytes.push(NONE),
                }
                self.file.events += 1;
            }
        }
        self.file.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    pub(super) fn finish(mut self) -> io::Result<PartFile> {
        self.to.flush()?;
        Ok(self.file)
    }
}

fn put_id(bytes: &mut Vec<u8>, id: RawId<'_>) {
    match id {
        RawId::Integer(number) => {
            bytes.push(INTEGER);
            bytes.extend(number.to_le_bytes());
        }
        RawId::Large(_) | RawId::Text(_) => put_text(bytes, Some(&id.text())),
    }
}

fn put_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            bytes.push(u8::try_from(text.len()).expect("ids and words are checked to be at most 128 bytes long"));
            bytes.extend(text.as_bytes());
        }
        None => bytes.push(NONE),
    }
}

/// Reads a part's file, record by record.
pub(super) struct Records<'f> {
    file: &'f PartFile,
    from: BufReader<File>,
    left: u64,
    items: usize,
    // The texts of the record that was read last: of the user, and of the session.
    user: Vec<u8>,
    session: Vec<u8>,
}

impl<'f> Records<'f> {
    /// Opens a file whose events name the first `items` items.
    pub(super) fn open(file: &'f PartFile, items: usize) -> Result<Self, RecordError> {
        let opened = File::open(&file.path).map_err(|source| RecordError::Io { path: file.path.clone(), source })?;
        let from = BufReader::with_capacity(BUFFER_BYTES, opened);
        Ok(Self { file, from, left: file.bytes, items, user: Vec::new(), session: Vec::new() })
    }

    /// The next record; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        if self.left == 0 {
            return Ok(None);
        }
        let [tag] = self.bytes()?;
        let user = self.id_into(Place::User)?.ok_or_else(|| self.damaged("a user has no id"))?;
        if tag == USER {
            let [age] = self.bytes()?;
            let (country, gender) = (self.word()?, self.word()?);
            let demographics = Demographics { age: (age != NONE).then_some(age), country, gender };
            return Ok(Some(Record::User { id: self.id(user, Place::User)?, demographics }));
        }
        let kind = EventType::ALL.into_iter().find(|kind| *kind as u8 == tag);
        let kind = kind.ok_or_else(|| self.damaged("a record is of no known kind"))?;
        let (item, at) = (u32::from_le_bytes(self.bytes()?), i64::from_le_bytes(self.bytes()?));
        if item as usize >= self.items {
            return Err(self.damaged("an event is of no known item"));
        }
        let session = self.id_into(Place::Session)?;
        let session = session.map(|session| self.id(session, Place::Session)).transpose()?;
        Ok(Some(Record::Event(Found { user: self.id(user, Place::User)?, item, at, session, kind })))
    }

    fn word(&mut self) -> Result<Option<Box<str>>, RecordError> {
        let session = self.id_into(Place::Session)?;
        session.map(|word| Ok(self.id(word, Place::Session)?.text().into())).transpose()
    }

    /// Reads an id, whose text stays in a buffer.
    fn id_into(&mut self, place: Place) -> Result<Option<StoredId>, RecordError> {
        let [length] = self.bytes()?;
        match length {
            NONE => Ok(None),
            INTEGER => Ok(Some(StoredId::Integer(i64::from_le_bytes(self.bytes()?)))),
            length => {
                self.take(u64::from(length))?;
                let buffer = match place {
                    Place::User => &mut self.user,
                    Place::Session => &mut self.session,
                };
                buffer.resize(usize::from(length), 0);
                let read = self.from.read_exact(buffer);
                read.map_err(|source| RecordError::Io { path: self.file.path.clone(), source })?;
                Ok(Some(StoredId::Text))
            }
        }
    }

    fn id(&self, stored: StoredId, place: Place) -> Result<RawId<'_>, RecordError> {
        let buffer = match place {
            Place::User => &self.user,
            Place::Session => &self.session,
        };
        match stored {
            StoredId::Integer(number) => Ok(RawId::Integer(number)),
            StoredId::Text => match std::str::from_utf8(buffer).map(RawId::Text) {
                Ok(id) if id.check().is_ok() => Ok(id),
                Ok(_) | Err(_) => Err(self.damaged("an id is not one")),
            },
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        let read = self.from.read_exact(&mut bytes);
        read.map_err(|source| RecordError::Io { path: self.file.path.clone(), source })?;
        Ok(bytes)
    }

    fn take(&mut self, bytes: u64) -> Result<(), RecordError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.damaged("it ends within a record")),
        }
    }

    fn damaged(&self, what: &'static str) -> RecordError {
        RecordError::Damaged { path: self.file.path.clone(), what }
    }
}

/// Whose text a buffer holds; a user's country and gender are read where a session's id would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    User,
    Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoredId {
    Integer(i64),
    Text,
}
