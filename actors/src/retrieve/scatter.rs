//! The scatter: shards are asked at once, and whoever is late is left out.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ractor::ActorRef;
use ractor::rpc::CallResult;
use tokio::time::Instant;
use turret_retrieval::coverage::ShardOutcome;
use turret_retrieval::ids::ShardId;

use super::gather::{Gather, outcome_of};
use super::route::Route;
use super::{Rejection, RetrieveRequest, is_late};
use crate::index_shard;
use crate::protocol::{IndexRequest, QueryEmbedding, SearchAsk, SearchReply};
use crate::routing::RoutingTable;
use crate::wire::{Inbox, Wire};

/// Time kept back for the merge and the answer.
const RESERVE: Duration = Duration::from_micros(500);

/// Asks one replica of each shard that the query goes to, and gathers until all have answered or the budget, less a reserve, is
/// gone. Of clusters, so many are asked as the best `wanted` ads need; where it is `exact`, every ad of every shard that passes is compared.
///
/// Shards that are clusters are asked in two waves at most. The nearest come first; where they say that the filter passes little, or
/// hold too few ads, the best that pass lie further away: then others are asked with the time that is left.
///
/// # Errors
/// When nothing of the budget is left to ask with.
pub(super) async fn scatter(
    table: &RoutingTable,
    request: &RetrieveRequest,
    query: QueryEmbedding,
    (wanted, exact): (usize, bool),
) -> Result<Gather, Rejection> {
    let patience = || request.budget.remaining(Instant::now().into_std()).saturating_sub(RESERVE);
    let first = patience();
    if first.is_zero() {
        return Err(Rejection::DeadlineExceeded { stage: "scatter" });
    }
    let manifest = &table.manifest;
    let mut route = if exact { Route::everywhere(manifest) } else { Route::of(manifest, &query.vector) };
    let mut ask = SearchAsk {
        query,
        k: request.k as u32,
        filter: request.filter.clone(),
        crowding: request.crowding.clone(),
        exact,
        remaining_us: 0,
    };
    let mut gather = Gather::of_few(manifest.shards(), request.crowding.as_ref());
    wave(table, route.next(wanted as f64), &mut ask, first, &mut gather).await;
    let reach = gather.reach(wanted);
    if !route.is_at_end() {
        let more = if gather.has(request.k) { route.next(reach) } else { route.rest() };
        let left = patience();
        if left.is_zero() {
            // They would have been asked: they are missing.
            more.iter().for_each(|shard| gather.ask(*shard));
        } else {
            wave(table, more, &mut ask, left, &mut gather).await;
        }
    }
    gather.expect(route.shares(reach));
    Ok(gather)
}

/// Asks some shards at once, and takes in what they answer within `patience`.
async fn wave(table: &RoutingTable, shards: &[ShardId], ask: &mut SearchAsk, patience: Duration, gather: &mut Gather) {
    ask.remaining_us = patience.as_micros() as u64;
    let mut asked = FuturesUnordered::new();
    for shard in shards.iter().copied() {
        gather.ask(shard);
        match table.shards.get(shard.0 as usize).and_then(|replicas| replicas.first()) {
            Some(replica) => asked.push(search(shard, replica, ask.clone(), patience)),
            None => gather.take(shard, Err(ShardOutcome::Absent)),
        }
    }
    while let Some((shard, answer)) = asked.next().await {
        gather.take(shard, answer);
    }
}

async fn search(
    shard: ShardId,
    replica: &ActorRef<index_shard::Msg>,
    ask: SearchAsk,
    patience: Duration,
) -> (ShardId, Result<SearchReply, ShardOutcome>) {
    let search = |reply| -> index_shard::Msg { Inbox::Request(IndexRequest::Search(Wire::new(ask), reply)) };
    let asked = Instant::now();
    let answer = match replica.call(search, Some(patience)).await {
        Ok(CallResult::Success(answer)) => match answer.open() {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(refusal)) => {
                tracing::debug!(%shard, %refusal, "shard refused");
                Err(outcome_of(&refusal))
            }
            Err(error) => {
                tracing::warn!(%shard, %error, "answer of a shard could not be read");
                Err(ShardOutcome::Failed)
            }
        },
        Ok(CallResult::Timeout) => Err(ShardOutcome::Timeout),
        Ok(CallResult::SenderError) if is_late(asked, patience) => Err(ShardOutcome::Timeout),
        Ok(CallResult::SenderError) | Err(_) => Err(ShardOutcome::Failed),
    };
    (shard, answer)
}
