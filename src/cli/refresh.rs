//! `turret refresh`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::node_url::node_url;
use super::operator::Operator;
use super::progress::Bar;
use super::{block_on, say, say_json};

/// Has the states of users with new events made again
///
/// Asks a running node, which passes it on to the control node, and shows how far it is until it ends. Only users with events
/// newer than their state are encoded; online work goes first. Ctrl-C ends the watching, not the refresh. One that is cut off by
/// the end of the control node goes on when that starts again, and repeats a few users at most.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The admin address of a node
    #[arg(long, default_value = "http://127.0.0.1:7201", value_name = "URL", value_parser = node_url)]
    admin: String,
    /// Only count the users whose states would be made
    #[arg(long)]
    dry_run: bool,
    /// Start it and do not wait for its end
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks at which the control node may be out of reach, one after the other.
const LOST_MAX: u32 = 60;
/// For one answer; a dry run looks at every user.
const TIMEOUT: Duration = Duration::from_secs(70);

/// What the control node says of the last refresh.
#[derive(Clone, Deserialize)]
struct Status {
    run: u64,
    running: bool,
    started_at_ms: i64,
    ended_at_ms: Option<i64>,
    users_dirty: Option<u64>,
    users_refreshed: u64,
    partitions_done: u32,
    partitions_failed: u32,
    partitions: u32,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    block_on(refresh(&arguments))?
}

async fn refresh(arguments: &Arguments) -> anyhow::Result<()> {
    let operator = Operator::of(&arguments.admin, TIMEOUT)?;
    let answer = operator.post(&format!("/admin/refresh?dry_run={}", arguments.dry_run), &json!({})).await?;
    if arguments.dry_run {
        let users = answer["users_dirty"].as_u64().context("the node's answer has no users_dirty")?;
        return tell(arguments, &answer, format!("{users} users have new events"));
    }
    let run = answer["run"].as_u64().context("the node's answer has no run")?;
    if arguments.detach {
        let how = if answer["started"] == true { "started" } else { "is going on already" };
        return tell(arguments, &answer, format!("refresh {run} {how}"));
    }
    let bar = Bar::new("refresh", "users");
    let watching = watch(&operator, run, &bar);
    let ended = tokio::select! {
        ended = watching => ended,
        _ = tokio::signal::ctrl_c() => Err(super::Interrupted.into()),
    };
    let status = bar.end(ended)?;
    let seconds = status.ended_at_ms.map_or(0, |ended| ended - status.started_at_ms) as f64 / 1e3;
    let rate = status.users_refreshed as f64 / seconds.max(1e-3);
    let figures = json!({
        "run": run, "users_dirty": status.users_dirty, "users_refreshed": status.users_refreshed,
        "partitions": status.partitions, "partitions_failed": status.partitions_failed, "seconds": seconds,
        "users_per_second": rate,
    });
    let (users, done, partitions) = (status.users_refreshed, status.partitions_done, status.partitions);
    let text =
        format!("refresh {run}: {users} users in {seconds:.1} s, {rate:.0}/s; {done} of {partitions} partitions done");
    tell(arguments, &figures, text)?;
    if status.partitions_failed > 0 {
        bail!(
            "{} of {} partitions were given up on; see the log of the control node",
            status.partitions_failed,
            status.partitions
        );
    }
    Ok(())
}

fn tell(arguments: &Arguments, figures: &Value, text: String) -> anyhow::Result<()> {
    if arguments.json {
        return say_json(figures);
    }
    say(text);
    Ok(())
}

/// Looks until the run has ended, or another has begun after it.
async fn watch(operator: &Operator, run: u64, bar: &Bar) -> anyhow::Result<Status> {
    let (mut lost, mut started_at_ms) = (0, None);
    loop {
        if let Some(status) = operator.control("refresh").await? {
            let status = Status::deserialize(&status).context("the control node's status")?;
            // A node that starts again goes on with its run, unless it had ended; one that lost its directory counts from 1.
            if status.run > run {
                bail!("refresh {} goes on; what became of refresh {run} says the log of the control node", status.run);
            }
            if status.run < run || *started_at_ms.get_or_insert(status.started_at_ms) != status.started_at_ms {
                bail!("the control node was started again; what became of refresh {run} says its log");
            }
            lost = 0;
            let total = status.users_dirty.unwrap_or(status.users_refreshed);
            let partitions = || format!("partition {} of {}", status.partitions_done, status.partitions);
            // Ctrl-C is heeded while this waits.
            let _ = bar.at(status.users_refreshed, total, partitions);
            if !status.running {
                return Ok(status);
            }
        }
        lost += 1;
        if lost > LOST_MAX {
            bail!("the control node has not been reached for {} s", (LOOK_EVERY * LOST_MAX).as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
