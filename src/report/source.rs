//! What a page is made from: files of figures, and an evaluation that was just made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use turret_model::EvaluationReport;

use crate::provenance::Provenance;
use crate::skew::Sweeps;
use crate::study::Figures;

/// One part of a page.
pub struct Source {
    /// Its file's name, or what was evaluated.
    pub name: String,
    /// Its figures.
    pub content: Content,
}

/// The figures of a source.
pub enum Content {
    /// One evaluation, as `turret evaluate --out` writes it.
    Evaluation(Box<Evaluated>),
    /// Rows with several seeds, as `turret study` writes them.
    Figures(Figures),
    /// Pairs of versions, as `turret skew sweep --out` writes them.
    Skew(Sweeps),
}

/// An evaluation with what is needed to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// What it was made with.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// What it found.
    #[serde(flatten)]
    pub report: EvaluationReport,
}

/// A file that is no figures.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {rule}")]
pub struct SourceError {
    path: PathBuf,
    rule: String,
}

impl Source {
    /// Reads a file of `docs/results/`.
    ///
    /// # Errors
    /// When it cannot be read, or is neither an evaluation (`arms`) nor rows (`rows`) nor pairs of versions (`sweeps`); says which key is wrong.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let error = |rule: String| SourceError { path: path.to_owned(), rule };
        let text = std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        let content = parse(&text).map_err(error)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, content })
    }
}

fn parse(text: &str) -> Result<Content, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    if value.get("arms").is_some() {
        return typed(value).map(|evaluated| Content::Evaluation(Box::new(evaluated)));
    }
    if value.get("rows").is_some() {
        return typed(value).map(Content::Figures);
    }
    if value.get("sweeps").is_some() {
        return typed(value).map(Content::Skew);
    }
    Err("has neither `arms`, as an evaluation has, nor `rows`, as a study has, nor `sweeps`, as pairs of versions have"
        .to_owned())
}

fn typed<T: for<'de> Deserialize<'de>>(value: serde_json::Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    })
}
