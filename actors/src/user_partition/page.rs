//! One page of a refresh: read users with new events, encode them, write their states.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ractor::rpc::CallResult;
use tokio::time::Instant;
use turret_retrieval::ids::UserId;
use turret_store::{Dirty, PartitionStore, RefreshProgress, StoredState};

use super::UserPartition;
use super::pace::Size;
use crate::clock::now_ms;
use crate::inference_worker;
use crate::offload::Panicked;
use crate::protocol::{
    EncodeAsk, Encoded, EncoderOf, InferenceRequest, RefreshPageAsk, RefreshUsersAsk, RefreshedPage, RefreshedUsers,
    Refusal,
};
use crate::routing::workers;
use crate::wire::{Inbox, Wire};

/// How long half a chunk may take, with its wait for an inference worker that is busy.
const ENCODE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a page may take before the rest of it is left for another: its caller waits for a minute.
const PAGE_TIME: Duration = Duration::from_secs(30);

/// Halves of a chunk that are under way: a crash repeats these.
const HALVES: usize = 2;

/// The most users in one page.
const PAGE_USERS_MAX: u32 = 1_024;

/// Recomputes the states of the next users with new events. A crash repeats at most the one chunk that was not written: the
/// half that was being encoded, and the one before it that was being written.
pub(super) async fn refresh(
    own: &UserPartition,
    store: Arc<PartitionStore>,
    ask: RefreshPageAsk,
) -> Result<RefreshedPage, Refusal> {
    let limit = ask.users_max.clamp(1, PAGE_USERS_MAX) as usize;
    let (encoder, run) = (ask.by.encoder.clone(), ask.run);
    let page = on_store(own, &store, move |store| {
        // A run that was cut off goes on where its last states were written.
        let written = store.refresh_progress(&encoder)?.filter(|progress| progress.run == run);
        let after = ask.after.max(written.map(|progress| progress.after));
        store.dirty_users(&encoder, after.as_ref(), limit)
    })
    .await?;
    for user in &page.damaged {
        tracing::error!(%user, partition = %own.partition, "records cannot be read; not refreshed");
    }
    let (refreshed, is_whole) = encode_and_put(own, &store, &ask.by, Some(run), page.users).await?;
    Ok(RefreshedPage { refreshed, next: page.next, is_whole })
}

/// Recomputes the states of users who are named, where they do not cover all events.
pub(super) async fn refresh_users(
    own: &UserPartition,
    store: Arc<PartitionStore>,
    ask: RefreshUsersAsk,
) -> Result<RefreshedUsers, Refusal> {
    let (encoder, users) = (ask.by.encoder.clone(), ask.users.clone());
    let dirty = on_store(own, &store, move |store| store.dirty_among(&encoder, &users)).await?;
    let (refreshed, _) = encode_and_put(own, &store, &ask.by, None, dirty).await?;
    // Once more: an event that came meanwhile makes a state old, and one that was erased needs none.
    let encoder = ask.by.encoder.clone();
    let lacking = on_store(own, &store, move |store| store.dirty_among(&encoder, &ask.users)).await?;
    Ok(RefreshedUsers { refreshed, lacking: lacking.into_iter().map(|dirty| dirty.user).collect() })
}

/// Encodes users and writes their states, by halves of chunks, of which two are under way at most. How far the run is is written
/// behind all of a page: users of halves before are known by no longer being dirty. Says how many were written, and whether all
/// were: time may be up.
async fn encode_and_put(
    own: &UserPartition,
    store: &Arc<PartitionStore>,
    by: &EncoderOf,
    run: Option<u64>,
    mut users: Vec<Dirty>,
) -> Result<(u32, bool), Refusal> {
    let ends = Instant::now() + PAGE_TIME;
    own.keep_states_of(store, &by.encoder);
    let last = run.zip(users.last());
    let progress =
        last.map(|(run, last)| RefreshProgress { run, encoder: by.encoder.clone(), after: last.user.clone() });
    // Like lengths together: a batch is as long as its longest. Taken from the end.
    users.sort_by_key(|user| std::cmp::Reverse(user.events.len()));
    let (mut refreshed, mut is_whole, mut is_asked, mut failed) = (0, true, false, None);
    let mut under_way = FuturesUnordered::new();
    loop {
        if !users.is_empty() && Instant::now() > ends {
            is_whole = false;
            users.clear();
        }
        // While requests come, one after the other.
        let most = if is_asked { 1 } else { HALVES };
        while under_way.len() < most && !users.is_empty() {
            under_way.push(refresh_half(own, store, by, own.pace.take(&mut users)));
        }
        match under_way.next().await {
            Some(Ok(half)) => {
                refreshed += half.stored;
                is_asked = half.is_asked;
                if is_asked && under_way.is_empty() {
                    // Encoding takes no core that a request wants; reading, writing and messages do.
                    tokio::time::sleep(half.encoded_in).await;
                }
            }
            // What is under way is waited for.
            Some(Err(refusal)) => {
                users.clear();
                failed = Some(refusal);
            }
            None => break,
        }
    }
    if let Some(refusal) = failed {
        return Err(refusal);
    }
    if let Some(progress) = progress.filter(|_| is_whole) {
        put(own, store, Vec::new(), Some(progress)).await?;
    }
    Ok((refreshed, is_whole))
}

/// What became of half a chunk.
struct Half {
    stored: u32,
    /// From when it was asked for.
    encoded_in: Duration,
    /// Whether requests come where it was encoded.
    is_asked: bool,
}

async fn refresh_half(
    own: &UserPartition,
    store: &Arc<PartitionStore>,
    by: &EncoderOf,
    users: Vec<Dirty>,
) -> Result<Half, Refusal> {
    let began = Instant::now();
    let (states, is_asked) = encode_half(own, by, users).await?;
    let encoded_in = began.elapsed();
    let stored = put(own, store, states, None).await?;
    Ok(Half { stored, encoded_in, is_asked })
}

async fn put(
    own: &UserPartition,
    store: &Arc<PartitionStore>,
    states: Vec<(UserId, StoredState)>,
    progress: Option<RefreshProgress>,
) -> Result<u32, Refusal> {
    on_store(own, store, move |store| store.put_states(&states, progress.as_ref())).await
}

/// The states of users, as they are kept, and whether requests come where they were made.
async fn encode_half(
    own: &UserPartition,
    by: &EncoderOf,
    mut users: Vec<Dirty>,
) -> Result<(Vec<(UserId, StoredState)>, bool), Refusal> {
    let size = Size::of(&users);
    let covered: Vec<i64> = users.iter().map(|user| user.events.last().map_or(0, |event| event.timestamp_ms)).collect();
    let histories = users.iter_mut().map(|user| std::mem::take(&mut user.events)).collect();
    let (encoder, precision) = (by.encoder.clone(), own.state_precision);
    let ask = EncodeAsk { encoder, histories, precision, remaining_us: ENCODE_TIMEOUT.as_micros() as u64 };
    let Encoded { states, took_us, is_asked } = encode(own, by, ask).await?;
    if states.len() != users.len() {
        return Err(Refusal::Failed(format!("{} states for {} users", states.len(), users.len())));
    }
    let largest = states.iter().flatten().map(|state| state.bytes().len()).max().unwrap_or(0);
    own.pace.took(size, Duration::from_micros(took_us), largest);
    let made_at_ms = now_ms();
    let kept = users.into_iter().zip(covered).zip(states).filter_map(|((user, covers_until_ms), sequence)| {
        let (encoder, sequence) = (by.encoder.clone(), sequence?);
        Some((user.user, StoredState { encoder, made_at_ms, covers_until_ms, covers: user.log_at, sequence }))
    });
    Ok((kept.collect(), is_asked))
}

/// Runs `work` where users are written.
async fn on_store<T, E>(
    own: &UserPartition,
    store: &Arc<PartitionStore>,
    work: impl FnOnce(&PartitionStore) -> Result<T, E> + Send + 'static,
) -> Result<T, Refusal>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let store = store.clone();
    let done = own.writes.run(move || work(&store)).await;
    let failed = |error: &dyn std::fmt::Display| Refusal::Failed(error.to_string());
    done.map_err(|Panicked| failed(&"work on the store panicked"))?.map_err(|error| failed(&error))
}

/// What a worker answers. Histories that none answers in time are counted.
async fn encode(own: &UserPartition, by: &EncoderOf, ask: EncodeAsk) -> Result<Encoded, Refusal> {
    let worker = workers(&by.generation)
        .into_iter()
        .next()
        .ok_or_else(|| Refusal::Failed("no inference worker serves this generation".to_owned()))?;
    let (users, within) = (ask.histories.len(), Duration::from_micros(ask.remaining_us));
    let unanswered = |why: String| {
        own.metrics.refresh_users.with_label_values(&["unanswered"]).inc_by(users as u64);
        Err(Refusal::Failed(why))
    };
    let call = worker.call(
        |reply| -> inference_worker::Msg { Inbox::Request(InferenceRequest::Encode(Wire::new(ask), reply)) },
        Some(within),
    );
    match call.await {
        Ok(CallResult::Success(answer)) => {
            answer.open().map_err(|error| Refusal::Unreadable(error.to_string())).flatten()
        }
        Ok(CallResult::Timeout) => {
            unanswered(format!("the inference worker has not encoded {users} histories within {within:?}"))
        }
        Ok(CallResult::SenderError) | Err(_) => {
            unanswered(format!("the inference worker ended before it had encoded {users} histories"))
        }
    }
}
