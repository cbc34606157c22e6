//! User state on sled: event logs, sequence states, demographics.
//!
//! Owns the store of one user partition and the snapshot that a generation ships for it. It is the only importer of
//! sled. It is synchronous, knows no actor and no model: a sequence state is bytes with the version that made them.

mod blobs;
mod event_log;
mod import;
mod partition;
mod record;
mod snapshot;
mod states;

pub use import::ImportError;
pub use partition::{
    Appended, Dirty, DirtyPage, OpenError, PartitionStore, ReadError, StoreSettings, StoreStats, UserView, WriteError,
};
pub use record::RecordError;
pub use snapshot::{SnapshotError, SnapshotUser, SnapshotWriter};

use serde::{Deserialize, Serialize};
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::state::SequenceState;

/// What the encoder made of a user's history, and of how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredState {
    /// The encoder that made it; no other model part may read it.
    pub encoder: EncoderVersion,
    /// When: milliseconds since 1970-01-01 UTC.
    pub made_at_ms: i64,
    /// The time of the latest event that it covers.
    pub covers_until_ms: i64,
    /// The user's count of events that it covers; it is current while no more have been added.
    pub covers_events: u64,
    /// The state.
    pub sequence: SequenceState,
}
