//! `turret study`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use turret_data::DataSource;
use turret_model::{Arm, Arms, Contender, Evaluation, EvaluationReport, Model, ModelKind};
use turret_retrieval::dataset::Dataset;

use super::data::source_of;
use super::progress::{Bar, watch_interrupts};
use super::table::table;
use super::train::{Kind, model_dir, read, train};
use super::{Interrupted, UsageError, say};
use crate::config::Config;
use crate::provenance::Provenance;
use crate::study::{Figures, Ledger, Measured, Plan, Point, REFERENCE, Row, Training, gather};

/// Trains and evaluates everything that a plan names, with several seeds, and writes one file of figures
///
/// What is done is kept in .turret/studies, so that a study that was broken off, by Ctrl-C or otherwise, goes on where it
/// stopped; only what has other settings is measured again. A run that fails keeps the others from nothing. The file of
/// figures always holds all that was measured so far.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The plan; see studies/README.md
    plan: PathBuf,
    /// Only the run of this name; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only these seeds of the plan
    #[arg(long, value_name = "SEED", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Try the plan: so many steps, few cases; kept apart, and the plan's file of figures is left alone
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Forget what is kept, and start over; needed where the data changed
    #[arg(long)]
    fresh: bool,
    /// Print what would be trained and what is kept, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Where studies are kept, each below its plan's name.
const STUDIES: &str = ".turret/studies";
/// Cases and resamples of a trial: enough to see that every arm ranks.
const TRIAL_CASES: usize = 500;
const TRIAL_RESAMPLES: usize = 20;

/// A point and a seed.
type Job<'a> = (&'a Point, u64);

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let plan = Plan::load(&arguments.plan).map_err(|error| UsageError::Argument(error.to_string()))?;
    let mut points = plan.points().map_err(|error| UsageError::Argument(error.to_string()))?;
    let mut dir = Path::new(STUDIES).join(&plan.name);
    let mut out = plan.out.clone();
    if let Some(steps) = arguments.steps {
        points.iter_mut().try_for_each(|point| shorten(point, steps))?;
        dir = dir.join("trial");
        out = dir.join("figures.json");
    }
    let jobs = chosen(&plan, &points, &arguments)?;
    let ledger = Ledger::new(dir);
    if arguments.dry_run {
        say(preview(&ledger, &jobs));
        return Ok(());
    }
    if arguments.fresh {
        ledger.clear()?;
    }
    watch_interrupts()?;
    let provenance = Provenance::of(format!("turret study {}", arguments.plan.display()));
    let failed = work_off(&ledger, &jobs, &provenance.commit)?;
    let figures = gather(&plan, &points, provenance, &|point, seed| ledger.find(point, seed));
    figures.write(&out)?;
    say(render(&figures));
    say(format!("\n{} rows in {}", figures.rows.len(), out.display()));
    if !failed.is_empty() {
        bail!("{} of {} were not measured:\n  {}", failed.len(), jobs.len(), failed.join("\n  "));
    }
    Ok(())
}

/// Makes a point a trial of itself.
fn shorten(point: &mut Point, steps: usize) -> Result<(), UsageError> {
    let (training, evaluation) = (&mut point.config.training, &mut point.config.evaluation);
    training.steps = steps;
    training.warmup_steps = training.warmup_steps.min(steps);
    training.check().map_err(|error| UsageError::Argument(format!("--{error}")))?;
    evaluation.cases_max = Some(evaluation.cases_max.map_or(TRIAL_CASES, |cases| cases.min(TRIAL_CASES)));
    evaluation.bootstrap_samples = evaluation.bootstrap_samples.min(TRIAL_RESAMPLES);
    Ok(())
}

/// The jobs that were asked for: all points with the first seed, then with the next, so that a first look comes early.
fn chosen<'a>(plan: &Plan, points: &'a [Point], arguments: &Arguments) -> anyhow::Result<Vec<Job<'a>>> {
    if let Some(name) = arguments.only.iter().find(|name| plan.runs.iter().all(|run| run.name != **name)) {
        let known: Vec<&str> = plan.runs.iter().map(|run| run.name.as_str()).collect();
        bail!(UsageError::Argument(format!("--only: no run is called `{name}`; there are {}", known.join("; "))));
    }
    if let Some(seed) = arguments.seeds.iter().find(|seed| !plan.seeds.contains(seed)) {
        bail!(UsageError::Argument(format!("--seeds: {seed} is not one of the plan's")));
    }
    let is_chosen = |point: &&Point| arguments.only.is_empty() || arguments.only.contains(&point.run);
    let seeds = plan.seeds.iter().filter(|seed| arguments.seeds.is_empty() || arguments.seeds.contains(seed));
    Ok(seeds.flat_map(|seed| points.iter().filter(is_chosen).map(|point| (point, *seed))).collect())
}

fn preview(ledger: &Ledger, jobs: &[Job<'_>]) -> String {
    let row = |(point, seed): &Job<'_>| {
        let training = &point.config.training;
        let models: Vec<&str> = point.models.iter().map(|kind| kind_of(*kind).name()).collect();
        let state = if ledger.find(point, *seed).is_some() { "kept" } else { "to do" };
        vec![point.name.clone(), seed.to_string(), models.join(" + "), training.steps.to_string(), state.to_owned()]
    };
    table(&["point", "seed", "models", "steps", ""], &jobs.iter().map(row).collect::<Vec<_>>())
}

/// Measures every job that is not kept; returns what failed, and why.
fn work_off(ledger: &Ledger, jobs: &[Job<'_>], commit: &str) -> anyhow::Result<Vec<String>> {
    let todo: Vec<&Job<'_>> = jobs.iter().filter(|(point, seed)| ledger.find(point, *seed).is_none()).collect();
    if todo.len() < jobs.len() {
        tell(&format!(
            "{} of {} are kept from before in {}",
            jobs.len() - todo.len(),
            jobs.len(),
            ledger.dir().display()
        ));
    }
    let start = Instant::now();
    let mut failed = Vec::new();
    let mut data: Option<(DataSource, Dataset)> = None;
    for (number, (point, seed)) in (1..).zip(&todo) {
        let name = format!("{}, seed {seed}", point.name);
        tell(&format!("[{number}/{}] {name}", todo.len()));
        let done = Instant::now();
        match measure(ledger, (point, *seed), commit, &mut data).and_then(|measured| {
            ledger.keep(point, *seed, measured)?;
            Ok(())
        }) {
            Ok(()) => {
                let left = start.elapsed() / number * (todo.len() as u32 - number);
                tell(&format!("        {} s, about {} left", done.elapsed().as_secs(), minutes(left)));
            }
            Err(error) if error.is::<Interrupted>() => {
                tell("interrupted; the same command goes on from here");
                return Err(error);
            }
            Err(error) => {
                tell(&format!("        failed: {error:#}"));
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    Ok(failed)
}

/// Trains the models of a job that are not kept, and evaluates them.
fn measure(
    ledger: &Ledger,
    (point, seed): Job<'_>,
    commit: &str,
    data: &mut Option<(DataSource, Dataset)>,
) -> anyhow::Result<Measured> {
    let mut config = point.seeded(seed);
    config.models = ledger.models(&config);
    let source = source_of(&config)?;
    // One at a time: the last data set is let go before the next is read.
    if data.as_ref().is_none_or(|(kept, _)| *kept != source) {
        *data = None;
    }
    let (_, dataset) = match data {
        Some(kept) => kept,
        None => data.insert((source.clone(), read(&source)?)),
    };
    let (mut models, mut trainings) = (Vec::new(), BTreeMap::new());
    for kind in point.models.iter().map(|kind| kind_of(*kind)) {
        let (model, training) = match kept(ledger, &config.models, kind) {
            Some(kept) => kept,
            None => {
                let (model, record) = train(&config, dataset, kind)?;
                let training = Training {
                    commit: commit.to_owned(),
                    seconds: record.seconds,
                    steps: record.steps,
                    final_loss: f64::from(record.final_loss),
                };
                ledger.trained(&config.models, kind.name(), &training)?;
                (model, training)
            }
        };
        trainings.insert(kind.name().to_owned(), training);
        models.push((kind, model));
    }
    let contenders: Vec<Contender<'_>> =
        models.iter().map(|(kind, model)| Contender { name: kind.arm().to_owned(), model }).collect();
    let report = evaluate(&config, dataset, &contenders, &point.arms)?;
    Ok(Measured { commit: commit.to_owned(), trainings, report })
}

/// Evaluates the arms called `wanted`, and what they are compared with; all where none is named.
fn evaluate(
    config: &Config,
    data: &Dataset,
    contenders: &[Contender<'_>],
    wanted: &[String],
) -> anyhow::Result<EvaluationReport> {
    let evaluation = Evaluation { data, split: &config.split, settings: &config.evaluation, log: None };
    let mut arms = Arms::of(&evaluation, contenders);
    if let Some(name) = wanted.iter().find(|name| arms.iter().all(|arm| arm.name() != **name)) {
        let known: Vec<&str> = arms.iter().map(Arm::name).collect();
        bail!("no arm is called `{name}`; there are {}", known.join("; "));
    }
    arms.retain(|name| wanted.is_empty() || name == REFERENCE || wanted.iter().any(|wanted| wanted == name));
    let bar = Bar::new("evaluating", "cases");
    let report = evaluation
        .run(&arms, &mut |progress| bar.at(progress.done as u64, progress.total as u64, || progress.arm.to_owned()));
    bar.end(report)
}

/// A finished model of this study.
fn kept(ledger: &Ledger, models: &Path, kind: Kind) -> Option<(Model, Training)> {
    let training = ledger.training(models, kind.name())?;
    Some((Model::load(&model_dir(models, kind)).ok()?, training))
}

fn kind_of(kind: ModelKind) -> Kind {
    match kind {
        ModelKind::Contextual => Kind::Contextual,
        ModelKind::HistoryOnly => Kind::HistoryOnly,
    }
}

/// A line about the progress, on standard error.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds @ 100..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

/// The figures as a table.
fn render(figures: &Figures) -> String {
    let columns =
        ["recall@10", "recall@100", "ndcg@10", "ratio_vs_history_only@10", "diversity"].map(|key| (key, heading(key)));
    let mut header = vec!["row", "seeds"];
    header.extend(columns.iter().map(|(_, heading)| *heading));
    header.push("R@10, least to most");
    let number = |value: Option<&f64>| value.map(|value| format!("{value:.4}")).unwrap_or_default();
    let row = |row: &Row| {
        let mut cells = vec![row.name.clone(), row.seeds.len().to_string()];
        cells.extend(columns.iter().map(|(key, _)| number(row.mean.get(*key))));
        let spread = row.spread.get("recall@10").map(|[low, high]| format!("{low:.4} – {high:.4}"));
        cells.push(spread.unwrap_or_default());
        cells
    };
    table(&header, &figures.rows.iter().map(row).collect::<Vec<_>>())
}

fn heading(key: &str) -> &str {
    match key {
        "recall@10" => "R@10",
        "recall@100" => "R@100",
        "ndcg@10" => "NDCG@10",
        "ratio_vs_history_only@10" => "over history only",
        other => other,
    }
}
