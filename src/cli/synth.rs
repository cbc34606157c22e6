//! `turret synth`.

use std::path::PathBuf;

use turret_data::marketplace::{self, BulkSettings, MarketplaceSettings};

use super::progress::{Bar, watch_interrupts};
use super::{UsageError, say, say_json};

/// Makes a synthetic marketplace: advertisers, ads, users, their browsing trips, and a request log
///
/// Writes a data set of the canonical schema (docs/data.md) with what was planted beside it, in `truth/`. One seed gives
/// identical bytes, on any machine. With --events it makes instead a plain log of that length, in several files and in
/// little memory, to try what must not grow with the log.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Where; must not exist, or be empty
    dir: PathBuf,
    /// Events of a plain log, at most 10000000000: no marketplace is made
    #[arg(long, conflicts_with_all = ["ads", "advertisers"])]
    events: Option<u64>,
    /// Users; 20000 where not given, or with --events one for every 50 of them
    #[arg(long)]
    users: Option<u32>,
    /// Ads, at most 1000000; each promotes one item
    #[arg(long, default_value_t = 5_000)]
    ads: u32,
    /// Items of a plain log
    #[arg(long, default_value_t = 100_000, requires = "events")]
    items: u32,
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

/// Events of a user in a plain log, on average.
const EVENTS_PER_USER: u64 = 50;

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(events) = arguments.events {
        return run_bulk(&arguments, events);
    }
    let settings = MarketplaceSettings {
        users: arguments.users.unwrap_or(20_000),
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

fn run_bulk(arguments: &Arguments, events: u64) -> anyhow::Result<()> {
    let by_events = u32::try_from(events.div_ceil(EVENTS_PER_USER)).unwrap_or(u32::MAX);
    let settings = BulkSettings {
        events,
        users: arguments.users.unwrap_or(by_events),
        items: arguments.items,
        days: arguments.days,
        seed: arguments.seed,
        start_ms: START_MS,
    };
    settings.check().map_err(|error| UsageError::Argument(format!("--{error}")))?;
    watch_interrupts()?;
    let bar = Bar::new("log", "events");
    let made = marketplace::generate_bulk(&settings, &arguments.dir, &mut |progress| {
        bar.at(progress.done, progress.total, || progress.what.to_string())
    });
    let made = bar.end(made)?;
    if arguments.json {
        return say_json(&made);
    }
    say(format!(
        "{}: {} events in {} files, {} users, {} items",
        arguments.dir.display(),
        made.events,
        made.files,
        made.users,
        made.items
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
