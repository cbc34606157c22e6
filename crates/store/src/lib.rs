//! User state on sled: event logs, sequence states, demographics.
//!
//! Owns the store of one user partition, the snapshot that a generation ships for it, and the journal of live ads. It is the only importer of
//! sled. It is synchronous, knows no actor and no model: a sequence state is bytes with the version that made them.

mod ad_journal;
mod blobs;
mod dirty;
mod disk;
mod event_log;
mod import;
mod migrate;
mod partition;
mod record;
mod retention;
mod snapshot;
mod states;
mod writes;

pub use ad_journal::AdJournal;
pub use dirty::{Dirty, DirtyPage};
pub use import::ImportError;
pub use partition::{
    ErasureMark, OpenError, PartitionStore, Profile, ReadError, StateProfile, StoreSettings, StoreStats, UserView,
    WriteError,
};
pub use record::RecordError;
pub use retention::{Retention, Swept};
pub use snapshot::{SnapshotError, SnapshotUser, SnapshotWriter, snapshot_holds};
pub use writes::{Appended, Change, Erasure, Write, Written};

use serde::{Deserialize, Serialize};
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::revision::Revision;
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
    /// The position in the user's log that it covers; it is current while the log has not changed since. In a snapshot,
    /// which has no positions, it says nothing.
    pub covers: Revision,
    /// The state.
    pub sequence: SequenceState,
}
