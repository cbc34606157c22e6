//! `turret report`.

use std::path::PathBuf;

use super::{UsageError, say};
use crate::report::{Source, SourceError};

/// Writes one HTML page over files of figures: tables and plots, without a script and without a network
///
/// Reads what `turret study`, `turret evaluate --out` and the other files of docs/results hold. `turret evaluate --report`
/// makes the same page of an evaluation just made.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The directory of the page, index.html; made where it is missing
    dir: PathBuf,
    /// The files, in the order of the page
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let sources = read(&arguments.files)?;
    say(format!("page in {}", crate::report::write(&arguments.dir, &sources)?.display()));
    Ok(())
}

/// Reads files of figures.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Source>, UsageError> {
    let sources: Result<Vec<Source>, SourceError> = files.iter().map(|file| Source::read(file)).collect();
    sources.map_err(|error| UsageError::Argument(error.to_string()))
}
