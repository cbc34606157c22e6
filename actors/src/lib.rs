//! The actors of a Turret node: their protocols and their behaviour.
//!
//! Owns supervision, the routing table, the retrieval, the refresh, the batching queue, membership, the metrics, and the way
//! of generations between machines. It serves no HTTP, reads no configuration file and computes nothing that a domain crate
//! could. Policy (restarts, batches, gather, cursor, membership, placement) is pure and stands in files of its own.

pub mod admin;
pub mod asked;
pub mod clock;
pub mod depot;
pub mod durable;
pub mod generation;
pub mod groups;
pub mod index_shard;
pub mod inference_worker;
pub mod live_ads;
pub mod local_head;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod offload;
pub mod placement;
pub mod protocol;
pub mod refresh;
pub mod restart;
pub mod retrieve;
pub mod rollout;
pub mod routing;
pub mod serving;
pub mod supervisor;
mod task;
pub mod user_partition;
pub mod users;
pub mod wire;
