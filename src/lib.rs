//! The Turret program: its commands, its configuration, and the gateway of a node.
//!
//! A library only so that `main.rs` and `tests/` share code; no other package names it.

pub mod cli;
pub mod config;
pub mod encode;
pub mod funnel;
pub mod gateway;
pub mod partition_files;
pub mod provenance;
pub mod publish;
pub mod report;
pub mod skew;
pub mod study;
pub mod telemetry;
pub mod threads;
