//! The commands, and what they have in common: arguments, exit codes, Ctrl-C.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::telemetry::Program;

mod config;
mod data;
mod depot;
mod encode;
mod evaluate;
mod funnel;
mod load;
mod model;
mod node_url;
mod operator;
mod progress;
mod publish;
mod quickstart;
mod refresh;
mod report;
mod retrieve;
mod serve;
mod skew;
mod study;
mod synth;
mod table;
mod train;
mod users;

/// Personal, contextual ad retrieval: train a two-tower model, publish it, serve it from a cluster of actors
#[derive(Parser)]
#[command(version, max_term_width = 100, after_long_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Not part of the text above: clap would set its lines as one paragraph.
const EXAMPLES: &str = "\
The whole job at once, on made-up data:

  turret quickstart

or step by step, on your own:

  turret data check DIR
  turret train    --config cluster-config/globo.toml
  turret evaluate --config cluster-config/globo.toml
  turret publish  --config cluster-config/globo.toml
  turret serve    --config cluster-config/globo.toml --node a
  turret retrieve --user 17 --interest 281";

#[derive(Subcommand)]
enum Command {
    Quickstart(quickstart::Arguments),
    Synth(synth::Arguments),
    #[command(subcommand)]
    Data(data::Command),
    Train(train::Arguments),
    #[command(subcommand)]
    Model(model::Command),
    Evaluate(evaluate::Arguments),
    #[command(subcommand)]
    Skew(skew::Command),
    Study(study::Arguments),
    Report(report::Arguments),
    Encode(encode::Arguments),
    Publish(publish::Arguments),
    Serve(serve::Arguments),
    Refresh(refresh::Arguments),
    Retrieve(retrieve::Arguments),
    Load(load::Arguments),
    #[command(subcommand)]
    Users(users::Command),
    #[command(subcommand)]
    Config(config::Command),
}

/// Names a configuration file.
#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration file; see cluster-config/README.md for every key
    #[arg(long = "config", value_name = "FILE")]
    path: PathBuf,
}

/// Why a command ends with 2 instead of 1: what was asked cannot be meant.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Argument(String),
}

/// The command was interrupted by Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

/// Runs the program: 0 when all went well, 1 when something failed, 2 when the arguments or the configuration are
/// wrong, 130 after Ctrl-C.
pub fn main() -> ExitCode {
    // clap exits with 2 by itself where the arguments are wrong.
    let command = Arguments::parse().command;
    let is_node = matches!(command, Command::Serve(_));
    crate::telemetry::install(if is_node { Program::Node } else { Program::Tool });
    let done = match command {
        Command::Quickstart(arguments) => quickstart::run(arguments),
        Command::Synth(arguments) => synth::run(arguments),
        Command::Data(command) => data::run(command),
        Command::Train(arguments) => train::run(arguments),
        Command::Model(command) => model::run(command),
        Command::Evaluate(arguments) => evaluate::run(arguments),
        Command::Skew(command) => skew::run(command),
        Command::Study(arguments) => study::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Encode(arguments) => encode::run(arguments),
        Command::Publish(arguments) => publish::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Refresh(arguments) => refresh::run(arguments),
        Command::Retrieve(arguments) => retrieve::run(arguments),
        Command::Load(arguments) => load::run(arguments),
        Command::Users(command) => users::run(command),
        Command::Config(command) => config::run(command),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    if error.is::<Interrupted>() {
        return ExitCode::from(130);
    }
    // A closed standard error leaves nobody to tell.
    drop(writeln!(std::io::stderr(), "turret: {}", told(&error)));
    ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
}

/// An error and its causes, less those that the text before them has said already.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        said if said.contains(&cause) => text,
        said => format!("{said}: {cause}"),
    })
}

/// Prints one line to standard output.
///
/// A reader that has gone away (`turret … | head`) is no failure.
fn say(line: impl AsRef<str>) {
    drop(writeln!(std::io::stdout(), "{}", line.as_ref()));
}

/// Prints one line to standard error: what a person should know beside the result.
fn tell(line: impl AsRef<str>) {
    drop(writeln!(std::io::stderr(), "{}", line.as_ref()));
}

/// Prints JSON for scripts.
fn say_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    say(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A runtime for the commands that speak HTTP.
fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work))
}
