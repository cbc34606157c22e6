//! `turret model`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use turret_model::{Blueprint, Description, Model, TensorShape};

use super::data::source_of;
use super::evaluate::HeldOut;
use super::progress::{Bar, watch_interrupts};
use super::table::table;
use super::train::{Kind, forget_training, log, model_dir, settings_of};
use super::{ConfigArgument, UsageError, say, say_json, tell};
use crate::config::Config;

/// Models whose weights were trained elsewhere, such as in PyTorch
#[derive(clap::Subcommand)]
#[command(after_long_help = EXAMPLES)]
pub(super) enum Command {
    /// Prints the name and shape of every tensor that a configuration asks for
    ///
    /// Also what each row of the embedding table stands for. With --json everything that an implementation elsewhere
    /// needs: the words of the vocabularies, the seeds of the hashes, and `made_for`, which is to be written into the
    /// metadata of the weights. The data set is read, because the vocabularies are its own.
    #[command(after_long_help = EXAMPLES)]
    Tensors {
        #[command(flatten)]
        of: Chosen,
        /// Print all of it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Makes a file of weights the model that `turret train` would have written
    ///
    /// Vocabularies, the catalogue and which items training has seen come from the configuration's data, as in training.
    /// The weights must say, in their metadata, that they were made for just these. A tensor that is missing, too much,
    /// of another shape, or with a number that is not finite is refused by name, and nothing is written then. F16 and
    /// BF16 are converted. Rows of the embedding table that are all zero count as never trained. After it `turret
    /// evaluate` and `turret publish` work as after a training.
    #[command(after_long_help = EXAMPLES)]
    Import {
        #[command(flatten)]
        of: Chosen,
        /// The weights, in the safetensors format
        #[arg(long, value_name = "FILE")]
        weights: PathBuf,
        /// Where the model is written, in place of the configuration's `models` directory
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Print what was imported as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Not part of the text above: clap would set its lines as one paragraph.
const EXAMPLES: &str = "\
From PyTorch to a generation (examples/pytorch/README.md):

  turret model tensors --config FILE --json > model.json
  # build the network from model.json, train it, write weights.safetensors
  turret model import --config FILE --weights weights.safetensors
  turret evaluate --config FILE";

/// The model that is meant.
#[derive(clap::Args)]
pub(super) struct Chosen {
    #[command(flatten)]
    config: ConfigArgument,
    /// Which of the two models
    #[arg(long, value_enum, default_value = "contextual")]
    kind: Kind,
    /// What was held out of training, as in `turret train`
    #[arg(long = "for", value_enum, value_name = "PART", default_value = "test")]
    part: HeldOut,
}

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Tensors { of, json } => {
            let (_, blueprint) = of.blueprint()?;
            let description = blueprint.describe();
            if json {
                return say_json(&description);
            }
            say(render(&description));
            Ok(())
        }
        Command::Import { of, weights, out, json } => {
            // Reading a large log takes minutes; that the file is not there is known before.
            std::fs::metadata(&weights).with_context(|| weights.display().to_string())?;
            out.as_deref().map_or(Ok(()), check_out)?;
            let (config, blueprint) = of.blueprint()?;
            let model = blueprint.import(&weights)?;
            let dir = out.clone().unwrap_or_else(|| model_dir(&config.models, of.kind));
            model.save(&dir)?;
            if out.is_none() {
                forget_training(&config.models, of.kind)?;
            }
            let imported = Imported::of(&model, &blueprint, &dir);
            imported.caution().into_iter().for_each(|caution| tell(format!("caution: {caution}")));
            if json {
                return say_json(&imported);
            }
            say(imported.line(of.kind));
            Ok(())
        }
    }
}

/// Refuses a directory of something else: the model would take its place.
fn check_out(dir: &Path) -> Result<(), UsageError> {
    if !dir.exists() || dir.join("model.json").is_file() {
        return Ok(());
    }
    Err(UsageError::Argument(format!("--out: {} is there and is no model; name a new directory", dir.display())))
}

impl Chosen {
    /// The blueprint that a training with this configuration has, with bars.
    fn blueprint(&self) -> anyhow::Result<(Config, Blueprint)> {
        let mut config = Config::load(&self.config.path).map_err(UsageError::Config)?;
        self.part.apply(&mut config)?;
        let source = source_of(&config)?;
        watch_interrupts()?;
        let data = log::open(&config, &source)?;
        let bar = Bar::new("surveying", "parts");
        let mut watch =
            |done: usize, total: usize| -> ControlFlow<()> { bar.at(done as u64, total as u64, String::new) };
        let blueprint = Blueprint::of(&*data, &config.split, &settings_of(&config, self.kind), &mut watch);
        let blueprint = bar.end(blueprint)?;
        Ok((config, blueprint))
    }
}

/// What there is to tell of an import.
#[derive(serde::Serialize)]
struct Imported<'a> {
    dir: &'a Path,
    tensors: usize,
    values: usize,
    table_rows: usize,
    table_rows_untrained: usize,
    encoder: String,
    head: String,
    #[serde(skip)]
    reads_queries: bool,
}

impl<'a> Imported<'a> {
    fn of(model: &Model, blueprint: &Blueprint, dir: &'a Path) -> Self {
        let tensors = blueprint.tensors();
        Self {
            dir,
            tensors: tensors.len(),
            values: tensors.iter().map(TensorShape::values).sum(),
            table_rows: model.table_rows(),
            table_rows_untrained: model.untrained_rows(),
            encoder: model.encoder_version().to_string(),
            head: model.head_version().to_owned(),
            reads_queries: model.settings().query_buckets > 0,
        }
    }

    fn line(&self, kind: Kind) -> String {
        format!(
            "{:13} {} tensors of {} numbers, {} of {} table rows never trained, {} + {} → {}",
            kind.name(),
            self.tensors,
            self.values,
            self.table_rows_untrained,
            self.table_rows,
            self.encoder,
            self.head,
            self.dir.display()
        )
    }

    fn caution(&self) -> Option<&'static str> {
        let all_known = self.reads_queries && self.table_rows_untrained == 0;
        all_known.then_some(
            "no row of the table is all zero, so every word of a query counts as known: write zeros for the rows that \
             training never touched",
        )
    }
}

/// The words of a vocabulary that are shown.
const WORDS_SHOWN_MAX: usize = 12;

fn render(description: &Description) -> String {
    let tensors: Vec<Vec<String>> =
        description.tensors.iter().map(|tensor| vec![tensor.name.clone(), format!("{:?}", tensor.shape)]).collect();
    let features = &description.features;
    let blocks: Vec<Vec<String>> = features
        .table
        .iter()
        .map(|block| vec![block.name.to_owned(), block.first.to_string(), block.rows.to_string()])
        .collect();
    let values: usize = description.tensors.iter().map(TensorShape::values).sum();
    [
        table(&["tensor", "shape"], &tensors),
        format!("\n{} tensors of {values} numbers, F32 (F16 and BF16 are converted), row by row\n", tensors.len()),
        table(&["rows of the table", "first", "rows"], &blocks),
        String::new(),
        words("interests", features.interests.iter().map(|id| id.as_str())),
        words("countries", features.countries.iter().map(|word| &**word)),
        words("genders", features.genders.iter().map(|word| &**word)),
        "\n--json prints all words, the seeds of the hashes, and `made_for`; examples/pytorch/README.md tells what each row \
         means."
            .to_owned(),
    ]
    .join("\n")
}

/// The first words of a vocabulary, in one line.
fn words<'a>(name: &str, all: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = all.len().saturating_sub(WORDS_SHOWN_MAX);
    let count = all.len();
    let shown: Vec<&str> = all.take(WORDS_SHOWN_MAX).collect();
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    let list = if count == 0 { "none".to_owned() } else { shown.join(", ") };
    format!("{name}: {list}{rest}")
}
