//! A report as text.

use turret_model::{ArmReport, Comparison, Estimate, EvaluationReport, Part, Role, SliceReport};

use super::super::table::table;

/// The cut-offs of the printed table; the JSON has them all.
const SHOWN: [usize; 3] = [10, 50, 100];
/// How many times as much the published contextual system recalls as its history-only one, at the least and the most.
const PUBLISHED_RATIO: [u32; 2] = [3, 10];

/// The report as tables.
pub(in super::super) fn render(report: &EvaluationReport) -> String {
    let part = match report.part {
        Part::Validation => "validation",
        Part::Test => "test",
    };
    let (compared, oracles): (Vec<&ArmReport>, Vec<&ArmReport>) =
        report.arms.iter().partition(|arm| arm.role != Role::Oracle);
    let mut parts = vec![
        format!(
            "{} {part} cases, {} items ranked; {:.1} % of the targets were seen in training (ceiling of what knows only \
             ids)",
            report.cases,
            report.catalogue,
            100.0 * report.ceiling
        ),
        arms(&compared),
    ];
    if !oracles.is_empty() {
        parts.push(format!("Told the answer, and comparable with nothing:\n{}", arms(&oracles)));
    }
    if !report.comparisons.is_empty() {
        parts.push(comparisons(&report.comparisons));
    }
    parts.extend(slices(&report.slices));
    if !report.left_out.is_empty() {
        let lines: Vec<String> = report.left_out.iter().map(|left| format!("  {}: {}", left.what, left.why)).collect();
        parts.push(format!("Left out:\n{}", lines.join("\n")));
    }
    parts.join("\n\n")
}

fn arms(arms: &[&ArmReport]) -> String {
    let has = |key: &str| arms.iter().any(|arm| arm.metric(key).is_some());
    let columns = [
        ("NDCG@10", "ndcg@10"),
        ("advertiser R@10", "advertiser_recall@10"),
        ("diversity", "diversity"),
        ("relevance@10", "relevance@10"),
    ];
    let columns: Vec<(&str, &str)> = columns.into_iter().filter(|(_, key)| has(key)).collect();
    let mut header = vec!["arm".to_owned()];
    header.extend(SHOWN.iter().map(|k| format!("R@{k}")));
    header.push("95 % of R@10".to_owned());
    header.extend(columns.iter().map(|(name, _)| (*name).to_owned()));
    let row = |arm: &&ArmReport| {
        let mut row = vec![arm.name.clone()];
        row.extend(SHOWN.iter().map(|k| number(arm.recall_at(*k))));
        row.push(arm.interval_at(10).map(|[low, high]| format!("{low:.4} – {high:.4}")).unwrap_or_default());
        row.extend(columns.iter().map(|(_, key)| number(arm.metric(key))));
        row
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, &arms.iter().map(row).collect::<Vec<_>>())
}

/// Every arm against the history-only model.
fn comparisons(comparisons: &[Comparison]) -> String {
    let estimate = |estimate: Option<&Estimate>, digits: usize| {
        let Some(Estimate { value, interval }) = estimate else { return String::new() };
        let interval = interval.map(|[low, high]| format!(" ({low:.digits$} – {high:.digits$})")).unwrap_or_default();
        format!("{value:.digits$}{interval}")
    };
    let row = |comparison: &Comparison| {
        let mut row = vec![comparison.arm.clone(), estimate(comparison.difference.get("recall@10"), 4)];
        row.extend(SHOWN.iter().map(|k| estimate(comparison.ratio.get(&format!("recall@{k}")), 2)));
        row
    };
    let rows: Vec<Vec<String>> = comparisons.iter().map(row).collect();
    let header = ["arm", "less R@10", "ratio of R@10", "of R@50", "of R@100"];
    let to = comparisons.first().map_or("", |comparison| &comparison.to);
    let [low, high] = PUBLISHED_RATIO;
    format!(
        "Against {to}, with paired 95 % intervals (published for another system and its data: {low}x to {high}x)\n{}",
        table(&header, &rows)
    )
}

/// One table for each kind of slice.
fn slices(slices: &[SliceReport]) -> Vec<String> {
    let render = |of_kind: &[SliceReport]| {
        let row = |slice: &SliceReport, arm: &ArmReport| {
            let mut row = vec![slice.value.clone(), slice.cases.to_string(), arm.name.clone()];
            row.extend(SHOWN.iter().map(|k| number(arm.recall_at(*k))));
            row.push(number(arm.metric("ndcg@10")));
            row.push(number(arm.metric("diversity")));
            row
        };
        let models = |slice| {
            let of_slice: &SliceReport = slice;
            of_slice.arms.iter().filter(|arm| arm.role == Role::Model).map(move |arm| row(of_slice, arm))
        };
        let rows: Vec<Vec<String>> = of_kind.iter().flat_map(models).collect();
        let by = of_kind[0].by.replace('_', " ");
        table(&[&by, "cases", "arm", "R@10", "R@50", "R@100", "NDCG@10", "diversity"], &rows)
    };
    slices.chunk_by(|a, b| a.by == b.by).map(render).collect()
}

pub(super) fn number(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.4}")).unwrap_or_default()
}
