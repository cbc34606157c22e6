//! What may go wrong with a depot.

use std::path::PathBuf;

use turret_retrieval::digest::Digest;
use turret_retrieval::generation::ManifestError;
use turret_retrieval::ids::GenerationId;

use crate::generation::GenerationError;
use crate::offload::{OffloadError, Panicked};

/// Why a depot did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    /// There is no `CURRENT`.
    #[error("{object}: no generation is published here; run `turret publish` first")]
    NonePublished {
        /// Where it was looked for.
        object: String,
    },
    /// The generation has no manifest: it was never published, or not to its end.
    #[error("{object}: generation {id} is not published here")]
    NotPublished {
        /// Which.
        id: GenerationId,
        /// The manifest that is not there.
        object: String,
    },
    /// The id belongs to another publication. Nothing was changed.
    #[error("generation {id} is published already, or is being published by somebody else")]
    Taken {
        /// Which.
        id: GenerationId,
    },
    /// An object is not of the right shape.
    #[error("{object}: {rule}")]
    Malformed {
        /// The object.
        object: String,
        /// What is wrong.
        rule: String,
    },
    /// A manifest breaks a rule.
    #[error("{object}: {source}")]
    Manifest {
        /// The manifest.
        object: String,
        /// The rule.
        source: ManifestError,
    },
    /// A manifest lies where that of another generation should.
    #[error("{object}: is the manifest of generation {found} where that of {expected} is expected")]
    OtherId {
        /// The manifest.
        object: String,
        /// Whose it should be.
        expected: GenerationId,
        /// Whose it is.
        found: GenerationId,
    },
    /// A file is longer or shorter than what was published.
    #[error("{object}: is not the file that was published ({found} bytes where {expected} are expected)")]
    Length {
        /// The file.
        object: String,
        /// What the manifest says.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// A file is not what was published.
    #[error("{object}: is not the file that was published ({found} where {expected} is expected)")]
    Digest {
        /// The file.
        object: String,
        /// What the manifest says.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// The store refused, or could not be asked.
    #[error("{object}: {source}")]
    Store {
        /// What it was asked for.
        object: String,
        /// What it, or its client, said.
        source: object_store::Error,
    },
    /// A file of this machine cannot be read or written.
    #[error("{path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A generation on this machine is not sound.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// No threads.
    #[error(transparent)]
    Threads(#[from] OffloadError),
    /// Reading, writing or digesting panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The watch said not to go on.
    #[error("the copy was broken off")]
    BrokenOff,
}

impl DepotError {
    /// Whether the same may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store { source, .. } => !matches!(
                source,
                object_store::Error::NotFound { .. }
                    | object_store::Error::InvalidPath { .. }
                    | object_store::Error::NotSupported { .. }
                    | object_store::Error::NotImplemented { .. }
                    | object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
                    | object_store::Error::UnknownConfigurationKey { .. }
            ),
            Self::NonePublished { .. }
            | Self::NotPublished { .. }
            | Self::Taken { .. }
            | Self::Malformed { .. }
            | Self::Manifest { .. }
            | Self::OtherId { .. }
            | Self::Length { .. }
            | Self::Digest { .. }
            | Self::Disk { .. }
            | Self::BrokenOff
            | Self::Generation(_)
            | Self::Threads(_)
            | Self::Panicked(_) => false,
        }
    }
}
