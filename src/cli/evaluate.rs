//! `turret evaluate`.

use std::path::PathBuf;

use anyhow::Context as _;
use turret_model::{Arm, EvaluationReport, Model};
use turret_retrieval::dataset::Dataset;

use super::data::source_of;
use super::progress::{Bar, watch_interrupts};
use super::table::table;
use super::train::{Kind, model_dir, read};
use super::{ConfigArgument, UsageError, say, say_json};
use crate::config::Config;

/// Compares the trained models with each other and with plain baselines, by recall against held-out events
///
/// The context of a test case is what the user looked at just before the target, never anything of the target. Every
/// arm ranks the whole catalogue. Intervals are bootstrapped over cases.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Also write the report, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The cut-offs of the printed table; the JSON has them all.
const SHOWN: [usize; 3] = [10, 50, 100];

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config.path).map_err(UsageError::Config)?;
    let source = source_of(&config)?;
    watch_interrupts()?;
    let dataset = read(&source)?;
    let load = |kind| {
        let dir = model_dir(&config.models, kind);
        Model::load(&dir).with_context(|| format!("no model in {}: run `turret train` first", dir.display()))
    };
    let (contextual, history_only) = (load(Kind::Contextual)?, load(Kind::HistoryOnly)?);
    let report = evaluate(&config, &dataset, &contextual, &history_only)?;
    if let Some(path) = &arguments.out {
        write_report(path, &arguments.config.path, &report)?;
    }
    if arguments.json {
        return say_json(&report);
    }
    say(render(&report));
    Ok(())
}

/// Evaluates every arm that the split allows, with a bar.
pub(super) fn evaluate(
    config: &Config,
    dataset: &Dataset,
    contextual: &Model,
    history_only: &Model,
) -> anyhow::Result<EvaluationReport> {
    let arms = Arm::all(contextual, history_only, &config.split);
    let bar = Bar::new("evaluating", "cases");
    let report = turret_model::evaluate(dataset, &config.split, &arms, &config.evaluation, &mut |progress| {
        bar.at(progress.done as u64, progress.total as u64, || progress.arm.to_string())
    });
    bar.end(report)
}

/// The figures that were measured, with what is needed to measure them again.
#[derive(serde::Serialize)]
struct Written<'a> {
    command: String,
    commit: String,
    machine: String,
    #[serde(flatten)]
    report: &'a EvaluationReport,
}

fn write_report(path: &PathBuf, config: &std::path::Path, report: &EvaluationReport) -> anyhow::Result<()> {
    let git = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = git.ok().filter(|done| done.status.success());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let written = Written {
        command: format!("turret evaluate --config {}", config.display()),
        commit: commit.map_or_else(String::new, |done| String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        machine: format!("{cores} cores, {}", std::env::consts::ARCH),
        report,
    };
    let mut text = serde_json::to_string_pretty(&written)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The table of arms.
pub(super) fn render(report: &EvaluationReport) -> String {
    let mut header = vec!["arm".to_owned()];
    header.extend(SHOWN.iter().map(|k| format!("R@{k}")));
    header.extend(["95 % interval of R@10".to_owned(), "NDCG@10".to_owned(), "diversity".to_owned()]);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = report
        .arms
        .iter()
        .map(|arm| {
            let mut row = vec![arm.name.clone()];
            row.extend(SHOWN.iter().map(|k| format!("{:.4}", arm.recall_at(*k).unwrap_or(f64::NAN))));
            let interval = arm.interval_at(10).map(|[low, high]| format!("{low:.4} – {high:.4}"));
            row.extend([interval.unwrap_or_default(), format!("{:.4}", arm.ndcg_at_10)]);
            row.push(arm.diversity.map_or_else(String::new, |share| format!("{share:.4}")));
            row
        })
        .collect();
    format!(
        "{} cases, {} items ranked; {:.1} % of the targets were seen in training (ceiling of what knows only ids)\n\n{}",
        report.cases,
        report.catalogue,
        100.0 * report.ceiling,
        table(&header, &rows)
    )
}
