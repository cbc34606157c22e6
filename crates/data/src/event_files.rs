//! Where the events lie: one file, or a directory of them.

use std::fs;
use std::path::Path;

use crate::columns::Kind;
use crate::fault::{At, Faults, ReadError};
use crate::parts::records::{EVENT_BYTES, INTEGER_ID_BYTES_MAX, TEXT_ID_BYTES_MAX};
use crate::source::{DataSource, EVENT_COLUMNS, EventsFile, unknown_column};
use crate::table::Table;

/// The most files of one directory of events.
const FILES_MAX: usize = 65_536;

/// The files that hold a data set's events, in the order of their names.
pub(crate) struct EventFiles {
    pub(crate) files: Vec<EventFile>,
}

/// One of them.
pub(crate) struct EventFile {
    pub(crate) name: String,
    /// How many rows it says it has.
    pub(crate) rows: u64,
    /// What a row takes at most as a record of a part.
    record_bytes_max: u64,
}

impl EventFiles {
    /// Finds the files and opens each once; those that cannot be read are faults, and left out.
    pub(crate) fn find(source: &DataSource, faults: &mut Faults) -> Result<Self, ReadError> {
        let EventsFile { file, columns, .. } = &source.events;
        // A mapping from a configuration file was checked when it was parsed, one made in code was not.
        if let Some(rule) = unknown_column(columns, EVENT_COLUMNS) {
            faults.add(At::file(file), rule)?;
        }
        let mut files = Vec::new();
        for name in names(&source.dir, file, faults)? {
            if let Some(table) = Table::open(&source.dir, &name, columns, faults)? {
                let record_bytes_max =
                    EVENT_BYTES + id_bytes_max(&table, "user_id") + id_bytes_max(&table, "session_id");
                let rows = table.rows();
                files.push(EventFile { name, rows, record_bytes_max });
            }
        }
        if !files.is_empty() && files.iter().all(|file| file.rows == 0) {
            faults.add(At::file(file), "holds no rows")?;
        }
        Ok(Self { files })
    }

    /// How many rows all files say they have.
    pub(crate) fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// What all rows take at most as records of parts.
    pub(crate) fn record_bytes_max(&self) -> u64 {
        self.files.iter().map(|file| file.rows * file.record_bytes_max).sum()
    }
}

fn id_bytes_max(table: &Table<'_>, canonical: &str) -> u64 {
    let name = table.name_of(canonical);
    match table.schema().find(|(found, _)| *found == name) {
        Some((_, of)) if Kind::Text.accepts(of) => TEXT_ID_BYTES_MAX,
        Some(_) => INTEGER_ID_BYTES_MAX,
        None => 1,
    }
}

/// `file` itself; or where it is a directory, as Spark and its like write, the Parquet files in it.
fn names(dir: &Path, file: &str, faults: &mut Faults) -> Result<Vec<String>, ReadError> {
    let path = dir.join(file);
    if !path.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) => {
            return faults.add(At::file(file), format_args!("cannot be listed: {error}")).map(|()| Vec::new());
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry.map(|entry| entry.file_name().into_string()) {
            Ok(Ok(name)) if is_data(&name) => names.push(format!("{file}/{name}")),
            Ok(Ok(_) | Err(_)) => {}
            Err(error) => faults.add(At::file(file), format_args!("cannot be listed: {error}"))?,
        }
    }
    if names.is_empty() {
        faults.add(At::file(file), "is a directory without files whose names end in .parquet")?;
    }
    if names.len() > FILES_MAX {
        faults.add(At::file(file), format_args!("holds {} files, the limit is {FILES_MAX}", names.len()))?;
    }
    names.sort();
    names.truncate(FILES_MAX);
    Ok(names)
}

/// Names that begin so are markers and check sums of whoever wrote the directory.
fn is_data(name: &str) -> bool {
    name.ends_with(".parquet") && !name.starts_with(['.', '_'])
}
