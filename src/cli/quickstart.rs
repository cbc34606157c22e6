//! `turret quickstart`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::FutureExt;
use serde::Serialize;
use serde_json::Value;
use turret_actors::generation::Generation;
use turret_data::DataSource;
use turret_data::marketplace::MarketplaceSettings;
use turret_model::{Contender, EvaluationReport, Model};
use turret_retrieval::dataset::Dataset;
use turret_retrieval::digest::Digest;
use turret_retrieval::revision::Revision;

use super::load::open_loop::{Latency, Plan, in_turn};
use super::progress::watch_interrupts;
use super::train::{Kind, model_dir, read};
use super::{block_on, depot, evaluate, publish, say, say_json, serve, synth, train};
use crate::config::Config;

mod shown;

use shown::{Comparison, people};

/// Shows the whole job on a made-up marketplace, in a few minutes
///
/// Makes a seeded marketplace, trains the contextual model and the history-only one, publishes a generation, starts a
/// node with every role and asks it over HTTP: for the same users with and without what they are looking at. Then
/// compares the models by Recall@K and measures latencies.
///
/// Everything is kept below .turret/quickstart, and a second run reuses it; remove the directory to start over. The
/// configuration is that of cluster-config/single.toml, with ports chosen by the system.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// The configuration, as the repository has it.
const CONFIG: &str = include_str!("../../cluster-config/single.toml");
/// How long the node may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The load that latencies are measured under: light, so that they are the node's own.
const RATE: f64 = 100.0;
const LOAD: Duration = Duration::from_secs(5);

/// What a run came to.
#[derive(Serialize)]
struct Outcome {
    dir: PathBuf,
    generation: String,
    comparisons: Vec<Comparison>,
    evaluation: EvaluationReport,
    latency_us: Latency,
    seconds: f64,
}

/// Says how the run goes on, unless only JSON is wanted.
#[derive(Clone, Copy)]
struct Narrator {
    quiet: bool,
}

impl Narrator {
    fn say(self, line: impl AsRef<str>) {
        if !self.quiet {
            say(line);
        }
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let narrator = Narrator { quiet: arguments.json };
    let mut config = Config::parse(CONFIG, Path::new("cluster-config/single.toml"))?;
    for node in &mut config.nodes {
        // A cluster may be running on the usual ports.
        node.http.set_port(0);
        node.admin.set_port(0);
    }
    watch_interrupts()?;
    forget_another_world(&config.data_dir)?;
    let dir = config.data.as_ref().context("single.toml has [data]")?.dir.clone();
    marketplace(&dir, narrator)?;
    // Only now, because which files there are decides what is read.
    let dataset = read(&DataSource::canonical(&dir))?;
    let history_only = model(&config, &dataset, Kind::HistoryOnly, narrator)?;
    let contextual = model(&config, &dataset, Kind::Contextual, narrator)?;
    generation(&config, &dataset, &contextual, narrator)?;
    let contenders = [(Kind::HistoryOnly, &history_only), (Kind::Contextual, &contextual)]
        .map(|(kind, model)| Contender { name: kind.arm().to_owned(), model });
    let evaluation = evaluate::evaluate(&config, &dataset, &contenders, None)?;

    let people = people(&dataset, &config.split);
    let requests = shown::write_requests(&config.data_dir, &dataset)?;
    let asked = block_on(ask(&config, &people, &dataset, requests))??;
    let outcome = Outcome {
        dir: config.data_dir.clone(),
        generation: asked.generation,
        comparisons: asked.comparisons,
        evaluation,
        latency_us: asked.latency,
        seconds: started.elapsed().as_secs_f64(),
    };
    if arguments.json {
        say_json(&outcome)?;
    } else {
        report(&outcome);
    }
    check(&outcome.evaluation)
}

/// The marketplace is made so that context says more than history: a model that does not find that is broken.
fn check(report: &EvaluationReport) -> anyhow::Result<()> {
    let recall = |kind: Kind| report.arm(kind.arm()).and_then(|arm| arm.recall_at(10));
    match (recall(Kind::Contextual), recall(Kind::HistoryOnly)) {
        (Some(contextual), Some(history_only)) if contextual > history_only => Ok(()),
        _ => bail!("the contextual model does not recall more than the history-only one: this build is broken"),
    }
}

/// How large the marketplace is.
fn settings() -> MarketplaceSettings {
    MarketplaceSettings { users: 20_000, ads: 5_000, advertisers: 200, days: 21, seed: 1, start_ms: synth::START_MS }
}

/// Removes what an earlier run made under other settings; what was made under these is kept.
fn forget_another_world(dir: &Path) -> anyhow::Result<()> {
    let made_from = dir.join("made-from");
    let now = Digest::of(format!("{CONFIG}{:?}", settings()).as_bytes()).to_string();
    if std::fs::read_to_string(&made_from).is_ok_and(|before| before == now) {
        return Ok(());
    }
    let clear = || {
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        std::fs::create_dir_all(dir)?;
        std::fs::write(&made_from, &now)
    };
    clear().with_context(|| format!("cannot prepare {}", dir.display()))
}

fn marketplace(dir: &Path, narrator: Narrator) -> anyhow::Result<()> {
    if dir.join("events.parquet").is_file() {
        narrator.say(format!("marketplace   {} (kept)", dir.display()));
        return Ok(());
    }
    let made = synth::generate(&settings(), dir)?;
    narrator.say(format!(
        "marketplace   {}: {} users, {} ads, {} events",
        dir.display(),
        made.users,
        made.ads,
        made.events
    ));
    Ok(())
}

/// The model that an earlier run left, or a new one.
fn model(config: &Config, dataset: &Dataset, kind: Kind, narrator: Narrator) -> anyhow::Result<Model> {
    let dir = model_dir(&config.models, kind);
    if dir.is_dir() {
        let model = Model::load(&dir).with_context(|| format!("remove {} to train again", dir.display()))?;
        narrator.say(format!("{:13} {} (kept)", kind.name(), dir.display()));
        return Ok(model);
    }
    let (model, record) = train::train(config, dataset, kind)?;
    narrator.say(train::summary(kind, &record, &dir));
    Ok(model)
}

/// Publishes, unless the current generation is of this very model.
fn generation(config: &Config, dataset: &Dataset, model: &Model, narrator: Narrator) -> anyhow::Result<()> {
    if let Some(Ok(current)) = config.generations.directory().map(Generation::current) {
        let (manifest, versions) = (&current.manifest, &current.manifest.versions);
        // A run that was broken off may have trained anew and not published.
        if versions.encoder == *model.encoder_version() && *versions.head == *model.head_version() {
            narrator.say(format!("generation    {} (kept)", manifest.id));
            return Ok(());
        }
    }
    let published = publish::publish(config, dataset, model, (&[], Revision::NONE))?;
    depot::make_current(config, &published.manifest.id)?;
    narrator.say(format!("generation    {}", publish::summary(config, &published)));
    Ok(())
}

/// What the node answered.
struct Asked {
    generation: String,
    comparisons: Vec<Comparison>,
    latency: Latency,
}

/// Starts a node, asks it everything over HTTP, and ends it.
async fn ask(
    config: &Config,
    people: &[shown::Person],
    dataset: &Dataset,
    requests: Vec<bytes::Bytes>,
) -> anyhow::Result<Asked> {
    let running = serve::start(config, &config.nodes[0].name).await?;
    let url = format!("http://{}", running.http);
    let gateway = running.gateway.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(running.serve(stopped.map(drop).boxed().shared()));
    let asking = async {
        if tokio::time::timeout(READY_TIMEOUT, gateway.node.ready()).await.is_err() {
            bail!("the node was not ready within {} s", READY_TIMEOUT.as_secs());
        }
        let items = shown::items_of_ads(dataset);
        let mut comparisons = Vec::new();
        let mut generation = String::new();
        for person in people {
            let comparison = Comparison::ask(&url, person, &items).await?;
            generation.clone_from(&comparison.generation);
            comparisons.push(comparison);
        }
        let plan = Plan {
            url: format!("{url}/v1/candidates:retrieve"),
            body: in_turn(requests),
            rate: RATE,
            duration: LOAD,
            in_flight_max: 256,
        };
        let load = super::load::open_loop::run(plan).await?;
        if load.answered < load.sent {
            bail!("{} of {} requests failed: {:?}", load.failed, load.sent, load.errors);
        }
        Ok(Asked { generation, comparisons, latency: load.latency_us })
    };
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    let asked = tokio::select! {
        asked = asking => asked,
        () = interrupted => Err(super::Interrupted.into()),
    };
    // The server ends whatever came of the questions.
    drop(stop);
    drop(gateway);
    serving.await.context("the server panicked")?;
    asked
}

fn report(outcome: &Outcome) {
    for comparison in &outcome.comparisons {
        say(format!("\n{}", comparison.render()));
    }
    say(format!("\n{}", evaluate::render(&outcome.evaluation)));
    let latency = &outcome.latency_us;
    say(format!(
        "\nlatency over HTTP at {RATE} requests/s, k = 100, in µs: p50 {}, p90 {}, p99 {}",
        latency.p50, latency.p90, latency.p99
    ));
    let dir = outcome.dir.display();
    say(format!(
        "\nDone in {:.0} s; everything is in {dir}. Next:\n\
         \n  turret serve --config cluster-config/single.toml      a node that stays, on http://127.0.0.1:7101\
         \n  turret retrieve --user {} --interest {}\
         \n  turret retrieve --surface search --query 'nordic armchair'\
         \n  turret load --requests {dir}/requests.ndjson --rate 500\
         \n  just cluster                                          three nodes that answer as one\
         \n  turret data check DIR                                 your own data: docs/data.md",
        outcome.seconds,
        outcome.comparisons.first().map_or("1", |comparison| comparison.user()),
        outcome.comparisons.first().map_or("", |comparison| comparison.looking_at()),
    ));
}

/// The field `key` of `value`, as text.
fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}
