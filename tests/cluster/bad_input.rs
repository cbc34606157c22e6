//! Bad input: one clear error that names the place and the rule, nothing half-written, and a node that goes on.

mod configuration;
mod data;
mod generation;
mod http;
mod large_bodies;
