//! `turret load`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::{UsageError, block_on, say, say_json};

pub(super) mod open_loop;

use open_loop::{Plan, Report};

/// Sends requests to a running node at a fixed rate, and reports the latencies
///
/// The load is open: requests leave at the times that the rate sets, whether or not earlier ones were answered, and a
/// latency counts from the time at which the request should have left. So a node that stalls looks as slow as its
/// callers would find it (no coordinated omission). Stops by itself.
///
/// Requests come from a file with one JSON body a line, used in turn; `turret quickstart` writes one.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The node's HTTP address
    #[arg(long, default_value = "http://127.0.0.1:7101", value_name = "URL")]
    url: String,
    /// Request bodies, one JSON object a line
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Requests a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// How long to send
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    duration_s: f64,
    /// Requests that may be unanswered at once; those beyond count as dropped
    #[arg(long, default_value_t = 1_024)]
    in_flight_max: usize,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The most bodies read from the file.
const BODIES_MAX: usize = 1_000_000;

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let usage = |text: &str| Err(UsageError::Argument(text.to_owned()).into());
    if !(arguments.rate > 0.0 && arguments.rate <= 1e6) {
        return usage("--rate: must be above 0 and at most 1000000");
    }
    if !(arguments.duration_s > 0.0 && arguments.duration_s <= 86_400.0) {
        return usage("--duration-s: must be above 0 and at most 86400");
    }
    if !(1..=100_000).contains(&arguments.in_flight_max) {
        return usage("--in-flight-max: must be in 1..=100000");
    }
    let bodies = read_bodies(&arguments.requests)?;
    let plan = Plan {
        url: format!("{}/v1/candidates:retrieve", arguments.url.trim_end_matches('/')),
        bodies,
        rate: arguments.rate,
        duration: Duration::from_secs_f64(arguments.duration_s),
        in_flight_max: arguments.in_flight_max,
    };
    let report = block_on(open_loop::run(plan))??;
    if arguments.json {
        say_json(&report)?;
    } else {
        say(render(&report));
    }
    if report.answered == 0 {
        bail!("no request was answered");
    }
    Ok(())
}

fn read_bodies(path: &PathBuf) -> anyhow::Result<Vec<bytes::Bytes>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bodies = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).take(BODIES_MAX) {
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(line) {
            bail!("{}:{}: not JSON: {error}", path.display(), number + 1);
        }
        bodies.push(bytes::Bytes::copy_from_slice(line.as_bytes()));
    }
    if bodies.is_empty() {
        bail!("{}: holds no requests", path.display());
    }
    Ok(bodies)
}

fn render(report: &Report) -> String {
    let latency = &report.latency_us;
    let mut lines = vec![
        format!(
            "{} sent at {:.1}/s over {:.1} s; {} answered, {} degraded, {} failed, {} dropped",
            report.sent,
            report.achieved_rate,
            report.seconds,
            report.answered,
            report.degraded,
            report.failed,
            report.dropped
        ),
        format!(
            "latency from the intended send time, in µs: p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            latency.p50, latency.p90, latency.p99, latency.p999, latency.max
        ),
    ];
    lines.extend(report.errors.iter().map(|(what, count)| format!("{count} × {what}")));
    lines.join("\n")
}
