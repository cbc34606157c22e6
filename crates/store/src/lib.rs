//! User state on sled: event logs, sequence states, demographics.
//!
//! Owns the store of one user partition, the snapshot that a generation ships for it, and the journal of live ads. It is the
//! only importer of sled. It is synchronous, knows no actor and no model: a sequence state is bytes with the version that
//! made them.

mod ad_journal;
mod blobs;
mod dirty;
mod disk;
mod event_log;
mod export;
mod import;
mod migrate;
mod partition;
mod record;
mod restore;
mod retention;
mod snapshot;
mod states;
mod writes;

pub use ad_journal::AdJournal;
pub use dirty::{Dirty, DirtyPage};
pub use event_log::kept_of;
pub use export::KeptPage;
pub use import::{ImportError, Imported};
pub use partition::{
    ErasureMark, OpenError, PartitionStore, Profile, ReadError, StateProfile, StoreSettings, StoreStats, UserView,
    WriteError,
};
pub use record::RecordError;
pub use restore::RestoreError;
pub use retention::{Retention, Swept};
pub use snapshot::{SnapshotError, SnapshotUser, SnapshotWriter, snapshot_holds};
pub use states::RefreshProgress;
pub use turret_retrieval::kept::StoredState;
pub use writes::{Appended, Change, Erasure, Write, Written};
