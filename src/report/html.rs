//! The few elements that a page is made of. Everything that comes from figures is escaped here.

use std::fmt;

use super::chart::Mark;
use crate::provenance::Provenance;

/// HTML in the making.
#[derive(Default)]
pub(super) struct Html(String);

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A cell of a table: what it shows, and what stands small below it.
pub(super) struct Cell {
    text: String,
    below: String,
    // How dark, in 0..=SHADES; none where it is no heat map's.
    shade: Option<usize>,
}

/// The darkest shade of a heat map; the style sheet has one for each number up to it.
const SHADES: usize = 8;

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), below: String::new(), shade: None }
    }

    pub(super) fn with_below(text: impl Into<String>, below: impl Into<String>) -> Self {
        Self { text: text.into(), below: below.into(), shade: None }
    }

    /// The same in a heat map: the darker, the larger `share`, which is in 0..=1.
    pub(super) fn shaded(self, share: f64) -> Self {
        Self { shade: Some((share.clamp(0.0, 1.0) * SHADES as f64).round() as usize), ..self }
    }
}

impl Html {
    pub(super) fn heading(&mut self, text: &str) {
        self.0.push_str(&format!("<h3>{}</h3>\n", escape(text)));
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.0.push_str(&format!("<p>{}</p>\n", escape(text)));
    }

    /// Small print.
    pub(super) fn note(&mut self, text: &str) {
        self.0.push_str(&format!("<p class=\"note\">{}</p>\n", escape(text)));
    }

    /// What figures were measured with.
    pub(super) fn provenance(&mut self, provenance: &Provenance) {
        let commit = if provenance.commit.is_empty() { "unknown" } else { &provenance.commit };
        self.note(&format!("{}; commit {commit}; {}", provenance.command, provenance.machine));
    }

    /// A list under a heading; nothing where the list is empty.
    pub(super) fn list<'a>(&mut self, heading: &str, entries: impl Iterator<Item = &'a str>) {
        let entries: String = entries.map(|entry| format!("<li>{}</li>", escape(entry))).collect();
        if !entries.is_empty() {
            self.heading(heading);
            self.0.push_str(&format!("<ul>{entries}</ul>\n"));
        }
    }

    /// A table whose first column names the rows.
    pub(super) fn table(&mut self, caption: &str, header: &[String], rows: &[Vec<Cell>]) {
        let header: String = header.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escape(cell))).collect();
        let body: String = rows.iter().map(|row| format!("<tr>{}</tr>\n", table_row(row))).collect();
        self.0.push_str(&format!(
            "<div class=\"wide\"><table><caption>{}</caption><thead><tr>{header}</tr></thead><tbody>\n{body}</tbody></table></div>\n",
            escape(caption)
        ));
    }

    /// Plots side by side under one legend, with a sentence that says how to read them.
    pub(super) fn figure(&mut self, title: &str, legend: &[(String, Mark)], panels: &[String], caption: &str) {
        let class = if panels.len() > 1 { "panels many" } else { "panels" };
        self.plots(title, legend, class, &panels.concat(), caption);
    }

    /// A plot as wide as the page.
    pub(super) fn wide_figure(&mut self, title: &str, legend: &[(String, Mark)], plot: &str, caption: &str) {
        self.plots(title, legend, "panels whole", plot, caption);
    }

    fn plots(&mut self, title: &str, legend: &[(String, Mark)], class: &str, plots: &str, caption: &str) {
        let keys: String =
            legend.iter().map(|(name, mark)| format!("<li>{}{}</li>", mark.key(), escape(name))).collect();
        let legend = if keys.is_empty() { keys } else { format!("<ul class=\"legend\">{keys}</ul>") };
        let (title, caption) = (escape(title), escape(caption));
        self.0.push_str(&format!(
            "<figure aria-label=\"{title}\"><h3>{title}</h3>{legend}<div class=\"{class}\">{plots}</div>\
             <figcaption>{caption}</figcaption></figure>\n"
        ));
    }
}

fn table_row(row: &[Cell]) -> String {
    let cell = |(column, cell): (usize, &Cell)| {
        let below = match cell.below.as_str() {
            "" => String::new(),
            below => format!("<small>{}</small>", escape(below)),
        };
        let text = escape(&cell.text);
        match (column, cell.shade) {
            (0, _) => format!("<th scope=\"row\">{text}{below}</th>"),
            (_, None) => format!("<td>{text}{below}</td>"),
            (_, Some(shade)) => format!("<td class=\"shade{shade}\">{text}{below}</td>"),
        }
    };
    row.iter().enumerate().map(cell).collect()
}

/// Text as HTML has it, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
