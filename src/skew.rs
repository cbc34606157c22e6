//! Version skew: which versions of the model are paired, and what a sweep over their pairs found.
//!
//! A [`Lineage`] says how a team comes by its versions, and plans them. Nothing here trains or ranks: that is the command's
//! part.

use serde::{Deserialize, Serialize};
use turret_model::{LeftOut, SkewReport};

use crate::provenance::Provenance;
use crate::study::Training;

mod lineage;

pub use lineage::{Lineage, LineageError, Planned, Version};

/// A file of sweeps, one for each lineage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweeps {
    /// What is needed to make them again.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// In the order that they were asked for.
    pub sweeps: Vec<Sweep>,
    /// The lineages that the data do not have, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// The versions of one lineage, and what every pair of them recalls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// How the versions came to be.
    pub lineage: Lineage,
    /// Their trainings, in the order of the report's versions.
    pub trainings: Vec<Training>,
    /// What was found.
    #[serde(flatten)]
    pub report: SkewReport,
}
