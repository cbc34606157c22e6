//! What the lanes beside requests compute: histories to encode, and ads to embed.

use tokio::time::Instant;
use turret_model::Model;
use turret_retrieval::event::Event;
use turret_retrieval::item::Item;
use turret_retrieval::state::{Precision, SequenceState};

use super::embedding::Soundness;
use super::{AdsReply, EncodeError, EncodeReply, UNKEPT, encode, refuse, send};
use crate::metrics::Metrics;
use crate::protocol::{EmbedAdsAsk, EncodeAsk, Encoded, Refusal};

/// Ads to embed, and who waits for them.
pub(super) type AdsJob = (EmbedAdsAsk, AdsReply);
/// Histories to encode, and who waits for them.
pub(super) type EncodeJob = (EncodeAsk, EncodeReply);

/// Embeds and answers; says whether the model may go on.
pub(super) fn embed_ads((ask, reply): AdsJob, model: &Model, metrics: &Metrics) -> Soundness {
    let items: Vec<&Item> = ask.items.iter().collect();
    match model.embed_items(&items) {
        Ok(embeddings) => {
            send(reply, Ok(embeddings));
            Soundness::Sound
        }
        Err(error) => {
            refuse(metrics, reply, Refusal::Failed(error.to_string()));
            Soundness::of(&error)
        }
    }
}

/// Encodes, and answers, with whether requests come; says whether the model may go on.
pub(super) fn encode_histories((ask, reply): EncodeJob, model: &Model, is_asked: bool, metrics: &Metrics) -> Soundness {
    let histories: Vec<&[Event]> = ask.histories.iter().map(Vec::as_slice).collect();
    let started = Instant::now();
    let encoded = match encode(model, &histories, ask.precision) {
        Err(EncodeError::NotFinite | EncodeError::State(_)) => one_by_one(model, &histories, ask.precision, metrics),
        encoded => encoded,
    };
    let error = match encoded {
        Ok(states) => {
            let took_us = started.elapsed().as_micros() as u64;
            send(reply, Ok(Encoded { states, took_us, is_asked }));
            return Soundness::Sound;
        }
        Err(error) => error,
    };
    let (refusal, soundness) = match &error {
        EncodeError::NotFinite => (Refusal::NotFinite, Soundness::Faulty),
        EncodeError::Model(model) => (Refusal::Failed(error.to_string()), Soundness::of(model)),
        // Sound, and more than the precision holds.
        EncodeError::State(_) => (Refusal::Failed(error.to_string()), Soundness::Sound),
    };
    refuse(metrics, reply, refusal);
    soundness
}

/// The states of histories, but of those of which none can be kept: they are counted, and cost nobody else a state. Fails where it is
/// the model that gives none.
fn one_by_one(
    model: &Model,
    histories: &[&[Event]],
    precision: Precision,
    metrics: &Metrics,
) -> Result<Vec<Option<SequenceState>>, EncodeError> {
    let (mut states, mut not_finite, mut unkept) = (Vec::with_capacity(histories.len()), 0u64, 0u64);
    for history in histories {
        match encode(model, std::slice::from_ref(history), precision) {
            Ok(state) => states.extend(state),
            Err(error @ EncodeError::Model(_)) => return Err(error),
            Err(EncodeError::NotFinite) => {
                not_finite += 1;
                states.push(None);
            }
            Err(EncodeError::State(_)) => {
                unkept += 1;
                states.push(None);
            }
        }
    }
    // Together they failed: where each alone does not, it is no history's fault. Its own question goes through all of the model.
    let is_models = not_finite == histories.len() as u64 && model.probe(1).is_err() || not_finite + unkept == 0;
    if is_models {
        return Err(EncodeError::NotFinite);
    }
    metrics.inference_refused.with_label_values(&[Refusal::NotFinite.name()]).inc_by(not_finite);
    metrics.inference_refused.with_label_values(&[UNKEPT]).inc_by(unkept);
    Ok(states)
}
