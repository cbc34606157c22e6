//! The part of the page about a file of rows: a study, the funnel, or anything else with a mean over seeds.

use std::collections::{BTreeMap, BTreeSet};

use turret_model::{ArmReport, Role, SliceReport};

use super::arms::{Ranges, recall_bars, recall_lines, slices, state_age};
use super::bars::{Bar, Bars, Panel};
use super::chart::{Mark, figure};
use super::html::{Cell, Html};
use super::lines::{Level, Line, Lines, Place, Scale, Size};
use super::{Section, Topic};
use crate::study::{Figures, Plot, Row, SliceRow};

/// The metrics of a study's table: key and heading.
const COLUMNS: [(&str, &str); 8] = [
    ("recall@10", "R@10"),
    ("recall@50", "R@50"),
    ("recall@100", "R@100"),
    ("ndcg@10", "NDCG@10"),
    ("ratio_vs_history_only@10", "R@10 over history only"),
    ("advertiser_recall@10", "advertiser R@10"),
    ("relevance@10", "relevance@10"),
    ("diversity", "diversity"),
];
/// Other files have metrics of their own; the most columns and panels of them.
const OWN_COLUMNS_MAX: usize = 8;
/// What only the funnel measures.
const FUNNEL: &str = "survival_rate";
/// The metrics of the funnel that are drawn, where they are there.
const FUNNEL_PANELS: [(&str, &str); 6] = [
    ("survival_rate", "Survival rate"),
    ("delivery_share", "Delivery share"),
    ("impression_share", "Impression share"),
    ("median_relevance", "Median relevance"),
    ("spend", "Spend, 1,000 requests"),
    ("value", "Value, 1,000 requests"),
];
/// The most arms of a group that are drawn as bars.
const ARMS_MAX: usize = 24;
/// The most panels that are readable beside each other.
const PANELS_MAX: usize = 3;

pub(super) fn section(name: &str, figures: &Figures) -> Section {
    let mut body = Html::default();
    body.provenance(&figures.provenance);
    let seeds: Vec<String> = figures.seeds.iter().map(u64::to_string).collect();
    let part = figures.part.map_or("", |part| match part {
        turret_model::Part::Test => " Cases: those of the test.",
        turret_model::Part::Validation => " Cases: those of the validation.",
    });
    body.paragraph(&format!(
        "Mean over the seeds {}; small print: the smallest and the largest.{part}",
        seeds.join(", ")
    ));
    let mut topics = Vec::new();
    for plot in &figures.plots {
        topics.extend(topic(plot));
        draw(&mut body, plot, &figures.rows);
    }
    if figures.rows.iter().any(|row| row.mean.contains_key(FUNNEL)) {
        topics.push(Topic::Funnel);
        funnel(&mut body, &figures.rows);
    }
    if figures.plots.is_empty() {
        topics.extend(arms(&mut body, &figures.rows));
    }
    tables(&mut body, figures);
    let title = if figures.title.is_empty() { name.trim_end_matches(".json") } else { &figures.title };
    Section { title: title.to_owned(), body, topics }
}

/// The groups that have recalls, as if each were one evaluation with the seeds' range in place of an interval.
///
/// Returns which topics that covers.
fn arms(body: &mut Html, rows: &[Row]) -> Vec<Topic> {
    let mut topics = Vec::new();
    for group in groups(rows) {
        let has_recall = |row: &&Row| row.group == group && row.mean.contains_key("recall@10");
        let own: Vec<&Row> = rows.iter().filter(has_recall).collect();
        if own.is_empty() || own.len() > ARMS_MAX {
            continue;
        }
        let named = named(&own);
        let arms: Vec<ArmReport> =
            named.iter().map(|(name, row)| arm(name, row.role, &row.mean, &row.spread)).collect();
        body.heading(&caption(group, &own));
        recall_bars(body, &arms, Ranges::Seeds);
        recall_lines(body, &arms, Ranges::Seeds);
        topics.push(Topic::Recall);
        let parts = parts(&named);
        topics.extend(state_age(body, &parts, Ranges::Seeds).then_some(Topic::StateAge));
        topics.extend(slices(body, &parts).then_some(Topic::Slices));
    }
    topics
}

/// The rows of a group under names that tell them apart, as short as may be.
fn named<'a>(rows: &[&'a Row]) -> Vec<(&'a str, &'a Row)> {
    let is_one_point = |row: &&Row| row.run == rows[0].run && row.settings == rows[0].settings && !row.arm.is_empty();
    let by_arm = rows.iter().all(is_one_point);
    let name = |row: &'a Row| if by_arm { row.arm.as_str() } else { without_group(&row.name, row) };
    rows.iter().map(|row| (name(row), *row)).collect()
}

/// The parts of the cases that any of the rows was measured on.
fn parts(rows: &[(&str, &Row)]) -> Vec<SliceReport> {
    let Some((_, most)) = rows.iter().max_by_key(|(_, row)| row.slices.len()) else { return Vec::new() };
    let part = |part: &SliceRow| {
        let arms = rows.iter().filter_map(|(name, row)| {
            let own = row.slices.iter().find(|own| (&own.by, &own.value) == (&part.by, &part.value))?;
            Some(arm(name, row.role, &own.mean, &own.spread))
        });
        SliceReport { by: part.by.clone(), value: part.value.clone(), cases: part.cases, arms: arms.collect() }
    };
    most.slices.iter().map(part).collect()
}

fn arm(name: &str, role: Option<Role>, mean: &BTreeMap<String, f64>, spread: &BTreeMap<String, [f64; 2]>) -> ArmReport {
    ArmReport {
        name: name.to_owned(),
        role: role.unwrap_or(Role::Model),
        metrics: mean.clone(),
        intervals: spread.clone(),
    }
}

fn topic(plot: &Plot) -> Option<Topic> {
    match (plot.x.as_str(), plot.y.as_str()) {
        ("training.context_dropout", _) => Some(Topic::SyntheticContext),
        ("diversity", _) | (_, "diversity") => Some(Topic::Diversity),
        (_, _) => None,
    }
}

fn groups(rows: &[Row]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    rows.iter().map(|row| row.group.as_str()).filter(|group| seen.insert(*group)).collect()
}

/// The value of `key` in a row: a metric, or a number among its settings.
fn value(row: &Row, key: &str) -> Option<f64> {
    row.mean.get(key).copied().or_else(|| row.settings.get(key)?.as_f64())
}

/// A plot of a study: a panel for each group, a line for each run and arm.
fn draw(body: &mut Html, plot: &Plot, rows: &[Row]) {
    let is_drawn = |row: &&Row| {
        (plot.runs.is_empty() || plot.runs.contains(&row.run)) && (plot.arms.is_empty() || plot.arms.contains(&row.arm))
    };
    let rows: Vec<&Row> = rows.iter().filter(is_drawn).filter(|row| row.mean.contains_key(&plot.y)).collect();
    let mut names: Vec<String> = Vec::new();
    for row in &rows {
        let name = line_name(row);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let is_level =
        |name: &String| rows.iter().filter(|row| line_name(row) == *name).all(|row| value(row, &plot.x).is_none());
    let marks: Vec<(String, Mark)> = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let mark = if is_level(name) { Mark::level(number) } else { Mark::line(number) };
            (name.clone(), mark)
        })
        .collect();
    let mut groups: Vec<&str> = rows.iter().map(|row| row.group.as_str()).collect();
    groups.dedup();
    let panels: Vec<String> =
        groups.iter().filter_map(|group| panel(plot, group, &rows, &marks).svg(Size::of(groups.len()))).collect();
    if panels.is_empty() {
        body.note(&format!("{}: no row has both {} and {}.", plot.title, plot.x, plot.y));
        return;
    }
    let caption = "Points are means over the seeds, bars and bands reach from the smallest to the largest. A dashed line does \
                   not depend on what is to the right.";
    body.figure(&plot.title, &marks, &panels, caption);
}

/// A name of `row` without that of its group, which stands above it.
fn without_group<'a>(name: &'a str, row: &Row) -> &'a str {
    name.strip_prefix(&row.group).unwrap_or(name).trim_start_matches([',', ':', ' '])
}

/// The run and the arm.
fn line_name(row: &Row) -> String {
    match (without_group(&row.run, row), row.arm.as_str()) {
        ("", "") => row.name.clone(),
        ("", arm) => arm.to_owned(),
        (run, "") => run.to_owned(),
        (run, arm) => format!("{run}: {arm}"),
    }
}

fn panel(plot: &Plot, group: &str, rows: &[&Row], marks: &[(String, Mark)]) -> Lines {
    let (mut lines, mut levels) = (Vec::new(), Vec::new());
    for (name, mark) in marks {
        let own = rows.iter().filter(|row| row.group == *group && line_name(row) == *name);
        let mut points = Vec::new();
        for row in own {
            let (y, range) = (row.mean[&plot.y], row.spread.get(&plot.y).copied());
            match value(row, &plot.x) {
                Some(x) => points.push(Place { x, y, range }),
                None => levels.push(Level { mark: *mark, y, range }),
            }
        }
        if !points.is_empty() {
            lines.push(Line { mark: *mark, points });
        }
    }
    let title = if group.is_empty() { plot.y.clone() } else { format!("{group}: {}", plot.y) };
    Lines { title, x: plot.x.clone(), scale: Scale::Linear, lines, levels }
}

/// The generators under the usual rules, which are those without a group; the others are in the tables.
fn funnel(body: &mut Html, rows: &[Row]) {
    let own: Vec<&Row> = rows.iter().filter(|row| row.group.is_empty() && row.mean.contains_key(FUNNEL)).collect();
    let names: Vec<(String, Mark)> = own.iter().map(|row| (row.name.clone(), Mark::bar(0))).collect();
    let panel = |(key, title): &(&str, &str)| {
        let bar = |row: &&Row| Some(Bar { value: *row.mean.get(*key)?, range: row.spread.get(*key).copied() });
        Panel { title: (*title).to_owned(), values: own.iter().map(bar).collect() }
    };
    let measured: Vec<_> =
        FUNNEL_PANELS.into_iter().filter(|(key, _)| own.iter().any(|row| row.mean.contains_key(*key))).collect();
    let plots: Vec<String> = measured
        .chunks(PANELS_MAX)
        .filter_map(|panels| Bars { names: names.clone(), panels: panels.iter().map(panel).collect() }.svg())
        .collect();
    let caption = "Everything after retrieval is simulated: ranker, relevance floor, auction, bids and budgets. Lines at the \
                   ends of bars reach from the smallest to the largest seed.";
    if !plots.is_empty() {
        body.wide_figure("Funnel (simulated), under the usual rules", &[], &plots.concat(), caption);
    }
}

fn tables(body: &mut Html, figures: &Figures) {
    let rows = &figures.rows;
    let has = |key: &str| rows.iter().any(|row| row.mean.contains_key(key));
    let known = if has(FUNNEL) { FUNNEL_PANELS.as_slice() } else { COLUMNS.as_slice() };
    let mut columns: Vec<(String, String)> = known
        .iter()
        .filter(|(key, _)| has(key))
        .map(|(key, heading)| ((*key).to_owned(), (*heading).to_owned()))
        .collect();
    if columns.is_empty() {
        let own: BTreeSet<&String> = rows.iter().flat_map(|row| row.mean.keys()).collect();
        columns = own.into_iter().take(OWN_COLUMNS_MAX).map(|key| (key.clone(), key.replace('_', " "))).collect();
    }
    for group in groups(rows) {
        let own: Vec<&Row> = rows.iter().filter(|row| row.group == group).collect();
        let mut header = vec![String::new()];
        header.extend(columns.iter().map(|(_, heading)| heading.clone()));
        let body_rows: Vec<Vec<Cell>> = own.iter().map(|row| table_row(row, figures.seeds.len(), &columns)).collect();
        body.table(&caption(group, &own), &header, &body_rows);
    }
}

fn caption(group: &str, rows: &[&Row]) -> String {
    let cases = rows.iter().find_map(|row| Some((row.cases?, row.catalogue?)));
    let cases = cases.map_or_else(String::new, |(cases, items)| format!("{cases} cases, {items} items ranked"));
    match (group, cases.as_str()) {
        ("", "") => "Rows".to_owned(),
        (one, "") | ("", one) => one.to_owned(),
        (group, cases) => format!("{group}: {cases}"),
    }
}

fn table_row(row: &Row, seeds_wanted: usize, columns: &[(String, String)]) -> Vec<Cell> {
    let seeds = match row.seeds.len() {
        seeds if seeds == seeds_wanted => String::new(),
        seeds => format!("{seeds} of {seeds_wanted} seeds"),
    };
    let mut cells = vec![Cell::with_below(without_group(&row.name, row), seeds)];
    cells.extend(columns.iter().map(|(key, _)| {
        let spread = row.spread.get(key).filter(|_| row.seeds.len() > 1);
        let spread = spread.map(|[low, high]| format!("{} to {}", figure(*low), figure(*high)));
        Cell::with_below(
            row.mean.get(key).map_or_else(|| "–".to_owned(), |value| figure(*value)),
            spread.unwrap_or_default(),
        )
    }));
    cells
}
