//! How personal an answer could be.

use serde::{Deserialize, Serialize};

/// What the sequence state was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// A state of the serving encoder that covers every known event of the user.
    Fresh,
    /// A state of the serving encoder that does not cover the latest events.
    Stale,
    /// No usable state.
    None,
}

/// How personal an answer could be, from two facts: history and context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A fresh sequence state was used.
    Fresh,
    /// A stale sequence state was used.
    Stale,
    /// No state, but what the user is looking at.
    ContextOnly,
    /// Neither, but age, country or gender.
    Demographic,
    /// Nothing is known.
    Cold,
}

impl Tier {
    /// Every tier, most personal first.
    pub const ALL: [Self; 5] = [Self::Fresh, Self::Stale, Self::ContextOnly, Self::Demographic, Self::Cold];

    /// The tier of an answer.
    pub fn of(history: History, context_used: bool, demographics_known: bool) -> Self {
        match history {
            History::Fresh => Self::Fresh,
            History::Stale => Self::Stale,
            History::None if context_used => Self::ContextOnly,
            History::None if demographics_known => Self::Demographic,
            History::None => Self::Cold,
        }
    }

    /// The name in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::ContextOnly => "context_only",
            Self::Demographic => "demographic",
            Self::Cold => "cold",
        }
    }
}
