//! A report of tiers as text.

use turret_model::{ArmReport, EvaluationReport, Role};

use super::super::table::table;
use super::shown::number;

/// What an arm's name ends with, and the tier of answers that are made so.
const TIERS: [(&str, &str); 4] = [
    (", without context", "fresh, no context"),
    (", context only", "context_only"),
    (", demographics only", "demographic"),
    (", nothing", "cold"),
];

/// The tiers of each model, the most personal first.
pub(super) fn render(report: &EvaluationReport) -> String {
    let mut parts = vec![format!(
        "{} cases, {} items ranked; every case once in each tier, whatever it would have been in service",
        report.cases, report.catalogue
    )];
    for model in report.arms.iter().filter(|arm| arm.role == Role::Model) {
        let mut rows = vec![row("fresh", model)];
        let aged = report.slices.iter().filter(|slice| slice.by == "state_age_days" && slice.value != "0");
        for slice in aged {
            let of_model = slice.arms.iter().filter(|arm| arm.name == model.name);
            let age = if slice.value == "1" { "a day".to_owned() } else { format!("{} days", slice.value) };
            rows.extend(of_model.map(|arm| row(&format!("stale, {age} old"), arm)));
        }
        for (suffix, tier) in TIERS {
            let name = format!("{}{suffix}", model.name);
            rows.extend(report.arms.iter().filter(|arm| arm.name == name).map(|arm| row(tier, arm)));
        }
        let header = ["tier", "R@10", "R@50", "R@100", "95 % of R@10", "NDCG@10", "diversity"];
        parts.push(format!("{}\n{}", model.name, table(&header, &rows)));
    }
    let left_out = report.left_out.iter().filter(|left| TIERS.iter().any(|(suffix, _)| suffix.ends_with(&left.what)));
    parts.extend(left_out.map(|left| format!("Left out: {}: {}", left.what, left.why)));
    parts.join("\n\n")
}

fn row(tier: &str, arm: &ArmReport) -> Vec<String> {
    let mut row = vec![tier.to_owned()];
    row.extend([10, 50, 100].map(|k| number(arm.recall_at(k))));
    row.push(arm.interval_at(10).map(|[low, high]| format!("{low:.4} – {high:.4}")).unwrap_or_default());
    row.extend(["ndcg@10", "diversity"].map(|key| number(arm.metric(key))));
    row
}
