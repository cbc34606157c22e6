//! `turret users`.

use std::path::PathBuf;

use serde_json::json;

use super::progress::{Bar, watch_interrupts};
use super::serve::choose;
use super::{ConfigArgument, UsageError, say, say_json};
use crate::config::Config;
use crate::partition_files::{Imported, Moved, NodePartitions, export, import};

/// Moves what a node keeps of users to files and back
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Writes everything that a node keeps of users to Parquet files, one for each user partition
    ///
    /// Events, demographics, sequence states, the marks of erasures, and every revision (docs/data.md); the users of all
    /// partitions in the node's data directory. The node must be stopped. An export that is broken off leaves no file.
    Export {
        #[command(flatten)]
        node: Node,
        /// Where the files go; files of other partitions may be there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Print what was exported as JSON
        #[arg(long)]
        json: bool,
    },
    /// Puts the users of exported files back, into user partitions that are empty
    ///
    /// Whole and as they were: an export of them gives the same rows. It takes the files of the partitions that are placed
    /// on the node, which must be stopped, and leaves those of others alone. An import that is broken off leaves the
    /// partitions empty.
    Import {
        #[command(flatten)]
        node: Node,
        /// Where the files are
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Print what was imported as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Names a node.
#[derive(clap::Args)]
pub(super) struct Node {
    #[command(flatten)]
    config: ConfigArgument,
    /// Whose users; may be left out where there is only one node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Export { node, out, json } => {
            let (name, partitions) = open(&node)?;
            let bar = Bar::new("exporting", "partitions");
            let moved = export(&partitions, &out, &mut |step| {
                bar.at(step.done, step.total, || format!("{} users", step.users))
            });
            let moved = bar.end(moved)?;
            if json {
                return say_json(&json!({ "node": name, "partitions": moved }));
            }
            say(format!("node {name}: {} → {}", summary(&moved), out.display()));
        }
        Command::Import { node, from, json } => {
            let (name, partitions) = open(&node)?;
            let bar = Bar::new("importing", "users");
            let imported = import(&partitions, &from, &mut |step| bar.at(step.done, step.total, String::new));
            let Imported { partitions, elsewhere, missing } = bar.end(imported)?;
            if json {
                let told = json!({
                    "node": name, "partitions": partitions, "elsewhere": elsewhere, "missing": missing
                });
                return say_json(&told);
            }
            say(format!("node {name}: {} ← {}", summary(&partitions), from.display()));
            if !elsewhere.is_empty() {
                say(format!("left alone, placed on other nodes: {}", elsewhere.join(", ")));
            }
            if !missing.is_empty() {
                let missing: Vec<String> = missing.iter().map(u32::to_string).collect();
                say(format!("no file of partitions placed here: {}", missing.join(", ")));
            }
        }
    }
    Ok(())
}

fn open(node: &Node) -> anyhow::Result<(String, NodePartitions)> {
    let config = Config::load(&node.config.path).map_err(UsageError::Config)?;
    let own = choose(&config, node.node.as_deref())?;
    watch_interrupts()?;
    Ok((own.name.to_string(), NodePartitions::of(&config, own)))
}

fn summary(moved: &[Moved]) -> String {
    let sum = |of: fn(&Moved) -> u64| moved.iter().map(of).sum::<u64>();
    let erased = match sum(|moved| moved.erased) {
        0 => String::new(),
        erased => format!(" ({erased} with the mark of an erasure)"),
    };
    format!(
        "{} users{erased}, {} events, {} states in {} partitions",
        sum(|moved| moved.users),
        sum(|moved| moved.events),
        sum(|moved| moved.states),
        moved.len()
    )
}
