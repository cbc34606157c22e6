//! What the actor of the live ads is asked.

use ractor::RpcReplyPort;
use ractor_cluster::RactorClusterMessage;
use serde::{Deserialize, Serialize};
use turret_index::ShardChange;
use turret_retrieval::ids::{AdId, GenerationId, ShardId};
use turret_retrieval::live_ad::{AdChange, LiveAd};
use turret_retrieval::revision::Revision;

use super::Refusal;
use crate::wire::Wire;

/// What the actor of the live ads is asked.
#[derive(RactorClusterMessage)]
pub enum AdsRequest {
    /// Changes, in their order; acknowledged when on disk and, where that can be, when searches see them.
    #[rpc]
    Change(Wire<Vec<AdWrite>>, RpcReplyPort<Wire<Result<AdsChanged, Refusal>>>),
    /// What changes said of an ad.
    #[rpc]
    Get(Wire<AdId>, RpcReplyPort<Wire<Result<Option<LiveAd>, Refusal>>>),
    /// The ads that changed after a revision, in the order of their last changes; at most [`CHANGES_MAX`].
    #[rpc]
    Since(Wire<Revision>, RpcReplyPort<Wire<Result<Vec<LiveAd>, Refusal>>>),
    /// What a shard that starts must know.
    #[rpc]
    Replay(Wire<ReplayAsk>, RpcReplyPort<Wire<Result<ReplayPage, Refusal>>>),
    /// How far a generation is that runs.
    #[rpc]
    HandedOver(Wire<GenerationId>, RpcReplyPort<Wire<Result<HandedOver, Refusal>>>),
}

/// See [`IndexRequest::Apply`](super::IndexRequest::Apply).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplyAsk {
    /// The generation whose ad tower made the embeddings; a shard of another refuses.
    pub generation: GenerationId,
    /// At most [`CHANGES_MAX`].
    pub changes: Vec<ShardChange>,
}

/// The most changes in one message: so many of the largest ads fit.
pub const CHANGES_MAX: usize = 48;

/// A change of one ad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdWrite {
    /// Which ad.
    pub id: AdId,
    /// What becomes of it.
    pub change: AdChange,
}

/// What became of changes that are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdsChanged {
    /// The revision of the last one.
    pub revision: Revision,
    /// Whether searches see them already; if not, they will by themselves.
    pub visible: bool,
}

/// What the shards of a generation know of the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// All changes up to this one have been handed to them; none where nothing was.
    pub until: Revision,
    /// The latest change there is.
    pub latest: Revision,
    /// How many ads have changed in all.
    pub changed: u64,
}

/// See [`AdsRequest::Replay`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayAsk {
    /// The generation of the shard.
    pub generation: GenerationId,
    /// Which of its shards.
    pub shard: ShardId,
    /// Only what changed after this.
    pub after: Revision,
}

/// Some of what a shard must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayPage {
    /// Changes of its ads.
    pub changes: Vec<ShardChange>,
    /// How far this page goes.
    pub until: Revision,
    /// Whether there is nothing behind it.
    pub is_last: bool,
}
