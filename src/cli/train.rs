//! `turret train`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use turret_model::{
    Checkpoints, Device, Model, ModelKind, ModelSettings, TrainError, Trainer, TrainingProgress, TrainingRecord,
    Validated,
};
use turret_retrieval::dataset::{Dataset, Parts};

use super::data::source_of;
use super::evaluate::HeldOut;
use super::progress::{Bar, watch_interrupts};
use super::{ConfigArgument, UsageError, say, say_json, tell};
use crate::config::Config;

pub(super) mod log;
mod metrics;

use metrics::Metrics;

/// Trains the contextual model, and the history-only model that it is compared with
///
/// Both are trained on the same data with the same settings and the same budget; they differ by the context layer alone.
/// The models are written below the configuration's `models` directory; ones that are there are replaced when the new
/// ones are complete. Beside each: its metrics as JSON lines, the record of its training, and while it is trained a
/// checkpoint. One seed gives the same model again on the same machine, broken off in between or not.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Train only one of the two
    #[arg(long, value_enum)]
    only: Option<Kind>,
    /// What is held out of training; models for the validation of a temporal split are kept in `validation` below `models`
    #[arg(long = "for", value_enum, value_name = "PART", default_value = "test")]
    part: HeldOut,
    /// Steps of the optimiser, in place of training.steps
    #[arg(long)]
    steps: Option<usize>,
    /// Go on from the checkpoints of a training that was broken off, and keep models that it has finished
    #[arg(long)]
    resume: bool,
    /// Minutes from one checkpoint to the next; Ctrl-C leaves one besides
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    checkpoint_minutes: f64,
    /// What computes losses and gradients: cpu, or cuda:0 and so on in a build with the `cuda` feature
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Print the record of the training as JSON
    #[arg(long)]
    json: bool,
}

/// The two models.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// History, demographics and context
    Contextual,
    /// History and demographics
    HistoryOnly,
}

impl Kind {
    /// Both, in the order in which they are trained.
    pub(super) const BOTH: [Self; 2] = [Self::HistoryOnly, Self::Contextual];

    /// The name of its directory.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Contextual => "contextual",
            Self::HistoryOnly => "history-only",
        }
    }

    /// The name of its arm.
    pub(super) fn arm(self) -> &'static str {
        match self {
            Self::Contextual => "contextual",
            Self::HistoryOnly => "history only",
        }
    }

    fn model_kind(self) -> ModelKind {
        match self {
            Self::Contextual => ModelKind::Contextual,
            Self::HistoryOnly => ModelKind::HistoryOnly,
        }
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut config = Config::load(&arguments.config.path).map_err(UsageError::Config)?;
    arguments.part.apply(&mut config)?;
    if let Some(steps) = arguments.steps {
        config.training.steps = steps;
        config.training.warmup_steps = config.training.warmup_steps.min(steps);
        config.training.check().map_err(|error| UsageError::Argument(format!("--{error}")))?;
    }
    let every = Duration::try_from_secs_f64(60.0 * arguments.checkpoint_minutes)
        .map_err(|_| UsageError::Argument("--checkpoint-minutes: is not a number of minutes".to_owned()))?;
    let keeping = Keeping { every, resume: arguments.resume, device: arguments.device };
    let source = source_of(&config)?;
    watch_interrupts()?;
    let data = log::open(&config, &source)?;
    let mut records = Vec::new();
    for kind in Kind::BOTH.into_iter().filter(|kind| arguments.only.is_none_or(|only| only == *kind)) {
        match train_kept(&config, &*data, kind, &keeping)? {
            Some(record) if arguments.json => records.push(record),
            Some(record) => say(summary(kind, &record, &model_dir(&config.models, kind))),
            None => {
                tell(format!("{} is complete and stays: {}", kind.name(), model_dir(&config.models, kind).display()))
            }
        }
    }
    if let Some(bytes) = peak_memory_bytes() {
        tell(format!("peak memory {:.0} MB", bytes as f64 / 1e6));
    }
    if arguments.json { say_json(&records) } else { Ok(()) }
}

/// The most memory that this process has had, where the system tells.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    kilobytes.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Where a trained model is kept.
pub(super) fn model_dir(models: &Path, kind: Kind) -> PathBuf {
    models.join(kind.name())
}

/// A file beside that directory.
fn beside_model(models: &Path, kind: Kind, suffix: &str) -> PathBuf {
    models.join(format!("{}.{suffix}", kind.name()))
}

/// Reads a data set, with a bar.
pub(super) fn read(source: &turret_data::DataSource) -> anyhow::Result<Dataset> {
    let bar = Bar::new("reading", "rows");
    let dataset =
        turret_data::read(source, &mut |progress| bar.at(progress.done, progress.total, || progress.what.to_string()));
    bar.end(dataset)
}

/// Trains one model and writes it, with a bar and without checkpoints.
pub(super) fn train(config: &Config, data: &dyn Parts, kind: Kind) -> anyhow::Result<(Model, TrainingRecord)> {
    let settings = settings_of(config, kind);
    let (model, record) = drive(prepared(config, data, &settings)?, kind.name())?;
    model.save(&model_dir(&config.models, kind))?;
    Ok((model, record))
}

/// Trains without checkpoints, with a bar called `name`.
pub(super) fn drive(trainer: Trainer<'_>, name: &str) -> anyhow::Result<(Model, TrainingRecord)> {
    let bar = Bar::new(name, "steps");
    let mut latest = None;
    let trained = trainer.train(None, &mut |progress| {
        latest = progress.validation.or(latest);
        bar.at(progress.step as u64, progress.steps as u64, || progress_text(&progress, latest))
    });
    bar.end(trained)
}

/// Checks settings and data, with a bar over the parts of the log.
pub(super) fn prepared<'a>(
    config: &'a Config,
    data: &'a dyn Parts,
    settings: &'a ModelSettings,
) -> anyhow::Result<Trainer<'a>> {
    let bar = Bar::new("surveying", "parts");
    let mut watch = |done: usize, total: usize| bar.at(done as u64, total as u64, String::new);
    let trainer = Trainer::new(data, &config.split, (settings, &config.training, &config.evaluation), &mut watch);
    let trainer = bar.end(trainer)?;
    trainer.cautions().iter().for_each(|caution| tell(format!("caution: {caution}")));
    Ok(trainer)
}

/// The settings of one of the two models.
pub(super) fn settings_of(config: &Config, kind: Kind) -> ModelSettings {
    ModelSettings { kind: kind.model_kind(), ..config.model.clone() }
}

/// How a training is kept while it runs.
struct Keeping {
    every: Duration,
    resume: bool,
    device: Device,
}

/// Trains one model and writes it, with a bar, checkpoints, metrics and record; none where it goes on with a training
/// that has finished this model.
fn train_kept(
    config: &Config,
    data: &dyn Parts,
    kind: Kind,
    keeping: &Keeping,
) -> anyhow::Result<Option<TrainingRecord>> {
    let settings = settings_of(config, kind);
    let mut trainer = prepared(config, data, &settings)?.on(&keeping.device);
    let beside = |suffix| beside_model(&config.models, kind, suffix);
    let (dir, path, record_path) = (model_dir(&config.models, kind), beside("checkpoint"), beside("record.json"));
    let done = match (keeping.resume, path.try_exists().with_context(|| path.display().to_string())?) {
        (true, true) => trainer.resume(&path)?,
        (true, false) if dir.is_dir() && is_record_of(&record_path, &trainer) => return Ok(None),
        (true, false) => 0,
        (false, true) => {
            tell(format!("{} is replaced; with --resume the training would have gone on", path.display()));
            0
        }
        (false, false) => 0,
    };
    let metrics_path = beside("metrics.jsonl");
    let mut metrics = Metrics::open(&metrics_path, done).with_context(|| metrics_path.display().to_string())?;
    let mut metrics_fault = None;
    let mut latest = None;
    let bar = Bar::new(kind.name(), "steps").after(done as u64);
    let checkpoints = Checkpoints { path, every: keeping.every };
    let trained = trainer.train(Some(&checkpoints), &mut |progress| {
        latest = progress.validation.or(latest);
        if let Err(error) = metrics.add(&progress) {
            metrics_fault = Some(error);
            return ControlFlow::Break(());
        }
        bar.at(progress.step as u64, progress.steps as u64, || progress_text(&progress, latest))
    });
    if let Err(TrainError::BrokenOff { step }) = &trained {
        tell(format!("{} stopped after {step} steps, kept in {}", kind.name(), checkpoints.path.display()));
        tell(format!("to go on: {}", resuming(std::env::args())));
    }
    if let Some(error) = metrics_fault {
        return Err(error).with_context(|| metrics_path.display().to_string());
    }
    let (model, record) = bar.end(trained)?;
    model.save(&dir)?;
    let kept = || {
        std::fs::write(&record_path, serde_json::to_vec_pretty(&record)?)?;
        // There is none where the training was shorter than the time to the first.
        if checkpoints.path.try_exists()? { std::fs::remove_file(&checkpoints.path) } else { Ok(()) }
    };
    kept().with_context(|| record_path.display().to_string())?;
    Ok(Some(record))
}

/// Removes the record of a training whose model was replaced, so that `--resume` does not take the new one for it.
pub(super) fn forget_training(models: &Path, kind: Kind) -> anyhow::Result<()> {
    let path = beside_model(models, kind, "record.json");
    if path.try_exists().with_context(|| path.display().to_string())? {
        std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        tell(format!("{} is removed: it told of the training of the model that was replaced", path.display()));
    }
    Ok(())
}

/// Whether the record at `path` is of this very training.
fn is_record_of(path: &Path, trainer: &Trainer<'_>) -> bool {
    let record = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    record.is_some_and(|record| record["run"] == *trainer.digest().to_string())
}

/// The command that goes on with the one that was given.
fn resuming(arguments: impl Iterator<Item = String>) -> String {
    let mut arguments: Vec<String> = arguments.collect();
    if !arguments.iter().any(|argument| argument == "--resume") {
        arguments.push("--resume".to_owned());
    }
    arguments.join(" ")
}

/// What stands beside the bar.
fn progress_text(progress: &TrainingProgress, validation: Option<Validated>) -> String {
    let validation = validation.map(|v| format!("  validation R@10 {:.4} NDCG@10 {:.4}", v.recall_at_10, v.ndcg_at_10));
    format!("epoch {:.1}  loss {:.3}{}", progress.epoch, progress.loss, validation.unwrap_or_default())
}

/// One line about a training.
pub(super) fn summary(kind: Kind, record: &TrainingRecord, dir: &Path) -> String {
    let best = record
        .best
        .map(|v| format!("; validation at step {}: R@10 {:.4}, NDCG@10 {:.4}", v.step, v.recall_at_10, v.ndcg_at_10));
    format!(
        "{:13} loss {:.4} after {} steps, {:.1} epochs, in {:.0} s, {:.0} % of it waiting for data{} → {}",
        kind.name(),
        record.final_loss,
        record.steps,
        record.epochs,
        record.seconds,
        100.0 * record.waiting_share,
        best.unwrap_or_default(),
        dir.display()
    )
}
