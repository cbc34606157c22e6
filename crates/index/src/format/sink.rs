//! A file of sections that is written from its beginning to its end.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{CHECKSUM_AT, CHUNK_BYTES, ENTRY_BYTES, HEADER_BYTES, Kind, MAGIC, OPTIONAL, VERSION, aligned};

const ZEROS: [u8; 64] = [0; 64];

/// A file that is being written. Nobody takes it for a shard before it is finished.
pub(crate) struct Sink {
    file: BufWriter<File>,
    sections: usize,
    table: Vec<u8>,
    at: u64,
}

/// A section that is being written.
pub(crate) struct Body<'a> {
    file: &'a mut BufWriter<File>,
    checksum: Xxh3,
    bytes: u64,
}

impl Body<'_> {
    /// Adds `bytes`.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

impl Sink {
    /// Begins a file of so many sections.
    pub(crate) fn create(path: &Path, sections: usize) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(CHUNK_BYTES, File::create(path)?);
        let at = (HEADER_BYTES + sections * ENTRY_BYTES) as u64;
        file.write_all(&vec![0; at as usize])?;
        Ok(Self { file, sections, table: Vec::new(), at })
    }

    /// Adds a section.
    pub(crate) fn section<E: From<io::Error>>(
        &mut self,
        kind: Kind,
        write: impl FnOnce(&mut Body<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = aligned(self.at);
        self.file.write_all(&ZEROS[..(start - self.at) as usize])?;
        let mut body = Body { file: &mut self.file, checksum: Xxh3::new(), bytes: 0 };
        write(&mut body)?;
        let (length, checksum) = (body.bytes, body.checksum.digest());
        self.table.extend(kind.number().to_le_bytes());
        self.table.extend(if kind.is_optional() { OPTIONAL } else { 0 }.to_le_bytes());
        for number in [start, length, checksum] {
            self.table.extend(number.to_le_bytes());
        }
        self.at = start + length;
        Ok(())
    }

    /// Writes header and table, and flushes; how many bytes the file has.
    ///
    /// # Panics
    /// Where it has another number of sections than was said.
    pub(crate) fn finish(mut self, dimension: usize, ads: usize) -> io::Result<u64> {
        assert_eq!(self.table.len(), self.sections * ENTRY_BYTES, "sections");
        let mut head = Vec::with_capacity(HEADER_BYTES + self.table.len());
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend((dimension as u32).to_le_bytes());
        head.extend((ads as u64).to_le_bytes());
        head.extend(self.at.to_le_bytes());
        head.extend((self.sections as u32).to_le_bytes());
        head.resize(HEADER_BYTES, 0);
        head.extend(&self.table);
        let checksum = xxh3_64(&head);
        head[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&checksum.to_le_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&head)?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(self.at)
    }
}
