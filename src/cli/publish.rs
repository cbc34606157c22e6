//! `turret publish`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;
use turret_actors::live_ads::CHANGED_ADS_MAX;
use turret_actors::node::Role;
use turret_model::Model;
use turret_retrieval::generation::Manifest;
use turret_retrieval::ids::GenerationId;
use turret_retrieval::live_ad::LiveAd;
use turret_retrieval::partitioning::Clusters;
use turret_retrieval::revision::Revision;

use super::data::source_of;
use super::depot::Staging;
use super::node_url::node_url;
use super::operator::{Operator, is_nobody};
use super::progress::{Bar, watch_interrupts};
use super::train::{Kind, model_dir, read};
use super::{ConfigArgument, UsageError, block_on, depot, say, say_json};
use crate::config::Config;
use crate::publish::{Publication, Published, Step};

mod rollout;

/// Makes a generation of the contextual model and has the running node serve it
///
/// Embeds every active ad, encodes every user, shards and partitions both, measures what the index finds, and writes a
/// manifest with the digest of every file. A running node then starts it beside the one that serves, judges it (digests,
/// memory, number of ads, probes, states of recent users, recent requests answered by both), lets it serve, watches it,
/// and goes back by itself where it does worse. No request is lost, and none is answered by parts of both. Ctrl-C ends the
/// watching, not the publication; before the node was asked, it leaves everything as it was.
///
/// Where no node answers, the generation becomes the current one, and nodes serve it from their next start on; so do all
/// nodes of a cluster of several.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Have the generation before serve again; while one is being published, that is given up
    #[arg(long, conflicts_with = "generation")]
    rollback: bool,
    /// Publish one that has been made before, such as one that was rolled back
    #[arg(long, value_name = "ID", value_parser = GenerationId::new)]
    generation: Option<GenerationId>,
    /// The admin address of the node, where it is not that of the configuration's control node
    #[arg(long, value_name = "URL", value_parser = node_url)]
    admin: Option<String>,
    /// Do not wait for what becomes of it
    #[arg(long)]
    detach: bool,
    /// Print the manifest, and what became of it, as JSON
    #[arg(long)]
    json: bool,
}

/// For one answer of the node.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config.path).map_err(UsageError::Config)?;
    let control = config.nodes.iter().find(|node| node.roles.contains(&Role::Control));
    let control = control.map(|node| format!("http://{}", node.admin));
    let admin = arguments.admin.clone().or(control).context("the configuration has a control node")?;
    let operator = Operator::of(&admin, TIMEOUT)?;
    if arguments.rollback {
        return block_on(async {
            let plan = operator.post("/admin/rollback", &json!({})).await?;
            rollout::follow(&operator, plan, &arguments, None).await
        })?;
    }
    let manifest = match &arguments.generation {
        Some(id) => depot::manifest(&config, id)?,
        None => make(&config, &operator, arguments.json)?,
    };
    let id = &manifest.id;
    let started = if config.nodes.len() > 1 {
        None
    } else {
        match block_on(operator.post("/admin/publish", &json!({ "generation": id })))? {
            Ok(plan) => Some(plan),
            Err(error) if is_nobody(&error) => None,
            Err(error) => return Err(error.context(format!("generation {id} is made and does not serve"))),
        }
    };
    match started {
        Some(plan) => block_on(rollout::follow(&operator, plan, &arguments, Some(&manifest)))?,
        None => {
            depot::make_current(&config, id)?;
            if arguments.json {
                return say_json(&manifest);
            }
            say(format!("no node was asked: {id} is served from the next start on"));
            Ok(())
        }
    }
}

/// Makes a generation of the model and the data of `config`.
fn make(config: &Config, operator: &Operator, quiet: bool) -> anyhow::Result<Manifest> {
    let source = source_of(config)?;
    watch_interrupts()?;
    let dir = model_dir(&config.models, Kind::Contextual);
    let model =
        Model::load(&dir).with_context(|| format!("no model in {}: run `turret train` first", dir.display()))?;
    let dataset = read(&source)?;
    let (live, until) = block_on(live_ads(operator))??;
    let published = publish(config, &dataset, &model, (&live, until))?;
    if !quiet {
        say(summary(config, &published));
    }
    Ok(published.manifest)
}

/// What became of ads since the data was written, as the node tells it, and up to which revision that goes; nothing where no
/// node answers: then it is the node that adds it when it starts, from the same journal.
async fn live_ads(operator: &Operator) -> anyhow::Result<(Vec<LiveAd>, Revision)> {
    let (mut ads, mut until) = (Vec::new(), Revision::NONE);
    loop {
        let page = match operator.get(&format!("/admin/ads?after={}", until.bits())).await {
            Ok(page) => page,
            Err(error) if is_nobody(&error) && ads.is_empty() => return Ok((ads, until)),
            Err(error) => return Err(error.context("ads that changed could not be asked for")),
        };
        let page: Vec<LiveAd> = Vec::deserialize(&page["ads"]).context("the node's answer")?;
        let Some(last) = page.last().map(LiveAd::at) else { return Ok((ads, until)) };
        // An ad that changes meanwhile comes again, at a later place.
        ads.retain(|ad: &LiveAd| page.iter().all(|newer| newer.id != ad.id));
        ads.extend(page);
        until = last;
        if ads.len() > CHANGED_ADS_MAX {
            bail!("the node tells of more than {CHANGED_ADS_MAX} changed ads");
        }
    }
}

/// Makes a generation, with a bar; it does not serve yet.
pub(super) fn publish(
    config: &Config,
    dataset: &turret_retrieval::dataset::Dataset,
    model: &Model,
    live: (&[LiveAd], Revision),
) -> anyhow::Result<Published> {
    let staging = Staging::of(config)?;
    let publication = Publication {
        dataset,
        model,
        generations: staging.dir(),
        taken: staging.taken(),
        shards: config.index.shards,
        spread: config.index.spread,
        partitions: config.users.partitions,
        events_per_user_max: config.users.settings.events_per_user_max,
        state_precision: config.users.state_precision,
        live,
        index: &config.index.settings,
    };
    let bar = Bar::new("publish", "");
    let published = crate::publish::publish(&publication, &mut |step| match step {
        Step::Ads(done, total) => bar.at(done, total, || "ads embedded".to_owned()),
        Step::Users(done, total) => bar.at(done, total, || "users encoded".to_owned()),
        Step::Index(done, total) => bar.at(done, total, || "ads indexed, to measure what is found".to_owned()),
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
    let clusters = manifest.partitioning.clusters().map(|clusters| clustered(clusters, &manifest.shard_ads));
    let per_ad = published.index_bytes / manifest.ads().max(1);
    format!(
        "{}: {} ads in {} shards{left_out}, recall@{} of the index {:.4}, {per_ad} bytes an ad in memory, {users} users in {} partitions{states}, {} + {} → {}{}",
        manifest.id,
        manifest.ads(),
        manifest.shards(),
        manifest.recall.k,
        manifest.recall.recall,
        manifest.partitions(),
        manifest.versions.encoder,
        manifest.versions.head,
        config.generations,
        clusters.unwrap_or_default()
    )
}

/// Lines about clustered shards: how even they are, and what is found in the nearest of them.
fn clustered(clusters: &Clusters, shard_ads: &[u64]) -> String {
    let (most, least) = (shard_ads.iter().max(), shard_ads.iter().min());
    let [most, least] = [most, least].map(|ads| ads.copied().unwrap_or_default());
    let mean = shard_ads.iter().sum::<u64>() as f64 / shard_ads.len().max(1) as f64;
    let mut text = format!(
        "\n  clustered: {least} to {most} ads a shard, at most {:.3} times the mean; recall by the number of nearest shards asked, \
         of {} probes, {} aimed at",
        most as f64 / mean.max(1.0),
        clusters.probes,
        clusters.target_recall
    );
    for shares in &clusters.shares {
        let (curve, asked) = (shares.curve(), clusters.asked(f64::from(shares.k)));
        // All numbers of a few shards, and of many the powers of two.
        let is_shown = |number: &usize| shard_ads.len() <= 16 || number.is_power_of_two() || *number == asked;
        let points = (1..=curve.len()).filter(is_shown).map(|number| format!("{number}: {:.3}", curve[number - 1]));
        let points = points.collect::<Vec<_>>().join(", ");
        text.push_str(&format!("\n  the best {}: {asked} of {} shards asked; {points}", shares.k, shard_ads.len()));
    }
    text
}
