//! What an inference worker is asked.

use ractor::RpcReplyPort;
use ractor_cluster::RactorClusterMessage;
use serde::{Deserialize, Serialize};
use turret_retrieval::context::Context;
use turret_retrieval::event::Event;
use turret_retrieval::ids::{EncoderVersion, GenerationId};
use turret_retrieval::item::Item;
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::UnitVector;

use super::{EncodedHistory, QueryEmbedding, Refusal};
use crate::wire::Wire;

/// What an inference worker is asked.
#[derive(RactorClusterMessage)]
pub enum InferenceRequest {
    /// A query embedding, on the online lane.
    #[rpc]
    Embed(Wire<EmbedAsk>, RpcReplyPort<Wire<Result<Embedded, Refusal>>>),
    /// Sequence states, on the refresh lane: one for each history, none for an empty one.
    #[rpc]
    Encode(Wire<EncodeAsk>, RpcReplyPort<Wire<Result<Encoded, Refusal>>>),
    /// Ad embeddings of items, one for each, on the refresh lane.
    #[rpc]
    EmbedAds(Wire<EmbedAdsAsk>, RpcReplyPort<Wire<Result<Vec<UnitVector>, Refusal>>>),
}

/// See [`InferenceRequest::EmbedAds`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbedAdsAsk {
    /// The generation whose ad tower must be used.
    pub generation: GenerationId,
    /// At most [`CHANGES_MAX`](super::CHANGES_MAX).
    pub items: Vec<Item>,
    /// Microseconds left when this was sent; nobody waits for what is begun later.
    pub remaining_us: u64,
}

/// See [`InferenceRequest::Embed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbedAsk {
    /// The generation that the answer must be of.
    pub generation: GenerationId,
    /// The user's encoded history; one of another encoder is refused.
    pub state: Option<EncodedHistory>,
    /// What the user is looking at.
    pub context: Option<Context>,
    /// Who the user is.
    pub demographics: Demographics,
    /// Whether the embedding without the context is wanted as well.
    pub compares_without_context: bool,
    /// Microseconds left when this was sent.
    pub remaining_us: u64,
}

/// A query embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedded {
    /// The embedding.
    pub query: QueryEmbedding,
    /// Whether the model knew anything of the context given.
    pub context_used: bool,
}

/// See [`InferenceRequest::Encode`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodeAsk {
    /// The encoder that must be used.
    pub encoder: EncoderVersion,
    /// One list of events a user, oldest first; at most [`ENCODE_ROWS_MAX`].
    pub histories: Vec<Vec<Event>>,
    /// How exactly the states are kept.
    pub precision: Precision,
    /// Microseconds left when this was sent; nobody waits for what is begun later.
    pub remaining_us: u64,
}

/// The most histories in one [`EncodeAsk`]. Who asks must ask for fewer where encoding them takes long, for online work waits
/// behind them, or where their states do not fit into one message.
pub const ENCODE_ROWS_MAX: usize = 256;

/// See [`InferenceRequest::Encode`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Encoded {
    /// One for each history; none for an empty one.
    pub states: Vec<Option<SequenceState>>,
    /// Microseconds of encoding, without the wait for it.
    pub took_us: u64,
    /// Whether requests come where it was done.
    pub is_asked: bool,
}
