//! A synthetic marketplace whose truth is known: what is planted can be looked for.
//!
//! People browse in trips. Each trip has an *intent*, a leaf of the interest taxonomy, that most of its events follow;
//! half of the intents come from what the person has long been interested in, the others from the moment. So what a
//! user looked at just before says more about what comes next than all that went before, and that says more than what
//! is popular. Whatever a trip is about, people choose what suits their taste, of which the data set tells nothing.
//! `docs/data.md` describes the world, and `truth/` of a marketplace holds what was planted in it.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};

use crate::progress::{Counter, Progress};

mod browsing;
mod bulk;
mod catalogue;
mod chance;
mod impressions;
mod judge;
mod log;
mod people;
mod sheet;
mod taste;
mod taxonomy;
mod truth;
mod world;

pub use bulk::{Bulk, BulkSettings, generate_bulk};
pub use judge::Truth;
pub use taste::{Character, STYLES, Taste};
use world::World;

/// The most users, and the most ads.
const COUNT_MAX: u32 = 1_000_000;
/// The most advertisers.
const ADVERTISERS_MAX: u32 = 100_000;
/// The most days.
const DAYS_MAX: u32 = 366;
/// The latest start: 2100-01-01 UTC.
const START_MS_MAX: i64 = 4_102_444_800_000;

/// How large a marketplace is. Everything in it follows from these numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarketplaceSettings {
    /// Users, 1 to 1,000,000.
    pub users: u32,
    /// Ads, 1 to 1,000,000. Each promotes one item; a tenth as many items are promoted by none.
    pub ads: u32,
    /// Advertisers, 1 to 100,000.
    pub advertisers: u32,
    /// Days of browsing, 1 to 366.
    pub days: u32,
    /// What everything random follows from.
    pub seed: u64,
    /// The first millisecond of the first day, since 1970-01-01 UTC.
    pub start_ms: i64,
}

/// Why settings are refused; the text begins with the name of the setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {found} is not in {min}..={max}")]
pub struct SettingsError {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub found: i64,
    /// The least value.
    pub min: i64,
    /// The greatest value.
    pub max: i64,
}

impl MarketplaceSettings {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first one that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        check_ranges(&[
            ("users", i64::from(self.users), 1, i64::from(COUNT_MAX)),
            ("ads", i64::from(self.ads), 1, i64::from(COUNT_MAX)),
            ("advertisers", i64::from(self.advertisers), 1, i64::from(ADVERTISERS_MAX)),
            ("days", i64::from(self.days), 1, i64::from(DAYS_MAX)),
            ("start_ms", self.start_ms, 0, START_MS_MAX),
        ])
    }
}

/// Checks settings, each with its value, the least and the greatest.
fn check_ranges(settings: &[(&'static str, i64, i64, i64)]) -> Result<(), SettingsError> {
    match settings.iter().find(|(_, found, min, max)| !(min..=max).contains(&found)) {
        Some(&(setting, found, min, max)) => Err(SettingsError { setting, found, min, max }),
        None => Ok(()),
    }
}

/// What was made, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// Users, of whom some have no events.
    pub users: u64,
    /// Items, promoted or not.
    pub items: u64,
    /// Ads.
    pub ads: u64,
    /// Advertisers, of whom some have no ads.
    pub advertisers: u64,
    /// Trips; each is a session.
    pub trips: u64,
    /// Events.
    pub events: u64,
    /// Logged requests.
    pub requests: u64,
}

/// Why no marketplace was made. Nothing is left behind in the directory asked for.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The settings cannot be meant.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Something is there already.
    #[error("{} is there and not an empty directory", dir.display())]
    Occupied {
        /// The directory asked for.
        dir: PathBuf,
    },
    /// The path has no last component, so nothing can be written beside it.
    #[error("{} is not the path of a directory that can be made", dir.display())]
    Unnamed {
        /// The directory asked for.
        dir: PathBuf,
    },
    /// The directory that is filled before it is renamed is there: another run is at work, or one was killed.
    #[error("{} is in the way: another run is filling it, or was killed while it did; remove it", path.display())]
    InTheWay {
        /// That directory.
        path: PathBuf,
    },
    /// The disk refused. Retryable when it no longer does.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A file cannot be written. Retryable, as [`GenerateError::Io`].
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        source: ParquetError,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Makes a marketplace in `dir`, which must not exist or be empty; one seed gives identical bytes.
///
/// Writes `items`, `ads`, `users`, `events` and `requests.parquet` and `truth/`; everything appears in `dir` at once,
/// when it is complete. Memory is proportional to the number of ads, not of users or events.
///
/// # Errors
/// See [`GenerateError`].
pub fn generate(
    settings: &MarketplaceSettings,
    dir: &Path,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Generated, GenerateError> {
    settings.check()?;
    let partial = Partial::beside(dir)?;
    let truth = partial.path.join(TRUTH);
    fs::create_dir(&truth).map_err(|source| GenerateError::Io { path: truth, source })?;
    let world = World::new(settings);
    let counter = &mut Counter::new(u64::from(world.items()) + u64::from(settings.users), progress);
    let mut made = Generated {
        users: u64::from(settings.users),
        items: u64::from(world.items()),
        ads: u64::from(settings.ads),
        advertisers: u64::from(settings.advertisers),
        ..Generated::default()
    };
    let stock = catalogue::write(&world, &partial.path, counter)?;
    log::write(&world, &stock, &partial.path, counter, &mut made)?;
    truth::write(&world, &made, &partial.path)?;
    partial.become_complete()?;
    Ok(made)
}

/// Where Parquet files of what was planted lie, in the directory of a marketplace.
const TRUTH: &str = "truth";

/// A directory beside the one asked for, which takes its name once it is complete and else is removed.
struct Partial {
    path: PathBuf,
    target: PathBuf,
}

impl Partial {
    fn beside(dir: &Path) -> Result<Self, GenerateError> {
        let fault = |path: &Path| {
            let path = path.to_owned();
            move |source| GenerateError::Io { path, source }
        };
        let target = std::path::absolute(dir).map_err(fault(dir))?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(GenerateError::Unnamed { dir: dir.to_owned() });
        };
        match fs::read_dir(&target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() != io::ErrorKind::NotADirectory => return Err(fault(dir)(error)),
            Ok(false) | Err(_) => return Err(GenerateError::Occupied { dir: dir.to_owned() }),
        }
        fs::create_dir_all(parent).map_err(fault(parent))?;
        let mut beside = name.to_owned();
        beside.push(".partial");
        let path = parent.join(beside);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(GenerateError::InTheWay { path }),
            Err(error) => return Err(fault(&path)(error)),
        }
        Ok(Self { path, target })
    }

    fn become_complete(self) -> Result<(), GenerateError> {
        let fault = |source| GenerateError::Io { path: self.target.clone(), source };
        // An empty directory gives way; one that has been filled since stays, and is an error.
        match fs::remove_dir(&self.target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error)),
        }
        fs::rename(&self.path, &self.target).map_err(fault)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the renaming there is nothing to remove; and where removing fails, the next run says what is in the way.
        drop(fs::remove_dir_all(&self.path));
    }
}

#[cfg(test)]
mod tests;
