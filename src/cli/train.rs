//! `turret train`.

use std::path::{Path, PathBuf};

use turret_model::{Model, ModelKind, ModelSettings, TrainingRecord};
use turret_retrieval::dataset::Dataset;

use super::data::source_of;
use super::evaluate::HeldOut;
use super::progress::{Bar, watch_interrupts};
use super::{ConfigArgument, UsageError, say, say_json};
use crate::config::Config;

/// Trains the contextual model, and the history-only model that it is compared with
///
/// Both are trained on the same data with the same settings and the same budget; they differ by the context layer alone.
/// The models are written below the configuration's `models` directory; ones that are there are replaced when the new
/// ones are complete. One seed gives the same model again on the same machine.
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
    let source = source_of(&config)?;
    watch_interrupts()?;
    let dataset = read(&source)?;
    let mut records = Vec::new();
    for kind in Kind::BOTH.into_iter().filter(|kind| arguments.only.is_none_or(|only| only == *kind)) {
        let (_, record) = train(&config, &dataset, kind)?;
        if !arguments.json {
            say(summary(kind, &record, &model_dir(&config.models, kind)));
        }
        records.push(record);
    }
    if arguments.json { say_json(&records) } else { Ok(()) }
}

/// Where a trained model is kept.
pub(super) fn model_dir(models: &Path, kind: Kind) -> PathBuf {
    models.join(kind.name())
}

/// Reads a data set, with a bar.
pub(super) fn read(source: &turret_data::DataSource) -> anyhow::Result<Dataset> {
    let bar = Bar::new("reading", "rows");
    let dataset =
        turret_data::read(source, &mut |progress| bar.at(progress.done, progress.total, || progress.what.to_string()));
    bar.end(dataset)
}

/// Trains one model and writes it, with a bar.
pub(super) fn train(config: &Config, dataset: &Dataset, kind: Kind) -> anyhow::Result<(Model, TrainingRecord)> {
    let settings = ModelSettings { kind: kind.model_kind(), ..config.model.clone() };
    let bar = Bar::new(kind.name(), "steps");
    let trained = turret_model::train(dataset, &config.split, &settings, &config.training, &mut |progress| {
        bar.at(progress.step as u64, progress.steps as u64, || format!("loss {:.3}", progress.loss))
    });
    let (model, record) = bar.end(trained)?;
    model.save(&model_dir(&config.models, kind))?;
    Ok((model, record))
}

/// One line about a training.
pub(super) fn summary(kind: Kind, record: &TrainingRecord, dir: &Path) -> String {
    format!(
        "{:13} loss {:.4} after {} steps in {:.0} s → {}",
        kind.name(),
        record.final_loss,
        record.steps,
        record.seconds,
        dir.display()
    )
}
