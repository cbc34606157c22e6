//! What waits on the refresh lane: histories to encode, and ads to embed.

use tokio::time::Instant;
use turret_model::Model;
use turret_retrieval::event::Event;
use turret_retrieval::item::Item;

use super::embedding::Soundness;
use super::{AdsReply, EncodeError, EncodeReply, encode, refuse, send};
use crate::metrics::Metrics;
use crate::protocol::{EmbedAdsAsk, EncodeAsk, Encoded, Refusal};

/// See the module.
pub(super) enum Job {
    Encode(EncodeAsk, EncodeReply),
    EmbedAds(EmbedAdsAsk, AdsReply),
}

impl Job {
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Encode(ask, _) => ask.histories.len(),
            Self::EmbedAds(ask, _) => ask.items.len(),
        }
    }

    /// Whether it is for ads.
    pub(super) fn is_ads(&self) -> bool {
        matches!(self, Self::EmbedAds(..))
    }

    pub(super) fn refuse(self, metrics: &Metrics, refusal: Refusal) {
        match self {
            Self::Encode(_, reply) => refuse(metrics, reply, refusal),
            Self::EmbedAds(_, reply) => refuse(metrics, reply, refusal),
        }
    }

    /// Computes and answers; says whether the model may go on. `is_asked`: whether requests came meanwhile.
    pub(super) fn run(self, model: &Model, is_asked: bool, metrics: &Metrics) -> Soundness {
        match self {
            Self::Encode(ask, reply) => encode_job(model, &ask, is_asked, reply, metrics),
            Self::EmbedAds(ask, reply) => {
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
        }
    }
}

fn encode_job(model: &Model, ask: &EncodeAsk, is_asked: bool, reply: EncodeReply, metrics: &Metrics) -> Soundness {
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
