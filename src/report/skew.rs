//! The part of the page about sweeps over pairs of versions: every matrix as a heat map.

use turret_model::{PairReport, SkewReport};

use super::html::{Cell, Html};
use super::{Section, Topic};
use crate::skew::Sweeps;

/// The cut-offs that are drawn.
const SHOWN: [usize; 3] = [10, 100, 1_000];

pub(super) fn section(name: &str, found: &Sweeps) -> Section {
    let mut body = Html::default();
    body.provenance(&found.provenance);
    body.paragraph(
        "What halves of different versions of one model would recall together, over the same cases. A cluster refuses \
         such pairs; the diagonals are what it answers with. The darker, the more of the table's largest number.",
    );
    for sweep in &found.sweeps {
        let report = &sweep.report;
        let name = sweep.lineage.name();
        body.heading(&format!("{name}: {}", sweep.lineage.sentence()));
        let chance: Vec<String> =
            SHOWN.iter().filter_map(|k| Some(format!("{:.4} at {k}", report.chance_at(*k)?))).collect();
        body.paragraph(&format!(
            "{} cases, {} items ranked for each; an order drawn at random recalls {}.",
            report.cases,
            report.catalogue,
            chance.join(", ")
        ));
        for k in SHOWN {
            let caption = format!("Recall@{k}: user tower of the row, index of the column ({name})");
            matrix(&mut body, (&caption, "index of"), report, k, &|head, other| report.on_index(head, other));
        }
        for k in SHOWN {
            let caption = format!("Recall@{k}: head and index of the row, states of the column's encoder ({name})");
            matrix(&mut body, (&caption, "states of"), report, k, &|head, other| report.reading(head, other));
        }
    }
    let left_out: Vec<String> = found.left_out.iter().map(|left| format!("{}: {}", left.what, left.why)).collect();
    body.list("Left out", left_out.iter().map(String::as_str));
    Section { title: format!("Version skew: {}", name.trim_end_matches(".json")), body, topics: vec![Topic::Skew] }
}

fn matrix<'a>(
    body: &mut Html,
    (caption, columns): (&str, &str),
    report: &SkewReport,
    k: usize,
    find: &dyn Fn(&str, &str) -> Option<&'a PairReport>,
) {
    let names: Vec<&str> = report.versions.iter().map(|version| version.name.as_str()).collect();
    let recall = |head: &str, other: &str| find(head, other).and_then(|pair| pair.recall_at(k));
    let all = names.iter().flat_map(|head| names.iter().filter_map(|other| recall(head, other)));
    let most = all.fold(f64::MIN_POSITIVE, f64::max);
    let mut header = vec![String::new()];
    header.extend(names.iter().map(|name| format!("{columns} {name}")));
    let row = |head: &&str| {
        let mut row = vec![Cell::new(*head)];
        row.extend(names.iter().map(|other| match recall(head, other) {
            None => Cell::new("–"),
            Some(value) => {
                let interval = find(head, other).and_then(|pair| pair.interval_at(k));
                let interval = interval.map(|[low, high]| format!("{low:.4} to {high:.4}"));
                Cell::with_below(format!("{value:.4}"), interval.unwrap_or_default()).shaded(value / most)
            }
        }));
        row
    };
    body.table(caption, &header, &names.iter().map(row).collect::<Vec<_>>());
}
