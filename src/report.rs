//! The report: one HTML page over measured figures, with tables and plots, that needs nothing but itself.
//!
//! Pages hold no script and load nothing. Plots are drawn by `plotters` as SVG within the page; the page's style sheet gives
//! their colours another value where the reader prefers a dark screen. What the figures do not hold is named at the page's
//! end instead of drawn empty.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

mod arms;
mod bars;
mod chart;
mod evaluation;
mod html;
mod lines;
mod rows;
mod skew;
mod source;

pub use source::{Content, Evaluated, Source, SourceError};

use html::{Html, escape};

/// The name of the page in its directory.
const PAGE: &str = "index.html";

/// What a page can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Recall,
    StateAge,
    SyntheticContext,
    Diversity,
    Funnel,
    Slices,
    Skew,
}

impl Topic {
    /// Each with the sentence that stands for it where it is missing.
    const ALL: [(Self, &'static str); 7] = [
        (Self::Recall, "Recall by K and arm: no evaluation is among the files."),
        (Self::StateAge, "Recall by state age: no file has slices by `state_age_days`."),
        (Self::SyntheticContext, "Synthetic context: no study over `training.context_dropout` is among the files."),
        (Self::Diversity, "Recall against diversity: no study plots it."),
        (Self::Funnel, "The simulated funnel: no file of it is among the files."),
        (Self::Slices, "Slices of the cases: no evaluation with slices is among the files."),
        (Self::Skew, "Version skew: no sweep over pairs of versions is among the files."),
    ];
}

/// A part of the page.
struct Section {
    /// For the list of contents.
    title: String,
    body: Html,
    topics: Vec<Topic>,
}

/// Writes the page of `sources` into `dir`, which is made where it is missing; returns the page's path.
///
/// # Errors
/// When it cannot be written.
pub fn write(dir: &Path, sources: &[Source]) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(PAGE);
    std::fs::write(&path, page(sources)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The page, in the order of `sources`.
pub fn page(sources: &[Source]) -> String {
    let sections: Vec<Section> = sources
        .iter()
        .map(|source| match &source.content {
            Content::Evaluation(evaluated) => evaluation::section(&source.name, evaluated),
            Content::Figures(figures) => rows::section(&source.name, figures),
            Content::Skew(found) => skew::section(&source.name, found),
        })
        .collect();
    let mut contents = String::new();
    let mut bodies = String::new();
    for (number, section) in (1..).zip(&sections) {
        let title = escape(&section.title);
        contents.push_str(&format!("<li><a href=\"#s{number}\">{title}</a></li>"));
        bodies.push_str(&format!("<section id=\"s{number}\"><h2>{title}</h2>{}</section>\n", section.body));
    }
    let shown: Vec<Topic> = sections.iter().flat_map(|section| section.topics.iter().copied()).collect();
    let missing = Topic::ALL.iter().filter(|(topic, _)| !shown.contains(topic)).map(|(_, sentence)| *sentence);
    let mut end = Html::default();
    end.list("Not on this page", missing);
    include_str!("report/page.html")
        .replace("{style}", include_str!("report/page.css"))
        .replace("{contents}", &contents)
        .replace("{sections}", &bodies)
        .replace("{end}", &end.to_string())
}

#[cfg(test)]
mod tests;
