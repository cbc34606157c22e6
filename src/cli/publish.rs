//! `turret publish`.

use anyhow::Context as _;
use turret_model::Model;

use super::data::source_of;
use super::depot::Staging;
use super::progress::{Bar, watch_interrupts};
use super::train::{Kind, model_dir, read};
use super::{ConfigArgument, UsageError, say, say_json};
use crate::config::Config;
use crate::publish::{Publication, Published, Step};

/// Makes a generation of the contextual model and makes it the current one
///
/// Embeds every active ad, encodes every user, shards and partitions both, and writes a manifest with the digest of
/// every file. Nodes serve the current generation from their next start on. A publication that is broken off leaves the
/// generation that was current as it was.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print the manifest as JSON
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
    let dataset = read(&source)?;
    let published = publish(&config, &dataset, &model)?;
    if arguments.json {
        return say_json(&published.manifest);
    }
    say(summary(&config, &published));
    Ok(())
}

/// Publishes with a bar.
pub(super) fn publish(
    config: &Config,
    dataset: &turret_retrieval::dataset::Dataset,
    model: &Model,
) -> anyhow::Result<Published> {
    let staging = Staging::of(config)?;
    let publication = Publication {
        dataset,
        model,
        generations: staging.dir(),
        taken: staging.taken(),
        shards: config.index.shards,
        partitions: config.users.partitions,
        events_per_user_max: config.users.settings.events_per_user_max,
        state_precision: config.users.state_precision,
    };
    let bar = Bar::new("publishing", "rows");
    let published = crate::publish::publish(&publication, &mut |step| match step {
        Step::Ads(done, total) => bar.at(done, total, || "ads embedded".to_owned()),
        Step::Users(done, total) => bar.at(done, total, || "users encoded".to_owned()),
    });
    let published = bar.end(published)?;
    staging.deliver(&published.manifest.id)?;
    Ok(published)
}

/// One line about a publication.
pub(super) fn summary(config: &Config, published: &Published) -> String {
    let manifest = &published.manifest;
    let users: u64 = manifest.partition_users.iter().sum();
    let left_out = match published.inactive {
        0 => String::new(),
        inactive => format!(" ({inactive} not active: left out)"),
    };
    let states = match published.states {
        0 => String::new(),
        states => format!(" (states of {} bytes on average)", published.state_bytes / states),
    };
    format!(
        "{}: {} ads in {} shards{left_out}, {users} users in {} partitions{states}, {} + {} → {}",
        manifest.id,
        manifest.ads(),
        manifest.shards(),
        manifest.partitions(),
        manifest.versions.encoder,
        manifest.versions.head,
        config.generations
    )
}
