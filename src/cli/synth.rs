//! `turret synth`.

use std::path::PathBuf;

use turret_data::marketplace::{self, MarketplaceSettings};

use super::progress::{Bar, watch_interrupts};
use super::{UsageError, say, say_json};

/// Makes a synthetic marketplace: advertisers, ads, users, their browsing trips, and a request log
///
/// Writes a data set of the canonical schema (docs/data.md) with what was planted beside it, in `truth/`. One seed gives
/// identical bytes, on any machine.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Where; must not exist, or be empty
    dir: PathBuf,
    /// Users, at most 1000000
    #[arg(long, default_value_t = 20_000)]
    users: u32,
    /// Ads, at most 1000000; each promotes one item
    #[arg(long, default_value_t = 5_000)]
    ads: u32,
    /// Advertisers
    #[arg(long, default_value_t = 200)]
    advertisers: u32,
    /// Days of browsing; the last is the natural day to test on
    #[arg(long, default_value_t = 21)]
    days: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// 2026-01-05 00:00 UTC, a Monday.
pub(super) const START_MS: i64 = 1_767_571_200_000;

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = MarketplaceSettings {
        users: arguments.users,
        ads: arguments.ads,
        advertisers: arguments.advertisers,
        days: arguments.days,
        seed: arguments.seed,
        start_ms: START_MS,
    };
    settings.check().map_err(|error| UsageError::Argument(format!("--{error}")))?;
    watch_interrupts()?;
    let made = generate(&settings, &arguments.dir)?;
    if arguments.json {
        return say_json(&made);
    }
    say(format!(
        "{}: {} users, {} ads, {} events, {} requests; the planted truth is in {}",
        arguments.dir.display(),
        made.users,
        made.ads,
        made.events,
        made.requests,
        arguments.dir.join("truth").display()
    ));
    Ok(())
}

/// Generates with a bar.
pub(super) fn generate(
    settings: &MarketplaceSettings,
    dir: &std::path::Path,
) -> anyhow::Result<marketplace::Generated> {
    let bar = Bar::new("marketplace", "rows");
    let made = marketplace::generate(settings, dir, &mut |progress| {
        bar.at(progress.done, progress.total, || progress.what.to_string())
    });
    bar.end(made)
}
