//! The manifest of a generation: model, ad embeddings and index that belong together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attribute_schema::check_kind;
use crate::calibration::Calibration;
use crate::digest::Digest;
use crate::ids::{AdId, EncoderVersion, GenerationId};
use crate::item::AttributeKind;
use crate::partitioning::Partitioning;
use crate::revision::Revision;
use crate::vector::UnitVector;

/// The layout of [`Manifest`] that this build writes and reads.
pub const MANIFEST_FORMAT: u32 = 4;

/// What a published generation is made of. Immutable once written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The generation's id; also the name of its directory.
    pub id: GenerationId,
    /// Milliseconds since 1970-01-01 UTC.
    pub created_at_ms: i64,
    /// The versions of the three parts of the model, and of the index.
    pub versions: Versions,
    /// The length of query and ad embeddings.
    pub dimension: u32,
    /// Always [`Metric::InnerProduct`], of unit vectors.
    pub metric: Metric,
    /// How many ads each shard holds; its length is the number of shards.
    pub shard_ads: Vec<u64>,
    /// How the ads are spread over the shards.
    pub partitioning: Partitioning,
    /// How many users each partition's snapshot holds; its length is the number of partitions.
    pub partition_users: Vec<u64>,
    /// The attributes that filters may name.
    pub attributes: BTreeMap<Box<str>, AttributeKind>,
    /// What its index finds of its probes.
    pub recall: BuiltRecall,
    /// How long the candidate lists of each shard's graph must be, by the publisher's queries; absent where a shard has none. To be read:
    /// a node takes what stands in the shard's file.
    pub calibrations: Vec<Option<Calibration>>,
    /// The position in the journal of live ads up to which they are in the index.
    pub ads_until: Revision,
    /// Every file of the generation but this one.
    pub files: Vec<File>,
}

/// What an index was measured at when it was built.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltRecall {
    /// How many ads each probe asked for.
    pub k: u32,
    /// How many probes there were.
    pub probes: u32,
    /// The share of an exact scan's ads that it found, of all probes.
    pub recall: f64,
}

/// Queries with what an exact scan finds, to judge a loaded index by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    /// How many ads each asks for.
    pub k: u32,
    /// The queries.
    pub probes: Vec<Probe>,
}

impl Probes {
    /// Those of `queries` that an index is measured with, every other one; the recall that a manifest tells is that of all.
    pub fn measuring(queries: impl IntoIterator<Item = UnitVector>) -> Vec<UnitVector> {
        queries.into_iter().step_by(2).collect()
    }
}

/// One of [`Probes`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The query embedding.
    pub vector: UnitVector,
    /// The best ads of all shards, best first.
    pub ads: Vec<AdId>,
}

/// Versions are digests: equal versions are equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Makes and reads sequence states.
    pub encoder: EncoderVersion,
    /// Makes query embeddings.
    pub head: Box<str>,
    /// Makes ad embeddings.
    pub ad_tower: Box<str>,
    /// The ads and their embeddings.
    pub index: Box<str>,
    /// What the features mean: vocabularies and buckets.
    pub feature_schema: Digest,
}

/// How embeddings are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The inner product; larger is nearer.
    InnerProduct,
}

/// One file of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Relative to the generation's directory, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
}

impl Manifest {
    /// The number of shards.
    pub fn shards(&self) -> u32 {
        self.shard_ads.len() as u32
    }

    /// The number of user partitions.
    pub fn partitions(&self) -> u32 {
        self.partition_users.len() as u32
    }

    /// The number of ads in all shards.
    pub fn ads(&self) -> u64 {
        self.shard_ads.iter().sum()
    }

    /// Checks what a reader relies on.
    ///
    /// # Errors
    /// The field and the rule it broke.
    pub fn check(&self) -> Result<(), ManifestError> {
        let fail = |field, rule| Err(ManifestError { field, rule });
        if self.format != MANIFEST_FORMAT {
            return fail("format", "is not one that this build reads; publish again");
        }
        if self.dimension == 0 || self.dimension > 4096 {
            return fail("dimension", "is not in 1..=4096");
        }
        if self.shard_ads.is_empty() || self.shard_ads.len() > 1024 {
            return fail("shard_ads", "must have 1 to 1024 shards");
        }
        if let Err((field, rule)) = self.partitioning.check(self.shard_ads.len(), self.dimension as usize) {
            return fail(field, rule);
        }
        if self.partition_users.is_empty() || self.partition_users.len() > 1024 {
            return fail("partition_users", "must have 1 to 1024 partitions");
        }
        if self.calibrations.len() != self.shard_ads.len() {
            return fail("calibrations", "must have an entry for each shard");
        }
        if let Some(Err(rule)) = self.calibrations.iter().flatten().map(Calibration::check).find(Result::is_err) {
            return fail("calibrations", rule);
        }
        if self.attributes.iter().any(|(name, kind)| check_kind(name, *kind).is_err()) {
            return fail("attributes", "hold a well-known name of another kind; publish again");
        }
        // A path that leaves the directory would read, or trust, somebody else's file.
        let leaves = |path: &str| path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..");
        if self.files.iter().any(|file| leaves(&file.path)) {
            return fail("files.path", "must stay inside the generation's directory");
        }
        Ok(())
    }
}

/// Why a manifest is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct ManifestError {
    /// Where.
    pub field: &'static str,
    /// What it broke.
    pub rule: &'static str,
}
