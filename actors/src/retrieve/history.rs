//! What is known of a user, and what that is worth for one request.

use ractor::ActorRef;
use ractor::rpc::CallResult;
use tokio::time::Instant;
use turret_retrieval::budget::Budget;
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::UserId;
use turret_retrieval::tier::{History, Tier};

use super::{RetrieveRequest, UserState, is_late};
use crate::clock::now_ms;
use crate::protocol::{EncodedHistory, Refusal, UserRequest, UserView, ViewAsk};
use crate::routing::RoutingTable;
use crate::user_partition;
use crate::wire::{Inbox, Wire};

#[derive(Default)]
pub(super) struct LookedUp {
    pub(super) view: Option<UserView>,
    pub(super) reason: Option<&'static str>,
}

fn holder<'a>(table: &'a RoutingTable, user: &UserId) -> Option<&'a ActorRef<user_partition::Msg>> {
    let partition = partition_of(user, table.manifest.partitions());
    table.partitions.get(partition.0 as usize)?.first()
}

pub(super) async fn view(
    table: &RoutingTable,
    user: &UserId,
    budget: Budget,
) -> Result<Option<UserView>, &'static str> {
    let holder = holder(table, user).ok_or("partition_absent")?;
    // A late state makes the answer less personal; a late answer is none at all. So at most a third of the time.
    let patience = budget.remaining(Instant::now().into_std()) / 3;
    let ask = ViewAsk { user: user.clone(), encoder: table.manifest.versions.encoder.clone() };
    let view = |reply| -> user_partition::Msg { Inbox::Request(UserRequest::View(Wire::new(ask), reply)) };
    let asked = Instant::now();
    match holder.call(view, Some(patience)).await {
        Ok(CallResult::Success(answer)) => match answer.open() {
            Ok(Ok(view)) => Ok(view),
            Ok(Err(Refusal::Overloaded)) => Err("partition_overloaded"),
            Ok(Err(_)) | Err(_) => Err("partition_failed"),
        },
        Ok(CallResult::Timeout) => Err("partition_timeout"),
        Ok(CallResult::SenderError) if is_late(asked, patience) => Err("partition_timeout"),
        Ok(CallResult::SenderError) | Err(_) => Err("partition_failed"),
    }
}

/// What the stored state is worth for this request.
pub(super) fn judge(looked_up: &LookedUp, request: &RetrieveRequest) -> (Option<EncodedHistory>, UserState) {
    let mut user_state = UserState {
        history: History::None,
        context_used: false,
        tier: Tier::Cold,
        age_ms: None,
        encoder: None,
        reason: looked_up.reason,
    };
    let Some(state) = looked_up.view.as_ref().and_then(|view| view.state.as_ref()) else {
        return (None, user_state);
    };
    // A state from the future is as old as one of now: clocks differ.
    let age_ms = (now_ms() - state.made_at_ms).max(0);
    if request.max_state_age_ms.is_some_and(|max| age_ms > max) {
        user_state.reason = Some("state_too_old");
        return (None, user_state);
    }
    // A state depends on the events alone: while there is no newer one, making it again would change nothing.
    user_state.history = if state.is_current { History::Fresh } else { History::Stale };
    user_state.age_ms = Some(age_ms);
    user_state.encoder = Some(state.history.encoder().clone());
    (Some(state.history.clone()), user_state)
}
