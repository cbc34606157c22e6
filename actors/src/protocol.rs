//! The messages that cross nodes. Replies are enums: an unanswered call is indistinguishable from a dead peer.
//!
//! A change of any type here, or of a type of another crate that one of these holds, raises
//! [`WIRE_VERSION`](crate::wire::WIRE_VERSION).

use ractor::RpcReplyPort;
use ractor_cluster::RactorClusterMessage;
use serde::{Deserialize, Serialize};
use turret_index::{FoundAd, Plan};
use turret_retrieval::crowding::Crowding;
use turret_retrieval::filter::Filter;
use turret_retrieval::ids::{EncoderVersion, GenerationId, NodeName, UserId};
use turret_retrieval::state::SequenceState;
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::UnitVector;
use turret_store::{Profile, Write, Written};

use crate::rollout::plan::RolloutPlan;
use crate::rollout::tally::Counts;
use crate::wire::Wire;

mod ads;
mod inference;
mod refusal;

pub use ads::{AdWrite, AdsChanged, AdsRequest, ApplyAsk, CHANGES_MAX, HandedOver, ReplayAsk, ReplayPage};
pub use inference::{ENCODE_ROWS_MAX, EmbedAdsAsk, EmbedAsk, Embedded, EncodeAsk, Encoded, InferenceRequest};
pub use refusal::Refusal;

/// What an index shard is asked.
#[derive(RactorClusterMessage)]
pub enum IndexRequest {
    /// The best ads of this shard.
    #[rpc]
    Search(Wire<SearchAsk>, RpcReplyPort<Wire<Result<SearchReply, Refusal>>>),
    /// Ads of this shard have changed; answered when searches see it.
    #[rpc]
    Apply(Wire<ApplyAsk>, RpcReplyPort<Wire<Result<(), Refusal>>>),
}

/// See [`IndexRequest::Search`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchAsk {
    /// The query embedding; a shard of another generation refuses.
    pub query: QueryEmbedding,
    /// How many ads, at most [`K_MAX`](turret_retrieval::topk::K_MAX).
    pub k: u32,
    /// Only ads that pass.
    pub filter: Option<Filter>,
    /// At most so many ads of one value.
    pub crowding: Option<Crowding>,
    /// Whether every ad that passes is to be compared, whatever a graph would say.
    pub exact: bool,
    /// Microseconds left when this was sent.
    pub remaining_us: u64,
}

/// A query embedding, bound to the generation that made it: with nothing else may it be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryEmbedding {
    /// The generation that made it.
    pub generation: GenerationId,
    /// The embedding.
    pub vector: UnitVector,
    /// The embedding of the same query without its context, where it was wanted; equal where no context was used.
    pub without_context: Option<UnitVector>,
}

/// The best ads of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchReply {
    /// In the order of [`Hit`](turret_retrieval::topk::Hit); each baseline is the score without the context.
    pub ads: Vec<FoundAd>,
    /// Fewer than `k` ads of the shard pass the filter and the crowding, and all of them are here.
    pub exhausted: bool,
    /// How the shard searched.
    pub plan: Plan,
    /// Share of the shard's ads that pass the filter, where there was one.
    pub selectivity: Option<f64>,
    /// Share of those near the query that was expected to pass, where the plan depended on it.
    pub selectivity_near: Option<f64>,
    /// The longest candidate list of a walk; 0 where nothing was walked.
    pub list: u32,
    /// Ads that were compared with the query: what the search cost.
    pub distances: u64,
    /// Whether time was up: these are the best of what was compared until then.
    pub early_stopped: bool,
    /// The share of what had to be compared that was, about, in [0, 1].
    pub compared: f64,
    /// Whether it has every change of its ads that there was when it asked for them, before it began to serve.
    pub verified: bool,
}

/// What a user partition is asked.
#[derive(RactorClusterMessage)]
pub enum UserRequest {
    /// What the online path needs of one user.
    #[rpc]
    View(Wire<ViewAsk>, RpcReplyPort<Wire<Result<Option<UserView>, Refusal>>>),
    /// Writes of users of this partition, in their order; acknowledged when flushed.
    #[rpc]
    Write(Wire<WriteAsk>, RpcReplyPort<Wire<Result<WriteReply, Refusal>>>),
    /// All that stands in the store of one user, but the events themselves.
    #[rpc]
    Profile(Wire<UserId>, RpcReplyPort<Wire<Result<Option<Profile>, Refusal>>>),
    /// The snapshots on this node that hold one user.
    #[rpc]
    Traces(Wire<UserId>, RpcReplyPort<Wire<Result<Traces, Refusal>>>),
    /// How many users have events that their state by this encoder does not cover.
    #[rpc]
    CountDirty(Wire<EncoderVersion>, RpcReplyPort<Wire<Result<u64, Refusal>>>),
    /// Recomputes the states of the next users with new events.
    #[rpc]
    RefreshPage(Wire<RefreshPageAsk>, RpcReplyPort<Wire<Result<RefreshedPage, Refusal>>>),
    /// Recomputes the states of these users, where they do not cover all events.
    #[rpc]
    RefreshUsers(Wire<RefreshUsersAsk>, RpcReplyPort<Wire<Result<RefreshedUsers, Refusal>>>),
    /// Joins the users that a generation ships to the store; answered when they are on disk.
    #[rpc]
    Import(Wire<GenerationId>, RpcReplyPort<Wire<Result<(), Refusal>>>),
}

/// See [`UserRequest::View`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewAsk {
    /// Whom.
    pub user: UserId,
    /// Only a state of this encoder is of use.
    pub encoder: EncoderVersion,
}

/// What is known of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserView {
    /// What is stored.
    pub demographics: Demographics,
    /// The sequence state of the encoder asked for.
    pub state: Option<StateView>,
}

/// A sequence state, bound to the encoder that made it: what it holds is given out to a model of that encoder only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodedHistory {
    encoder: EncoderVersion,
    sequence: SequenceState,
}

impl EncodedHistory {
    /// What `encoder` made.
    pub fn new(encoder: EncoderVersion, sequence: SequenceState) -> Self {
        Self { encoder, sequence }
    }

    /// The encoder that made it.
    pub fn encoder(&self) -> &EncoderVersion {
        &self.encoder
    }

    /// The encoder's output, for a model whose encoder is `encoder`.
    ///
    /// # Errors
    /// [`Refusal::OtherVersion`] when another made it.
    pub fn sequence_of(&self, encoder: &EncoderVersion) -> Result<&SequenceState, Refusal> {
        Refusal::of_version(encoder, &self.encoder).map(|()| &self.sequence)
    }
}

/// A stored sequence state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateView {
    /// The state.
    pub history: EncodedHistory,
    /// When it was made, milliseconds since 1970-01-01 UTC by the clock of the node that made it.
    pub made_at_ms: i64,
    /// Whether it saw every event that is stored.
    pub is_current: bool,
}

/// See [`UserRequest::Write`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteAsk {
    /// Bounded by the gateway to what fits a message.
    pub writes: Vec<Write>,
}

/// What became of each of the writes asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteReply {
    /// In their order.
    pub outcomes: Vec<Result<Written, Refusal>>,
}

/// Where a user is found after an erasure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traces {
    /// In the snapshots of these generations, which lie on the node of the user's partition.
    pub found: Vec<Trace>,
    /// Where nobody could look, where that is.
    pub unknown: Option<String>,
}

/// A snapshot that holds a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The generation that ships it.
    pub generation: GenerationId,
    /// When that was published: milliseconds since 1970-01-01 UTC.
    pub published_at_ms: i64,
}

/// Whose encoder makes states: one of the workers of this generation is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderOf {
    /// The generation.
    pub generation: GenerationId,
    /// Its encoder.
    pub encoder: EncoderVersion,
}

/// See [`UserRequest::RefreshUsers`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefreshUsersAsk {
    /// Who encodes them.
    pub by: EncoderOf,
    /// At most [`REFRESH_USERS_MAX`].
    pub users: Vec<UserId>,
}

/// The most users of one [`RefreshUsersAsk`].
pub const REFRESH_USERS_MAX: usize = 256;

/// What became of the users of a [`RefreshUsersAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshedUsers {
    /// Users whose state was recomputed and flushed.
    pub refreshed: u32,
    /// Those who have events, and no state that covers them all.
    pub lacking: Vec<UserId>,
}

/// See [`UserRequest::RefreshPage`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefreshPageAsk {
    /// When the run began, by which it is known: one that was cut off goes on where it was.
    pub run: u64,
    /// Who encodes them.
    pub by: EncoderOf,
    /// Continue behind this user; from the first when absent.
    pub after: Option<UserId>,
    /// At most this many users are encoded.
    pub users_max: u32,
}

/// One page of a refresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshedPage {
    /// Users whose state was recomputed and flushed.
    pub refreshed: u32,
    /// Where the next page continues; absent when the partition is done.
    pub next: Option<UserId>,
    /// Whether all of this page is done; else it is to be asked for again, less those who are.
    pub is_whole: bool,
}

/// What the admin actor of a node is asked.
#[derive(RactorClusterMessage)]
pub enum AdminRequest {
    /// Answers at once: the peer is alive.
    #[rpc]
    Ping(Wire<()>, RpcReplyPort<Wire<NodeName>>),
    /// What the node is doing.
    #[rpc]
    Status(Wire<()>, RpcReplyPort<Wire<NodeStatus>>),
    /// Starts a refresh, on the control node.
    #[rpc]
    Refresh(Wire<()>, RpcReplyPort<Wire<Result<RefreshStarted, Refusal>>>),
    /// Has a generation take the place of the one that serves, on the control node.
    #[rpc]
    Publish(Wire<GenerationId>, RpcReplyPort<Wire<Result<RolloutPlan, Refusal>>>),
    /// Has the one before serve again, on the control node.
    #[rpc]
    RollBack(Wire<()>, RpcReplyPort<Wire<Result<RolloutPlan, Refusal>>>),
}

/// What a node is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub node: NodeName,
    /// The generation it serves.
    pub generation: GenerationId,
    /// Whether everything placed here serves.
    pub ready: bool,
    /// Actors of this node that were restarted since it started.
    pub restarts: u64,
    /// The shards that this node serves now.
    pub shards: Vec<u32>,
    /// The user partitions that this node serves now.
    pub partitions: Vec<u32>,
    /// The refresh, where this is the control node.
    pub refresh: Option<RefreshStatus>,
    /// The last or present publication, where this is the control node.
    pub rollout: Option<RolloutStatus>,
}

/// The last or present publication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Where it is; absent before the first.
    pub plan: Option<RolloutPlan>,
    /// What the new generation was judged by so far.
    pub gates: Vec<GateReport>,
    /// What the requests of the old one came to, and of the new one while it is watched.
    pub watch: Option<WatchReport>,
}

/// One thing that a generation is judged by before it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReport {
    /// Which: `digests`, `memory`, `counts`, `probes`, `states` or `shadow`.
    pub name: Box<str>,
    /// Whether it may serve.
    pub passed: bool,
    /// The figures.
    pub detail: String,
}

/// What a generation that is watched is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchReport {
    /// The old one, since it was activated or the node started.
    pub before: Counts,
    /// The new one, since it was activated.
    pub now: Counts,
    /// Milliseconds until it need not be watched any more.
    pub remaining_ms: u64,
}

/// The answer to a request for a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshStarted {
    /// The run that is now going on.
    pub run: u64,
    /// Whether this request started it; else it was going on already.
    pub started: bool,
}

/// The last or present refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshStatus {
    /// Counts the runs of the control node's directory; 0 before the first.
    pub run: u64,
    /// Whether it is going on.
    pub running: bool,
    /// When it started: milliseconds since 1970-01-01 UTC.
    pub started_at_ms: i64,
    /// When it ended.
    pub ended_at_ms: Option<i64>,
    /// Users with new events when it started; not known where a partition could not count them.
    pub users_dirty: Option<u64>,
    /// Users whose state was recomputed.
    pub users_refreshed: u64,
    /// Partitions that are done.
    pub partitions_done: u32,
    /// Partitions given up on, after retries.
    pub partitions_failed: u32,
    /// Partitions in all.
    pub partitions: u32,
}
