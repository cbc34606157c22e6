//! The file of one shard.
//!
//! ```text
//! magic       8 bytes   "TURRETSH"
//! version     u32       1
//! dimension   u32
//! ads         u64
//! ads_bytes   u64       length of the ad records
//! embeddings  f32       [ads, dimension], row-major
//! records     bytes     one postcard `Ad` after the other, in the order of the embeddings
//! digest      64 bytes  SHA-256 of everything before, in hexadecimal
//! ```
//!
//! Numbers are little-endian and rows ascend by ad id, so equal ads make equal files. The header gives the length of
//! the file to the byte; nothing is allocated before that is checked, and nothing is decoded before the digest is.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use turret_retrieval::digest::{Digest, Digester};
use turret_retrieval::item::Ad;

use crate::rows::{DIMENSION_MAX, RowsError, ShardAd, ShardRows, check};

const MAGIC: [u8; 8] = *b"TURRETSH";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const DIGEST_BYTES: usize = 64;
/// Read at a time, and so between two looks at whether to go on.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a shard was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The ads cannot make up a shard.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// An ad cannot be encoded.
    #[error("ad {ad}: {source}")]
    Encode {
        /// Which.
        ad: Box<str>,
        /// What the encoder said.
        source: postcard::Error,
    },
    /// The file could not be written. Retryable once the cause is removed; what was there before is still there.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
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
    /// Its dimension is none.
    #[error("{path}: dimension {found} is not in 1..={DIMENSION_MAX}")]
    Dimension {
        /// The file.
        path: PathBuf,
        /// The dimension it names.
        found: u32,
    },
    /// It is cut off, or goes on too long.
    #[error("{path}: {found} bytes long where its header says {expected}")]
    Length {
        /// The file.
        path: PathBuf,
        /// What its header adds up to; at least the length of a header and a digest.
        expected: u128,
        /// Its length.
        found: u64,
    },
    /// Its bytes are not those that were written.
    #[error("{path}: digest does not match, the file is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// An ad record does not decode, though the digest matches: another program wrote it.
    #[error("{path}: ad record {row} cannot be decoded")]
    Record {
        /// The file.
        path: PathBuf,
        /// Which, from 0.
        row: usize,
    },
    /// The ads break a rule, though the digest matches: another program wrote them.
    #[error("{path}: {source}")]
    Rows {
        /// The file.
        path: PathBuf,
        /// The rule.
        source: RowsError,
    },
    /// The caller wanted no more.
    #[error("{path}: reading was broken off")]
    Stopped {
        /// The file.
        path: PathBuf,
    },
}

/// Writes the shard of `ads`, given in any order, to `path`.
///
/// Written beside `path`, flushed and renamed, so `path` holds either what it held or all of the new shard.
///
/// # Errors
/// When the ads cannot make up a shard, or the file cannot be written.
pub fn write_shard(path: &Path, dimension: usize, ads: &[ShardAd]) -> Result<(), WriteError> {
    let mut rows: Vec<&ShardAd> = ads.iter().collect();
    rows.sort_unstable_by(|a, b| a.ad.id.cmp(&b.ad.id));
    check(dimension, rows.iter().map(|row| (&row.ad, row.embedding.as_slice())))?;
    let mut records = Vec::new();
    for row in &rows {
        records = postcard::to_extend(&row.ad, records)
            .map_err(|source| WriteError::Encode { ad: row.ad.id.as_str().into(), source })?;
    }
    let temporary = sibling(path);
    let written = write_rows(&temporary, dimension, &rows, &records).and_then(|()| replace(&temporary, path));
    written.map_err(|source| {
        // The half-written file is of no use; the error is what matters.
        drop(fs::remove_file(&temporary));
        WriteError::Io { path: path.to_owned(), source }
    })
}

fn write_rows(path: &Path, dimension: usize, rows: &[&ShardAd], records: &[u8]) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(CHUNK_BYTES, File::create(path)?);
    let mut digester = Digester::default();
    let mut put = |bytes: &[u8]| {
        digester.update(bytes);
        file.write_all(bytes)
    };
    put(&header(dimension as u32, rows.len() as u64, records.len() as u64))?;
    let mut embedding = Vec::with_capacity(dimension * 4);
    for row in rows {
        embedding.clear();
        embedding.extend(row.embedding.as_slice().iter().flat_map(|x| x.to_le_bytes()));
        put(&embedding)?;
    }
    put(records)?;
    file.write_all(digester.finish().to_string().as_bytes())?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn header(dimension: u32, ads: u64, ads_bytes: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend(dimension.to_le_bytes());
    header.extend(ads.to_le_bytes());
    header.extend(ads_bytes.to_le_bytes());
    header
}

fn sibling(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path)?;
    // The name is durable only once its directory is.
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads and checks the shard at `path`.
///
/// # Errors
/// The first thing wrong with the file; only [`ReadError::Io`] can be worth another try.
pub fn read_shard(path: &Path) -> Result<ShardRows, ReadError> {
    read_observed(path, &mut |_, _| ControlFlow::Continue(()))
}

/// As [`read_shard`]; `observe` is told the bytes read and the bytes in all, and may break off.
pub(crate) fn read_observed(
    path: &Path,
    observe: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<ShardRows, ReadError> {
    let own = || path.to_owned();
    let io = |source| ReadError::Io { path: own(), source };
    let mut file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let mut source = Source { path, file: &mut file, digester: Digester::default(), read: 0, bytes, observe };

    let header = source.header()?;
    let mut vectors = Vec::with_capacity(header.ads * header.dimension);
    source.each_chunk(header.ads * header.dimension * 4, |chunk| {
        let (numbers, _) = chunk.as_chunks::<4>();
        vectors.extend(numbers.iter().map(|number| f32::from_le_bytes(*number)));
    })?;
    let mut records = Vec::with_capacity(header.ads_bytes);
    source.each_chunk(header.ads_bytes, |chunk| records.extend_from_slice(chunk))?;
    let digest = source.digester.clone().finish();
    source.check_digest(&digest)?;

    let ads = decode(path, &records, header.ads)?;
    ShardRows::from_sorted(header.dimension, vectors, ads).map_err(|source| ReadError::Rows { path: own(), source })
}

fn decode(path: &Path, records: &[u8], count: usize) -> Result<Vec<Ad>, ReadError> {
    let refuse = |row| ReadError::Record { path: path.to_owned(), row };
    let mut ads = Vec::new();
    let mut rest = records;
    for row in 0..count {
        let (ad, after) = postcard::take_from_bytes::<Ad>(rest).map_err(|_| refuse(row))?;
        ads.push(ad);
        rest = after;
    }
    if rest.is_empty() { Ok(ads) } else { Err(refuse(count)) }
}

/// What the header says, once it agrees with the length of the file.
struct Header {
    dimension: usize,
    ads: usize,
    ads_bytes: usize,
}

/// A file being read: everything that passes through it is digested and counted.
struct Source<'a> {
    path: &'a Path,
    file: &'a mut File,
    digester: Digester,
    read: u64,
    bytes: u64,
    observe: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

impl Source<'_> {
    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.file.read_exact(buffer).map_err(|source| ReadError::Io { path: self.path.to_owned(), source })?;
        self.read += buffer.len() as u64;
        Ok(())
    }

    fn header(&mut self) -> Result<Header, ReadError> {
        let path = || self.path.to_owned();
        let least = (HEADER_BYTES + DIGEST_BYTES) as u64;
        if self.bytes < MAGIC.len() as u64 {
            return Err(ReadError::Foreign { path: path() });
        }
        let mut raw = [0; HEADER_BYTES];
        let there = HEADER_BYTES.min(self.bytes as usize);
        self.exact(&mut raw[..there])?;
        if raw[..8] != MAGIC {
            return Err(ReadError::Foreign { path: self.path.to_owned() });
        }
        if self.bytes < least {
            return Err(ReadError::Length { path: self.path.to_owned(), expected: least.into(), found: self.bytes });
        }
        self.digester.update(&raw);
        self.parse(&raw)
    }

    fn parse(&self, raw: &[u8; HEADER_BYTES]) -> Result<Header, ReadError> {
        let path = || self.path.to_owned();
        let number = |at: usize, width: usize| {
            raw[at..at + width].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let (version, dimension, ads, ads_bytes) = (number(8, 4), number(12, 4), number(16, 8), number(24, 8));
        if version != u64::from(VERSION) {
            return Err(ReadError::Version { path: path(), found: version as u32 });
        }
        if !(1..=DIMENSION_MAX as u64).contains(&dimension) {
            return Err(ReadError::Dimension { path: path(), found: dimension as u32 });
        }
        // 128 bits hold the sum whatever a forged header says.
        let body = u128::from(ads) * u128::from(dimension) * 4 + u128::from(ads_bytes);
        let expected = body + (HEADER_BYTES + DIGEST_BYTES) as u128;
        if expected != u128::from(self.bytes) {
            return Err(ReadError::Length { path: path(), expected, found: self.bytes });
        }
        Ok(Header { dimension: dimension as usize, ads: ads as usize, ads_bytes: ads_bytes as usize })
    }

    fn each_chunk(&mut self, bytes: usize, mut take: impl FnMut(&[u8])) -> Result<(), ReadError> {
        let mut buffer = vec![0; CHUNK_BYTES.min(bytes)];
        let mut left = bytes;
        while left > 0 {
            let length = left.min(CHUNK_BYTES);
            let chunk = &mut buffer[..length];
            self.exact(chunk)?;
            self.digester.update(chunk);
            take(chunk);
            left -= length;
            if (self.observe)(self.read, self.bytes).is_break() {
                return Err(ReadError::Stopped { path: self.path.to_owned() });
            }
        }
        Ok(())
    }

    fn check_digest(&mut self, digest: &Digest) -> Result<(), ReadError> {
        let mut written = [0; DIGEST_BYTES];
        self.exact(&mut written)?;
        if written == digest.to_string().as_bytes() {
            Ok(())
        } else {
            Err(ReadError::Damaged { path: self.path.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests;
