//! A file of sections that is read, with all of it checked.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use turret_retrieval::item::AttributeKind;
use turret_retrieval::revision::Revision;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::calibration::{self, Known};
use super::edges::Usable;
use super::probes::Probes;
use super::{
    ALIGNMENT, CHECKSUM_AT, CHUNK_BYTES, ENTRY_BYTES, HEADER_BYTES, Kind, MAGIC, OPTIONAL, ReadError, SECTIONS_MAX,
    VERSION, absent, aligned, cells, columns, edges, listed, probes,
};
use crate::attributes::Segment;
use crate::blocks::Blocks;
use crate::cells::Parts as CellParts;
use crate::change::{Absent, Registers};
use crate::graph::Made;
use crate::names::Names;
use crate::rows::{ADS_MAX, DIMENSION_MAX, check_unit};

/// What a file must be of.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The generation whose ad tower made the embeddings, by the name that it was written with.
    pub generation: &'a str,
    /// Their length.
    pub dimension: usize,
}

/// What a file says of its graph.
pub(crate) enum StoredGraph {
    Missing,
    Found(Usable),
}

/// What a file holds.
pub(crate) struct Contents {
    pub(crate) dimension: usize,
    pub(crate) until: Revision,
    /// `[rows, dimension]`, row-major.
    pub(crate) vectors: Vec<f32>,
    pub(crate) names: Names,
    pub(crate) segment: Segment,
    pub(crate) kinds: std::collections::BTreeMap<Box<str>, AttributeKind>,
    pub(crate) registers: Blocks<Registers>,
    pub(crate) absent: Absent,
    pub(crate) graph: StoredGraph,
    pub(crate) probes: Probes,
    pub(crate) known: Option<Known>,
    pub(crate) cells: Option<CellParts>,
}

/// A section, by the table.
#[derive(Clone, Copy)]
struct Entry {
    number: u32,
    kind: Option<Kind>,
    offset: u64,
    length: u64,
    checksum: u64,
    /// Zeros up to the next section.
    padding: usize,
}

/// A file being read.
struct Source<'a> {
    path: &'a Path,
    file: File,
    read: u64,
    bytes: u64,
    observe: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

/// Reads the shard at `path`. `observe` is told the bytes read and the bytes in all, and may break off.
pub(crate) fn read(
    path: &Path,
    origin: &Origin<'_>,
    made: Made,
    observe: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Contents, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let mut source = Source { path, file, read: 0, bytes, observe };
    let (rows, entries) = source.table(origin.dimension)?;
    let dimension = origin.dimension;
    let mut parts = Parts::default();
    for entry in entries {
        let of_section = |rule| source_error(path, &entry, rule);
        match entry.kind {
            Some(Kind::Vectors) => {
                let words = source.words(&entry)?;
                let vectors: Vec<f32> = words.into_iter().map(f32::from_bits).collect();
                for (row, vector) in vectors.chunks_exact(dimension).enumerate() {
                    check_unit(vector, dimension).map_err(|error| of_section(format!("row {row}: {error}")))?;
                }
                parts.vectors = Some(vectors);
            }
            Some(Kind::Graph) => {
                let words = source.words(&entry)?;
                parts.graph = Some(edges::read(words, rows, dimension, made).map_err(of_section)?);
            }
            Some(Kind::Cells) => {
                let words = source.words(&entry)?;
                parts.cells = Some(cells::read(&words, rows, dimension).map_err(of_section)?);
            }
            Some(kind) => {
                let bytes = source.section(&entry)?;
                parts.take(kind, &bytes, (rows, dimension), origin).map_err(of_section)?;
            }
            None => source.pass_over(&entry)?,
        }
    }
    let missing = |kind: Kind| {
        move || ReadError::Section {
            path: path.to_owned(),
            section: kind.name().to_owned(),
            rule: "is missing".to_owned(),
        }
    };
    let (segment, kinds) = parts.columns.ok_or_else(missing(Kind::Attributes))?;
    Ok(Contents {
        dimension,
        until: parts.until.ok_or_else(missing(Kind::Position))?,
        vectors: parts.vectors.ok_or_else(missing(Kind::Vectors))?,
        names: parts.names.ok_or_else(missing(Kind::Ids))?,
        segment,
        kinds,
        registers: parts.registers.ok_or_else(missing(Kind::Registers))?,
        absent: parts.absent.ok_or_else(missing(Kind::Absent))?,
        graph: parts.graph.map_or(StoredGraph::Missing, StoredGraph::Found),
        probes: parts.probes.ok_or_else(missing(Kind::Probes))?,
        known: parts.known,
        cells: parts.cells,
    })
}

/// What is read already.
#[derive(Default)]
struct Parts {
    until: Option<Revision>,
    vectors: Option<Vec<f32>>,
    names: Option<Names>,
    columns: Option<(Segment, std::collections::BTreeMap<Box<str>, AttributeKind>)>,
    registers: Option<Blocks<Registers>>,
    absent: Option<Absent>,
    graph: Option<Usable>,
    probes: Option<Probes>,
    known: Option<Known>,
    cells: Option<CellParts>,
}

impl Parts {
    fn take(
        &mut self,
        kind: Kind,
        bytes: &[u8],
        (rows, dimension): (usize, usize),
        origin: &Origin<'_>,
    ) -> Result<(), String> {
        match kind {
            Kind::Position => {
                let (until, name) = bytes.split_first_chunk().ok_or_else(|| "ends too early".to_owned())?;
                if name != origin.generation.as_bytes() {
                    let found = String::from_utf8_lossy(name).into_owned();
                    return Err(format!("is of generation {found:?}, not of {:?}", origin.generation));
                }
                self.until = Some(Revision::from_bits(u64::from_le_bytes(*until)));
            }
            Kind::Ids => self.names = Some(listed::read_ids(bytes, rows)?),
            Kind::Attributes => self.columns = Some(columns::read(bytes, rows)?),
            Kind::Registers => self.registers = Some(listed::read_registers(bytes, rows)?),
            Kind::Absent => self.absent = Some(absent::read(bytes)?),
            Kind::Probes => self.probes = Some(probes::read(bytes, rows, dimension)?),
            Kind::Calibration => self.known = Some(calibration::read(bytes)?),
            Kind::Vectors | Kind::Graph | Kind::Cells => {}
        }
        Ok(())
    }
}

fn source_error(path: &Path, entry: &Entry, rule: String) -> ReadError {
    let section = entry.kind.map_or_else(|| format!("of kind {}", entry.number), |kind| kind.name().to_owned());
    ReadError::Section { path: path.to_owned(), section, rule }
}

impl Source<'_> {
    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.file.read_exact(buffer).map_err(|source| ReadError::Io { path: self.path.to_owned(), source })?;
        self.read += buffer.len() as u64;
        Ok(())
    }

    /// How many rows there are, and the sections in the order of the file.
    fn table(&mut self, dimension: usize) -> Result<(usize, Vec<Entry>), ReadError> {
        let path = self.path.to_owned();
        let refuse = |rule: String| ReadError::Header { path: path.clone(), rule };
        let mut head = vec![0; HEADER_BYTES.min(usize::try_from(self.bytes).unwrap_or(HEADER_BYTES))];
        self.exact(&mut head)?;
        if !head.starts_with(&MAGIC) {
            return Err(ReadError::Foreign { path });
        }
        if head.len() < HEADER_BYTES {
            return Err(refuse(format!("{} bytes, it has {HEADER_BYTES}", head.len())));
        }
        let version = number(&head, 8, 4) as u32;
        if version != VERSION {
            return Err(ReadError::Version { path, found: version });
        }
        let (found, rows) = (number(&head, 12, 4), number(&head, 16, 8));
        let (bytes, sections) = (number(&head, 24, 8), number(&head, 32, 4) as usize);
        if bytes != self.bytes {
            return Err(refuse(format!("the file is {} bytes long where it says {bytes}", self.bytes)));
        }
        if sections > SECTIONS_MAX || (HEADER_BYTES + sections * ENTRY_BYTES) as u64 > self.bytes {
            return Err(refuse(format!("{sections} sections")));
        }
        head.resize(HEADER_BYTES + sections * ENTRY_BYTES, 0);
        self.exact(&mut head[HEADER_BYTES..])?;
        let checksum = number(&head, CHECKSUM_AT, 8);
        head[CHECKSUM_AT..CHECKSUM_AT + 8].fill(0);
        if xxh3_64(&head) != checksum {
            return Err(refuse("checksum does not match, it is damaged".to_owned()));
        }
        if !(1..=DIMENSION_MAX as u64).contains(&found) {
            return Err(refuse(format!("dimension {found} is not in 1..={DIMENSION_MAX}")));
        }
        if found != dimension as u64 {
            return Err(refuse(format!("dimension {found}, the generation's is {dimension}")));
        }
        if rows > ADS_MAX as u64 {
            return Err(refuse(format!("{rows} ads, the limit is {ADS_MAX}")));
        }
        let entries = self.entries(&head[HEADER_BYTES..], rows * found * 4).map_err(&refuse)?;
        self.padding(entries.first().map_or(self.bytes, |entry| entry.offset) - head.len() as u64, "header")?;
        Ok((rows as usize, entries))
    }

    /// The sections, which must fill the file.
    fn entries(&self, table: &[u8], vector_bytes: u64) -> Result<Vec<Entry>, String> {
        let mut end = (HEADER_BYTES + table.len()) as u64;
        let mut entries: Vec<Entry> = Vec::new();
        for raw in table.chunks_exact(ENTRY_BYTES) {
            let (kind, flags) = (number(raw, 0, 4) as u32, number(raw, 4, 4) as u32);
            let (offset, length) = (number(raw, 8, 8), number(raw, 16, 8));
            let known = Kind::of(kind);
            let name = known.map_or_else(|| format!("of kind {kind}"), |kind| kind.name().to_owned());
            if known.is_none() && flags & OPTIONAL == 0 {
                return Err(format!("section {name} is not known, and must be"));
            }
            if flags & !OPTIONAL != 0 {
                return Err(format!("section {name} has flags {flags:#x}"));
            }
            if offset != aligned(end) || length > self.bytes.saturating_sub(offset) {
                return Err(format!("section {name} of {length} bytes at {offset} of {}", self.bytes));
            }
            if known.is_some() && entries.iter().any(|entry| entry.kind == known) {
                return Err(format!("section {name} is there twice"));
            }
            if known == Some(Kind::Vectors) && length != vector_bytes {
                return Err(format!("section {name} has {length} bytes, {vector_bytes} are needed"));
            }
            if let Some(before) = entries.last_mut() {
                before.padding = (offset - end) as usize;
            }
            end = offset + length;
            entries.push(Entry { number: kind, kind: known, offset, length, checksum: number(raw, 24, 8), padding: 0 });
        }
        // An empty table ends with its header.
        if end != self.bytes {
            return Err(format!("the sections end at {end} of {}", self.bytes));
        }
        // Before any of them is read: the number of rows is bounded by the length of their vectors.
        let is_missing = |kind: &Kind| !kind.is_optional() && entries.iter().all(|entry| entry.kind != Some(*kind));
        if let Some(kind) = Kind::ALL.into_iter().find(is_missing) {
            return Err(format!("section {} is missing", kind.name()));
        }
        Ok(entries)
    }

    /// Reads zeros.
    fn padding(&mut self, count: u64, behind: &str) -> Result<(), ReadError> {
        let mut zeros = [0; ALIGNMENT as usize];
        let zeros = &mut zeros[..count as usize];
        self.exact(zeros)?;
        if zeros.iter().any(|byte| *byte != 0) {
            let rule = format!("what stands behind {behind} is not zero");
            return Err(ReadError::Header { path: self.path.to_owned(), rule });
        }
        Ok(())
    }

    /// Reads a section chunk by chunk; what was taken is worth something only when all is well.
    fn each_chunk(&mut self, entry: &Entry, mut take: impl FnMut(&[u8])) -> Result<(), ReadError> {
        let io = |source| ReadError::Io { path: self.path.to_owned(), source };
        self.file.seek(SeekFrom::Start(entry.offset)).map_err(io)?;
        let mut buffer = vec![0; CHUNK_BYTES.min(entry.length as usize)];
        let (mut left, mut checksum) = (entry.length, Xxh3::new());
        while left > 0 {
            let chunk = &mut buffer[..left.min(CHUNK_BYTES as u64) as usize];
            self.exact(chunk)?;
            checksum.update(chunk);
            take(chunk);
            left -= chunk.len() as u64;
            if (self.observe)(self.read, self.bytes).is_break() {
                return Err(ReadError::Stopped { path: self.path.to_owned() });
            }
        }
        if checksum.digest() != entry.checksum {
            let rule = "checksum does not match, it is damaged".to_owned();
            return Err(source_error(self.path, entry, rule));
        }
        self.padding(entry.padding as u64, "a section")
    }

    fn section(&mut self, entry: &Entry) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::with_capacity(entry.length as usize);
        self.each_chunk(entry, |chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
    }

    /// The section as numbers of 32 bits.
    fn words(&mut self, entry: &Entry) -> Result<Vec<u32>, ReadError> {
        if !entry.length.is_multiple_of(4) {
            return Err(source_error(self.path, entry, format!("{} bytes are not whole numbers", entry.length)));
        }
        let mut words = Vec::with_capacity((entry.length / 4) as usize);
        self.each_chunk(entry, |chunk| {
            let (numbers, _) = chunk.as_chunks::<4>();
            words.extend(numbers.iter().map(|number| u32::from_le_bytes(*number)));
        })?;
        Ok(words)
    }

    fn pass_over(&mut self, entry: &Entry) -> Result<(), ReadError> {
        self.each_chunk(entry, |_| {})
    }
}

/// The number of `width` bytes at `at`.
fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
