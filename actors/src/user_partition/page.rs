//! One page of a refresh: read users with new events, encode them, write their states.

use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use turret_retrieval::state::SequenceState;
use turret_store::{PartitionStore, StoredState};

use super::UserPartition;
use crate::clock::now_ms;
use crate::inference_worker;
use crate::offload::Panicked;
use crate::protocol::{ENCODE_ROWS_MAX, EncodeAsk, InferenceRequest, RefreshPageAsk, RefreshedPage, Refusal};
use crate::wire::{Inbox, Wire};

/// How long one chunk may wait for an inference worker that is busy with online work.
/// A page has at most 16 chunks of the refresh's 256 users, and its caller waits for a minute.
const ENCODE_TIMEOUT: Duration = Duration::from_secs(3);

/// The most users in one page.
const PAGE_USERS_MAX: u32 = 1_024;

/// Recomputes the states of the next users with new events. A crash repeats at most this page.
pub(super) async fn refresh(
    own: &UserPartition,
    store: Arc<PartitionStore>,
    ask: RefreshPageAsk,
) -> Result<RefreshedPage, Refusal> {
    let limit = ask.users_max.clamp(1, PAGE_USERS_MAX) as usize;
    let (reader, encoder) = (store.clone(), own.generation.manifest.versions.encoder.clone());
    let page = own
        .writes
        .run(move || reader.dirty_users(&encoder, ask.after.as_ref(), limit))
        .await
        .map_err(panicked)?
        .map_err(|error| Refusal::Failed(error.to_string()))?;
    for user in &page.damaged {
        tracing::error!(%user, partition = %own.partition, "records cannot be read; not refreshed");
    }
    let mut refreshed = 0;
    for users in page.users.chunks(ENCODE_ROWS_MAX) {
        let histories = users.iter().map(|user| user.events.clone()).collect();
        let encoder = own.generation.manifest.versions.encoder.clone();
        let sequences = encode(own, EncodeAsk { encoder, histories, precision: own.state_precision }).await?;
        if sequences.len() != users.len() {
            return Err(Refusal::Failed(format!("{} states for {} users", sequences.len(), users.len())));
        }
        let made_at_ms = now_ms();
        let states = users
            .iter()
            .zip(sequences)
            .filter_map(|(dirty, sequence)| {
                let state = StoredState {
                    encoder: own.generation.manifest.versions.encoder.clone(),
                    made_at_ms,
                    covers_until_ms: dirty.events.last().map_or(0, |event| event.timestamp_ms),
                    covers: dirty.log_at,
                    sequence: sequence?,
                };
                Some((dirty.user.clone(), state))
            })
            .collect::<Vec<_>>();
        let writer = store.clone();
        refreshed += own
            .writes
            .run(move || writer.put_states(&states))
            .await
            .map_err(panicked)?
            .map_err(|error| Refusal::Failed(error.to_string()))?;
    }
    Ok(RefreshedPage { refreshed, next: page.next })
}

async fn encode(own: &UserPartition, ask: EncodeAsk) -> Result<Vec<Option<SequenceState>>, Refusal> {
    let worker = own
        .routing
        .table()
        .inference
        .first()
        .cloned()
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

fn panicked(_: Panicked) -> Refusal {
    Refusal::Failed("work on the store panicked".to_owned())
}
