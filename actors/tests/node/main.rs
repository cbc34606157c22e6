//! A real node, started in this process over a generation made for the test: what it answers, and what becomes of it
//! when an actor is killed, a file is damaged, or a message is not one.

#![expect(clippy::unwrap_used, reason = "all of this is tests; clippy takes only functions marked as such for them")]

mod ads;
mod answers;
mod cut_off;
mod inference;
mod other_encoder;
mod refusals;
mod rollout;
mod services;
mod shadow;
mod shards;
mod snapshots;
mod start;
mod unsound;
mod users;
mod world;
