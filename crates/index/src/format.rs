//! The file of one shard: what `turret publish` writes, and what a node writes of the shard that it serves.
//!
//! ```text
//! magic       8 bytes   "TURRETSH"
//! version     u32       3
//! dimension   u32
//! ads         u64
//! bytes       u64       length of the file
//! sections    u32       how many the table has
//! zero        u32
//! checksum    u64       of header and table, itself taken for zero
//! zero        16 bytes
//! table       [sections]: kind u32, flags u32, offset u64, length u64, checksum u64
//! ```
//!
//! Sections follow in the order of the table, each at a multiple of 64 bytes, with zeros between. A flag of 1 says that a reader
//! that does not know the kind may pass the section over; any other that it does not know it refuses.
//!
//! | kind | section | what it holds |
//! |---|---|---|
//! | 1 | position | the [`Revision`](turret_retrieval::revision::Revision) up to which all changes are in, and the generation's name |
//! | 2 | vectors | f32 `[ads, dimension]`, row-major |
//! | 3 | ids | for each row postcard of id and advertiser |
//! | 4 | attributes | for each attribute its name, its kind, and the rows of each word, or numbers with their rows |
//! | 5 | registers | of rows that changed: row, paused or not, the revisions of content and of pause; 24 bytes each |
//! | 6 | absent | the registers of ads that are not there, deleted ones above all, and what is forgotten of them |
//! | 7 | graph | optional: what made it, its start, and the edges of each row |
//! | 8 | probes | queries with their exact answers, and a digest of what must come out of the file |
//! | 9 | calibration | optional: what was measured of that graph, and how many ads have come since |
//! | 10 | cells | optional: cells of rows that lie together: how many, u32 `[ads]` the cell of each row, f32 `[cells, dimension]`, f32 `[cells]` |
//!
//! Rows are the ads that are there, live or paused, without a hole. Numbers are little-endian, checksums 64 bits of XXH3. All
//! sections that are not optional must be there, so that the length of the file bounds the rows and every length in it; nothing
//! is allocated before that is checked, and nothing of a section is decoded before its checksum is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::search::SearchError;

pub(crate) mod absent;
pub(crate) mod calibration;
pub(crate) mod cells;
pub(crate) mod columns;
mod decode;
pub(crate) mod edges;
pub(crate) mod listed;
pub(crate) mod probes;
mod sink;
mod source;

pub(crate) use sink::{Body, Sink};
pub use source::Origin;
pub(crate) use source::{StoredGraph, read};

const MAGIC: [u8; 8] = *b"TURRETSH";
const VERSION: u32 = 3;
const HEADER_BYTES: usize = 64;
/// Where the checksum of header and table stands.
const CHECKSUM_AT: usize = 40;
const ENTRY_BYTES: usize = 32;
const ALIGNMENT: u64 = 64;
/// Of its flags the only one there is.
const OPTIONAL: u32 = 1;
/// More than there will ever be.
const SECTIONS_MAX: usize = 64;
/// Read at a time, and so between two looks at whether to go on.
const CHUNK_BYTES: usize = 1 << 20;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Position,
    Vectors,
    Ids,
    Attributes,
    Registers,
    Absent,
    Graph,
    Probes,
    Calibration,
    Cells,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Position,
        Self::Vectors,
        Self::Ids,
        Self::Attributes,
        Self::Registers,
        Self::Absent,
        Self::Graph,
        Self::Probes,
        Self::Calibration,
        Self::Cells,
    ];

    fn number(self) -> u32 {
        self as u32 + 1
    }

    fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    fn is_optional(self) -> bool {
        matches!(self, Self::Graph | Self::Calibration | Self::Cells)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::Vectors => "vectors",
            Self::Ids => "ids",
            Self::Attributes => "attributes",
            Self::Registers => "registers",
            Self::Absent => "absent",
            Self::Graph => "graph",
            Self::Probes => "probes",
            Self::Calibration => "calibration",
            Self::Cells => "cells",
        }
    }
}

/// Why a shard was not written. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file could not be written. Retryable once the cause is removed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The shard does not answer its own probes, or its graph does not tell its edges.
    #[error("{path}: {source}")]
    Search {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SearchError,
    },
    /// Changes panicked before: what is left is not to be kept.
    #[error("{path}: an earlier change panicked, the shard must be loaded anew")]
    Broken {
        /// The file.
        path: PathBuf,
    },
}

/// Why a file is not read as a shard.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system would not read it.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not begin as a shard does.
    #[error("{path}: is not a shard of the ad index")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is of another layout.
    #[error("{path}: layout version {found}, this build reads {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it names.
        found: u32,
    },
    /// Its header or its table of sections breaks a rule.
    #[error("{path}: header: {rule}")]
    Header {
        /// The file.
        path: PathBuf,
        /// The rule.
        rule: String,
    },
    /// A section is damaged, or breaks a rule.
    #[error("{path}: section {section}: {rule}")]
    Section {
        /// The file.
        path: PathBuf,
        /// Which.
        section: String,
        /// The rule.
        rule: String,
    },
    /// The caller wanted no more.
    #[error("{path}: reading was broken off")]
    Stopped {
        /// The file.
        path: PathBuf,
    },
}

/// The first multiple of the alignment from `at` on.
fn aligned(at: u64) -> u64 {
    at.next_multiple_of(ALIGNMENT)
}

/// The name of a file that is being written.
pub(crate) fn sibling(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Has a flushed file take the place of another.
pub(crate) fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path)?;
    // The name is durable only once its directory is.
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
