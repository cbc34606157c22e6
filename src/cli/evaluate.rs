//! `turret evaluate`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use turret_model::{Arms, Contender, Device, Evaluation, EvaluationReport, Model, Part, Request};
use turret_retrieval::dataset::Dataset;

use super::data::source_of;
use super::progress::{Bar, watch_interrupts};
use super::train::{Kind, model_dir, read};
use super::{ConfigArgument, UsageError, say, say_json, tell};
use crate::config::Config;
use crate::funnel::FunnelReport;
use crate::provenance::Provenance;
use crate::report::{Content, Evaluated, Source};

mod log;
mod shown;
mod tiers;

pub(super) use shown::render;

/// Compares the trained models with each other and with plain baselines, by recall against held-out events
///
/// The context of a test case is what the user looked at just before the target, never anything of the target. Every
/// arm ranks the whole catalogue. Intervals are bootstrapped over users. What every arm and number means:
/// docs/evaluation.md.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The cases to judge by: settings are chosen on validation, and the test is read once
    #[arg(long, value_enum, value_name = "PART", default_value = "test")]
    part: HeldOut,
    /// Another trained model, under the name that its arms shall carry; may be repeated
    #[arg(long = "model", value_name = "NAME=DIR")]
    models: Vec<NamedDir>,
    /// Judge by a log of requests (requests.parquet): the ads that were delivered are what is to be found
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Simulate the funnel behind the two models instead: ranker, relevance floor and auction, on a marketplace
    #[arg(long, conflicts_with_all = ["part", "models", "log", "report"])]
    funnel: bool,
    /// Judge the contextual models as they answer in each tier: fresh and stale histories, context only, demographics, nothing
    #[arg(long, conflicts_with = "funnel")]
    by_tier: bool,
    /// What computes embeddings and scores: cpu, or cuda:0 and so on in a build with the `cuda` feature
    #[arg(long, default_value = "cpu", conflicts_with = "funnel")]
    device: Device,
    /// Also write the report, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write a page of tables and plots, index.html, into this directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Another file of figures for the page, such as those of docs/results; may be repeated
    #[arg(long, value_name = "FILE", requires = "report")]
    figures: Vec<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// A part of the split, as an argument.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum HeldOut {
    /// What settings are chosen by
    Validation,
    /// What results are read from
    Test,
}

impl HeldOut {
    /// Makes `config` that of the part.
    pub(super) fn apply(self, config: &mut Config) -> Result<(), UsageError> {
        let part = match self {
            Self::Validation => Part::Validation,
            Self::Test => Part::Test,
        };
        config.hold_out(part).map_err(|error| UsageError::Argument(format!("split.{error}")))
    }
}

/// A directory with a name for it.
#[derive(Clone)]
struct NamedDir {
    name: String,
    dir: PathBuf,
}

impl FromStr for NamedDir {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, dir)) if !name.is_empty() && !dir.is_empty() => {
                Ok(Self { name: name.to_owned(), dir: dir.into() })
            }
            _ => Err("must be a name, `=` and a directory"),
        }
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut config = Config::load(&arguments.config.path).map_err(UsageError::Config)?;
    arguments.part.apply(&mut config)?;
    if arguments.funnel {
        return simulate(&config, &arguments);
    }
    let source = source_of(&config)?;
    let figures = super::report::read(&arguments.figures)?;
    watch_interrupts()?;
    let models = load(&config.models, &arguments.models, &arguments.device)?;
    let dataset = read(&source)?;
    let log = arguments.log.as_deref().map(log::read).transpose()?;
    let contenders: Vec<Contender<'_>> =
        models.iter().map(|(name, model)| Contender { name: name.clone(), model }).collect();
    let evaluation =
        Evaluation { data: &dataset, split: &config.split, settings: &config.evaluation, log: log.as_deref() };
    let (arms, render): (_, fn(&EvaluationReport) -> String) = if arguments.by_tier {
        (Arms::by_tier(&evaluation, &contenders), tiers::render)
    } else {
        (Arms::of(&evaluation, &contenders), render)
    };
    if arms.iter().next().is_none() {
        bail!("--by-tier: none of the models is contextual");
    }
    let report = run_arms(&evaluation, &arms)?;
    let text = render(&report);
    let evaluated = Evaluated { provenance: provenance(), report };
    if let Some(path) = &arguments.out {
        write_report(path, &evaluated)?;
    }
    if arguments.json {
        say_json(&evaluated.report)?;
    } else {
        say(text);
    }
    if let Some(dir) = &arguments.report {
        let name =
            arguments.config.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let own = Source { name, content: Content::Evaluation(Box::new(evaluated)) };
        let sources: Vec<Source> = std::iter::once(own).chain(figures).collect();
        crate::report::write(dir, &sources)?;
    }
    Ok(())
}

/// The funnel behind the models, written and printed as was asked for.
fn simulate(config: &Config, arguments: &Arguments) -> anyhow::Result<()> {
    watch_interrupts()?;
    let simulated = Simulated { provenance: provenance(), report: super::funnel::measure(config)? };
    if let Some(path) = &arguments.out {
        write_report(path, &simulated)?;
    }
    if arguments.json {
        return say_json(&simulated.report);
    }
    say(super::funnel::render(&simulated.report));
    Ok(())
}

/// A simulated funnel with what is needed to make it again.
#[derive(serde::Serialize)]
struct Simulated {
    #[serde(flatten)]
    provenance: Provenance,
    #[serde(flatten)]
    report: FunnelReport,
}

/// The two models of the configuration and those that are named; a name that is given replaces one of the two. Where
/// one of the two was not trained, the others are enough.
fn load(models: &Path, named: &[NamedDir], device: &Device) -> anyhow::Result<Vec<(String, Model)>> {
    let usual = [Kind::HistoryOnly, Kind::Contextual]
        .map(|kind| NamedDir { name: kind.arm().to_owned(), dir: model_dir(models, kind) });
    let mut dirs: Vec<&NamedDir> = Vec::new();
    for given in named {
        if dirs.iter().any(|other| other.name == given.name) {
            bail!(UsageError::Argument(format!("--model: the name {} is given twice", given.name)));
        }
        dirs.push(given);
    }
    let is_replaced = |own: &&NamedDir| named.iter().any(|given| given.name == own.name);
    let usual: Vec<&NamedDir> = usual.iter().filter(|own| !is_replaced(own)).collect();
    let (trained, missing): (Vec<&NamedDir>, Vec<&NamedDir>) = usual.into_iter().partition(|own| own.dir.exists());
    // With nothing to evaluate, loading what is missing says so.
    let nothing = trained.is_empty() && named.is_empty();
    for NamedDir { name, dir } in missing.iter().filter(|_| !nothing) {
        tell(format!("no model in {}: the arms of {name} are left out", dir.display()));
    }
    let usual = if nothing { missing } else { trained };
    let load = |named: &NamedDir| {
        let dir = &named.dir;
        let model =
            Model::load(dir).with_context(|| format!("no model in {}: run `turret train` first", dir.display()));
        Ok((named.name.clone(), model?.on(device)?))
    };
    usual.into_iter().chain(dirs).map(load).collect()
}

/// Evaluates every arm that the data allow, with a bar.
pub(super) fn evaluate(
    config: &Config,
    dataset: &Dataset,
    contenders: &[Contender<'_>],
    log: Option<&[Request]>,
) -> anyhow::Result<EvaluationReport> {
    let evaluation = Evaluation { data: dataset, split: &config.split, settings: &config.evaluation, log };
    run_arms(&evaluation, &Arms::of(&evaluation, contenders))
}

fn run_arms(evaluation: &Evaluation<'_>, arms: &Arms<'_>) -> anyhow::Result<EvaluationReport> {
    let bar = Bar::new("evaluating", "cases");
    let report = evaluation
        .run(arms, &mut |progress| bar.at(progress.done as u64, progress.total as u64, || progress.arm.to_owned()));
    bar.end(report)
}

/// What the figures are measured with: this very command.
pub(super) fn provenance() -> Provenance {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Provenance::of(format!("turret {}", arguments.join(" ")))
}

/// Writes what was found as JSON.
pub(super) fn write_report(path: &Path, found: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(found)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
