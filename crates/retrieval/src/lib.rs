//! The vocabulary of Turret: what every other crate means by an ad, a query, a hit, a generation.
//!
//! Owns ids, events, items and ads, the interned data set, vectors, sequence states, what is kept of a user, revisions, the attributes of ads, filters, top-k and merge, hashing and placement,
//! request budgets, calibrations, coverage, tiers and the generation manifest. Everything here is synchronous, pure and total:
//! no files, no clocks of its own, no threads, and nothing of Turret is imported.

pub mod attribute_schema;
pub mod budget;
pub mod calibration;
pub mod context;
pub mod coverage;
pub mod crowding;
pub mod dataset;
pub mod digest;
pub mod event;
pub mod filter;
pub mod generation;
pub mod hashing;
pub mod ids;
pub mod item;
pub mod kept;
pub mod live_ad;
pub mod merge;
pub mod partitioning;
pub mod revision;
pub mod state;
pub mod tier;
pub mod topk;
pub mod user;
pub mod vector;
