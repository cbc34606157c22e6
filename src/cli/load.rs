//! `turret load`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use turret_actors::clock::now_ms;

use super::node_url::node_url;
use super::{UsageError, block_on, say, say_json};

pub(super) mod open_loop;

use open_loop::{Body, Plan, Report, in_turn};

/// Sends requests to a running node at a fixed rate, and reports the latencies
///
/// The load is open: requests leave at the times that the rate sets, whether or not earlier ones were answered, and a
/// latency counts from the time at which the request should have left. So a node that stalls looks as slow as its
/// callers would find it (no coordinated omission). Stops by itself.
///
/// Requests come from a file with one JSON body a line, used in turn; `turret quickstart` writes one. With --events-rate, made-up
/// events of their users are written meanwhile: not for a store whose users matter.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The node's HTTP address
    #[arg(long, default_value = "http://127.0.0.1:7101", value_name = "URL", value_parser = node_url)]
    url: String,
    /// Request bodies, one JSON object a line
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Requests a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Events a second to write meanwhile, of the users of the requests
    #[arg(long, default_value_t = 0.0)]
    events_rate: f64,
    /// Events of one ingestion
    #[arg(long, default_value_t = 100)]
    events_per_request: usize,
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
    if !(1e-3..=1e6).contains(&arguments.rate) {
        return usage("--rate: must be in 0.001..=1000000");
    }
    if !(arguments.duration_s > 0.0 && arguments.duration_s <= 86_400.0) {
        return usage("--duration-s: must be above 0 and at most 86400");
    }
    if !(1..=100_000).contains(&arguments.in_flight_max) {
        return usage("--in-flight-max: must be in 1..=100000");
    }
    if arguments.events_rate != 0.0 && !(1.0..=1e7).contains(&arguments.events_rate) {
        return usage("--events-rate: must be 0 or in 1..=10000000");
    }
    if !(1..=5_000).contains(&arguments.events_per_request) {
        return usage("--events-per-request: must be in 1..=5000");
    }
    let bodies = read_bodies(&arguments.requests)?;
    let users = users_of(&bodies);
    if arguments.events_rate > 0.0 && users.is_empty() {
        return usage("--events-rate: the requests name no users");
    }
    let plan = |path: &str, rate: f64, body: Body| Plan {
        url: format!("{}{path}", arguments.url),
        body,
        rate,
        duration: Duration::from_secs_f64(arguments.duration_s),
        in_flight_max: arguments.in_flight_max,
    };
    let requests = plan("/v1/candidates:retrieve", arguments.rate, in_turn(bodies));
    let count = arguments.events_per_request;
    let events = (arguments.events_rate > 0.0).then(|| {
        let body: Body = Box::new(move |number| events_of(&users, number, count));
        plan("/v1/events:ingest", arguments.events_rate / count as f64, body)
    });
    let (requests, events) = block_on(async {
        let events = async {
            match events {
                Some(plan) => open_loop::run(plan).await.map(Some),
                None => Ok(None),
            }
        };
        tokio::try_join!(open_loop::run(requests), events)
    })??;
    let report = Loaded { requests, events };
    if arguments.json {
        say_json(&report)?;
    } else {
        say(render(&report.requests));
        if let Some(events) = &report.events {
            say(format!("ingestions of {count} events: {}", render(events)));
        }
    }
    if report.requests.answered == 0 {
        bail!("no request was answered");
    }
    Ok(())
}

/// What came of the requests, and of the ingestions where there were any.
#[derive(Serialize)]
struct Loaded {
    #[serde(flatten)]
    requests: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Report>,
}

/// The users that requests name, each once.
fn users_of(bodies: &[Bytes]) -> Vec<Box<str>> {
    #[derive(Deserialize)]
    struct Asker {
        user_id: Option<Box<str>>,
    }
    let users = bodies.iter().filter_map(|body| serde_json::from_slice::<Asker>(body).ok()?.user_id);
    users.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The body of the ingestion `number`: `count` events of now, of the users in turn.
fn events_of(users: &[Box<str>], number: u64, count: usize) -> Bytes {
    let now_ms = now_ms();
    let first = number as usize * count;
    let line = |at: usize| {
        let event = serde_json::json!({
            "user_id": users[at % users.len()], "item_id": format!("load-{}", at % 1_000), "event_type": "view",
            "timestamp_ms": now_ms, "event_id": format!("load-{now_ms}-{at}"),
        });
        format!("{event}\n")
    };
    (first..first + count).map(line).collect::<String>().into()
}

fn read_bodies(path: &PathBuf) -> anyhow::Result<Vec<Bytes>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bodies = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).take(BODIES_MAX) {
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(line) {
            bail!("{}:{}: not JSON: {error}", path.display(), number + 1);
        }
        bodies.push(Bytes::copy_from_slice(line.as_bytes()));
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
