//! `turret evaluate --funnel`.

use std::path::Path;

use anyhow::{Context as _, bail};
use turret_data::LoggedRequest;
use turret_data::marketplace::Truth;
use turret_model::{Model, Split};

use super::UsageError;
use super::data::source_of;
use super::progress::Bar;
use super::table::table;
use super::train::{Kind, model_dir, read};
use crate::config::Config;
use crate::funnel::{FunnelInputs, FunnelReport, FunnelSettings, Generator, Row, funnel};

/// What the published contextual model was told to do in a real funnel, for comparison.
const PUBLISHED: &str = "published, in a real funnel: delivery x 2, median relevance + 275 to 300 %";

/// Simulates the funnel behind the trained models of `config`, with bars.
pub(super) fn measure(config: &Config) -> anyhow::Result<FunnelReport> {
    let Split::Temporal { cut_ms, until_ms, .. } = config.split else {
        bail!(UsageError::Argument("--funnel needs split.kind = \"temporal\": it simulates the tested day".to_owned()));
    };
    let source = source_of(config)?;
    let bar = Bar::new("reading", "rows");
    let truth =
        Truth::read(&source.dir, &mut |progress| bar.at(progress.done, progress.total, || progress.what.into()));
    let truth = bar.end(truth).context("--funnel needs a synthetic marketplace, as `turret synth` makes it")?;
    let load = |kind| {
        let dir = model_dir(&config.models, kind);
        Model::load(&dir).with_context(|| format!("no model in {}: run `turret train` first", dir.display()))
    };
    let (contextual, history_only) = (load(Kind::Contextual)?, load(Kind::HistoryOnly)?);
    let data = read(&source)?;
    let log = read_log(&source.dir.join("requests.parquet"))?;
    let inputs = FunnelInputs {
        data: &data,
        log: &log,
        truth: &truth,
        contextual: &contextual,
        history_only: &history_only,
        cut_ms,
        until_ms,
    };
    let bar = Bar::new("funnel", "requests");
    let simulated = funnel(&inputs, &FunnelSettings::default(), &mut |progress| {
        bar.at(progress.done, progress.total, || progress.what.to_owned())
    });
    bar.end(simulated)
}

fn read_log(path: &Path) -> anyhow::Result<Vec<LoggedRequest>> {
    let bar = Bar::new("reading", "requests");
    let log = turret_data::read_requests(path, &mut |progress| {
        bar.at(progress.done, progress.total, || progress.what.to_string())
    });
    bar.end(log)
}

/// The tables of a funnel.
pub(super) fn render(report: &FunnelReport) -> String {
    let ranker = &report.ranker;
    let seeds: Vec<String> = report.seeds.iter().map(u64::to_string).collect();
    let mut parts = vec![
        format!(
            "Funnel (simulated): {} requests, {} ads of {} advertisers, {} candidates a request and generator; mean of the \
             seeds {}",
            report.requests,
            report.ads,
            report.advertisers,
            report.candidates,
            seeds.join(", ")
        ),
        format!(
            "ranker on the {} impressions of the day before: AUC {:.4}, log-loss {:.4} (constant {:.4}); learned from {}",
            ranker.held_out, ranker.auc, ranker.log_loss, ranker.log_loss_of_constant, ranker.trained_on
        ),
        together(report),
        alone(report),
        sensitivity(report),
    ];
    if let Some(row) = report.row(Generator::Contextual, "") {
        let ratio = |name| row.mean.get(name).copied().unwrap_or(f64::NAN);
        let gain = |name| 100.0 * (ratio(name) - 1.0);
        parts.push(format!(
            "contextual against history only (simulated): delivery x {:.2}, median relevance {:+.0} % as delivered, \
             {:+.0} % as retrieved\n{PUBLISHED}",
            ratio("delivery_ratio_vs_history_only"),
            gain("relevance_ratio_vs_history_only"),
            gain("relevance_retrieved_ratio_vs_history_only"),
        ));
    }
    parts.join("\n\n")
}

/// A number of a row with so many decimals.
fn cell(row: &Row, name: &str, decimals: usize) -> String {
    row.mean.get(name).map_or_else(String::new, |value| format!("{value:.decimals$}"))
}

/// A table of the usual rules: a title, and columns of heading, metric and decimals.
fn usual(report: &FunnelReport, title: &str, columns: &[(&str, &str, usize)]) -> String {
    let mut header = vec![title];
    header.extend(columns.iter().map(|(heading, ..)| *heading));
    let row = |row: &Row| {
        let cells = columns.iter().map(|(_, name, decimals)| cell(row, name, *decimals));
        std::iter::once(row.arm.to_owned()).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = report.rows.iter().filter(|row| row.group.is_empty()).map(row).collect();
    table(&header, &rows)
}

fn together(report: &FunnelReport) -> String {
    let columns = [
        ("survival", "survival_rate", 4),
        ("delivery", "delivery_share", 4),
        ("impressions", "impression_share", 4),
        ("relevance retrieved", "median_relevance_retrieved", 4),
        ("delivered", "median_relevance", 4),
        ("true clicks", "median_click_probability", 4),
        ("spend/1000", "spend", 2),
        ("value/1000", "value", 2),
    ];
    usual(report, "all in one auction", &columns)
}

fn alone(report: &FunnelReport) -> String {
    let columns = [
        ("slots filled", "alone_fill_rate", 4),
        ("relevance delivered", "alone_median_relevance", 4),
        ("spend/1000", "alone_spend", 2),
        ("value/1000", "alone_value", 2),
    ];
    usual(report, "each alone", &columns)
}

/// What changes with the rules: of each generator the survival and the share of impressions.
fn sensitivity(report: &FunnelReport) -> String {
    let header: Vec<String> = std::iter::once("survival, impressions".to_owned())
        .chain(Generator::ALL.iter().map(|generator| generator.name().to_owned()))
        .collect();
    let row = |group: &str| {
        let both = |generator: &Generator| {
            let row = report.row(*generator, group);
            row.map_or_else(String::new, |row| {
                format!("{}, {}", cell(row, "survival_rate", 3), cell(row, "impression_share", 3))
            })
        };
        let name = if group.is_empty() { "usual" } else { group };
        std::iter::once(name.to_owned()).chain(Generator::ALL.iter().map(both)).collect()
    };
    let rows: Vec<Vec<String>> = report.groups().into_iter().map(row).collect();
    table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}
