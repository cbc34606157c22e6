//! Whole-program tests: the real binary, real processes on loopback, killed and paused.
//!
//! Nothing is shared with a running node but what its users have: a configuration, HTTP, signals, and its log.

#![expect(clippy::unwrap_used, reason = "a test fails where its own preparations do")]

mod ads;
mod answers;
mod bad_input;
mod client;
mod clustered;
mod commands;
mod depot;
mod harness;
mod kills;
mod outage;
mod partitions;
mod process;
mod publish;
mod scrape;
mod training;
mod users;
mod world;
