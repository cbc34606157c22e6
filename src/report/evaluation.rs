//! The part of the page about one evaluation.

use turret_model::{ArmReport, EvaluationReport, Role, SliceReport};

use super::bars::{Bar, Bars, Panel};
use super::chart::Mark;
use super::html::{Cell, Html};
use super::lines::{Line, Lines, Place, Scale, Size};
use super::source::Evaluated;
use super::{Section, Topic};

/// The metrics of the table: key and heading. One that no arm has is left out.
const COLUMNS: [(&str, &str); 8] = [
    ("recall@10", "R@10"),
    ("recall@50", "R@50"),
    ("recall@100", "R@100"),
    ("ndcg@10", "NDCG@10"),
    ("advertiser_recall@10", "advertiser R@10"),
    ("advertiser_recall@100", "advertiser R@100"),
    ("relevance@10", "relevance@10"),
    ("diversity", "diversity"),
];

/// Baselines that are drawn beside the models: the best of them.
const BASELINES_DRAWN: usize = 3;

/// Whose age of state is the one that the slices are parted by.
const STATE_AGE: &str = "state_age_days";

pub(super) fn section(name: &str, evaluated: &Evaluated) -> Section {
    let report = &evaluated.report;
    let mut body = Html::default();
    let provenance = &evaluated.provenance;
    body.note(&format!("{}; commit {}; {}", provenance.command, provenance.commit, provenance.machine));
    body.paragraph(&format!(
        "{} {} cases, {} items ranked for each. {:.1} % of the targets were seen in training: what knows only ids \
         cannot recall more.",
        report.cases,
        part(report),
        report.catalogue,
        100.0 * report.ceiling
    ));
    arms_table(&mut body, "Arms", &report.arms);
    recall_bars(&mut body, report);
    recall_lines(&mut body, report);
    comparisons(&mut body, report);
    let mut topics = vec![Topic::Recall];
    if state_age(&mut body, &report.slices) {
        topics.push(Topic::StateAge);
    }
    if slices(&mut body, &report.slices) {
        topics.push(Topic::Slices);
    }
    let left_out: Vec<String> = report.left_out.iter().map(|left| format!("{}: {}", left.what, left.why)).collect();
    body.list("Left out", left_out.iter().map(String::as_str));
    Section { title: format!("Evaluation: {}", name.trim_end_matches(".json")), body, topics }
}

fn part(report: &EvaluationReport) -> &'static str {
    match report.part {
        turret_model::Part::Test => "test",
        turret_model::Part::Validation => "validation",
    }
}

fn arms_table(body: &mut Html, caption: &str, arms: &[ArmReport]) {
    let columns: Vec<_> =
        COLUMNS.into_iter().filter(|(key, _)| arms.iter().any(|arm| arm.metric(key).is_some())).collect();
    let mut header = vec!["arm".to_owned()];
    header.extend(columns.iter().map(|(_, heading)| (*heading).to_owned()));
    let row = |arm: &ArmReport| {
        let mut row = vec![Cell::new(arm.name.as_str())];
        row.extend(columns.iter().map(|(key, _)| {
            let value = arm.metric(key).map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
            let interval = arm.intervals.get(*key).map(|[low, high]| format!("{low:.4} to {high:.4}"));
            Cell::with_below(value, interval.unwrap_or_default())
        }));
        row
    };
    body.table(caption, &header, &arms.iter().map(row).collect::<Vec<_>>());
}

fn mark(role: Role) -> Mark {
    match role {
        Role::Model => Mark::bar(0),
        Role::Control => Mark::bar(5),
        Role::Baseline => Mark::grey_bar(),
        Role::Oracle => Mark::bar(4),
    }
}

fn recall_bars(body: &mut Html, report: &EvaluationReport) {
    let panel = |k: usize| {
        let bar = |arm: &ArmReport| Some(Bar { value: arm.recall_at(k)?, range: arm.interval_at(k) });
        Panel { title: format!("Recall@{k}"), values: report.arms.iter().map(bar).collect() }
    };
    let names = report.arms.iter().map(|arm| (arm.name.clone(), mark(arm.role))).collect();
    let bars = Bars { names, panels: [10, 50, 100].map(panel).into() };
    let kinds =
        [("models", Role::Model), ("controls", Role::Control), ("baselines", Role::Baseline), ("oracle", Role::Oracle)];
    let is_there = |role: Role| report.arms.iter().any(|arm| arm.role == role);
    let legend: Vec<_> = kinds
        .into_iter()
        .filter(|(_, role)| is_there(*role))
        .map(|(name, role)| (name.to_owned(), mark(role)))
        .collect();
    if let Some(svg) = bars.svg() {
        let caption = "The dark line at a bar's end is the 95 % interval, bootstrapped over cases. An oracle is given the \
                       answer's own features and is compared with nothing.";
        body.wide_figure("Recall by arm", &legend, &svg, caption);
    }
}

/// The models and the best baselines.
fn drawn(arms: &[ArmReport]) -> Vec<&ArmReport> {
    let mut baselines: Vec<&ArmReport> = arms.iter().filter(|arm| arm.role == Role::Baseline).collect();
    let recall = |arm: &ArmReport| arm.recall_at(100).unwrap_or(0.0);
    baselines.sort_by(|a, b| recall(b).total_cmp(&recall(a)));
    baselines.truncate(BASELINES_DRAWN);
    let is_drawn = |arm: &&ArmReport| arm.role == Role::Model || baselines.iter().any(|best| best.name == arm.name);
    arms.iter().filter(is_drawn).collect()
}

fn recall_lines(body: &mut Html, report: &EvaluationReport) {
    let arms = drawn(&report.arms);
    let line = |(number, arm): (usize, &&ArmReport)| {
        let place = |k: &usize| Some(Place { x: *k as f64, y: arm.recall_at(*k)?, range: arm.interval_at(*k) });
        Line { mark: Mark::line(number), points: turret_model::CUT_OFFS.iter().filter_map(place).collect() }
    };
    let lines = Lines {
        title: "Recall@K".to_owned(),
        x: "K, items (logarithmic)".to_owned(),
        scale: Scale::Logarithmic,
        lines: arms.iter().enumerate().map(line).collect(),
        levels: Vec::new(),
    };
    let Some(svg) = lines.svg(Size::Whole) else { return };
    let caption =
        format!("The models and the {BASELINES_DRAWN} baselines that are best at 100, with 95 % intervals over cases.");
    body.figure("Recall by K", &legend(&arms), &[svg], &caption);
}

fn legend(arms: &[&ArmReport]) -> Vec<(String, Mark)> {
    arms.iter().enumerate().map(|(number, arm)| (arm.name.clone(), Mark::line(number))).collect()
}

fn comparisons(body: &mut Html, report: &EvaluationReport) {
    const SHOWN: [&str; 3] = ["recall@10", "recall@50", "recall@100"];
    let Some(first) = report.comparisons.first() else { return };
    let mut header = vec!["arm".to_owned()];
    header.extend(SHOWN.iter().map(|key| format!("ratio of {key}")));
    let row = |comparison: &turret_model::Comparison| {
        let mut row = vec![Cell::new(comparison.arm.as_str())];
        row.extend(SHOWN.iter().map(|key| match comparison.ratio.get(*key) {
            None => Cell::new("–"),
            Some(ratio) => {
                let interval = ratio.interval.map(|[low, high]| format!("{low:.2} to {high:.2}"));
                Cell::with_below(format!("{:.2}×", ratio.value), interval.unwrap_or_default())
            }
        }));
        row
    };
    let rows: Vec<Vec<Cell>> = report.comparisons.iter().map(row).collect();
    body.table(&format!("Against {}, over the same cases", first.to), &header, &rows);
    body.note(
        "95 % intervals of a paired bootstrap. The published system reports 3× to 10× for its contextual model, on data \
         that is not public.",
    );
}

/// Recall by the age of the state; whether there was any.
fn state_age(body: &mut Html, slices: &[SliceReport]) -> bool {
    let mut ages: Vec<(f64, &SliceReport)> = slices
        .iter()
        .filter(|slice| slice.by == STATE_AGE)
        .filter_map(|slice| Some((slice.value.parse().ok()?, slice)))
        .collect();
    ages.sort_by(|a, b| a.0.total_cmp(&b.0));
    let Some((_, first)) = ages.first() else { return false };
    let arms = drawn(&first.arms);
    let panel = |k: usize| {
        let line = |(number, arm): (usize, &&ArmReport)| {
            let place = |(age, slice): &(f64, &SliceReport)| {
                let arm = slice.arms.iter().find(|other| other.name == arm.name)?;
                Some(Place { x: *age, y: arm.recall_at(k)?, range: arm.interval_at(k) })
            };
            Line { mark: Mark::line(number), points: ages.iter().filter_map(place).collect() }
        };
        let lines = Lines {
            title: format!("Recall@{k}"),
            x: "age of the sequence state, days".to_owned(),
            scale: Scale::Linear,
            lines: arms.iter().enumerate().map(line).collect(),
            levels: Vec::new(),
        };
        lines.svg(Size::Half)
    };
    let panels: Vec<String> = [10, 100].into_iter().filter_map(panel).collect();
    let caption = "Every history ends that many days before the test begins, as if the daily run had not been made since. \
                   Bars are 95 % intervals over cases.";
    body.figure("Recall by state age", &legend(&arms), &panels, caption);
    true
}

/// A table for everything else that cases are parted by; whether there was any.
fn slices(body: &mut Html, slices: &[SliceReport]) -> bool {
    let mut by: Vec<&str> = slices.iter().map(|slice| slice.by.as_str()).filter(|by| *by != STATE_AGE).collect();
    by.dedup();
    for by in &by {
        let parts: Vec<&SliceReport> = slices.iter().filter(|slice| slice.by == *by).collect();
        let Some(first) = parts.first() else { continue };
        let mut header = vec![(*by).to_owned(), "cases".to_owned()];
        header.extend(first.arms.iter().map(|arm| arm.name.clone()));
        let row = |slice: &&SliceReport| {
            let mut row = vec![Cell::new(slice.value.as_str()), Cell::new(slice.cases.to_string())];
            row.extend(first.arms.iter().map(|arm| {
                let arm = slice.arms.iter().find(|other| other.name == arm.name);
                let recall = arm.and_then(|arm| arm.recall_at(10));
                Cell::new(recall.map_or_else(|| "–".to_owned(), |recall| format!("{recall:.4}")))
            }));
            row
        };
        let rows: Vec<Vec<Cell>> = parts.iter().map(row).collect();
        body.table(&format!("Recall@10 by {by}"), &header, &rows);
    }
    !by.is_empty()
}
