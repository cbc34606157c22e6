//! Faults of a data set: where, and which rule was broken.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing that is wrong with a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, as the data source names it.
    pub file: String,
    /// The column, by its name in the file; `None` where the file as a whole is meant.
    pub column: Option<String>,
    /// The row, counted from 0 in the file; `None` where every row is meant.
    pub row: Option<u64>,
    /// What is wrong, and what would be right.
    pub rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        write!(f, ": {}", self.rule)
    }
}

/// Why a data set was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is faulty. Not retryable: the data or its mapping must change.
    #[error("{}", dir.join(fault.to_string()).display())]
    Invalid {
        /// Where the data set lies.
        dir: PathBuf,
        /// Its first fault.
        fault: Fault,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Where a fault is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) file: &'a str,
    pub(crate) column: Option<&'a str>,
    pub(crate) row: Option<u64>,
}

impl<'a> At<'a> {
    /// The file as a whole.
    pub(crate) fn file(file: &'a str) -> Self {
        Self { file, column: None, row: None }
    }

    /// A column as a whole.
    pub(crate) fn column(file: &'a str, column: &'a str) -> Self {
        Self { file, column: Some(column), row: None }
    }
}

/// Takes the faults that a reader finds: ends the reading at the first, or lists some and counts all.
pub(crate) struct Faults {
    dir: PathBuf,
    listed_max: Option<usize>,
    listed: Vec<Fault>,
    total: u64,
}

impl Faults {
    /// Turns the first fault into an error.
    pub(crate) fn stop_at_first(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), listed_max: None, listed: Vec::new(), total: 0 }
    }

    /// Lists the first `listed_max` faults and counts the others.
    pub(crate) fn gather(dir: &Path, listed_max: usize) -> Self {
        Self { dir: dir.to_owned(), listed_max: Some(listed_max), listed: Vec::new(), total: 0 }
    }

    /// Notes a fault. The rule is put into words only where somebody will read it.
    ///
    /// # Errors
    /// The fault itself, where the first ends the reading.
    pub(crate) fn add(&mut self, at: At<'_>, rule: impl fmt::Display) -> Result<(), ReadError> {
        self.total += 1;
        if self.listed_max.is_some_and(|max| self.listed.len() >= max) {
            return Ok(());
        }
        let fault = Fault {
            file: at.file.to_owned(),
            column: at.column.map(str::to_owned),
            row: at.row,
            rule: rule.to_string(),
        };
        if self.listed_max.is_none() {
            return Err(ReadError::Invalid { dir: self.dir.clone(), fault });
        }
        self.listed.push(fault);
        Ok(())
    }

    /// The faults that were listed, and how many there were.
    pub(crate) fn finish(self) -> (Vec<Fault>, u64) {
        (self.listed, self.total)
    }
}
