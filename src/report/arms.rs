//! Plots and tables of arms, whether of one evaluation or of means over seeds.

use turret_model::{ArmReport, Role, SliceReport};

use super::bars::{Bar, Bars, Panel};
use super::chart::Mark;
use super::html::{Cell, Html};
use super::lines::{Line, Lines, Place, Scale, Size};

/// Baselines that are drawn beside the models: the best of them.
const BASELINES_DRAWN: usize = 3;
/// Whose value is an age, in days.
const STATE_AGE: &str = "state_age_days";

/// What the `intervals` of the arms are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ranges {
    /// 95 %, bootstrapped.
    Intervals,
    /// The smallest and the largest of the seeds.
    Seeds,
}

impl Ranges {
    fn sentence(self) -> &'static str {
        match self {
            Self::Intervals => "Lines at the ends of bars and through points are 95 % intervals, bootstrapped.",
            Self::Seeds => "Lines at the ends of bars and through points reach from the smallest to the largest seed.",
        }
    }
}

fn mark(role: Role) -> Mark {
    match role {
        Role::Model => Mark::bar(0),
        Role::Control => Mark::bar(5),
        Role::Baseline => Mark::grey_bar(),
        Role::Oracle => Mark::bar(4),
    }
}

/// A bar for each arm, at three cut-offs.
pub(super) fn recall_bars(body: &mut Html, arms: &[ArmReport], ranges: Ranges) {
    let panel = |k: usize| {
        let bar = |arm: &ArmReport| Some(Bar { value: arm.recall_at(k)?, range: arm.interval_at(k) });
        Panel { title: format!("Recall@{k}"), values: arms.iter().map(bar).collect() }
    };
    let names = arms.iter().map(|arm| (arm.name.clone(), mark(arm.role))).collect();
    let bars = Bars { names, panels: [10, 50, 100].map(panel).into() };
    let kinds =
        [("models", Role::Model), ("controls", Role::Control), ("baselines", Role::Baseline), ("oracle", Role::Oracle)];
    let is_there = |role: Role| arms.iter().any(|arm| arm.role == role);
    let legend: Vec<_> = kinds
        .into_iter()
        .filter(|(_, role)| is_there(*role))
        .map(|(name, role)| (name.to_owned(), mark(role)))
        .collect();
    if let Some(svg) = bars.svg() {
        let oracle =
            if is_there(Role::Oracle) { " An oracle is told the answer and compared with nothing." } else { "" };
        let caption = format!("{}{oracle}", ranges.sentence());
        body.wide_figure("Recall by arm", &legend, &svg, &caption);
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

/// Recall over all cut-offs.
pub(super) fn recall_lines(body: &mut Html, arms: &[ArmReport], ranges: Ranges) {
    let arms = drawn(arms);
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
    let caption = format!("The models and the baselines that are best at 100. {}", ranges.sentence());
    body.figure("Recall by K", &legend(&arms), &[svg], &caption);
}

fn legend(arms: &[&ArmReport]) -> Vec<(String, Mark)> {
    arms.iter().enumerate().map(|(number, arm)| (arm.name.clone(), Mark::line(number))).collect()
}

/// Recall by the age of the state; whether there was any.
pub(super) fn state_age(body: &mut Html, slices: &[SliceReport], ranges: Ranges) -> bool {
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
    let caption = format!(
        "Every history ends that many days before the test begins, as if the daily run had not been made since. {}",
        ranges.sentence()
    );
    body.figure("Recall by state age", &legend(&arms), &panels, &caption);
    true
}

/// A table for everything else that cases are parted by; whether there was any.
pub(super) fn slices(body: &mut Html, slices: &[SliceReport]) -> bool {
    let mut by: Vec<&str> = slices.iter().map(|slice| slice.by.as_str()).filter(|by| *by != STATE_AGE).collect();
    by.dedup();
    for by in &by {
        let parts: Vec<&SliceReport> = slices.iter().filter(|slice| slice.by == *by).collect();
        let Some(first) = parts.first() else { continue };
        let arms = drawn(&first.arms);
        let mut header = vec![by.replace('_', " "), "cases".to_owned()];
        header.extend(arms.iter().map(|arm| arm.name.clone()));
        let row = |slice: &&SliceReport| {
            let mut row = vec![Cell::new(slice.value.as_str()), Cell::new(slice.cases.to_string())];
            row.extend(arms.iter().map(|arm| {
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
