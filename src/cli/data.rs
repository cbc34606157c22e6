//! `turret data check`.

use std::path::PathBuf;

use anyhow::bail;
use turret_data::{DataSource, Report};

use super::progress::{Bar, watch_interrupts};
use super::{UsageError, say, say_json};
use crate::config::Config;

/// Looks at data sets
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Validates a data set and prints a profile of it and every fault
    ///
    /// Faults are named by file, column and row. Exits with 0 when there are none and with 1 when there are. A
    /// directory that holds files of the canonical names and columns (docs/data.md) is named by itself; one with
    /// names of its own through a configuration file that maps them.
    #[command(after_long_help = EXAMPLES)]
    Check {
        /// The directory
        #[arg(required_unless_present = "config")]
        dir: Option<PathBuf>,
        /// A configuration file whose `data` section is checked
        #[arg(long, value_name = "FILE", conflicts_with = "dir")]
        config: Option<PathBuf>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Not part of the text above: clap would set its lines as one paragraph.
const EXAMPLES: &str = "\
Examples:
  turret data check my-data
  turret data check --config cluster-config/globo.toml";

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    let Command::Check { dir, config, json } = command;
    let source = match (dir, config) {
        (Some(dir), _) if dir.is_dir() => DataSource::canonical(&dir),
        (Some(dir), _) => bail!(UsageError::Argument(format!("{} is not a directory", dir.display()))),
        (None, Some(path)) => source_of(&Config::load(&path).map_err(UsageError::Config)?)?,
        (None, None) => bail!(UsageError::Argument("a directory or --config is needed".to_owned())),
    };
    watch_interrupts()?;
    let bar = Bar::new("checking", "rows");
    let report = turret_data::check(&source, &mut |progress| {
        bar.at(progress.done, progress.total, || progress.what.to_string())
    });
    let report = bar.end(report)?;
    if json {
        say_json(&report)?;
    } else {
        say(render(&report));
    }
    match report.faults_total {
        0 => Ok(()),
        1 => bail!("1 fault"),
        faults => bail!("{faults} faults"),
    }
}

/// The data set of a configuration.
pub(super) fn source_of(config: &Config) -> anyhow::Result<DataSource> {
    match &config.data {
        Some(source) => Ok(source.clone()),
        None => bail!(UsageError::Argument("the configuration has no [data]".to_owned())),
    }
}

fn render(report: &Report) -> String {
    let mut lines = vec![report.profile.to_string()];
    for fault in &report.faults {
        let row = fault.row.map_or_else(String::new, |row| format!(", row {row}"));
        let column = fault.column.as_ref().map_or_else(String::new, |column| format!(", column {column}"));
        lines.push(format!("fault: {}{column}{row}: {}", fault.file, fault.rule));
    }
    let listed = report.faults.len() as u64;
    if report.faults_total > listed {
        lines.push(format!("… and {} more faults", report.faults_total - listed));
    }
    lines.join("\n")
}
