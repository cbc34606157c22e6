//! Sweeps as text.

use turret_model::{PairReport, Part, SkewReport};

use super::super::table::table;
use crate::skew::{Sweep, Sweeps};

/// The cut-offs of the printed tables; the JSON has them all.
const SHOWN: [usize; 3] = [10, 100, 1_000];

/// Two matrices for each lineage.
pub(super) fn render(found: &Sweeps) -> String {
    let mut parts: Vec<String> = found.sweeps.iter().map(sweep).collect();
    parts.extend(found.left_out.iter().map(|left| format!("Left out: {}: {}", left.what, left.why)));
    parts.join("\n\n\n")
}

fn sweep(sweep: &Sweep) -> String {
    let report = &sweep.report;
    let part = match report.part {
        Part::Validation => "validation",
        Part::Test => "test",
    };
    let chance: Vec<String> =
        SHOWN.iter().filter_map(|k| Some(format!("{:.4} at {k}", report.chance_at(*k)?))).collect();
    [
        format!(
            "{}: {}\n{} {part} cases, {} items ranked; an order drawn at random recalls {}",
            sweep.lineage.name(),
            sweep.lineage.sentence(),
            report.cases,
            report.catalogue,
            chance.join(", ")
        ),
        matrix(report, ["user tower of", "index of"], &|head, other| report.on_index(head, other)),
        matrix(report, ["head, index of", "states of"], &|head, other| report.reading(head, other)),
    ]
    .join("\n\n")
}

/// Rows are heads, columns the versions of what is not the head's own; then mixed pairs beside own ones.
fn matrix<'a>(
    report: &SkewReport,
    [rows, columns]: [&str; 2],
    find: &dyn Fn(&str, &str) -> Option<&'a PairReport>,
) -> String {
    let names: Vec<&str> = report.versions.iter().map(|version| version.name.as_str()).collect();
    let mut header = vec![rows.to_owned(), String::new()];
    header.extend(names.iter().map(|name| format!("{columns} {name}")));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    for head in &names {
        let row = |label: String, cell: &dyn Fn(&PairReport) -> Option<String>| {
            let cells = names.iter().map(|other| find(head, other).and_then(cell).unwrap_or_default());
            [String::new(), label].into_iter().chain(cells).collect::<Vec<String>>()
        };
        let first = lines.len();
        for k in SHOWN {
            lines.push(row(format!("R@{k}"), &|pair| Some(format!("{:.4}", pair.recall_at(k)?))));
            let interval = |pair: &PairReport| pair.interval_at(k).map(|[low, high]| format!("{low:.4} – {high:.4}"));
            if k == SHOWN[0] && names.iter().any(|other| find(head, other).and_then(interval).is_some()) {
                lines.push(row("95 %".to_owned(), &interval));
            }
        }
        lines[first][0] = (*head).to_owned();
    }
    let table = table(&header, &lines);
    // Not as shares of a head's own pair: that of an old version may be the worst of all.
    let range = |own: bool| {
        let pairs = names.iter().flat_map(|head| names.iter().filter_map(move |other| find(head, other)));
        let recalls = pairs.filter(|pair| pair.is_own() == own).filter_map(|pair| pair.recall_at(SHOWN[0]));
        let (low, high) = recalls.fold((f64::INFINITY, 0.0), |(low, high), recall| (recall.min(low), recall.max(high)));
        format!("{low:.4} to {high:.4}")
    };
    format!("{table}\nR@{}: mixed pairs {}, own pairs {}", SHOWN[0], range(false), range(true))
}
