//! One page of a refresh: read users with new events, encode them, write their states.

use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use turret_retrieval::state::SequenceState;
use turret_store::{Dirty, PartitionStore, RefreshProgress, StoredState};

use super::UserPartition;
use crate::clock::now_ms;
use crate::inference_worker;
use crate::offload::Panicked;
use crate::protocol::{
    ENCODE_ROWS_MAX, EncodeAsk, EncoderOf, InferenceRequest, RefreshPageAsk, RefreshUsersAsk, RefreshedPage,
    RefreshedUsers, Refusal,
};
use crate::routing::workers;
use crate::wire::{Inbox, Wire};

/// How long one chunk may wait for an inference worker that is busy with online work.
/// A page has at most 16 chunks of the refresh's 256 users, and its caller waits for a minute.
const ENCODE_TIMEOUT: Duration = Duration::from_secs(3);

/// The most users in one page.
const PAGE_USERS_MAX: u32 = 1_024;

/// Recomputes the states of the next users with new events. A crash repeats at most one chunk: its states and how
/// far the run is are written in one step.
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
    let refreshed = encode_and_put(own, &store, &ask.by, Some(run), &page.users).await?;
    Ok(RefreshedPage { refreshed, next: page.next })
}

/// Recomputes the states of users who are named, where they do not cover all events.
pub(super) async fn refresh_users(
    own: &UserPartition,
    store: Arc<PartitionStore>,
    ask: RefreshUsersAsk,
) -> Result<RefreshedUsers, Refusal> {
    let (encoder, users) = (ask.by.encoder.clone(), ask.users.clone());
    let dirty = on_store(own, &store, move |store| store.dirty_among(&encoder, &users)).await?;
    let refreshed = encode_and_put(own, &store, &ask.by, None, &dirty).await?;
    // Once more: an event that came meanwhile makes a state old, and one that was erased needs none.
    let encoder = ask.by.encoder.clone();
    let lacking = on_store(own, &store, move |store| store.dirty_among(&encoder, &ask.users)).await?;
    Ok(RefreshedUsers { refreshed, lacking: lacking.into_iter().map(|dirty| dirty.user).collect() })
}

async fn encode_and_put(
    own: &UserPartition,
    store: &Arc<PartitionStore>,
    by: &EncoderOf,
    run: Option<u64>,
    users: &[Dirty],
) -> Result<u32, Refusal> {
    own.keep_states_of(store, &by.encoder);
    let mut refreshed = 0;
    for users in users.chunks(ENCODE_ROWS_MAX) {
        let histories = users.iter().map(|user| user.events.clone()).collect();
        let ask = EncodeAsk { encoder: by.encoder.clone(), histories, precision: own.state_precision };
        let sequences = encode(by, ask).await?;
        if sequences.len() != users.len() {
            return Err(Refusal::Failed(format!("{} states for {} users", sequences.len(), users.len())));
        }
        let made_at_ms = now_ms();
        let last = run.zip(users.last());
        let progress =
            last.map(|(run, last)| RefreshProgress { run, encoder: by.encoder.clone(), after: last.user.clone() });
        let states = users
            .iter()
            .zip(sequences)
            .filter_map(|(dirty, sequence)| {
                let state = StoredState {
                    encoder: by.encoder.clone(),
                    made_at_ms,
                    covers_until_ms: dirty.events.last().map_or(0, |event| event.timestamp_ms),
                    covers: dirty.log_at,
                    sequence: sequence?,
                };
                Some((dirty.user.clone(), state))
            })
            .collect::<Vec<_>>();
        refreshed += on_store(own, store, move |store| store.put_states(&states, progress.as_ref())).await?;
    }
    Ok(refreshed)
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

async fn encode(by: &EncoderOf, ask: EncodeAsk) -> Result<Vec<Option<SequenceState>>, Refusal> {
    let worker = workers(&by.generation)
        .into_iter()
        .next()
        .ok_or_else(|| Refusal::Failed("no inference worker serves this generation".to_owned()))?;
    let call = worker.call(
        |reply| -> inference_worker::Msg { Inbox::Request(InferenceRequest::Encode(Wire::new(ask), reply)) },
        Some(ENCODE_TIMEOUT),
    );
    match call.await {
        Ok(CallResult::Success(answer)) => {
            answer.open().map_err(|error| Refusal::Unreadable(error.to_string())).flatten()
        }
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => {
            Err(Refusal::Failed("the inference worker did not answer".to_owned()))
        }
    }
}
