//! Files that are whole on the disk, or not there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a file and flushes it.
///
/// # Errors
/// When the disk does not take it.
pub fn write_flushed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file in one step, flushed: whatever happens, the old or the new one stands there.
///
/// # Errors
/// When the disk does not take it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    write_flushed(&temporary, bytes)?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Reads a small JSON file.
///
/// # Errors
/// When it is absent ([`io::ErrorKind::NotFound`]), larger than `bytes_max`, or not the JSON of a `T`.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> io::Result<T> {
    if fs::metadata(path)?.len() > bytes_max {
        return Err(io::Error::other(format!("is larger than {bytes_max} bytes")));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Replaces a small JSON file, with its directory where that is missing.
///
/// # Errors
/// When the disk does not take it.
pub(crate) fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    replace(path, &serde_json::to_vec_pretty(value)?)
}

/// Flushes the entries of a directory.
///
/// # Errors
/// When it cannot be opened or flushed.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
