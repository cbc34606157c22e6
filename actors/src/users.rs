//! What callers ask and write of users: finds the partition that holds each, and asks it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use ractor::rpc::CallResult;
use ractor::{ActorRef, BytesConvertable, RpcReplyPort};
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::{EncoderVersion, GenerationId, PartitionId, UserId};
use turret_store::{Change, Profile, Write, Written};

use crate::protocol::{
    EncoderOf, REFRESH_USERS_MAX, RefreshUsersAsk, Refusal, Traces, UserRequest, WriteAsk, WriteReply,
};
use crate::routing::{RoutingReader, RoutingTable};
use crate::user_partition;
use crate::wire::{Inbox, Wire};

/// The partition that holds a user did not do what it was asked. Retryable: a repeated write changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user partition {partition}: {why}")]
pub struct Unavailable {
    /// The partition.
    pub partition: PartitionId,
    /// What it said.
    pub why: String,
}

/// Reads and writes users, wherever they are. One per node; cheap to clone.
#[derive(Clone)]
pub struct Users {
    routing: RoutingReader,
}

type Reply<T> = RpcReplyPort<Wire<Result<T, Refusal>>>;

impl Users {
    /// Of the cluster that `routing` knows.
    pub fn new(routing: RoutingReader) -> Self {
        Self { routing }
    }

    /// Makes one change of one user; acknowledged when it is on disk.
    ///
    /// # Errors
    /// When the partition is absent, refuses, or does not answer in time.
    pub async fn write(&self, user: UserId, change: Change, timeout: Duration) -> Result<Written, Unavailable> {
        let partition = partition_of(&user, self.routing.table().manifest.partitions());
        let outcome = self.write_all(vec![Write { user, change }], timeout).await?.pop();
        let why = |why: String| Unavailable { partition, why };
        let (_, outcome) = outcome.ok_or_else(|| why("it answered nothing".to_owned()))?;
        outcome.map_err(|refusal| why(refusal.to_string()))
    }

    /// Makes changes, each partition's in their order, all partitions at once; acknowledged when all are on disk. The
    /// outcomes are in no order. A user whose records cannot be read fails alone.
    ///
    /// # Errors
    /// When one of the partitions is absent, refuses, or does not answer in time; changes of the others may have been made.
    pub async fn write_all(
        &self,
        writes: Vec<Write>,
        timeout: Duration,
    ) -> Result<Vec<(UserId, Result<Written, Refusal>)>, Unavailable> {
        let table = self.routing.table();
        let mut by_partition: BTreeMap<PartitionId, Vec<Write>> = BTreeMap::new();
        for write in writes {
            by_partition.entry(partition_of(&write.user, table.manifest.partitions())).or_default().push(write);
        }
        let asks = by_partition.into_iter().map(|(partition, writes)| {
            let table = &table;
            async move {
                let users: Vec<UserId> = writes.iter().map(|write| write.user.clone()).collect();
                let ask = Wire::new(WriteAsk { writes });
                let reply: WriteReply =
                    ask_partition(table, partition, timeout, |reply| UserRequest::Write(ask, reply)).await?;
                if reply.outcomes.len() != users.len() {
                    let why = format!("{} outcomes of {} writes", reply.outcomes.len(), users.len());
                    return Err(Unavailable { partition, why });
                }
                Ok(users.into_iter().zip(reply.outcomes).collect::<Vec<_>>())
            }
        });
        Ok(try_join_all(asks).await?.concat())
    }

    /// All that stands in the store of `user`, but the events themselves.
    ///
    /// # Errors
    /// When the partition is absent, refuses, or does not answer in time.
    pub async fn profile(&self, user: &UserId, timeout: Duration) -> Result<Option<Profile>, Unavailable> {
        let table = self.routing.table();
        let (partition, ask) = (partition_of(user, table.manifest.partitions()), Wire::new(user.clone()));
        ask_partition(&table, partition, timeout, |reply| UserRequest::Profile(ask, reply)).await
    }

    /// The snapshots that hold `user`, on the node that holds the partition.
    ///
    /// # Errors
    /// When the partition is absent, refuses, or does not answer in time.
    pub async fn traces(&self, user: &UserId, timeout: Duration) -> Result<Traces, Unavailable> {
        let table = self.routing.table();
        let (partition, ask) = (partition_of(user, table.manifest.partitions()), Wire::new(user.clone()));
        ask_partition(&table, partition, timeout, |reply| UserRequest::Traces(ask, reply)).await
    }

    /// How many users have events that their state by `encoder` does not cover, in all partitions.
    ///
    /// # Errors
    /// When one of the partitions is absent, refuses, or does not answer in time.
    pub async fn count_dirty(&self, encoder: &EncoderVersion, timeout: Duration) -> Result<u64, Unavailable> {
        let table = self.routing.table();
        let counts = (0..table.manifest.partitions()).map(PartitionId).map(|partition| {
            let ask = Wire::new(encoder.clone());
            ask_partition(&table, partition, timeout, |reply| UserRequest::CountDirty(ask, reply))
        });
        Ok(try_join_all(counts).await?.into_iter().sum())
    }

    /// Has every partition join the users that `generation` ships to its store.
    ///
    /// # Errors
    /// When one of the partitions is absent, refuses, or does not answer in time.
    pub async fn import(&self, generation: &GenerationId, timeout: Duration) -> Result<(), Unavailable> {
        let table = self.routing.table();
        let imports = (0..table.manifest.partitions()).map(PartitionId).map(|partition| {
            let ask = Wire::new(generation.clone());
            ask_partition(&table, partition, timeout, |reply| UserRequest::Import(ask, reply))
        });
        try_join_all(imports).await.map(drop)
    }

    /// Has states made for `users`, where theirs do not cover all events; those who lack one all the same.
    ///
    /// # Errors
    /// When one of the partitions is absent, refuses, or does not answer in time.
    pub async fn refresh(
        &self,
        users: &[UserId],
        by: &EncoderOf,
        timeout: Duration,
    ) -> Result<Vec<UserId>, Unavailable> {
        let table = self.routing.table();
        let mut by_partition: BTreeMap<PartitionId, Vec<UserId>> = BTreeMap::new();
        for user in users {
            by_partition.entry(partition_of(user, table.manifest.partitions())).or_default().push(user.clone());
        }
        let mut lacking = Vec::new();
        for (partition, users) in by_partition {
            for users in users.chunks(REFRESH_USERS_MAX) {
                let ask = Wire::new(RefreshUsersAsk { by: by.clone(), users: users.to_vec() });
                let request = |reply| UserRequest::RefreshUsers(ask, reply);
                lacking.extend(ask_partition(&table, partition, timeout, request).await?.lacking);
            }
        }
        Ok(lacking)
    }
}

async fn ask_partition<T>(
    table: &RoutingTable,
    partition: PartitionId,
    timeout: Duration,
    request: impl FnOnce(Reply<T>) -> UserRequest,
) -> Result<T, Unavailable>
where
    T: Send + 'static,
    Wire<Result<T, Refusal>>: BytesConvertable,
{
    let unavailable = |why: String| Unavailable { partition, why };
    let holder: &ActorRef<user_partition::Msg> = table
        .partitions
        .get(partition.0 as usize)
        .and_then(|holders| holders.first())
        .ok_or_else(|| unavailable("no node serves it".to_owned()))?;
    let message = |reply| -> user_partition::Msg { Inbox::Request(request(reply)) };
    match holder.call(message, Some(timeout)).await {
        Ok(CallResult::Success(answer)) => match answer.open() {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => Err(unavailable(refusal.to_string())),
            Err(error) => Err(unavailable(error.to_string())),
        },
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Err(unavailable("no answer".to_owned())),
    }
}
