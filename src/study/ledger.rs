//! What a study has done: its models and its measurements, each with the digest of what it was made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use turret_model::EvaluationReport;
use turret_retrieval::digest::Digest;

use super::point::Point;
use crate::config::Config;

/// A study's directory.
///
/// `models/<digest>/` holds trained models: two points that train the same thing share it. `measured/<point>/seed-<n>.json`
/// holds a measurement. The digests are of settings and of where the data lies; changed data asks for a fresh study.
pub struct Ledger {
    dir: PathBuf,
}

/// A point with one seed, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Of everything that decides the figures but the data itself.
    pub digest: Digest,
    /// The seed.
    pub seed: u64,
    /// Of the sources that evaluated.
    pub commit: String,
    /// The trainings, by the model's directory.
    pub trainings: BTreeMap<String, Training>,
    /// What the evaluation found.
    pub report: EvaluationReport,
}

/// What a [`Measurement`] is made of.
pub struct Measured {
    /// Of the sources that evaluated.
    pub commit: String,
    /// The trainings, by the model's directory.
    pub trainings: BTreeMap<String, Training>,
    /// What the evaluation found.
    pub report: EvaluationReport,
}

/// A finished training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Of the sources that trained.
    pub commit: String,
    /// How long it took.
    pub seconds: f64,
    /// Steps done.
    pub steps: usize,
    /// The mean loss of the last steps, in nats.
    pub final_loss: f64,
}

/// A file of the study that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct LedgerError {
    path: PathBuf,
    source: std::io::Error,
}

impl Ledger {
    /// The study in `dir`, which need not be there yet.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where it is kept.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub fn clear(&self) -> Result<(), LedgerError> {
        match fs::remove_dir_all(&self.dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(LedgerError { path: self.dir.clone(), source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where the models of `config` are kept, each below its own name.
    pub fn models(&self, config: &Config) -> PathBuf {
        self.dir.join("models").join(digest(config).short())
    }

    /// The finished training of the model called `name` in `models`, if there is one.
    pub fn training(&self, models: &Path, name: &str) -> Option<Training> {
        read(&models.join(format!("{name}.json")))
    }

    /// Notes that the model called `name` is complete.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn trained(&self, models: &Path, name: &str, training: &Training) -> Result<(), LedgerError> {
        write(&models.join(format!("{name}.json")), training)
    }

    /// What was measured of `point` with `seed`, where it was made of the same settings.
    pub fn find(&self, point: &Point, seed: u64) -> Option<Measurement> {
        let kept: Measurement = read(&self.file(point, seed))?;
        (kept.digest == digest_of(point, seed)).then_some(kept)
    }

    /// Keeps what was measured of `point` with `seed`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, point: &Point, seed: u64, measured: Measured) -> Result<(), LedgerError> {
        let Measured { commit, trainings, report } = measured;
        let measurement = Measurement { digest: digest_of(point, seed), seed, commit, trainings, report };
        write(&self.file(point, seed), &measurement)
    }

    fn file(&self, point: &Point, seed: u64) -> PathBuf {
        self.dir.join("measured").join(point.slug()).join(format!("seed-{seed}.json"))
    }
}

impl Point {
    /// Its configuration with `seed`.
    pub fn seeded(&self, seed: u64) -> Config {
        let mut config = self.config.clone();
        config.training.seed = seed;
        config
    }
}

/// Of everything that decides the figures of `point` but the data itself.
pub(super) fn digest_of(point: &Point, seed: u64) -> Digest {
    let config = point.seeded(seed);
    Digest::of(json(&(digest(&config), &point.models, &point.arms, &config.evaluation)).as_bytes())
}

/// Of everything that decides the models of `config`.
fn digest(config: &Config) -> Digest {
    Digest::of(json(&(&config.data, &config.model, &config.training, config.split)).as_bytes())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("settings are maps with text keys")
}

/// A file that is missing or cannot be read is one that was not written: it is made again.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes beside, then renames, so that a file is whole or not there.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<(), LedgerError> {
    let written = || {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir)?;
        }
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, text)?;
        fs::rename(&temporary, path)
    };
    written().map_err(|source| LedgerError { path: path.to_owned(), source })
}
