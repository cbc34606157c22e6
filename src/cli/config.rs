//! `turret config check`.

use std::path::PathBuf;

use super::{UsageError, say};
use crate::config::Config;

/// Looks at configuration files
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Reads a configuration file and reports everything that is wrong with it at once
    ///
    /// Exits with 0 when the file is sound and 2 when it is not. Nothing is started and nothing is written.
    Check {
        /// The file
        file: PathBuf,
    },
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    let Command::Check { file } = command;
    let config = Config::load(&file).map_err(UsageError::Config)?;
    let nodes: Vec<String> = config.nodes.iter().map(|node| node.name.to_string()).collect();
    let (shards, partitions) = (config.index.shards, config.users.partitions);
    say(format!(
        "{}: sound; nodes {}, {shards} shards, {partitions} user partitions",
        file.display(),
        nodes.join(", ")
    ));
    Ok(())
}
