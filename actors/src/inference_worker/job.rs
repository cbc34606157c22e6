//! What the lanes beside requests compute: histories to encode, and ads to embed.

use tokio::time::Instant;
use turret_model::Model;
use turret_retrieval::event::Event;
use turret_retrieval::item::Item;

use super::embedding::Soundness;
use super::{AdsReply, EncodeError, EncodeReply, encode, refuse, send};
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
    let error = match encode(model, &histories, ask.precision) {
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
