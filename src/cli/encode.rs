//! `turret encode`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use turret_model::{Device, Model};

use super::data::source_of;
use super::progress::{Bar, watch_interrupts};
use super::train::{Kind, model_dir, read};
use super::{ConfigArgument, UsageError, say, say_json};
use crate::config::Config;
use crate::encode::Encoding;
use crate::partition_files::write_encoded;

/// Encodes the history of every user of the data set, offline
///
/// What `turret publish` does to users, and what a refresh does on a node to those with new events, as a batch of its own: the
/// sequence states of the contextual model, with the events that they cover, a Parquet file for each user partition
/// (docs/data.md), which `turret users import` takes. Says how many users a second that is. Ctrl-C leaves no file.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Where the files go; files of other partitions may be there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What encodes: cpu, or cuda:0 and so on in a build with the `cuda` feature
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Print what was encoded as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config.path).map_err(UsageError::Config)?;
    let source = source_of(&config)?;
    watch_interrupts()?;
    let dir = model_dir(&config.models, Kind::Contextual);
    let model =
        Model::load(&dir).with_context(|| format!("no model in {}: run `turret train` first", dir.display()))?;
    let model = model.on(&arguments.device)?;
    let precision = config.users.state_precision;
    precision.check_fits(model.state_rows_max(), model.dimension())?;
    let dataset = read(&source)?;
    let encoding = Encoding {
        dataset: &dataset,
        model: &model,
        partitions: config.users.partitions,
        events_per_user_max: config.users.settings.events_per_user_max,
        precision,
    };
    let bar = Bar::new("encode", "users");
    let started = Instant::now();
    let written = write_encoded(&encoding, &arguments.out, &mut |done, total| bar.at(done, total, String::new));
    let partitions = bar.end(written)?;
    let seconds = started.elapsed().as_secs_f64();
    let users: u64 = partitions.iter().map(|moved| moved.users).sum();
    let states: u64 = partitions.iter().map(|moved| moved.states).sum();
    let rate = users as f64 / seconds.max(1e-3);
    if arguments.json {
        return say_json(&json!({
            "encoder": model.encoder_version(), "users": users, "states": states, "seconds": seconds,
            "users_per_second": rate, "partitions": partitions,
        }));
    }
    say(format!(
        "{states} states of {users} users by {} in {seconds:.1} s, {rate:.0} users/s → {}",
        model.encoder_version(),
        arguments.out.display()
    ));
    Ok(())
}
