//! How versions of a model come to be. Each lineage changes one thing from version to version, so that the cost of skew
//! can be told from its cause.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use turret_model::{Split, TrainingSettings};

const DAY_MS: i64 = 86_400_000;

/// How a team comes by its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Lineage {
    /// From scratch on the same data, each with another seed
    Retrained,
    /// From scratch with the same seed, each on the data of a day earlier
    Daily,
    /// Each trained further from the one before it, on a day more
    Continued,
}

/// What is asked of a lineage.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// How the latest version is trained.
    pub training: &'a TrainingSettings,
    /// What it is trained on.
    pub split: &'a Split,
    /// How many versions there are.
    pub count: usize,
    /// Steps of a version that is trained further.
    pub further_steps: usize,
}

/// A version that is to be trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// What differs from the others: its seed, or the time up to which it is trained.
    pub name: String,
    /// How it is trained.
    pub training: TrainingSettings,
    /// What it is trained on.
    pub split: Split,
}

/// A lineage that the data do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} versions need a temporal split: where one event of each user is left out, there is no day before", .lineage.name())]
pub struct LineageError {
    lineage: Lineage,
}

impl Lineage {
    /// All of them, the simplest first.
    pub const ALL: [Self; 3] = [Self::Retrained, Self::Daily, Self::Continued];

    /// As it is called in arguments and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retrained => "retrained",
            Self::Daily => "daily",
            Self::Continued => "continued",
        }
    }

    /// What its versions are, in words.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Retrained => "versions trained from scratch on the same data, each with another seed",
            Self::Daily => "versions trained from scratch with the same seed, each up to another day",
            Self::Continued => "versions trained day by day, each further from the one before",
        }
    }

    /// Whether a version starts from the one before it; the oldest is trained from scratch.
    pub fn goes_on(self) -> bool {
        self == Self::Continued
    }

    /// The versions, the latest first: it is the one that the configuration asks for, but for where its training starts.
    ///
    /// # Errors
    /// When versions of days are asked of a split that has no days.
    pub fn versions(self, planned: Planned<'_>) -> Result<Vec<Version>, LineageError> {
        (0..planned.count).map(|number| self.version(number, planned)).collect()
    }

    fn version(self, back: usize, planned: Planned<'_>) -> Result<Version, LineageError> {
        let Planned { training, split, count, further_steps } = planned;
        if self == Self::Retrained {
            let training = TrainingSettings { seed: training.seed.wrapping_add(back as u64), ..training.clone() };
            return Ok(Version { name: format!("seed {}", training.seed), training, split: *split });
        }
        let (split, cut_ms) = days_before(split, back as i64).ok_or(LineageError { lineage: self })?;
        let mut training = training.clone();
        if self.goes_on() && back + 1 < count {
            training.steps = further_steps;
            training.warmup_steps = training.warmup_steps.min(further_steps);
        }
        Ok(Version { name: time(cut_ms), training, split })
    }
}

/// The whole split as it was `days` days ago, with the time at which it cuts; none where it has no days.
fn days_before(split: &Split, days: i64) -> Option<(Split, i64)> {
    let back = |at: i64| at.saturating_sub(days * DAY_MS);
    match *split {
        Split::Temporal { part, validation_cut_ms, cut_ms, until_ms } => {
            let cut_ms = back(cut_ms);
            let split = Split::Temporal {
                part,
                validation_cut_ms: validation_cut_ms.map(back),
                cut_ms,
                until_ms: back(until_ms),
            };
            Some((split, cut_ms))
        }
        Split::LeaveOneOut { .. } => None,
    }
}

/// A date, with the time of day where that is not midnight.
fn time(at_ms: i64) -> String {
    let Ok(time) = jiff::Timestamp::from_millisecond(at_ms) else { return format!("{at_ms} ms") };
    let text = time.to_string();
    text.strip_suffix("T00:00:00Z").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use turret_model::Part;

    use super::*;
    use crate::config::Config;

    fn config(split: &str) -> Config {
        let text =
            format!("[data]\ndir = \"d\"\n[split]\n{split}\n[training]\nseed = 7\nsteps = 900\nwarmup_steps = 40");
        Config::parse(&text, Path::new("a.toml")).unwrap()
    }

    fn versions(lineage: Lineage, config: &Config) -> Result<Vec<Version>, LineageError> {
        let Config { training, split, .. } = config;
        lineage.versions(Planned { training, split, count: 3, further_steps: 30 })
    }

    const TEMPORAL: &str = "kind = \"temporal\"\nvalidation_cut = 2017-10-15T00:00:00Z\ncut = 2017-10-16T00:00:00Z\n\
                            until = 2017-10-17T00:00:00Z";

    #[test]
    fn the_latest_version_is_the_configurations_own_and_one_thing_changes_before_it() {
        let config = config(TEMPORAL);
        let check = |lineage: Lineage, names: [&str; 3], settings: [(u64, usize, usize); 3]| {
            let versions = versions(lineage, &config).unwrap();
            assert_eq!(versions.iter().map(|version| version.name.as_str()).collect::<Vec<_>>(), names);
            let found = versions.iter().map(|v| (v.training.seed, v.training.steps, v.training.warmup_steps));
            assert_eq!(found.collect::<Vec<_>>(), settings);
            assert_eq!(versions[0].split, config.split);
            assert!(versions.iter().all(|version| config.split.is_unseen_by(&version.split)));
            versions
        };
        let days = ["2017-10-16", "2017-10-15", "2017-10-14"];
        let retrained =
            check(Lineage::Retrained, ["seed 7", "seed 8", "seed 9"], [(7, 900, 40), (8, 900, 40), (9, 900, 40)]);
        assert!(retrained.iter().all(|version| version.split == config.split));
        let daily = check(Lineage::Daily, days, [(7, 900, 40); 3]);
        let continued = check(Lineage::Continued, days, [(7, 30, 30), (7, 30, 30), (7, 900, 40)]);
        let [one_day, two_days] = [86_400_000, 2 * 86_400_000];
        for versions in [daily, continued] {
            let Split::Temporal { cut_ms, until_ms, .. } = config.split else { panic!("it is temporal") };
            let expected = Split::Temporal {
                part: Part::Test,
                validation_cut_ms: Some(cut_ms - two_days),
                cut_ms: cut_ms - one_day,
                until_ms: until_ms - one_day,
            };
            assert_eq!(versions[1].split, expected, "a whole day earlier, as it was configured then");
        }
    }

    #[test]
    fn leaving_one_out_has_seeds_and_no_days() {
        let config = config("kind = \"leave_one_out\"");
        assert_eq!(versions(Lineage::Retrained, &config).unwrap().len(), 3);
        for lineage in [Lineage::Daily, Lineage::Continued] {
            let error = versions(lineage, &config).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} versions need a temporal split", lineage.name())), "{error}");
        }
    }

    #[test]
    fn a_time_of_day_is_told_where_it_is_not_midnight() {
        assert_eq!(time(1_508_112_000_000), "2017-10-16");
        assert_eq!(time(1_508_112_000_000 + 3_600_000), "2017-10-16T01:00:00Z");
        assert_eq!(time(i64::MIN), "-9223372036854775808 ms");
    }
}
