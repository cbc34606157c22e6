//! What callers ask of live ads.

use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{ActorRef, BytesConvertable, RpcReplyPort};
use turret_retrieval::ids::{AdId, GenerationId};
use turret_retrieval::live_ad::{AdChange, LiveAd};
use turret_retrieval::revision::Revision;

use super::Msg;
use crate::groups;
use crate::protocol::{AdWrite, AdsChanged, AdsRequest, HandedOver, Refusal, ReplayAsk, ReplayPage};
use crate::wire::{Inbox, Wire};

/// The actor of the live ads did not do what it was asked. Retryable, unless it is a [`Refusal::Conflict`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("live ads: {0}")]
pub struct AdsUnavailable(pub Refusal);

/// Reads and changes live ads, on whichever node keeps them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ads;

type Reply<T> = RpcReplyPort<Wire<Result<T, Refusal>>>;

/// For what is answered at once.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Ads {
    /// Makes a change; acknowledged when it is on disk.
    ///
    /// # Errors
    /// When no node keeps live ads, or it refuses, or does not answer in time. A repeated change changes nothing.
    pub async fn change(&self, id: AdId, change: AdChange) -> Result<AdsChanged, AdsUnavailable> {
        let writes = Wire::new(vec![AdWrite { id, change }]);
        ask(|reply| AdsRequest::Change(writes, reply)).await
    }

    /// What changes said of an ad; nothing where it is as built.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn get(&self, id: AdId) -> Result<Option<LiveAd>, AdsUnavailable> {
        ask(|reply| AdsRequest::Get(Wire::new(id), reply)).await
    }

    /// A page of the ads that changed after a revision, in the order of their last changes; empty at the end.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn since(&self, after: Revision) -> Result<Vec<LiveAd>, AdsUnavailable> {
        ask(|reply| AdsRequest::Since(Wire::new(after), reply)).await
    }

    /// How far the shards of a generation are that runs.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn handed_over(&self, generation: GenerationId) -> Result<HandedOver, AdsUnavailable> {
        ask(|reply| AdsRequest::HandedOver(Wire::new(generation), reply)).await
    }

    /// What a shard that starts must know.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(crate) async fn replay(&self, replay: ReplayAsk) -> Result<ReplayPage, AdsUnavailable> {
        ask(|reply| AdsRequest::Replay(Wire::new(replay), reply)).await
    }
}

async fn ask<T>(request: impl FnOnce(Reply<T>) -> AdsRequest) -> Result<T, AdsUnavailable>
where
    T: Send + 'static,
    Wire<Result<T, Refusal>>: BytesConvertable,
{
    let unreachable = || AdsUnavailable(Refusal::Unreachable("the control node cannot be reached".to_owned()));
    let members = ractor::pg::get_members(&groups::ADS.to_owned());
    let actor: ActorRef<Msg> = members.into_iter().next().ok_or_else(unreachable)?.into();
    match actor.call(|reply| Inbox::Request(request(reply)), Some(TIMEOUT)).await {
        Ok(CallResult::Success(answer)) => match answer.open() {
            Ok(result) => result.map_err(AdsUnavailable),
            Err(error) => Err(AdsUnavailable(Refusal::Unreadable(error.to_string()))),
        },
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(unreachable()),
    }
}
