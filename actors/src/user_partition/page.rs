//! One page of a refresh: read users with new events, encode them, write their states.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ractor::rpc::CallResult;
use tokio::time::Instant;
use turret_retrieval::ids::{EncoderVersion, UserId};
use turret_store::{Dirty, DirtyPage, PartitionStore, RefreshProgress, StoredState};

use super::UserPartition;
use super::jobs::{Jobs, Made, Portion};
use super::pace::Size;
use crate::clock::now_ms;
use crate::inference_worker;
use crate::offload::{Offload, Panicked};
use crate::protocol::{
    EncodeAsk, Encoded, EncoderOf, InferenceRequest, RefreshPageAsk, RefreshUsersAsk, RefreshedPage, RefreshedUsers,
    Refusal,
};
use crate::routing::workers;
use crate::wire::{Inbox, Wire};

/// How long a job may take, with its wait for an inference worker that is busy.
const ENCODE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a page may take before the rest of it is left for another: its caller waits for a minute.
const PAGE_TIME: Duration = Duration::from_secs(30);

/// While requests come, jobs are followed by a rest, so many times as long as they were encoded.
const RESTS: u32 = 2;

/// The most users in one page.
const PAGE_USERS_MAX: u32 = 4_096;
/// Users who are read at once, while those before them are encoded. Like lengths among them are encoded together.
const READ_USERS: usize = 256;
/// The same while requests come, which reading takes a core from.
const READ_USERS_WHILE_ASKED: usize = 32;

/// Recomputes the states of the next users with new events. Each chunk of them is written with how far the run is; a crash repeats at
/// most the one that was not written: the jobs that were being encoded, and those before them that were being written.
pub(super) async fn refresh(
    own: &UserPartition,
    store: Arc<PartitionStore>,
    ask: RefreshPageAsk,
) -> Result<RefreshedPage, Refusal> {
    let (encoder, run) = (ask.by.encoder.clone(), ask.run);
    let written = on_store(&own.writes, &store, move |store| store.refresh_progress(&encoder)).await?;
    // A run that was cut off goes on where its last states were written.
    let written = written.filter(|progress| progress.run == run);
    let after = ask.after.max(written.map(|progress| progress.after));
    let left = ask.users_max.clamp(1, PAGE_USERS_MAX) as usize;
    let source = Source::Behind(Behind { after: after.clone(), left }, run);
    let came = encode_and_put(own, &store, &ask.by, source).await?;
    // Where it came no further, what is left of it is to be asked for again, less those who were written.
    let is_whole = !came.is_stopped || came.until != after;
    // Behind the last state there may have been users who needed none.
    if came.until > came.kept_until
        && let Some(after) = came.until.clone()
    {
        let progress = RefreshProgress { run, encoder: ask.by.encoder, after };
        put(own, &store, Vec::new(), Some(progress)).await?;
    }
    let next = if came.is_stopped || came.is_more { came.until } else { None };
    Ok(RefreshedPage { refreshed: came.refreshed, next, is_whole })
}

/// Recomputes the states of users who are named, where they do not cover all events.
pub(super) async fn refresh_users(
    own: &UserPartition,
    store: Arc<PartitionStore>,
    ask: RefreshUsersAsk,
) -> Result<RefreshedUsers, Refusal> {
    let (encoder, users) = (ask.by.encoder.clone(), ask.users.clone());
    let dirty = on_store(&own.writes, &store, move |store| store.dirty_among(&encoder, &users)).await?;
    let came = encode_and_put(own, &store, &ask.by, Source::Named(dirty)).await?;
    // Once more: an event that came meanwhile makes a state old, and one that was erased needs none.
    let encoder = ask.by.encoder.clone();
    let lacking = on_store(&own.writes, &store, move |store| store.dirty_among(&encoder, &ask.users)).await?;
    let lacking = lacking.into_iter().map(|dirty| dirty.user).collect();
    Ok(RefreshedUsers { refreshed: came.refreshed, lacking })
}

/// Whose states are made.
enum Source {
    Named(Vec<Dirty>),
    /// Those who are yet to be read, in a run.
    Behind(Behind, u64),
}

/// Users who are yet to be read.
struct Behind {
    after: Option<UserId>,
    /// So many of them at most.
    left: usize,
}

/// What became of users.
#[derive(Default)]
struct Came {
    refreshed: u32,
    /// Whether time was up before all were written.
    is_stopped: bool,
    /// All up to this one were, or need not be.
    until: Option<UserId>,
    /// So much of that stands in the store.
    kept_until: Option<UserId>,
    /// Whether there are others behind.
    is_more: bool,
}

/// What was under way.
enum News {
    Read(Result<(Behind, DirtyPage), Refusal>),
    /// Of users who were read behind this one.
    Encoded(Option<UserId>, Result<Made, Refusal>),
    Written(Result<u32, Refusal>),
}

/// Encodes users and writes their states, by jobs; meanwhile those behind them are read.
async fn encode_and_put(
    own: &UserPartition,
    store: &Arc<PartitionStore>,
    by: &EncoderOf,
    source: Source,
) -> Result<Came, Refusal> {
    let ends = Instant::now() + PAGE_TIME;
    own.keep_states_of(store, &by.encoder);
    let (mut read, mut behind, run) = match source {
        Source::Named(users) => (Some(Portion { users, ..Portion::default() }), None, None),
        Source::Behind(behind, run) => (None, Some(behind), Some(run)),
    };
    let kept_until = behind.as_ref().and_then(|behind| behind.after.clone());
    let (mut now, mut came) = (Portion::default(), Came { kept_until, ..Came::default() });
    let (mut jobs, mut failed) = (Jobs::new(own.pace.is_asked()), None);
    let mut under_way: FuturesUnordered<BoxFuture<'_, News>> = FuturesUnordered::new();
    loop {
        if Instant::now() > ends {
            let waiting = Some(std::mem::take(&mut now)).into_iter().chain(read.take());
            let first = waiting.filter(|portion| !portion.users.is_empty()).map(|portion| portion.after).next();
            if let Some(after) = first.or_else(|| behind.take().map(|behind| behind.after)) {
                (came.is_stopped, came.until) = (true, after);
            }
            behind = None;
        }
        if now.users.is_empty()
            && let Some(next) = read.take()
        {
            now = next;
            // Like lengths together: a batch is as long as its longest. Taken from the end.
            now.users.sort_by_key(|user| std::cmp::Reverse(user.events.len()));
        }
        if read.is_none()
            && let Some(from) = behind.take()
        {
            let at_once = if jobs.is_asked() { READ_USERS_WHILE_ASKED } else { READ_USERS };
            under_way.push(read_behind(own, store, by.encoder.clone(), from, at_once).map(News::Read).boxed());
        }
        for _ in 0..jobs.room(own.encoders) {
            if now.users.is_empty() {
                break;
            }
            jobs.begin(now.after.clone());
            let (after, users) = (now.after.clone(), own.pace.take(&mut now.users));
            under_way.push(encode_job(own, by, users).map(|made| News::Encoded(after, made)).boxed());
        }
        if let Some(states) = jobs.write() {
            let until = if failed.is_none() { jobs.whole_until(&now) } else { None };
            let progress = run.zip(until);
            let progress = progress.map(|(run, after)| RefreshProgress { run, encoder: by.encoder.clone(), after });
            came.kept_until = progress.as_ref().map(|progress| progress.after.clone()).max(came.kept_until);
            under_way.push(put(own, store, states, progress).map(News::Written).boxed());
        }
        let refusal = match under_way.next().await {
            Some(News::Read(Ok((from, page)))) if failed.is_none() && !came.is_stopped => {
                let left = from.left.saturating_sub(page.users.len());
                let last = page.users.last().map(|user| user.user.clone());
                (came.is_more, came.until) = (page.next.is_some(), page.next.clone().or(last).or(came.until));
                behind = page.next.filter(|_| left > 0).map(|next| Behind { after: Some(next), left });
                read = Some(Portion { after: from.after, until: came.until.clone(), users: page.users });
                continue;
            }
            Some(News::Read(Ok(_))) => continue,
            Some(News::Encoded(after, Ok(made))) => {
                jobs.finish(&after, made);
                continue;
            }
            Some(News::Written(Ok(stored))) => {
                came.refreshed += stored;
                if let Some(encoded_in) = jobs.written() {
                    // Encoding takes no core that a request wants; reading, writing and messages do.
                    tokio::time::sleep(encoded_in * RESTS).await;
                }
                continue;
            }
            Some(News::Read(Err(refusal))) => refusal,
            Some(News::Encoded(after, Err(refusal))) => {
                jobs.end(&after);
                refusal
            }
            Some(News::Written(Err(refusal))) => {
                jobs.written();
                refusal
            }
            None => break,
        };
        // What is under way is waited for.
        failed = Some(refusal);
        (now, read, behind) = (Portion::default(), None, None);
    }
    failed.map_or(Ok(came), Err)
}

/// The next users behind some, at most so many.
async fn read_behind(
    own: &UserPartition,
    store: &Arc<PartitionStore>,
    encoder: EncoderVersion,
    from: Behind,
    at_once: usize,
) -> Result<(Behind, DirtyPage), Refusal> {
    let (after, limit) = (from.after.clone(), from.left.min(at_once));
    let page = on_store(&own.pages, store, move |store| store.dirty_users(&encoder, after.as_ref(), limit)).await?;
    for user in &page.damaged {
        tracing::error!(%user, partition = %own.partition, "records cannot be read; not refreshed");
    }
    Ok((from, page))
}

async fn put(
    own: &UserPartition,
    store: &Arc<PartitionStore>,
    states: Vec<(UserId, StoredState)>,
    progress: Option<RefreshProgress>,
) -> Result<u32, Refusal> {
    on_store(&own.writes, store, move |store| store.put_states(&states, progress.as_ref())).await
}

/// The states of users, as they are kept.
async fn encode_job(own: &UserPartition, by: &EncoderOf, mut users: Vec<Dirty>) -> Result<Made, Refusal> {
    let began = Instant::now();
    let size = Size::of(&users);
    let covered: Vec<i64> = users.iter().map(|user| user.events.last().map_or(0, |event| event.timestamp_ms)).collect();
    let histories = users.iter_mut().map(|user| std::mem::take(&mut user.events)).collect();
    let (encoder, precision) = (by.encoder.clone(), own.state_precision);
    let ask = EncodeAsk { encoder, histories, precision, remaining_us: ENCODE_TIMEOUT.as_micros() as u64 };
    let Encoded { states, took_us, is_asked } = encode(own, by, ask).await?;
    if states.len() != users.len() {
        return Err(Refusal::Failed(format!("{} states for {} users", states.len(), users.len())));
    }
    own.pace.asked(is_asked);
    if let Some(largest) = states.iter().flatten().map(|state| state.bytes().len()).max() {
        own.pace.took(size, Duration::from_micros(took_us), largest);
    }
    let made_at_ms = now_ms();
    let kept = users.into_iter().zip(covered).zip(states).filter_map(|((user, covers_until_ms), sequence)| {
        let (encoder, sequence) = (by.encoder.clone(), sequence?);
        Some((user.user, StoredState { encoder, made_at_ms, covers_until_ms, covers: user.log_at, sequence }))
    });
    Ok(Made { states: kept.collect(), encoded_in: began.elapsed(), is_asked })
}

/// Runs `work` on `threads`.
async fn on_store<T, E>(
    threads: &Offload,
    store: &Arc<PartitionStore>,
    work: impl FnOnce(&PartitionStore) -> Result<T, E> + Send + 'static,
) -> Result<T, Refusal>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let store = store.clone();
    let done = threads.run(move || work(&store)).await;
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
