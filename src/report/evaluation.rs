//! The part of the page about one evaluation.

use turret_model::{ArmReport, EvaluationReport};

use super::arms::{Ranges, recall_bars, recall_lines, slices, state_age};
use super::html::{Cell, Html};
use super::source::Evaluated;
use super::{Section, Topic};

/// The metrics of the table: key and heading. One that no arm has is left out.
const COLUMNS: [(&str, &str); 7] = [
    ("recall@10", "R@10"),
    ("recall@50", "R@50"),
    ("recall@100", "R@100"),
    ("ndcg@10", "NDCG@10"),
    ("advertiser_recall@10", "advertiser R@10"),
    ("relevance@10", "relevance@10"),
    ("diversity", "diversity"),
];

pub(super) fn section(name: &str, evaluated: &Evaluated) -> Section {
    let report = &evaluated.report;
    let mut body = Html::default();
    body.provenance(&evaluated.provenance);
    body.paragraph(&format!(
        "{} {} cases, {} items ranked for each. {:.1} % of the targets were seen in training: what knows only ids \
         cannot recall more.",
        report.cases,
        part(report),
        report.catalogue,
        100.0 * report.ceiling
    ));
    arms_table(&mut body, "Arms", &report.arms);
    recall_bars(&mut body, &report.arms, Ranges::Intervals);
    recall_lines(&mut body, &report.arms, Ranges::Intervals);
    comparisons(&mut body, report);
    let mut topics = vec![Topic::Recall];
    if state_age(&mut body, &report.slices, Ranges::Intervals) {
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
            // Those of the others would make the table wider than the page.
            let interval = arm.intervals.get(*key).filter(|_| key.starts_with("recall@"));
            let interval = interval.map(|[low, high]| format!("{low:.4} to {high:.4}"));
            Cell::with_below(value, interval.unwrap_or_default())
        }));
        row
    };
    body.table(caption, &header, &arms.iter().map(row).collect::<Vec<_>>());
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
