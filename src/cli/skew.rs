//! `turret skew`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use turret_model::{Contender, Evaluation, LeftOut, Model, SKEW_VERSIONS_MAX};
use turret_retrieval::dataset::Dataset;

use super::data::source_of;
use super::evaluate::{HeldOut, provenance, write_report};
use super::progress::{Bar, watch_interrupts};
use super::train::{Kind, drive, prepared, read, settings_of};
use super::{ConfigArgument, UsageError, say, say_json, tell};
use crate::config::Config;
use crate::report::{Content, Source};
use crate::skew::{Lineage, Planned, Sweep, Sweeps, Version};
use crate::study::{Ledger, Training};

mod shown;

/// What versions of the model would answer that do not belong together
#[derive(clap::Subcommand)]
#[command(after_long_help = EXAMPLES)]
pub(super) enum Command {
    Sweep(Arguments),
}

/// Measures Recall@K for pairs of model versions, which a cluster refuses to let meet
///
/// The two halves of a two-tower model are deployed apart: a head that makes queries, an index of ad embeddings, states
/// that an encoder left behind. Where one of them is of another version, answers are as full and as fast as ever, and
/// nothing tells how wrong they are. A Turret cluster refuses such a pair; this command says what it would have answered.
///
/// Versions of the contextual model are trained in three ways, each of which changes one thing. `retrained`: on the same
/// data with other seeds. `daily`: with the same seed, up to the configured cut and to the days before. `continued`: day
/// by day, each version further from the one before. All are tested on the same cases, those of `turret evaluate`, by
/// exact search.
///
/// Two matrices come out for each. In the first the user tower of the row (encoder and head) asks the index of the
/// column. In the second the head of the row asks its own index, but reads the states of the column's encoder. The
/// diagonals are the honest pairs. Beside them stands what an order drawn at random recalls.
///
/// Trained versions are kept in `skew` below the configuration's `models` directory and used again where settings and
/// data are the same; the models that are served are left alone.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// How the versions come to be; may be repeated. All that the data allow, where not given
    #[arg(long = "by", value_enum, value_name = "LINEAGE")]
    by: Vec<Lineage>,
    /// How many versions are paired, 2 to 8
    #[arg(long, value_name = "N", default_value_t = 3)]
    versions: usize,
    /// Steps that a continued version is trained further; training.steps where not given
    #[arg(long, value_name = "N")]
    further_steps: Option<usize>,
    /// Steps of the optimiser, in place of training.steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// The cases to judge by
    #[arg(long, value_enum, value_name = "PART", default_value = "test")]
    part: HeldOut,
    /// Train every version anew; what was kept of before is removed
    #[arg(long)]
    fresh: bool,
    /// Also write what was found, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write a page with the matrices as heat maps, index.html, into this directory
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// Not part of the text above: clap would set its lines as one paragraph.
const EXAMPLES: &str = "\
Examples:
  turret skew sweep --config cluster-config/globo.toml
  turret skew sweep --config cluster-config/globo.toml --by retrained --versions 2 --json
  turret skew sweep --config cluster-config/globo.toml --by continued --further-steps 100";

pub(super) fn run(command: Command) -> anyhow::Result<()> {
    let Command::Sweep(arguments) = command;
    let mut config = Config::load(&arguments.config.path).map_err(UsageError::Config)?;
    arguments.part.apply(&mut config)?;
    let (plans, left_out) = arguments.plans(&mut config)?;
    let source = source_of(&config)?;
    watch_interrupts()?;
    let ledger = Ledger::new(config.models.join("skew"));
    let provenance = provenance();
    let data = read(&source)?;
    // Only now, so that data that cannot be read costs no trained version.
    if arguments.fresh {
        ledger.clear()?;
    }
    let bench = Bench { config: &config, data: &data, ledger: &ledger, commit: &provenance.commit };
    let sweeps = plans.iter().map(|(lineage, versions)| bench.sweep(*lineage, versions));
    let sweeps = sweeps.collect::<anyhow::Result<Vec<Sweep>>>()?;
    let found = Sweeps { provenance, sweeps, left_out };
    if let Some(path) = &arguments.out {
        write_report(path, &found)?;
    }
    if arguments.json {
        say_json(&found)?;
    } else {
        say(shown::render(&found));
    }
    if let Some(dir) = &arguments.report {
        let name = arguments.config.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        crate::report::write(dir, &[Source { name, content: Content::Skew(found) }])?;
    }
    Ok(())
}

/// The versions of a lineage, to be trained.
type Plan = (Lineage, Vec<Version>);

impl Arguments {
    /// Checks what was asked for, and plans it; a lineage that nobody named and that the data do not have is left out.
    fn plans(&self, config: &mut Config) -> anyhow::Result<(Vec<Plan>, Vec<LeftOut>)> {
        if !(2..=SKEW_VERSIONS_MAX).contains(&self.versions) {
            bail!(UsageError::Argument(format!("--versions: {} is not in 2..={SKEW_VERSIONS_MAX}", self.versions)));
        }
        let training = &mut config.training;
        if let Some(steps) = self.steps {
            training.steps = steps;
            training.warmup_steps = training.warmup_steps.min(steps);
            training.check().map_err(|error| UsageError::Argument(format!("--{error}")))?;
        }
        let further_steps = self.further_steps.unwrap_or(training.steps);
        if !(1..=training.steps).contains(&further_steps) {
            let rule =
                format!("--further-steps: {further_steps} is not in 1..={}, the steps from scratch", training.steps);
            bail!(UsageError::Argument(rule));
        }
        let planned = Planned { training: &config.training, split: &config.split, count: self.versions, further_steps };
        let (mut plans, mut left_out) = (Vec::new(), Vec::new());
        let chosen = if self.by.is_empty() { &Lineage::ALL[..] } else { &self.by };
        for (number, lineage) in chosen.iter().copied().enumerate() {
            match lineage.versions(planned) {
                _ if chosen[..number].contains(&lineage) => {}
                Ok(versions) => plans.push((lineage, versions)),
                Err(error) if self.by.is_empty() => {
                    left_out.push(LeftOut { what: lineage.name().to_owned(), why: error.to_string() });
                }
                Err(error) => bail!(UsageError::Argument(format!("--by: {error}"))),
            }
        }
        Ok((plans, left_out))
    }
}

/// Where versions are trained and tested.
struct Bench<'a> {
    config: &'a Config,
    data: &'a Dataset,
    ledger: &'a Ledger,
    commit: &'a str,
}

impl Bench<'_> {
    /// Trains the versions that are not kept, and ranks every case with each pair.
    fn sweep(&self, lineage: Lineage, versions: &[Version]) -> anyhow::Result<Sweep> {
        let mut made: Vec<(Model, Training)> = Vec::new();
        // The oldest first: others may start from it, and the first to find that there is no data is the oldest.
        for version in versions.iter().rev() {
            let start = made.last().map(|(model, _)| model).filter(|_| lineage.goes_on());
            let name = format!("{} version {}", lineage.name(), version.name);
            made.push(self.version(version, &name, start).context(name)?);
        }
        made.reverse();
        let named = versions.iter().zip(&made);
        let contenders: Vec<Contender<'_>> =
            named.map(|(version, (model, _))| Contender { name: version.name.clone(), model }).collect();
        let evaluation =
            Evaluation { data: self.data, split: &self.config.split, settings: &self.config.evaluation, log: None };
        let bar = Bar::new(lineage.name(), "cases");
        let report = evaluation.skew(&contenders, &mut |progress| {
            bar.at(progress.done as u64, progress.total as u64, || progress.arm.to_owned())
        });
        let report = bar.end(report)?;
        Ok(Sweep { lineage, trainings: made.into_iter().map(|(_, training)| training).collect(), report })
    }

    /// The model of a version: kept from before, or trained now.
    fn version(&self, version: &Version, name: &str, start: Option<&Model>) -> anyhow::Result<(Model, Training)> {
        let settings = settings_of(self.config, Kind::Contextual);
        let config = Config { training: version.training.clone(), split: version.split, ..self.config.clone() };
        let trainer = prepared(&config, self.data, &settings)?;
        let trainer = match start {
            Some(model) => trainer.starting_from(model)?,
            None => trainer,
        };
        // Of settings, split, data and start, so that what is found under it is this very version.
        let digest = trainer.digest();
        let (home, dir) = (self.ledger.dir(), self.ledger.dir().join(digest.short()));
        if let (Some(training), Ok(model)) = (self.ledger.training(home, digest.short()), Model::load(&dir)) {
            tell(format!("{name}: kept from before in {}", dir.display()));
            return Ok((model, training));
        }
        let began = Instant::now();
        let (model, record) = drive(trainer, &version.name)?;
        model.save(&dir)?;
        let training = Training {
            commit: self.commit.to_owned(),
            seconds: record.seconds,
            steps: record.steps,
            final_loss: f64::from(record.final_loss),
        };
        self.ledger.trained(home, digest.short(), &training)?;
        tell(format!("{name}: trained in {} s", began.elapsed().as_secs()));
        Ok((model, training))
    }
}
