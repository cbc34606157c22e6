//! What becomes of a publication, as the node tells it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use turret_actors::protocol::RolloutStatus;
use turret_actors::rollout::plan::{Outcome, Phase, RolloutPlan};
use turret_retrieval::generation::Manifest;

use super::Arguments;
use crate::cli::operator::Operator;
use crate::cli::progress::Bar;
use crate::cli::{Interrupted, say, say_json};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks at which the node may say nothing, one after the other: it may be starting again.
const LOST_MAX: u32 = 120;

/// Shows how far the publication of `plan` is until it ends; `made` is the manifest of what this command has made.
pub(super) async fn follow(
    operator: &Operator,
    plan: Value,
    arguments: &Arguments,
    made: Option<&Manifest>,
) -> anyhow::Result<()> {
    let plan = RolloutPlan::deserialize(&plan).context("the node's answer")?;
    let what = format!("publication {} ({} → {})", plan.run, plan.from, plan.to);
    // The one before is published as every other is, where nothing was going on.
    let gives_up = arguments.rollback && plan.phase != Phase::Preparing;
    if arguments.detach {
        if arguments.json {
            return say_json(&json!({ "manifest": made, "plan": plan }));
        }
        say(format!("{what} goes on; see /admin/status, or `turret publish --rollback`"));
        return Ok(());
    }
    let bar = Bar::new("publish", "");
    let watching = watch(operator, plan.run, arguments.json, &bar);
    let ended = tokio::select! {
        ended = watching => ended,
        _ = tokio::signal::ctrl_c() => Err(Interrupted.into()),
    };
    let status = bar.end(ended)?;
    if arguments.json {
        say_json(&json!({ "manifest": made, "rollout": status }))?;
    }
    match status.plan.map(|plan| plan.phase) {
        Some(Phase::Ended { outcome: Outcome::Published }) => {
            if !arguments.json {
                say(format!("{} serves", plan.to));
            }
            Ok(())
        }
        // What was asked for: the publication that was going on is given up.
        Some(Phase::Ended { outcome: Outcome::RolledBack { .. } | Outcome::Refused { .. } }) if gives_up => {
            if !arguments.json {
                say(format!("{} serves", plan.from));
            }
            Ok(())
        }
        Some(Phase::Ended { outcome: Outcome::Refused { why } }) => {
            bail!("{what} was refused, {} serves: {why}", plan.from)
        }
        Some(Phase::Ended { outcome: Outcome::RolledBack { why } }) => {
            bail!("{what} was rolled back, {} serves: {why}", plan.from)
        }
        _ => bail!("{what}: the node tells of no end"),
    }
}

async fn watch(operator: &Operator, run: u64, quiet: bool, bar: &Bar) -> anyhow::Result<RolloutStatus> {
    let (mut lost, mut told) = (0, 0);
    loop {
        // A node that is starting again answers nobody for a while.
        let looked = operator.control("rollout").await;
        if let Some(status) = looked.as_ref().ok().and_then(Option::as_ref) {
            let status = RolloutStatus::deserialize(status).context("the node's status")?;
            let plan = status.plan.clone().filter(|plan| plan.run == run);
            let plan = plan.with_context(|| format!("publication {run} is not the node's last one any more"))?;
            lost = 0;
            for gate in status.gates.iter().skip(told).filter(|_| !quiet) {
                let mark = if gate.passed { "✓" } else { "✗" };
                bar.above(&format!("{mark} {}: {}", gate.name, gate.detail));
            }
            told = told.max(status.gates.len());
            if plan.is_ended() {
                return Ok(status);
            }
            let left_ms = status.watch.map_or(0, |watch| watch.remaining_ms);
            let phase = match &plan.phase {
                Phase::Preparing => "preparing".to_owned(),
                Phase::Gating => "judging".to_owned(),
                Phase::Activating => "activating".to_owned(),
                Phase::Watching => {
                    let watched = status.watch.map(|watch| watch.now.requests).unwrap_or_default();
                    format!("serves; watched for {} s more, {watched} requests so far", left_ms.div_ceil(1_000))
                }
                Phase::RollingBack { why } => format!("rolling back: {why}"),
                Phase::Retiring { .. } => "the other one is stopped".to_owned(),
                Phase::Ended { .. } => "ended".to_owned(),
            };
            // Ctrl-C is heeded while this waits.
            let _ = bar.at(u64::from(told as u32), 6, || phase);
        } else {
            lost += 1;
            if lost > LOST_MAX {
                looked.map(drop)?;
                bail!("the node has told nothing of it for {} s", (LOOK_EVERY * LOST_MAX).as_secs());
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
