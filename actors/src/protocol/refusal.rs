//! Why an actor did not do what it was asked.

use serde::{Deserialize, Serialize};

/// Why an actor did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The message could not be read; another wire version, or damage.
    #[error("message could not be read: {0}")]
    Unreadable(String),
    /// The asker pinned another generation or encoder than this actor serves.
    #[error("serves {serving}, was asked for {asked}")]
    OtherVersion {
        /// What is served.
        serving: String,
        /// What was asked for.
        asked: String,
    },
    /// Too much work is queued already. Retryable, elsewhere or later.
    #[error("overloaded")]
    Overloaded,
    /// The time given had passed before work began.
    #[error("expired in the queue")]
    Expired,
    /// The actor is starting and has nothing to serve from.
    #[error("starting")]
    Starting,
    /// The work failed.
    #[error("{0}")]
    Failed(String),
    /// What was asked cannot be done as things stand. Asking again will not help until they change.
    #[error("{0}")]
    Conflict(String),
    /// Who would have to do it cannot be reached. Retryable.
    #[error("{0}")]
    Unreachable(String),
    /// What was computed is no number: the model, or what it runs on, is not sound.
    #[error("what was computed is not finite")]
    NotFinite,
}

impl Refusal {
    /// [`OtherVersion`](Self::OtherVersion) unless `serving` is what is `asked` for.
    pub(crate) fn of_version<V: PartialEq + ToString>(serving: &V, asked: &V) -> Result<(), Self> {
        if asked == serving {
            return Ok(());
        }
        Err(Self::OtherVersion { serving: serving.to_string(), asked: asked.to_string() })
    }

    /// The value of the label `reason`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::OtherVersion { .. } => "other_version",
            Self::Overloaded => "overloaded",
            Self::Expired => "expired",
            Self::Starting => "starting",
            Self::Failed(_) => "failed",
            Self::Conflict(_) => "conflict",
            Self::Unreachable(_) => "unreachable",
            Self::NotFinite => "not_finite",
        }
    }
}
