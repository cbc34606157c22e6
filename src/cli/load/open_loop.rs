//! The load itself: requests leave by the clock, not by the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

/// Makes the body of a request from its number.
pub(in crate::cli) type Body = Box<dyn Fn(u64) -> Bytes + Send>;

/// `bodies` in turn; there must be one.
pub(in crate::cli) fn in_turn(bodies: Vec<Bytes>) -> Body {
    Box::new(move |number| bodies[(number % bodies.len() as u64) as usize].clone())
}

/// What to send.
pub(in crate::cli) struct Plan {
    /// Where.
    pub(in crate::cli) url: String,
    /// The body of each request, by its number.
    pub(in crate::cli) body: Body,
    /// Requests a second.
    pub(in crate::cli) rate: f64,
    /// For how long.
    pub(in crate::cli) duration: Duration,
    /// Requests that may be unanswered at once.
    pub(in crate::cli) in_flight_max: usize,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Report {
    pub(in crate::cli) sent: u64,
    /// With a 2xx status.
    pub(in crate::cli) answered: u64,
    /// Of those, with less than full coverage or without the user's state.
    pub(in crate::cli) degraded: u64,
    pub(in crate::cli) failed: u64,
    /// Not sent, because too many were unanswered.
    pub(in crate::cli) dropped: u64,
    pub(in crate::cli) seconds: f64,
    pub(in crate::cli) asked_rate: f64,
    pub(in crate::cli) achieved_rate: f64,
    /// Of answered requests, from the intended time of sending.
    pub(in crate::cli) latency_us: Latency,
    /// Failures by kind.
    pub(in crate::cli) errors: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Latency {
    pub(in crate::cli) p50: u64,
    pub(in crate::cli) p90: u64,
    pub(in crate::cli) p99: u64,
    pub(in crate::cli) p999: u64,
    pub(in crate::cli) max: u64,
    pub(in crate::cli) mean: f64,
}

/// One request's end: microseconds and whether the answer was degraded, or what went wrong.
type Outcome = Result<(u64, bool), String>;

/// A request that takes longer than this failed.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Sends by the plan and waits for the last answers. Ctrl-C ends the sending early; the report covers what was sent.
pub(in crate::cli) async fn run(plan: Plan) -> anyhow::Result<Report> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).context("histogram bounds")?;
    let (sender, mut outcomes) = mpsc::channel(plan.in_flight_max);
    let permits = Arc::new(Semaphore::new(plan.in_flight_max));
    let interval = Duration::from_secs_f64(1.0 / plan.rate);
    let total = (plan.rate * plan.duration.as_secs_f64()).round().max(1.0) as u64;
    let url: Arc<str> = plan.url.clone().into();

    let collect = tokio::spawn(async move {
        let (mut answered, mut degraded, mut errors) = (0u64, 0u64, BTreeMap::<String, u64>::new());
        while let Some(outcome) = outcomes.recv().await {
            match outcome {
                Ok((us, is_degraded)) => {
                    answered += 1;
                    degraded += u64::from(is_degraded);
                    histogram.saturating_record(us);
                }
                Err(what) => *errors.entry(what).or_default() += 1,
            }
        }
        (answered, degraded, errors, histogram)
    });

    let started = Instant::now();
    let (mut sent, mut dropped) = (0u64, 0u64);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    for number in 0..total {
        let due = started + interval.mul_f64(number as f64);
        tokio::select! {
            biased;
            _ = &mut interrupted => break,
            () = sleep_until(due) => {}
        }
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            dropped += 1;
            continue;
        };
        sent += 1;
        let body = (plan.body)(number);
        let (client, url, sender) = (client.clone(), url.clone(), sender.clone());
        tokio::spawn(async move {
            let outcome = request(&client, &url, body, due).await;
            drop(permit);
            // The collector outlives every sender.
            drop(sender.send(outcome).await);
        });
    }
    let seconds = started.elapsed().as_secs_f64();
    drop(sender);
    let (answered, degraded, errors, histogram) = collect.await.context("the collector panicked")?;
    let at = |quantile| histogram.value_at_quantile(quantile);
    Ok(Report {
        sent,
        answered,
        degraded,
        failed: errors.values().sum(),
        dropped,
        seconds,
        asked_rate: plan.rate,
        achieved_rate: sent as f64 / seconds.max(1e-9),
        latency_us: Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
        },
        errors,
    })
}

async fn request(client: &reqwest::Client, url: &str, body: Bytes, due: Instant) -> Outcome {
    let kind = |error: reqwest::Error| {
        let what = if error.is_timeout() {
            "timeout"
        } else if error.is_connect() {
            "no connection"
        } else {
            "broken connection"
        };
        what.to_owned()
    };
    let sending = client.post(url).header("content-type", "application/json").body(body).send();
    let response = sending.await.map_err(kind)?;
    let status = response.status();
    let answer = response.bytes().await.map_err(kind)?;
    let us = due.elapsed().as_micros() as u64;
    if !status.is_success() {
        return Err(format!("status {}", status.as_u16()));
    }
    #[derive(serde::Deserialize)]
    struct Answer {
        status: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| "answer is not JSON".to_owned())?;
    Ok((us.max(1), answer.status.is_some_and(|status| status != "full")))
}
