//! The file of a training that was broken off: what [`Trainer::resume`](super::Trainer::resume) goes on from.
//!
//! A line that names the format, the length of a header, the header (postcard), the tensors (little-endian `f32`) one after
//! the other as the header lists them, and the SHA-256 of all before it. The random numbers of a step follow from its
//! number, so none are kept.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use turret_retrieval::digest::Digester;

use super::progress::History;
use super::run::{Run, Tensors};
use crate::difference::differ;
use crate::file_error::FileError;
use crate::optimizer::Moments;

const FORMAT: &[u8] = b"turret checkpoint 1\n";
/// The largest header that is read: its validations are the largest part.
const HEADER_BYTES_MAX: u64 = 256 << 20;
const DIGEST_BYTES: usize = 64;

/// Why a training does not go on.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be read, or is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// The checkpoint is of a training with other settings or other data.
    #[error("{path}: {field} is {theirs} in the checkpoint and {ours} here; a training goes on as it began")]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// The first thing that differs.
        field: String,
        /// What it is in the checkpoint.
        theirs: String,
        /// What it is here.
        ours: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    /// What the training is of, as JSON; see [`differ`].
    run: String,
    history: History,
    /// Each tensor's name and number of values.
    tensors: Vec<(String, usize)>,
}

/// Writes a checkpoint in place of the one that is there, flushed: after a crash there is the old one or the new one.
pub(super) fn save(
    path: &Path,
    run_of: &Value,
    history: &History,
    run: &Run<'_>,
    best: Option<&Tensors>,
) -> Result<(), CheckpointError> {
    let touched = run.table.touched();
    let tensors = tensors(run, &touched, best);
    let header = Header {
        run: run_of.to_string(),
        history: history.clone(),
        tensors: tensors.iter().map(|(name, values)| (name.clone(), values.len())).collect(),
    };
    let header = postcard::to_stdvec(&header).expect("a header holds nothing that postcard refuses");
    let temporary = path.with_added_extension("tmp");
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = Digested { inner: BufWriter::new(File::create(&temporary)?), digester: Digester::default() };
        file.write_all(FORMAT)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (_, values) in &tensors {
            write_values(&mut file, values)?;
        }
        let Digested { mut inner, digester } = file;
        inner.write_all(digester.finish().to_string().as_bytes())?;
        inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|error| FileError::disk(path)(error).into())
}

/// Reads the checkpoint at `path` into `run`, which is new; returns what went before, and the best tensors so far.
pub(super) fn load(
    path: &Path,
    run_of: &Value,
    run: &mut Run<'_>,
) -> Result<(History, Option<Tensors>), CheckpointError> {
    let disk = FileError::disk(path);
    let malformed = |rule: &str| FileError::malformed(path, rule);
    let read = |error: io::Error| {
        if error.kind() == io::ErrorKind::UnexpectedEof { malformed("ends too early") } else { disk(error) }
    };
    let mut file = Digested { inner: BufReader::new(File::open(path).map_err(disk)?), digester: Digester::default() };
    let mut format = [0; FORMAT.len()];
    file.read_exact(&mut format).map_err(read)?;
    if format != FORMAT {
        return Err(malformed("is no checkpoint of this version").into());
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(read)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX {
        return Err(malformed("its header is too long").into());
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(read)?;
    let header: Header = postcard::from_bytes(&header).map_err(|error| malformed(&error.to_string()))?;
    let theirs: Value = serde_json::from_str(&header.run).map_err(|error| malformed(&error.to_string()))?;
    // What decides most comes first: other settings change how the data are seen.
    let parts = ["model", "training", "split", "evaluation", "data", "start"];
    let difference = parts.iter().find_map(|part| differ(part, &theirs[part], &run_of[part]));
    if let Some((field, theirs, ours)) = difference {
        return Err(CheckpointError::OtherRun { path: path.to_owned(), field, theirs, ours });
    }

    // Of this very run, so its tensors have the names and lengths of the new ones.
    let best = header.history.best().map(|_| run.tensors()).filter(|_| header.history.keeps_best);
    let touched = run.table.touched();
    let expected = tensors(run, &touched, best.as_ref()).into_iter().map(|(name, values)| (name, values.len()));
    if !expected.eq(header.tensors.iter().cloned()) {
        return Err(malformed("its tensors are not those of its settings").into());
    }
    let mut values = Vec::with_capacity(header.tensors.len());
    for (_, length) in &header.tensors {
        values.push(read_values(&mut file, *length).map_err(read)?);
    }
    let Digested { mut inner, digester } = file;
    let mut digest = [0; DIGEST_BYTES];
    inner.read_exact(&mut digest).map_err(read)?;
    if digester.finish().to_string().as_bytes() != digest || inner.read(&mut [0]).map_err(disk)? != 0 {
        return Err(malformed("is damaged: its digest is another").into());
    }
    let best = restore(values, run, best);
    Ok((header.history, best))
}

/// Every tensor of a checkpoint with its name, in the order of the file.
fn tensors<'a>(run: &'a Run<'_>, touched: &'a [f32], best: Option<&'a Tensors>) -> Vec<(String, &'a [f32])> {
    let Moments { first, second } = run.table.moments();
    let mut all: Vec<(String, &[f32])> = vec![
        ("table".to_owned(), run.table.values()),
        ("table.first_moment".to_owned(), first),
        ("table.second_moment".to_owned(), second),
        ("table.touched".to_owned(), touched),
    ];
    for (parameter, Moments { first, second }) in run.parameters.iter().zip(run.adam.moments()) {
        let name = &parameter.name;
        all.push((name.clone(), &parameter.values));
        all.push((format!("{name}.first_moment"), first));
        all.push((format!("{name}.second_moment"), second));
    }
    if let Some(best) = best {
        all.push(("best.table".to_owned(), &best.table));
        all.extend(best.parameters.iter().map(|p| (format!("best.{}", p.name), p.values.as_slice())));
    }
    all
}

/// Puts `values`, in the order of [`tensors`], to where they belong.
fn restore(values: Vec<Vec<f32>>, run: &mut Run<'_>, mut best: Option<Tensors>) -> Option<Tensors> {
    let mut values = values.into_iter();
    let mut next = || values.next().expect("as many values as tensors");
    let (table, moments) = (next(), Moments { first: next(), second: next() });
    run.table.restore(table, moments, &next());
    for (parameter, moments) in run.parameters.iter_mut().zip(run.adam.moments_mut()) {
        parameter.values = next();
        *moments = Moments { first: next(), second: next() };
    }
    if let Some(best) = &mut best {
        best.table = next();
        best.parameters.iter_mut().for_each(|parameter| parameter.values = next());
    }
    best
}

/// A reader or writer that digests what passes.
struct Digested<T> {
    inner: T,
    digester: Digester,
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digester.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.digester.update(&bytes[..read]);
        Ok(read)
    }
}

/// Values converted at a time.
const CHUNK_VALUES: usize = 1 << 14;

fn write_values(file: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * CHUNK_VALUES);
    for values in values.chunks(CHUNK_VALUES) {
        bytes.clear();
        values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        file.write_all(&bytes)?;
    }
    Ok(())
}

fn read_values(file: &mut impl Read, length: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(length);
    let mut bytes = vec![0; 4 * CHUNK_VALUES];
    while values.len() < length {
        let bytes = &mut bytes[..4 * CHUNK_VALUES.min(length - values.len())];
        file.read_exact(bytes)?;
        let (words, _) = bytes.as_chunks::<4>();
        values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
